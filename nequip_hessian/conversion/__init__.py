"""What stands behind `nequip_hessian.convert`: options, the run, the journal, the parts of workers, the report."""

"""What stands behind `nequip_hessian.evaluate`: the models, the options, the pieces of work and their results."""

"""JSON, CSV, plots and the HTML page from analysis results."""

from nequip_hessian.report.write import write_report

__all__ = ["write_report"]

"""Tables for the terminal, and pictures."""

from tinytee.report.accuracy import accuracy_tables, plot_accuracy
from tinytee.report.benchmarks import bench_table
from tinytee.report.pictures import check_picture, plot_memory, plot_sweep
from tinytee.report.precision import precision_of, precision_table
from tinytee.report.tables import (
    bundle_table,
    outputs_table,
    plan_table,
    stats_table,
    sweep_table,
    top_table,
    verify_table,
)

__all__ = [
    "accuracy_tables",
    "bench_table",
    "bundle_table",
    "check_picture",
    "outputs_table",
    "plan_table",
    "plot_accuracy",
    "plot_memory",
    "plot_sweep",
    "precision_of",
    "precision_table",
    "stats_table",
    "sweep_table",
    "top_table",
    "verify_table",
]

"""Tables for the terminal, and pictures."""

from tinytee.report.benchmarks import bench_table
from tinytee.report.pictures import check_picture, plot_memory, plot_sweep
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
    "bench_table",
    "bundle_table",
    "check_picture",
    "outputs_table",
    "plan_table",
    "plot_memory",
    "plot_sweep",
    "stats_table",
    "sweep_table",
    "top_table",
    "verify_table",
]

"""Rewrites of the graph: each a pure function, named after its effect, that keeps what ``ir.check`` verifies."""

from tinytee.passes.optimize import PASSES, optimize

__all__ = ["PASSES", "optimize"]

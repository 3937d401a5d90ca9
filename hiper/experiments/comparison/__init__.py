"""Comparisons: arms that differ in a few settings, several seeds each, all from one warm start, told apart by their curves."""

from hiper.experiments.comparison.results import write_results
from hiper.experiments.comparison.run import run_base, run_comparison
from hiper.experiments.comparison.spec import BASE, Comparison, load_comparison

__all__ = ["BASE", "Comparison", "load_comparison", "run_base", "run_comparison", "write_results"]

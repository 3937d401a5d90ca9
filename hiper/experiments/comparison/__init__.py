"""Studies: arms that differ in a few settings, several seeds each, all from one warm start, told apart by their curves."""

from hiper.experiments.comparison.results import write_results
from hiper.experiments.comparison.run import run_base, run_study
from hiper.experiments.comparison.spec import BASE, Study, load_study

__all__ = ["BASE", "Study", "load_study", "run_base", "run_study", "write_results"]

"""Studies: arms that differ in a few settings, several seeds each, all from one warm start, told apart by their curves."""

from hiper.study.results import write_results
from hiper.study.run import run_base, run_study
from hiper.study.spec import BASE, Study, load_study

__all__ = ["BASE", "Study", "load_study", "run_base", "run_study", "write_results"]

"""Estimators: from rewards and values to the advantages of a turn's decisions, and to what the value heads learn.

One file an estimator: its settings, what it needs, its few lines onto `hiper.rl`, and a line that registers it. All read the same episodes
and answer the same question, so that two runs differ in nothing else. Nothing here knows how training goes on, or needs torch to be chosen.
"""

from importlib import import_module
from pkgutil import iter_modules

from hiper.algos.registry import register_algorithm

__all__ = ["register_algorithm"]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

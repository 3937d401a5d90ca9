"""Evaluation: play whole splits, count honestly, keep every trajectory."""

from hiper.evaluate.evaluate import EvaluateSummary, SplitResult, evaluate
from hiper.evaluate.history import History, history
from hiper.evaluate.statistics import summarise, wilson
from hiper.evaluate.write import read_evaluation, write_evaluation

__all__ = [
    "EvaluateSummary",
    "History",
    "SplitResult",
    "evaluate",
    "history",
    "read_evaluation",
    "summarise",
    "wilson",
    "write_evaluation",
]

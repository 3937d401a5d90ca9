"""Evaluation: play whole splits, count honestly, keep every trajectory."""

from hiper.evaluation.evaluate import EvaluateSummary, SplitResult, evaluate
from hiper.evaluation.history import History, history
from hiper.evaluation.statistics import summarise, wilson
from hiper.evaluation.write import read_evaluation, write_evaluation

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

"""Numbers of a run: `metrics.jsonl` always, Weights & Biases by choice."""

from hiper.tracking.metrics import MetricsFile, read_metrics
from hiper.tracking.tracker import Tracker

__all__ = ["MetricsFile", "Tracker", "read_metrics"]

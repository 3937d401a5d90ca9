"""What deployments name: the whole experiment, and its two halves that need a GPU."""

from hiper.integrations.prefect.pipeline import evaluate, pipeline, train

__all__ = ["evaluate", "pipeline", "train"]

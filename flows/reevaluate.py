"""What deployments name: re-evaluation of accepted models."""

from hiper.integrations.prefect.reevaluate import reevaluate

__all__ = ["reevaluate"]

"""What deployments name: a sweep."""

from hiper.integrations.prefect.sweep import sweep

__all__ = ["sweep"]

"""Which extra of ours holds a package that is not always installed, and how to install it; all advice to install comes from here."""

from __future__ import annotations

from collections.abc import Iterable

from hiper.errors import MissingDependencyError

ALFWORLD = "0.4.2"
"""The version of `alfworld` whose floor plans and tables the generator reads."""

INSTALL_ALFWORLD = f"pip install --no-deps alfworld=={ALFWORLD}"
"""Its files are all that generated tasks need. What it asks for (TextWorld, a planner built from C++) belongs to the original engine."""

EXTRAS = {
    "accelerate": "run",
    "datasets": "run",
    "fastapi": "run",
    "prefect": "run",
    "trl": "run",
    "alfworld": "alfworld-original",
    "fast_downward": "alfworld-original",
    "textworld": "alfworld-original",
    "optuna": "sweep",
    "optuna_dashboard": "sweep",
    "psycopg2": "postgres",
    "dvc": "dvc",
    "wandb": "wandb",
    "vllm": "vllm",
}
"""Module -> the extra that brings it."""


def how_to_install(modules: Iterable[str]) -> str:
    """The command that installs modules of `EXTRAS`, in backticks."""
    extras = sorted({EXTRAS[module] for module in modules})
    return f"`pip install 'hiper[{','.join(extras)}]'`"


def missing(what: str, module: str, error: ImportError, otherwise: str = "") -> MissingDependencyError:
    """The error of a package that does not import.

    Args:
        what: what needs it, such as "a sweep".
        module: one of `EXTRAS`.
        error: what the import said.
        otherwise: what can be done instead of installing, such as "add --direct".
    """
    instead = f", or {otherwise}" if otherwise else ""
    return MissingDependencyError(
        f"{what} needs the package {module}, which cannot be imported ({error}). Run {how_to_install([module])}{instead}."
    )

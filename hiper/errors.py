"""Errors a user can cause. Each also inherits the builtin a caller would expect to catch.

A message says what was wrong, the value, where, and what to do. The command line prints it without a traceback and
leaves with the exit code of the class.
"""

from __future__ import annotations


class HiperError(Exception):
    """Base of every error that is the user's to mend."""

    exit_code = 2


class ConfigError(HiperError, ValueError):
    """A setting is unknown, out of range, or contradicts another."""


class DataError(HiperError, ValueError):
    """A file of tasks, demonstrations or trajectories is missing, damaged or not what it should be."""


class TaskError(DataError):
    """A task file cannot be played: corrupt, or written for a domain or grammar this engine does not know."""


class ModelError(HiperError, ValueError):
    """A model directory is incomplete or does not fit the protocol."""


class CheckpointError(HiperError, ValueError):
    """A checkpoint is missing, truncated, altered, or belongs to another run."""


class CollapseError(HiperError, RuntimeError):
    """Training was stopped by an alarm, with the run left resumable."""

    exit_code = 3


class DriftError(HiperError, RuntimeError):
    """A model that was accepted does worse now, or cannot be evaluated any more."""

    exit_code = 4


class MissingDependencyError(HiperError, ImportError):
    """An optional package that this command needs is not installed."""


class WorkflowError(HiperError, RuntimeError):
    """The workflow engine could not be started or reached."""

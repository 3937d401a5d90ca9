"""Where the trainer sends its numbers."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from hiper.config import TrackingConfig, WandbMode
from hiper.errors import ConfigError
from hiper.runtime.packages import missing
from hiper.tracking.metrics import MetricsFile

logger = logging.getLogger(__name__)

_WANDB_ID = "wandb-id.txt"


class Tracker:
    """Writes `metrics.jsonl` in a directory, and the same numbers to Weights & Biases when asked.

    A tracker opened again in the same directory continues both: the file, and the W&B run whose id the directory keeps.
    W&B charts are drawn over `iteration`, so that iterations repeated after a resume fall on top of each other.
    """

    def __init__(self, directory: Path, cfg: TrackingConfig, run_config: Mapping[str, Any] | None = None) -> None:
        """Open.

        Args:
            directory: the training directory of a run; created when missing.
            cfg: the W&B mode and project.
            run_config: the resolved configuration, shown beside the W&B run.

        Raises:
            MissingDependencyError: W&B is asked for and not installed.
            ConfigError: W&B refuses to start, for lack of a key for instance.
        """
        self._wandb = None if cfg.wandb is WandbMode.off else _start_wandb(directory, cfg, run_config)
        self._file = MetricsFile(directory / "metrics.jsonl")

    def log(self, iteration: int, metrics: Mapping[str, float]) -> None:
        """Record one iteration's numbers, named `area/name`.

        Raises:
            ValueError: the iteration lies before one already recorded.
            DataError: the disk refused the line.
        """
        numbers = self._file.append(iteration, metrics)
        if self._wandb is not None:
            self._wandb.log({"iteration": iteration} | {key: value for key, value in numbers.items() if value is not None})

    def truncate_to(self, size: int) -> None:
        """Drop all of the file after its first `size` bytes: a run that resumes knows how many its checkpoint was written after."""
        self._file.truncate_to(size)

    def sync(self) -> None:
        """Force the file to the disk.

        Raises:
            DataError: the disk refuses.
        """
        self._file.sync()

    def close(self) -> None:
        """Force everything to the disk; harmless when closed."""
        self._file.close()
        if self._wandb is not None:
            self._wandb.finish()
            self._wandb = None

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _start_wandb(directory: Path, cfg: TrackingConfig, run_config: Mapping[str, Any] | None) -> Any:
    try:
        import wandb
    except ImportError as error:
        raise missing(f"tracking.wandb={cfg.wandb.value}", "wandb", error, "set tracking.wandb=off") from error
    directory.mkdir(parents=True, exist_ok=True)
    known = directory / _WANDB_ID
    identity = known.read_text(encoding="utf-8").strip() if known.exists() else secrets.token_hex(4)
    try:
        run = wandb.init(
            id=identity,
            resume="allow",
            project=cfg.project,
            dir=str(directory),
            mode="online" if cfg.wandb is WandbMode.online else "offline",
            config=dict(run_config or {}),
            # The terminal belongs to the progress bar; neither its text nor the code is anyone's business but the user's.
            settings=wandb.Settings(console="off", save_code=False, silent=True),
        )
    except wandb.Error as error:
        raise ConfigError(f"tracking.wandb={cfg.wandb.value} did not start: {error} Log in with `wandb login`, or use offline.") from error
    known.write_text(identity + "\n", encoding="utf-8")
    run.define_metric("iteration")
    run.define_metric("*", step_metric="iteration")
    logger.info("Metrics also go to W&B, run %s (%s).", identity, cfg.wandb.value)
    return run

"""Checkpoints of the warm start: one that was killed goes on and ends with the bits of one that nobody disturbed.

transformers' own checkpoints are pickles, and restore neither the order of the examples nor an exact optimiser state. Here the trainer's
public callbacks save and restore everything, in the format of `hiper.runs.checkpoint`; of the trainer's own resuming only the counting is
used: which epoch and batch a step belongs to.

The order of an epoch's examples is drawn from torch's global generator when the epoch begins, so that state is kept, too: in the middle of
an epoch it draws the same order again, the batches already learned are skipped, and then the generators take the state they were saved in.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hiper.errors import CheckpointError
from hiper.runs.checkpoint import (
    add_prefix,
    latest_checkpoint,
    load_checkpoint,
    optimizer_tensors,
    prune,
    restore_optimizer,
    save_checkpoint,
    strip_prefix,
)
from hiper.runs.fingerprint import Settings, differences, told

logger = logging.getLogger(__name__)

KEPT = 2
"""Newest checkpoints that are kept."""

_TRAINER_STATE = "trainer_state.json"  # the name transformers looks for


class Checkpoints(TrainerCallback):
    """Saves the trainer every so many steps, and puts it back to where it was saved."""

    def __init__(self, folder: Path, every: int, belongs: Settings, losses: list[float]) -> None:
        """Save into a folder.

        Args:
            folder: of the checkpoints.
            every: optimiser steps between two; 0: none are written.
            belongs: what a checkpoint must have been made under to be gone on from.
            losses: of all steps so far. Whoever logs fills it; a checkpoint keeps it and puts it back.
        """
        self._folder, self._every, self._belongs, self._losses = folder, every, dict(belongs), losses
        self._tensors: dict[str, torch.Tensor] = {}
        self._state: dict[str, Any] | None = None
        self._epoch_began: torch.Tensor | None = None

    def find(self, work: Path) -> Path | None:
        """Read the newest good checkpoint, to be gone on from.

        Args:
            work: an empty folder of the trainer's own.

        Returns:
            What `Trainer.train` takes as `resume_from_checkpoint`; None: there is no checkpoint, start anew.

        Raises:
            CheckpointError: all are damaged, or it was made under other settings.
        """
        path = latest_checkpoint(self._folder)
        if path is None:
            return None
        self._tensors, self._state = load_checkpoint(path)
        if not isinstance(self._state.get("belongs"), dict):
            raise CheckpointError(f"{path} is no checkpoint of a warm start. Remove {self._folder} to start anew.")
        changed = differences(self._state["belongs"], self._belongs)
        if changed:
            raise CheckpointError(
                f"{path} belongs to another warm start: {told(changed)}. Change that back, or remove {self._folder} to start anew."
            )
        work.mkdir(parents=True, exist_ok=True)
        (work / _TRAINER_STATE).write_text(json.dumps(self._state["trainer"]), encoding="utf-8")
        logger.info("resumed from %s", path)
        return work

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Put weights, optimiser and schedule back, once the trainer has made its own."""
        if self._state is None:
            return
        assert state.global_step == self._state["trainer"]["global_step"], "the trainer counts from the checkpoint's step"
        try:
            kwargs["model"].load_state_dict(strip_prefix("model", self._tensors))
        except RuntimeError as error:
            raise CheckpointError(f"a checkpoint in {self._folder} does not fit the model: {error}. Remove it to start anew.") from error
        restore_optimizer(kwargs["optimizer"], strip_prefix("optimizer", self._tensors), self._state["optimizer"])
        kwargs["lr_scheduler"].load_state_dict(self._state["scheduler"])
        self._losses[:] = self._state["losses"]

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Note, or put back, what the order of the epoch's examples is drawn from."""
        if self._state is not None:
            if self._state["epoch_ended"]:
                self._restore_random()
            else:
                torch.set_rng_state(self._tensors["random.epoch"])
        self._epoch_began = torch.get_rng_state()

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """The batch has been drawn: in the middle of an epoch the generators go on from where they were saved."""
        if self._state is not None:
            self._restore_random()

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Save, after a step has been logged; not after the last, when the model itself is about to be written."""
        if "loss" in kwargs["logs"] and self._every and state.global_step % self._every == 0 and state.global_step < state.max_steps:
            self._save(state, kwargs["model"], kwargs["optimizer"], kwargs["lr_scheduler"])

    def _save(self, state: TrainerState, model: torch.nn.Module, optimizer: torch.optim.Optimizer, scheduler: Any) -> None:
        assert self._epoch_began is not None, "an epoch has begun"
        moments, rest = optimizer_tensors(optimizer)
        tensors = add_prefix("model", model.state_dict()) | add_prefix("optimizer", moments)
        tensors |= {"random.epoch": self._epoch_began, "random.torch": torch.get_rng_state()}
        if torch.cuda.is_available():
            tensors |= {f"random.cuda.{number}": one for number, one in enumerate(torch.cuda.get_rng_state_all())}
        version, internal, gauss = random.getstate()
        kind, keys, *position = np.random.get_state()
        name = f"step-{state.global_step:06d}"
        save_checkpoint(
            self._folder,
            name,
            tensors,
            {
                "belongs": self._belongs,
                "trainer": {**dataclasses.asdict(state), "log_history": [], "stateful_callbacks": None},
                "optimizer": rest,
                "scheduler": scheduler.state_dict(),
                "losses": self._losses,
                "epoch_ended": float(state.epoch or 0).is_integer(),
                "python": [version, list(internal), gauss],
                "numpy": [kind, np.asarray(keys).tolist(), *position],
            },
        )
        prune(self._folder, name, KEPT, set())

    def _restore_random(self) -> None:
        assert self._state is not None, "asked for by those who looked"
        torch.set_rng_state(self._tensors["random.torch"])
        if torch.cuda.is_available():
            for number in range(torch.cuda.device_count()):
                if (saved := self._tensors.get(f"random.cuda.{number}")) is not None:
                    torch.cuda.set_rng_state(saved, number)
        version, internal, gauss = self._state["python"]
        random.setstate((version, tuple(internal), gauss))
        kind, keys, *position = self._state["numpy"]
        np.random.set_state((kind, np.asarray(keys, dtype=np.uint32), *position))
        self._state = None  # everything is in its place


def resumable(base: type[Any]) -> type[Any]:
    """A trainer that leaves it to `Checkpoints` to restore weights; its own way looks for files of its own."""

    class ResumableTrainer(base):
        def _load_from_checkpoint(self, *arguments: Any, **more: Any) -> None:
            """`Checkpoints.on_train_begin` does it."""

    return ResumableTrainer

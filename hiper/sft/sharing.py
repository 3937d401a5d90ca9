"""Data-parallel fine-tuning: every rank has the same weights, optimiser and batches to come, and learns from its rows of each batch."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hiper.runtime.distributed import World

IGNORED = -100
"""Label of tokens that carry no loss."""

Collate = Callable[[list[Any]], Any]


def shard_rows(collate: Collate, world: World) -> Collate:
    """A collator that takes this rank's rows of a batch; one that gets none takes the first without its labels."""

    def mine(examples: list[Any]) -> Any:
        unlabelled = {**examples[0], "labels": [IGNORED] * len(examples[0]["input_ids"])}
        return collate(world.shard(examples) or [unlabelled])

    return mine


def sharing(base: type[Any], world: World) -> type[Any]:
    """A trainer whose steps are on the sum of all ranks' gradients.

    The loss of a rank has to be a sum over its labels, divided by the labels of the whole batch, which `num_items_in_batch` says.
    """

    class SharingTrainer(base):
        def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
            count = torch.as_tensor(num_items_in_batch).clone()
            world.all_reduce([count])
            loss: torch.Tensor = super().training_step(model, inputs, count.clamp(min=1)).clone()
            world.all_reduce_gradients([parameter for parameter in model.parameters() if parameter.requires_grad])
            world.all_reduce([loss])
            return loss

    return SharingTrainer


class OwnDropout(TrainerCallback):
    """Each rank draws dropout of its own, and yet all draw the same order of examples, whatever step a run is gone on from."""

    def __init__(self, seed: int, world: World) -> None:
        self._seed, self._world = seed, world

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """The order of an epoch is drawn from torch's global generator: that of the main rank, or where it was put back to."""
        shared = torch.get_rng_state()
        self._world.broadcast([shared])
        torch.set_rng_state(shared)

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """The step's batch has been drawn."""
        torch.manual_seed(random.Random(f"dropout-{self._seed}-{state.global_step}-{self._world.rank}").getrandbits(63))

"""The processes that train together: what each has of the common work, and how it comes together again.

All of them hold the same weights, optimiser, generators and games to come. Each plays, scores and learns from its share; then all have
everything again, so that whatever is decided is decided alike. A `Group` of one is what a training without company is: its methods then do
nothing, to the bit.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from hiper.errors import ConfigError

T = TypeVar("T")
Items = TypeVar("Items", Tensor, list)  # type: ignore[type-arg]

TIMEOUT = timedelta(hours=1)
"""A process waits for the others at most so long. Only for one that hangs: one that ends is noticed at once, by who started them all."""

BUCKET = 2**24
"""Numbers that are summed at a time, so that gradients are not all copied at once."""


@dataclass(frozen=True)
class Group:
    """One process's place among those that train together."""

    rank: int = 0
    """From 0."""
    size: int = 1

    @property
    def main(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    def share(self, items: Items) -> Items:
        """This process's items of a list, or rows of a tensor: every `size`th, from `rank` on."""
        return items[self.rank :: self.size]

    def gather(self, items: list[T]) -> list[T]:
        """All items, in the order they had before each process took its `share`; they are pickled.

        Raises:
            ValueError: the shares are not of one list.
        """
        if self.size == 1:
            return items
        parts: list[list[T]] = [[] for _ in range(self.size)]
        dist.all_gather_object(parts, items)
        count = sum(map(len, parts))
        found: list[T | None] = [None] * count
        for rank, part in enumerate(parts):
            found[rank :: self.size] = part  # refuses a part of another length
        return cast(list[T], found)

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Add up each tensor over the processes, in place; all then hold the same bits. Shapes and types must agree between them."""
        if self.size == 1:
            return
        bucket: list[Tensor] = []
        for tensor in tensors:
            if bucket and (tensor.dtype != bucket[0].dtype or sum(map(Tensor.numel, bucket)) + tensor.numel() > BUCKET):
                _sum(bucket)
                bucket = []
            bucket.append(tensor)
        if bucket:
            _sum(bucket)

    def sum_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Add up the gradients over the processes, in place; a parameter that no process has a gradient of keeps none."""
        if self.size == 1 or not parameters:
            return
        present = torch.tensor([parameter.grad is not None for parameter in parameters], dtype=torch.int32, device=parameters[0].device)
        self.sum_([present])
        touched = [parameter for parameter, count in zip(parameters, present.tolist(), strict=True) if count]
        for parameter in touched:
            if parameter.grad is None:  # none of the rows it is in the loss of came to this process
                parameter.grad = torch.zeros_like(parameter)
        self.sum_([cast(Tensor, parameter.grad) for parameter in touched])

    def total(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """Each number added up over the processes, one that a process lacks as 0."""
        if self.size == 1:
            return dict(numbers)
        whole: dict[str, float] = {}
        for part in self.gather([numbers]):
            for key, value in part.items():
                whole[key] = whole.get(key, 0.0) + value
        return whole

    def agree(self, value: T) -> T:
        """The main process's value. Whatever the course of the training hangs on goes through here: a GPU may sum in another order."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def copy_(self, tensors: Sequence[Tensor]) -> None:
        """Give every process the main one's tensors, in place."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def wait(self) -> None:
        """Until all have come here."""
        if self.size > 1:
            dist.all_reduce(torch.zeros(1))  # on the CPU: what is waited for are files


ALONE = Group()
"""A process that trains by itself."""


@contextmanager
def joined(cuda: bool) -> Iterator[Group]:
    """Be one of the processes that `torchrun` has started, with GPUs or without; alone where it has started none, or one."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    group = Group(int(os.environ["RANK"]), size)
    if cuda:
        torch.cuda.set_device(group.rank)
    # Objects and barriers stay on the CPU, tensors go where they are.
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=TIMEOUT)
    yield group
    dist.destroy_process_group()  # not after an error: it would wait for those that have come to none


def check_processes(processes: int, cuda: bool) -> None:
    """See that so many processes can train here.

    Raises:
        ConfigError: there are fewer GPUs.
    """
    if processes > 1 and cuda and torch.cuda.device_count() < processes:
        raise ConfigError(
            f"trainer.processes={processes}, but there are {torch.cuda.device_count()} GPUs here and each process needs one. "
            f"Set trainer.processes={torch.cuda.device_count()}, or device=cpu."
        )


def _sum(tensors: list[Tensor]) -> None:
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    for tensor, part in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))

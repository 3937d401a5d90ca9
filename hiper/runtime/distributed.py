"""Data-parallel training: shard, all-reduce, broadcast.

Every rank holds the same weights, optimiser, generators and tasks to come. Each samples, computes and learns from its shard; then all have
everything again, so that they decide alike. In a `World` of one, which is a training in one process, the methods change nothing.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import GenericAlias
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from hiper.errors import ConfigError, DataError
from hiper.runtime.message import decode, encode
from hiper.runtime.records import Kind

T = TypeVar("T")
Items = TypeVar("Items", Tensor, list)  # type: ignore[type-arg]

TIMEOUT = timedelta(hours=1)
"""A process waits for the others at most so long. Only for one that hangs: one that ends is noticed at once, by who started them all."""

BUCKET = 2**24
"""Numbers that are summed at a time, so that gradients are not all copied at once."""

MESSAGE = 2**31
"""Most bytes of a message between processes. An iteration's episodes take a few million."""


@dataclass(frozen=True)
class World:
    """One process's place among the ranks of a training."""

    rank: int = 0
    """From 0."""
    size: int = 1

    @property
    def main(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    def shard(self, items: Items) -> Items:
        """This process's items of a list, or rows of a tensor: every `size`th, from `rank` on."""
        return items[self.rank :: self.size]

    def gather(self, items: list[T], kind: Kind) -> list[T]:
        """All items, in the order they had before each process took its shard; sent as `hiper.runtime.message`.

        Args:
            items: this process's, which come back as they are.
            kind: the type of an item, one that messages can hold.

        Raises:
            ValueError: the shares are not of one list.
            DataError: what a process sent is not a list of that type.
        """
        if self.size == 1:
            return items
        form = GenericAlias(list, (kind,))
        mine = encode(items)
        sent = [self._broadcast(mine, rank) for rank in range(self.size)]
        parts: list[list[T]] = [
            items if rank == self.rank else decode(data, form, f"what process {rank} sent") for rank, data in enumerate(sent)
        ]
        count = sum(map(len, parts))
        found: list[T | None] = [None] * count
        for rank, part in enumerate(parts):
            found[rank :: self.size] = part  # refuses a part of another length
        return cast(list[T], found)

    def all_reduce(self, tensors: Sequence[Tensor]) -> None:
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

    def all_reduce_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Add up the gradients over the processes, in place; a parameter that no process has a gradient of keeps none."""
        if self.size == 1 or not parameters:
            return
        present = torch.tensor([parameter.grad is not None for parameter in parameters], dtype=torch.int32, device=parameters[0].device)
        self.all_reduce([present])
        touched = [parameter for parameter, count in zip(parameters, present.tolist(), strict=True) if count]
        for parameter in touched:
            if parameter.grad is None:  # none of the rows it is in the loss of came to this process
                parameter.grad = torch.zeros_like(parameter)
        self.all_reduce([cast(Tensor, parameter.grad) for parameter in touched])

    def total(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """Each number added up over the processes, one that a process lacks as 0."""
        if self.size == 1:
            return dict(numbers)
        whole: dict[str, float] = {}
        for part in self.gather([dict(numbers)], dict[str, float]):
            for key, value in part.items():
                whole[key] = whole.get(key, 0.0) + value
        return whole

    def broadcast_object(self, value: T, kind: Kind) -> T:
        """The main process's value. Whatever the course of the training hangs on goes through here: a GPU may sum in another order.

        Args:
            value: this process's.
            kind: its type, one that messages can hold.

        Raises:
            DataError: what the main process sent is not of that type.
        """
        if self.size == 1:
            return value
        agreed: T = decode(self._broadcast(encode(value) if self.main else b"", 0), kind, "what process 0 sent")
        return agreed

    def _broadcast(self, data: bytes, source: int) -> bytes:
        """The bytes that the source process has given."""
        if len(data) > MESSAGE:
            raise ConfigError(
                f"process {self.rank} has {len(data):,} bytes to send to the others, at most {MESSAGE:,} are read. "
                "Set rollout.trajectories or env.max_turns lower."
            )
        length = torch.tensor([len(data)])
        dist.broadcast(length, src=source)
        if not 0 < (count := int(length)) <= MESSAGE:
            raise DataError(f"process {source} announced a message of {count:,} bytes; one has 1 to {MESSAGE:,}.")
        content = torch.frombuffer(bytearray(data), dtype=torch.uint8) if self.rank == source else torch.empty(count, dtype=torch.uint8)
        dist.broadcast(content, src=source)
        return content.numpy().tobytes()

    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """Give every process the main one's tensors, in place."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def barrier(self) -> None:
        """Until all have come here."""
        if self.size > 1:
            dist.all_reduce(torch.zeros(1))  # on the CPU: what is waited for are files


ALONE = World()
"""A process that trains by itself."""


@contextmanager
def joined(world: World, meeting: Path, cuda: bool) -> Iterator[World]:
    """Be one of the processes of this machine that train together, with GPUs or without.

    They find each other by a file, and whatever listens for connections after that is on the loopback interface: nothing on the network
    can reach them.

    Args:
        world: this process's place.
        meeting: a file that does not exist yet, the same for all, in a folder that only this user can write in.
        cuda: each takes the GPU of its rank.

    Raises:
        ConfigError: the machine has no loopback interface.
    """
    if world.size == 1:
        yield world
        return
    if cuda:
        torch.cuda.set_device(world.rank)
    _stay_on_loopback(loopback_interface())
    store = dist.FileStore(str(meeting), world.size)  # type: ignore[attr-defined]
    store.set_timeout(TIMEOUT)
    # Messages and barriers stay on the CPU, tensors go where they are.
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    dist.init_process_group(backend, store=store, rank=world.rank, world_size=world.size, timeout=TIMEOUT)
    yield world
    dist.destroy_process_group()  # not after an error: it would wait for those that have come to none


def _stay_on_loopback(interface: str) -> None:
    """Tell gloo and NCCL where to listen. Settings of the user's are overridden: they are for several machines."""
    os.environ["GLOO_SOCKET_IFNAME"] = interface
    os.environ["NCCL_SOCKET_IFNAME"] = f"={interface}"  # the equals sign: this one, not all whose names begin so
    os.environ["NCCL_IB_DISABLE"] = "1"
    os.environ["NCCL_NET_PLUGIN"] = "none"  # a cloud's own transport, which heeds no interface name
    os.environ["NCCL_RAS_ENABLE"] = "0"  # a service for diagnosis, which listens on a port of its own
    os.environ.pop("NCCL_COMM_ID", None)  # an address to listen on, whatever the interface


_SIOCGIFADDR = 0xC0206921 if sys.platform == "darwin" else 0x8915
"""ioctl for the first IPv4 address of a network interface."""


def loopback_interface() -> str:
    """Name of the network interface whose first address is in 127.0.0.0/8, as gloo and NCCL take the first.

    Raises:
        ConfigError: there is none, as in a container without a network.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            with suppress(OSError):  # one without an IPv4 address
                answer = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", name.encode()))
                if answer[20] == 127:  # a name of 16 bytes, family and port of 2 each, the address
                    return name
    raise ConfigError(
        "no network interface has an address in 127.0.0.0/8, and processes that train together talk over that. "
        "Bring the loopback interface up, or set demos.processes, sft.processes, trainer.processes and evaluate.processes to 1."
    )


def check_processes(setting: str, processes: int, cuda: bool) -> None:
    """See that so many processes can train here, as `setting` says.

    Raises:
        ConfigError: there are fewer GPUs.
    """
    if processes > 1 and cuda and torch.cuda.device_count() < processes:
        raise ConfigError(
            f"{setting}={processes}, but there are {torch.cuda.device_count()} GPUs here and each process needs one. "
            f"Set {setting}={torch.cuda.device_count()}, or device=cpu."
        )


def check_cpu(setting: str, processes: int, cuda: bool) -> None:
    """See that a stage whose processes cannot share out GPUs has several on CPUs alone.

    Raises:
        ConfigError: it would compute on a GPU.
    """
    if processes > 1 and cuda:
        raise ConfigError(f"{setting}={processes} is for CPUs: on a GPU one process does the work. Set {setting}=1, or device=cpu.")


def _sum(tensors: list[Tensor]) -> None:
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    for tensor, part in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))

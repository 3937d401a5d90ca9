"""What a core could do: the rate of its matrix products at the shapes a network uses, and how many operations a computation takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hiper.config import ComputeDtype
from hiper.model.compute import autocast

SECONDS = 0.1
"""Least time that each shape is measured for."""


class Shape(NamedTuple):
    """A product of (rows, inner) and (inner, columns)."""

    rows: int
    inner: int
    columns: int


@dataclass(frozen=True)
class Peak:
    """The rate that is held to be a network's best on a device, with as many threads as torch has now."""

    flops_per_second: float
    device: torch.device
    threads: int

    @classmethod
    def measure(cls, network: nn.Module, rows: int, device: torch.device, compute: ComputeDtype) -> Peak:
        """Of a network's linear layers with `rows` tokens, one after another, in the numbers that its passes compute in."""
        layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
        shapes = [Shape(rows, layer.in_features, layer.out_features) for layer in layers]
        first = layers[0].weight
        with autocast(compute, first.device):
            dtype = nn.functional.linear(first, first).dtype
        return cls(gemm_rate(shapes, device, dtype), device, torch.get_num_threads())

    def or_better(self, other: Peak) -> Peak:
        """The faster of two measurements: one of them may have shared its core."""
        return max(self, other, key=lambda one: one.flops_per_second)

    def share(self, flops: float, seconds: float, cpu_seconds: float) -> float:
        """What was reached, as a share: of processor time, which other programs take none of, and of the clock's on a GPU."""
        spent = cpu_seconds / self.threads if self.device.type == "cpu" else seconds
        return round(flops / spent / self.flops_per_second, 4)


def gemm_rate(shapes: Sequence[Shape], device: torch.device, dtype: torch.dtype, seconds: float = SECONDS) -> float:
    """Floating-point operations a second of one product after another, each shape at its fastest; a multiplication and an addition are two.

    The number of threads is torch's present one.
    """
    counts = {shape: shapes.count(shape) for shape in shapes}
    fastest = {shape: _fastest(shape, device, dtype, seconds) for shape in counts}
    work = sum(2 * shape.rows * shape.inner * shape.columns * count for shape, count in counts.items())
    return work / sum(fastest[shape] * count for shape, count in counts.items())


def _fastest(shape: Shape, device: torch.device, dtype: torch.dtype, seconds: float) -> float:
    """Seconds of the fastest call."""
    left = torch.ones(shape.rows, shape.inner, device=device, dtype=dtype)
    right = torch.ones(shape.columns, shape.inner, device=device, dtype=dtype)
    times: list[float] = []
    over = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < over:
        begun = time.perf_counter()
        nn.functional.linear(left, right)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - begun)
    return min(times[1:])


@contextmanager
def count_flops() -> Iterator[Callable[[], int]]:
    """Inside, products and attention are counted, backward passes included; what is given tells the sum so far."""
    with FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION) as counter:
        yield lambda: int(counter.get_total_flops())


def _attention(query: Sequence[int], key: Sequence[int], value: Sequence[int], products: int, causal: bool) -> int:
    """Operations of `products` products of (queries, keys) and the heads' width; under causal attention half of the pairs count."""
    batch, heads, queries, width = query
    pairs = batch * heads * queries * key[2]
    return products * 2 * pairs * width // (2 if causal else 1)


def _forward(query: Any, key: Any, value: Any, dropout: float = 0.0, is_causal: bool = False, *_: Any, **__: Any) -> int:
    return _attention(query, key, value, 2, is_causal)


def _backward(grad: Any, query: Any, key: Any, value: Any, out: Any, lse: Any, dropout: float, is_causal: bool, *_: Any, **__: Any) -> int:
    return _attention(query, key, value, 5, is_causal)  # the scores once more, and two products for each of the forward's


_CPU_ATTENTION: dict[Any, Any] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _forward,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _backward,
}
"""What torch's own counter leaves out."""

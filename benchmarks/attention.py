"""Attention on this machine's CPU, forward and backward: PyTorch's in float32 and bfloat16, and `hiper.model.attention`.

    python benchmarks/attention.py

One thread, 8 sequences, 4 heads of 32, as in the quickstart's warm start. Prints JSON: milliseconds by length, the best of several.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from hiper.model.attention import attention

ROWS, HEADS, SIZE = 8, 4, 32
LENGTHS = (50, 100, 200, 400, 800)
REPEATS, TIMES = 8, 5


def best(call: Callable[[], object]) -> float:
    """Milliseconds of a call: the fastest of `REPEATS` means over `TIMES` calls."""
    found = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        for _ in range(TIMES):
            call()
        found.append((time.perf_counter() - begun) / TIMES)
    return round(1000 * min(found), 3)


def measure(length: int) -> dict[str, float]:
    """The three ways at one length, each from float32 tensors to float32 gradients."""
    query, key, value = (torch.randn(ROWS, length, HEADS, SIZE).transpose(1, 2).requires_grad_() for _ in range(3))
    gradient = torch.randn(ROWS, length, HEADS, SIZE)
    layer = torch.nn.Identity()

    def backward(output: Tensor) -> None:
        output.float().backward(gradient)

    def pytorch(dtype: torch.dtype) -> None:
        backward(scaled_dot_product_attention(query.to(dtype), key.to(dtype), value.to(dtype), is_causal=True).transpose(1, 2))

    def ours() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            output, _ = attention(layer, query, key, value, None)
        backward(output)

    return {
        "pytorch_float32": best(lambda: pytorch(torch.float32)),
        "pytorch_bfloat16": best(lambda: pytorch(torch.bfloat16)),
        "ours": best(ours),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps({"torch": torch.__version__, "milliseconds": {length: measure(length) for length in LENGTHS}}, indent=2))

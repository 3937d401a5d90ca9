"""What forward passes compute in: `model.compute_dtype`."""

from __future__ import annotations

import os
from functools import cache

import torch
from transformers import PreTrainedModel

from hiper.config import ComputeDtype
from hiper.model import attention

_CACHES = ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY")
"""oneDNN, which multiplies bfloat16 on a CPU, keeps what it compiled for the last 1024 shapes, PyTorch beside it once more: with batches of
all lengths 2 GB after a thousand steps. Read when the first product is made."""


def autocast(compute: ComputeDtype, device: torch.device) -> torch.autocast:
    """The context that a forward pass runs in.

    Args:
        compute: `auto` is bfloat16 where `multiplies_bfloat16` says so.
        device: where the weights are.
    """
    enabled = compute is ComputeDtype.bfloat16 or (compute is ComputeDtype.auto and multiplies_bfloat16(device.type))
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def use_attention(lm: PreTrainedModel, compute: ComputeDtype) -> None:
    """Give a language model the attention that goes with what it computes in."""
    if compute is not ComputeDtype.float32:
        for cache in _CACHES:
            os.environ.setdefault(cache, "32")
        lm.set_attn_implementation(attention.NAME)


@cache
def multiplies_bfloat16(kind: str) -> bool:
    """Whether devices of a type ("cpu", "cuda") have instructions for products in bfloat16; without them they are slower than float32's."""
    if kind == "cpu":
        able = torch.cpu.get_capabilities()
        return any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16", "arm_bf16", "bf16"))
    return kind == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)

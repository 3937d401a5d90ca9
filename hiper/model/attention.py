"""Attention for short sequences on a CPU that multiplies bfloat16.

PyTorch's own (`scaled_dot_product_attention`) is written for heads and sequences of large models; with heads of 32 on sequences of some
hundred tokens its bfloat16 kernel is slower than its float32 one. Here products are plain matrix products in bfloat16, several times as
fast on such a CPU, and the softmax between them computes in float32 and is rounded to bfloat16. Chosen by `Actor`, see
`model.compute_dtype`; `benchmarks/attention.py` has the figures.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "hiper_bfloat16"
"""By which transformers finds it."""
LONGEST = 1024
"""Tokens. Weights of attention are kept for the backward pass, which grow with the square of a sequence's; longer ones go to PyTorch's."""
_ROWS = 128
"""Queries of a product: under a causal mask each such block is multiplied with the keys up to its own end only."""
_FEW = 32
"""Queries beside a cache, up to which this is the faster way."""
_softmax_backward = torch.ops.aten._softmax_backward_data
"""Of a softmax's gradient, its output, dimension and type: what autograd calls."""


def attention(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """Causal attention, or attention under a mask, as `transformers.AttentionInterface` wants it.

    Args:
        module: the attention layer, for PyTorch's attention: on other devices, outside of autocast, and where this is not the faster.
        query: (B, H, Q, D).
        key, value: (B, G, K, D), where G divides H.
        attention_mask: (B, 1, Q, K) bool, True where attention is allowed; None: causal.
        kwargs: `scaling`, and what PyTorch's attention wants.

    Returns:
        (B, Q, H, D), bfloat16 under autocast; and no weights.
    """
    if query.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
        return output, None
    query, key, value = (x.to(torch.bfloat16) for x in (query, key, value))
    length, keys = query.shape[2], key.shape[2]
    scaling = kwargs.get("scaling") or query.shape[3] ** -0.5
    causal = attention_mask is None and length == keys and length <= LONGEST
    cached = attention_mask is not None and length <= _FEW and not torch.is_grad_enabled()
    if kwargs.get("dropout") or not (causal or cached):
        output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
        return output, None
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    if causal:
        flat = (x.reshape(-1, length, x.shape[3]) for x in (query * scaling, key, value))
        output = _Causal.apply(*flat).view(query.shape)  # type: ignore[no-untyped-call]
    else:
        assert attention_mask is not None
        scores = torch.matmul(query * scaling, key.transpose(2, 3)).masked_fill_(~attention_mask, -torch.inf)
        output = torch.matmul(scores.softmax(-1), value)
    return output.transpose(1, 2).contiguous(), None


class _Causal(torch.autograd.Function):
    """Causal attention of (N, L, D) queries, already scaled, over (N, L, D) keys and values."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        output = torch.empty_like(query)
        later = torch.ones(_ROWS, _ROWS, dtype=torch.bool).triu(1)
        weights: list[Tensor] = []
        for start in range(0, query.shape[1], _ROWS):
            rows = query[:, start : start + _ROWS]
            end = start + rows.shape[1]
            scores = torch.bmm(rows, key[:, :end].transpose(1, 2))
            scores[:, :, start:].masked_fill_(later[: end - start, : end - start], -torch.inf)
            weights.append(scores.softmax(-1))
            output[:, start:end] = torch.bmm(weights[-1], value[:, :end])
        ctx.save_for_backward(query, key, value, *weights)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (gradient,) = gradients
        query, key, value, *weights = ctx.saved_tensors
        of_query = torch.empty_like(query)
        of_key, of_value = torch.zeros_like(key, dtype=torch.float32), torch.zeros_like(value, dtype=torch.float32)
        for block, start in zip(weights, range(0, query.shape[1], _ROWS), strict=True):
            end = start + block.shape[1]
            coming = gradient[:, start:end]
            of_value[:, :end] += torch.bmm(block.transpose(1, 2), coming)
            inner = _softmax_backward(torch.bmm(coming, value[:, :end].transpose(1, 2)), block, -1, block.dtype)
            of_query[:, start:end] = torch.bmm(inner, key[:, :end])
            of_key[:, :end] += torch.bmm(inner.transpose(1, 2), query[:, start:end])
        return of_query, of_key.to(key.dtype), of_value.to(value.dtype)


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)

"""The one recursion that returns, advantages and traces share, without a loop over turns."""

from __future__ import annotations

import torch
from torch import Tensor


def from_the_end(terms: Tensor, decay: Tensor) -> Tensor:
    """y[t] = x[t] + c[t] * y[t+1] along the last dimension, with nothing after its end.

    Each round lets a turn reach twice as far ahead as the one before (Hillis and Steele's parallel prefix sum, CACM 1986): a handful of
    passes over the whole batch instead of one small one a turn.

    Args:
        terms: (..., T) float, x.
        decay: (..., T) float, c; broadcastable to `terms`. Zero cuts the chain: what follows does not count.

    Returns:
        Tensor: (..., T), y, of the dtype of `terms`; the arguments are left as they were.

    Note:
        Computed in float64: squaring a decay doubles its relative error, which over hundreds of turns would show in float32.
    """
    sums, reach = terms.to(torch.float64, copy=True), decay.to(torch.float64).expand_as(terms).clone()
    step = 1
    while step < sums.shape[-1]:
        sums[..., :-step] += reach[..., :-step] * sums[..., step:]
        reach[..., :-step] = reach[..., :-step] * reach[..., step:]
        step *= 2
    return sums.to(terms.dtype)

"""The probability of the decision to switch, which both an estimator and a loss read."""

from __future__ import annotations

import torch
from torch import Tensor

from hiper.protocol import BlockId
from hiper.rollout.batch import Batch


def switch_probability(batch: Batch, logprobs: Tensor) -> Tensor:
    """(B, T) probability of SWITCH: of the switch block that was written, or what is left beside a KEEP that was.

    Args:
        batch: the episodes.
        logprobs: (N,) float, of the reply tokens; gradients flow.
    """
    in_switch = batch.flat(batch.blocks) == BlockId.switch
    chosen = torch.where(in_switch & ~batch.forced, logprobs, 0.0)
    written = torch.zeros_like(batch.rewards).scatter_add(1, batch.turns, batch.by_row(chosen)).exp()
    return torch.where(batch.segment_starts, written, 1 - written)

"""Discounted returns over turns."""

from __future__ import annotations

import torch
from torch import Tensor

from hiper.rl._checks import check_unit
from hiper.rl._recursion import from_the_end


@torch.no_grad()
def returns_to_go(rewards: Tensor, mask: Tensor, *, gamma: float) -> Tensor:
    """G[t] = r[t] + gamma * G[t+1], (B, T) float, zero on padding. No value follows the last turn, however the episode ended.

    Args:
        rewards: (B, T) float. Reward of turn t, penalties already added.
        mask: (B, T) bool. True on real turns.
        gamma: discount, in [0, 1].

    Raises:
        ConfigError: gamma is out of range.
    """
    check_unit(gamma=gamma)
    live = torch.where(mask, rewards, 0.0)
    return from_the_end(live, gamma * mask.to(live.dtype))

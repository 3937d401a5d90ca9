"""REINFORCE++: the return to go, standardised over the whole batch instead of a group; no critic.

Source: Hu, REINFORCE++, arXiv:2501.03262 (equation 8 and its normalisation). Turns are time here, as for every estimator of this project.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hiper.rl._checks import check_bool, check_shapes
from hiper.rl.hae import normalize
from hiper.rl.returns import returns_to_go


@torch.no_grad()
def reinforce_pp_advantages(rewards: Tensor, mask: Tensor, *, gamma: float) -> Tensor:
    """A[t] = (G[t] - mean) / deviation, both over all live turns of the batch; G the return to go.

    Args:
        rewards: (B, T) float. Reward of turn t, penalties already added.
        mask: (B, T) bool. True on real turns.
        gamma: discount, in [0, 1].

    Returns:
        (B, T) float, zero on padding.

    Raises:
        ValueError: shapes or dtypes differ from the above.
        ConfigError: gamma is out of range.
    """
    check_shapes("(B, T)", rewards.shape, mask=mask)
    check_bool(mask=mask)
    return normalize(returns_to_go(rewards, mask, gamma=gamma), mask)

"""REINFORCE Leave-One-Out: the baseline of a trajectory is the mean return of the others in its group.

Sources: Kool et al., Buy 4 REINFORCE Samples, Get a Baseline for Free!, 2019; Ahmadian et al., arXiv:2402.14740.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hiper.rl._checks import check_bool, check_shapes
from hiper.rl.groups import centre, check_groups
from hiper.rl.returns import returns_to_go


@torch.no_grad()
def rloo_advantages(rewards: Tensor, mask: Tensor, groups: Tensor, *, gamma: float) -> Tensor:
    """A[i, t] = R_i - mean over j != i of the group of R_j.

    Arguments, result and errors as in `grpo_advantages`.

    Note:
        R_i - mean of the others = (R_i - mean of all) * n / (n - 1): unbiased, where the group's mean alone shrinks the gradient.
    """
    check_shapes("(B, T)", rewards.shape, mask=mask)
    check_bool(mask=mask)
    check_groups("rloo", groups, len(rewards))
    _, member, sizes = torch.unique(groups, return_inverse=True, return_counts=True)
    size = sizes[member].to(rewards.dtype)
    advantages = centre(returns_to_go(rewards, mask, gamma=gamma)[:, 0], groups, scale=False) * size / (size - 1)
    return torch.where(mask, advantages[:, None], 0.0)

"""Group Relative Policy Optimisation: every turn of a trajectory gets its standardised return within the group.

Sources: Shao et al., DeepSeekMath, arXiv:2402.03300 (equation 20's outcome supervision); without the division, Liu et al.,
Understanding R1-Zero-Like Training, arXiv:2503.20783 (Dr. GRPO).
"""

from __future__ import annotations

import torch
from torch import Tensor

from hiper.rl._checks import check_bool, check_shapes
from hiper.rl.groups import centre, check_groups
from hiper.rl.returns import returns_to_go


@torch.no_grad()
def grpo_advantages(rewards: Tensor, mask: Tensor, groups: Tensor, *, gamma: float, scale: bool = True) -> Tensor:
    """A[i, t] = (R_i - mean of the group) / (deviation of the group + 1e-6), R_i the return of trajectory i from its first turn.

    Args:
        rewards: (B, T) float. Reward of turn t, penalties already added.
        mask: (B, T) bool. True on real turns.
        groups: (B,) long. Trajectories with equal numbers play the same task.
        gamma: discount of the return (published: 1).
        scale: divide by the deviation. It gives easy and hard tasks, whose returns hardly vary, as much weight as the others.

    Returns:
        (B, T) float, the same on every live turn of a trajectory, zero on padding.

    Raises:
        ValueError: shapes or dtypes differ from the above.
        ConfigError: gamma is out of range, or a group has one trajectory.
    """
    check_shapes("(B, T)", rewards.shape, mask=mask)
    check_bool(mask=mask)
    check_groups("grpo", groups, len(rewards))
    advantages = centre(returns_to_go(rewards, mask, gamma=gamma)[:, 0], groups, scale=scale)
    return torch.where(mask, advantages[:, None], 0.0)

"""Group-in-Group Policy Optimisation: GRPO's credit for the episode, plus credit among turns that stood in the same state.

Source: Feng et al., arXiv:2505.10978 (equations 3, 7 and 8). Trajectories of one task often meet in the same state; these anchor
states make groups of turns for free, whose returns to go say which action was the better one there.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hiper.errors import ConfigError
from hiper.rl._checks import check_bool, check_shapes
from hiper.rl.groups import centre
from hiper.rl.grpo import grpo_advantages
from hiper.rl.returns import returns_to_go


@torch.no_grad()
def gigpo_advantages(
    rewards: Tensor, mask: Tensor, groups: Tensor, anchors: Tensor, *, gamma: float, weight: float = 1.0, scale: bool = True
) -> Tensor:
    """A[i, t] = A_episode[i] + weight * A_step[i, t].

    A_episode is GRPO's, on undiscounted returns. A_step is the return to go, discounted by `gamma`, less the mean over the turns of the
    group that saw the same observation, divided by their deviation if `scale`.

    Args:
        rewards: (B, T) float. Reward of turn t, penalties already added.
        mask: (B, T) bool. True on real turns.
        groups: (B,) long. Trajectories with equal numbers play the same task.
        anchors: (B, T) long, at least 0 on real turns. Turns with equal numbers saw the same observation.
        gamma: discount of the returns to go (published: 0.95).
        weight: omega, at least 0 (published: 1).
        scale: divide by the deviation, in both parts.

    Returns:
        (B, T) float, zero on padding. A turn whose state no other turn of the group saw has the episode's credit alone.

    Raises:
        ValueError: shapes or dtypes differ from the above.
        ConfigError: gamma or weight is out of range, or a group has one trajectory.
    """
    check_shapes("(B, T)", rewards.shape, mask=mask, anchors=anchors)
    check_bool(mask=mask)
    if not weight >= 0.0:
        raise ConfigError(f"weight={weight!r} is out of range: it must be at least 0.")
    episode = grpo_advantages(rewards, mask, groups, gamma=1.0, scale=scale)
    _, task = torch.unique(groups, return_inverse=True)
    state = task[:, None] * (int(anchors.max()) + 1) + anchors  # a state is one of its task
    step = torch.zeros_like(episode)
    step[mask] = centre(returns_to_go(rewards, mask, gamma=gamma)[mask], state[mask], scale=scale)
    return episode + weight * step

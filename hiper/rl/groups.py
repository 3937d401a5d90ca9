"""Baselines from a group: trajectories that play the same task, or turns that stand in the same state of it."""

from __future__ import annotations

import torch
from torch import Tensor

from hiper.errors import ConfigError
from hiper.rl._checks import check_shapes

EPSILON = 1e-6
"""Added to a group's deviation, as in the reference implementations of GRPO."""


def check_groups(name: str, groups: Tensor, count: int) -> None:
    """Refuse groups that are not (B,) long, and a group of one: its only member is its own baseline.

    Args:
        name: the estimator, for the message.
        groups: (B,) long. Trajectories with equal numbers play the same task.
        count: B.

    Raises:
        ValueError: shape or dtype differ from the above.
        ConfigError: a group has one member.
    """
    check_shapes("(B,)", torch.Size([count]), groups=groups)
    if groups.dtype != torch.long:
        raise ValueError(f"groups has dtype {groups.dtype}; it must be torch.long. Convert it with groups.long().")
    sizes = torch.unique(groups, return_counts=True)[1]
    if bool((sizes < 2).any()):
        raise ConfigError(
            f"{name} compares trajectories of the same task, but {int((sizes < 2).sum())} of {len(sizes)} groups have one trajectory. "
            "Set algo.group_size to at least 2."
        )


def centre(values: Tensor, groups: Tensor, *, scale: bool) -> Tensor:
    """Values less their group's mean, and divided by its deviation if `scale`.

    Args:
        values: (N,) float.
        groups: (N,) long, any numbers.
        scale: divide by the group's sample standard deviation (n - 1) + `EPSILON`.

    Returns:
        (N,) float. Members of a group of one get 0, and so do those of a group whose values are all equal.
    """
    _, member = torch.unique(groups, return_inverse=True)
    count = torch.bincount(member).to(values.dtype)
    zeros = torch.zeros_like(count)
    # Equal values have to come out as exactly 0: from a rounded mean, dividing by a deviation of 1e-9 + EPSILON would make credit of noise.
    first = zeros.scatter_reduce(0, member, values, "amin", include_self=False)[member]
    mean = zeros.scatter_add(0, member, values - first) / count
    centred = values - first - mean[member]
    if not scale:
        return centred
    variance = zeros.scatter_add(0, member, centred.square()) / (count - 1).clamp(min=1)
    return centred / (variance.sqrt()[member] + EPSILON)

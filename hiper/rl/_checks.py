"""Checks every estimator makes in its first lines: shapes, dtypes and ranges, by name."""

from __future__ import annotations

import torch
from torch import Tensor

from hiper.errors import ConfigError

BOOTSTRAPS = ("none", "current", "next")
"""Value after a truncated episode's last action: zero, the last acting turn's own, or the critic's of the final state."""


def check_unit(**scalars: float) -> None:
    """Refuse a discount or trace-decay outside [0, 1] (NaN included)."""
    for name, value in scalars.items():
        if not 0.0 <= value <= 1.0:
            raise ConfigError(f"{name}={value!r} is out of range: it must be between 0 and 1.")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a mode nobody implements."""
    if value not in choices:
        raise ConfigError(f"{name}={value!r} is unknown: it must be one of {', '.join(choices)}.")


def check_shapes(axes: str, shape: torch.Size, **tensors: Tensor | None) -> None:
    """Refuse tensors whose shape is not `shape`; None stands for an optional one left out."""
    for name, tensor in tensors.items():
        if tensor is not None and tensor.shape != shape:
            raise ValueError(
                f"{name} has shape {tuple(tensor.shape)} but {tuple(shape)} is expected: it must be {axes}, padded like the rest of "
                f"the batch."
            )


def check_bool(**tensors: Tensor) -> None:
    """Refuse masks that are not bool: a 0/1 float would silently turn `~mask` and indexing into something else."""
    for name, tensor in tensors.items():
        if tensor.dtype != torch.bool:
            raise ValueError(f"{name} has dtype {tensor.dtype}; it must be torch.bool (True keeps). Convert it with {name}.bool().")


def check_turns(rewards: Tensor, terminated: Tensor, mask: Tensor) -> None:
    """Refuse a batch of turns that is not (B, T), float32 or float64, and padded on the right."""
    if rewards.dim() != 2:
        raise ValueError(f"rewards has shape {tuple(rewards.shape)}; it must be (B, T): one row a trajectory, one column a turn.")
    if rewards.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"rewards has dtype {rewards.dtype}; returns are summed in float32 or float64. Convert it with rewards.float().")
    check_shapes("(B, T)", rewards.shape, mask=mask)
    check_shapes("(B,)", rewards.shape[:1], terminated=terminated)
    check_bool(terminated=terminated, mask=mask)
    gaps = (mask[:, 1:] & ~mask[:, :-1]).any(dim=1)
    if bool(gaps.any()):
        rows = gaps.nonzero().flatten().tolist()
        raise ValueError(f"mask is False before a live turn in trajectories {rows[:5]}; pad turns on the right only.")


def last_turns(mask: Tensor) -> Tensor:
    """(B, T) bool, True on each trajectory's last live turn. `mask` is (B, T) bool, padded on the right."""
    last = mask.clone()
    last[:, :-1] &= ~mask[:, 1:]
    return last


def final_values(name: str, value: Tensor | None, truncated: Tensor, like: Tensor) -> Tensor:
    """(B,) values after the last action, zero where the episode was not truncated.

    Args:
        name: the caller's argument, for the message.
        value: (B,) float, or None where the caller has none.
        truncated: (B,) bool. Trajectories that need one.
        like: gives the dtype.

    Raises:
        ConfigError: a truncated trajectory needs a value and there is none.
    """
    if value is None:
        if bool(truncated.any()):
            raise ConfigError(
                f"bootstrap='next' needs {name}: {int(truncated.sum())} of {truncated.numel()} trajectories were truncated. Pass the "
                f"critic's value at the state after the last action, (B,), or set bootstrap to 'current' or 'none'."
            )
        return torch.zeros_like(truncated, dtype=like.dtype)
    check_shapes("(B,)", truncated.shape, **{name: value})
    return torch.where(truncated, value.detach().to(like.dtype), 0.0)

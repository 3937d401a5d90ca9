"""Generalised advantage estimation over turns: the flat baseline, and what HAE reduces to.

Source: Schulman et al., arXiv:1506.02438.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hiper.rl._checks import BOOTSTRAPS, check_choice, check_shapes, check_turns, check_unit, final_values, last_turns
from hiper.rl._recursion import from_the_end


class Advantages(NamedTuple):
    """Advantage and value target of each turn, (B, T) float, zero on padding."""

    advantages: Tensor
    targets: Tensor


@torch.no_grad()
def turn_advantages(
    rewards: Tensor,
    values: Tensor,
    terminated: Tensor,
    mask: Tensor,
    *,
    gamma: float,
    lam: float,
    bootstrap: str = "next",
    v_final: Tensor | None = None,
) -> Advantages:
    """GAE with turns as time:

        delta[t] = r[t] + gamma * V[t+1] - V[t]
        A[t]     = delta[t] + gamma * lam * A[t+1]

    Args:
        rewards: (B, T) float32 or float64. Reward of turn t, penalties already added.
        values: (B, T) float, same units. V(s_t).
        terminated: (B,) bool. True where the task ended: the next state is worth 0.
        mask: (B, T) bool. True on real turns, False on padding, which is on the right.
        gamma, lam: discount and trace decay, in [0, 1].
        bootstrap: value after a truncated episode's last action: `none` 0, `current` V[t] itself, `next` `v_final`.
        v_final: (B,) float. V at the state after the last action; read on truncated episodes under `next`.

    Returns:
        Advantages: no gradient flows through them; the dtype is that of `rewards`.

    Raises:
        ValueError: shapes or dtypes differ from the above.
        ConfigError: a scalar is out of range, `bootstrap` is unknown, or `next` lacks `v_final`.
    """
    check_turns(rewards, terminated, mask)
    check_shapes("(B, T)", rewards.shape, values=values)
    check_unit(gamma=gamma, lam=lam)
    check_choice("bootstrap", bootstrap, BOOTSTRAPS)

    r = torch.where(mask, rewards, 0.0)
    v = torch.where(mask, values.to(r.dtype), 0.0)
    truncated = ~terminated[:, None]
    if bootstrap == "next":
        end = final_values("v_final", v_final, ~terminated, v)[:, None]
    else:
        end = torch.where(truncated, v, 0.0) if bootstrap == "current" else torch.zeros_like(v)
    next_value = torch.where(last_turns(mask), end, torch.nn.functional.pad(v[:, 1:], (0, 1)))
    delta = torch.where(mask, r + gamma * next_value - v, 0.0)
    advantages = from_the_end(delta, gamma * lam * mask.to(r.dtype))
    return Advantages(advantages, advantages + v)

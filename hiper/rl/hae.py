"""Hierarchical Advantage Estimation (HAE): credit for the action, the subgoal and the decision to switch.

Source: Peng et al., HiPER, arXiv:2602.16165; the behaviour of the authors' code is pinned by recorded cases
(`hiper.benchmarks.hae`). GAE: Schulman et al., arXiv:1506.02438. Options: Sutton, Precup and Singh, 1999.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hiper.errors import ConfigError
from hiper.rl._checks import BOOTSTRAPS, check_bool, check_choice, check_shapes, check_turns, check_unit, final_values, last_turns
from hiper.rl._recursion import from_the_end

SWITCH_CREDITS = ("segment_return", "option_value")
"""Estimators of the switch decision's advantage."""


class HierarchicalAdvantages(NamedTuple):
    """Advantages and value targets of the three levels, each (B, T) float and zero on padding."""

    low: Tensor
    """A_low, every turn."""
    high: Tensor
    """A_high, at segment starts; zero elsewhere."""
    switch: Tensor
    """A_switch, every turn."""
    low_target: Tensor
    """Target of V_low, every turn."""
    high_target: Tensor
    """Target of V_high, at segment starts; zero elsewhere."""
    switch_target: Tensor
    """Target of V_switch, every turn: the segment's return from here. Under `option_value` no head needs it."""


@torch.no_grad()
def hierarchical_advantages(
    rewards: Tensor,
    v_low: Tensor,
    v_high: Tensor,
    v_switch: Tensor | None,
    segment_starts: Tensor,
    terminated: Tensor,
    mask: Tensor,
    *,
    gamma: float,
    lam_low: float,
    lam_high: float,
    lam_end: float = 0.0,
    switch_credit: str = "segment_return",
    bootstrap: str = "next",
    v_low_final: Tensor | None = None,
    v_high_final: Tensor | None = None,
    switch_probability: Tensor | None = None,
    v_low_keep: Tensor | None = None,
) -> HierarchicalAdvantages:
    """Advantage of each action (low), of each subgoal (high) and of each switch decision.

    Segment k is the run of turns s_k .. e_k under one subgoal; d_k = e_k - s_k + 1 turns with discounted reward
    R_k = sum_i gamma^i r[s_k + i]:

        A_high[k] = R_k + gamma^d_k * V_high[s_{k+1}] - V_high[s_k] + gamma^d_k * lam_high * A_high[k+1]
        W[k]      = V_high[s_{k+1}] + lam_end * A_high[k+1]   worth of what follows segment k; lam_end = 0 as published
        delta[t]  = r[t] + gamma * next[t] - V_low[t]         next = V_low[t+1], or W[k] at t = e_k
        A_low[t]  = delta[t] + gamma * lam_low * A_low[t+1]   the chain stops at e_k
        G[t]      = r[t] + gamma * G[t+1]                     G after e_k = W[k]
        A_switch[t] = G[t] - V_switch[t]                                         `segment_return`
        A_switch[t] = (q[t] - beta[t]) * (V_high[s_t] - V_low(s_t, o_{t-1}))     `option_value`

    with q = 1 where a segment starts and beta the probability of SWITCH. After the last turn of the episode the next
    state is worth 0 if the task terminated; if it was truncated, `bootstrap` says what.

    Args:
        rewards: (B, T) float32 or float64. Reward of turn t, penalties already added (`shape_rewards`).
        v_low, v_switch: (B, T) float, same units. `v_switch` may be None under `option_value`.
        v_high: (B, T) float. Read where `segment_starts` is True, and on every turn under `option_value`.
        segment_starts: (B, T) bool. True where a new segment begins; the first live turn always is one.
        terminated: (B,) bool. True where the task ended; a truncated episode stays False.
        mask: (B, T) bool. True on real turns, False on padding, which is on the right. Padding may hold anything, NaN too.
        gamma, lam_low, lam_high: discount and trace decays, in [0, 1].
        lam_end: trace decay over a segment's end, in [0, 1], for the action and the switch. With 0 they are judged by V_high alone from
            there on, which is wrong where V_high is; with 1, as `lam_high` is, by what came of it.
        switch_credit: `segment_return` (the authors' code) or `option_value` (the paper's form).
        bootstrap: value after a truncated episode's last action. `none`: 0. `current` (the authors' code): the last acting turn's
            own, V_low[t] for the low level and V_high[s_k] for the others. `next`: `v_low_final` and `v_high_final`.
        v_low_final, v_high_final: (B,) float. The critic at the state after the last action; read on truncated episodes.
        switch_probability: (B, T) float. beta of the behaviour policy; `option_value` only.
        v_low_keep: (B, T) float. V_low(s_t, o_{t-1}), the value of keeping the subgoal; `option_value` only.

    Returns:
        HierarchicalAdvantages: no gradient flows through them; the dtype is that of `rewards`.

    Raises:
        ValueError: shapes or dtypes differ from the above, padding is not on the right, a live first turn is not a start.
        ConfigError: a scalar is out of range, a mode is unknown, or a mode lacks what it reads.

    Note:
        R_k + gamma^d_k * V_high[s_{k+1}] is G at the segment's start without lam_end, so the planner needs no sum of its own. The forced
        start of turn 0 is no decision, so `option_value` gives it no credit; `segment_return` does, as the authors' code does.
    """
    check_turns(rewards, terminated, mask)
    check_shapes(
        "(B, T)",
        rewards.shape,
        v_low=v_low,
        v_high=v_high,
        v_switch=v_switch,
        segment_starts=segment_starts,
        switch_probability=switch_probability,
        v_low_keep=v_low_keep,
    )
    check_bool(segment_starts=segment_starts)
    check_unit(gamma=gamma, lam_low=lam_low, lam_high=lam_high, lam_end=lam_end)
    check_choice("switch_credit", switch_credit, SWITCH_CREDITS)
    check_choice("bootstrap", bootstrap, BOOTSTRAPS)
    missing = (mask[:, :1] & ~segment_starts[:, :1]).flatten()
    if bool(missing.any()):
        rows = missing.nonzero().flatten().tolist()
        raise ValueError(f"starts is False on the first turn of trajectories {rows[:5]}; an episode's first turn always starts a segment.")

    def live(values: Tensor, where: Tensor = mask) -> Tensor:
        return torch.where(where, values.to(rewards.dtype), 0.0)

    segment_starts = segment_starts & mask
    r, low, high = live(rewards), live(v_low), live(v_high, segment_starts)
    last = last_turns(mask)
    ends = last.clone()
    ends[:, :-1] |= segment_starts[:, 1:]
    final_low, final_high = _end_values(low, high, segment_starts, ~terminated, bootstrap, v_low_final, v_high_final)

    # Value of the state after turn t, as each level sees it: the planner's where a segment follows, the end's after the last turn.
    next_high = torch.where(last, final_high, _shift(high))
    discount = gamma * (mask & ~ends).to(r.dtype)  # inside a segment; padding carries nothing into the last live turn
    g = from_the_end(_with_end(r, ends & mask, gamma * next_high), discount)
    # At a start A_high[k]; in between it is what of the next segment's is left at this turn.
    carried = gamma * (mask & ~last).to(r.dtype)
    carried = torch.where(segment_starts, lam_high * carried, carried)
    a_high = torch.where(segment_starts, from_the_end(torch.where(segment_starts, g - high, 0.0), carried), 0.0)
    if lam_end > 0:
        next_high = next_high + lam_end * _shift(a_high)  # after the last turn there is no next segment, and zero is added
        g = from_the_end(_with_end(r, ends & mask, gamma * next_high), discount)
    next_low = torch.where(last, final_low, torch.where(ends, next_high, _shift(low)))
    a_low = from_the_end(torch.where(mask, r + gamma * next_low - low, 0.0), lam_low * discount)

    if switch_credit == "segment_return":
        if v_switch is None:
            raise ConfigError("switch_credit='segment_return' needs v_switch, the switch head's values. Pass them, or use 'option_value'.")
        a_switch = g - live(v_switch)
    else:
        if switch_probability is None or v_low_keep is None:
            raise ConfigError(
                "switch_credit='option_value' needs switch_probability, the behaviour policy's probability of SWITCH, and v_low_keep, "
                "V_low(s_t, o_{t-1}). Pass both, or use 'segment_return'."
            )
        decided = mask.clone()
        decided[:, :1] = False
        a_switch = live((segment_starts.to(r.dtype) - switch_probability) * (v_high - v_low_keep), decided)
    return HierarchicalAdvantages(a_low, a_high, a_switch, a_low + low, a_high + high, g)


def _with_end(rewards: Tensor, ends: Tensor, worth: Tensor) -> Tensor:
    """Rewards, and at a segment's last turn what follows it."""
    return rewards + torch.where(ends, worth, 0.0)


def _shift(values: Tensor) -> Tensor:
    """Values of the next turn; zero after the last column."""
    return torch.nn.functional.pad(values[:, 1:], (0, 1))


def _end_values(
    low: Tensor,
    high: Tensor,
    segment_starts: Tensor,
    truncated: Tensor,
    bootstrap: str,
    v_low_final: Tensor | None,
    v_high_final: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """What the low level and the planner take the state after the last turn to be worth: broadcastable to (B, T), read on last turns."""
    if bootstrap == "next":
        end_low = final_values("v_low_final", v_low_final, truncated, low)
        end_high = final_values("v_high_final", v_high_final, truncated, high)
        return end_low[:, None], end_high[:, None]
    if bootstrap == "none":
        return torch.zeros_like(low), torch.zeros_like(high)
    turns = torch.arange(low.shape[1], device=low.device)
    segment_start = torch.where(segment_starts, turns, 0).cummax(dim=1).values
    return torch.where(truncated[:, None], low, 0.0), torch.where(truncated[:, None], high.gather(1, segment_start), 0.0)


@torch.no_grad()
def normalize(advantages: Tensor, keep: Tensor) -> Tensor:
    """Standardise one level's advantages over the turns that carry its mask: zero mean, unit population variance.

    Args:
        advantages: (B, T) float, any shape in fact.
        keep: bool, same shape. True where the level has trained tokens (`masking.level_turns`).

    Returns:
        Tensor: same shape and dtype, (a - mean) / (std + 1e-8) where `keep`, zero elsewhere; all zero where nothing is kept.

    Raises:
        ValueError: shapes differ or `keep` is not bool.

    Note:
        Mean and deviation are taken in float64: in float32 the rounding of the mean of equal advantages, about 1e-8, would be divided by
        the 1e-8 and come out as credit of order one.
    """
    check_shapes("the shape of advantages", advantages.shape, keep=keep)
    check_bool(keep=keep)
    kept = advantages[keep].double()
    result = torch.zeros_like(advantages)
    if kept.numel():
        result[keep] = ((kept - kept.mean()) / (kept.std(correction=0) + 1e-8)).to(advantages.dtype)
    return result

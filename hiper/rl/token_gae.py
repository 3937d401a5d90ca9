"""Generalised advantage estimation over tokens: PPO as it is usually run on language models.

Source: Schulman et al., arXiv:1506.02438, with a token as the step. Time passes between turns only: a turn's reward comes with its last
token and the discount is that of a turn, so that the objective is the other estimators' own; the trace decays with every token.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hiper.rl._checks import BOOTSTRAPS, check_bool, check_choice, check_shapes, check_turns, check_unit, final_values
from hiper.rl.gae import Advantages


@torch.no_grad()
def token_advantages(
    rewards: Tensor,
    values: Tensor,
    turns: Tensor,
    live: Tensor,
    terminated: Tensor,
    mask: Tensor,
    *,
    gamma: float,
    lam: float,
    bootstrap: str = "next",
    v_final: Tensor | None = None,
) -> Advantages:
    """From one decision to the next, j after i, with k turns ending in between:

        delta[i] = sum of gamma^n * r over those turns, n = 0 .. k - 1, + gamma^k * V[j] - V[i]
        A[i]     = delta[i] + gamma^k * lam * A[j]

    Args:
        rewards: (B, T) float32 or float64. Reward of turn t, penalties already added.
        values: (B, R) float. V of the state in which each reply token was chosen.
        turns: (B, R) long. Turn of each reply token, ascending.
        live: (B, R) bool. True on tokens that were chosen: padding and tokens without an alternative are no decisions.
        terminated: (B,) bool. True where the task ended: the next state is worth 0.
        mask: (B, T) bool. True on real turns, on the left.
        gamma, lam: discount of a turn and trace decay of a token, in [0, 1].
        bootstrap: value after a truncated episode's last action: `none` 0, `current` the last decision's own, `next` `v_final`.
        v_final: (B,) float. V at the state after the last action; read on truncated episodes under `next`.

    Returns:
        Advantages: (B, R) advantages and value targets, zero where not `live`.

    Raises:
        ValueError: shapes or dtypes differ from the above.
        ConfigError: a scalar is out of range, `bootstrap` is unknown, or `next` lacks `v_final`.
    """
    check_turns(rewards, terminated, mask)
    check_shapes("(B, R)", values.shape, turns=turns, live=live)
    check_bool(live=live)
    check_unit(gamma=gamma, lam=lam)
    check_choice("bootstrap", bootstrap, BOOTSTRAPS)
    r = torch.where(mask, rewards, 0.0)
    v = torch.where(live, values.to(r.dtype), 0.0)
    truncated = ~terminated
    following = r.new_zeros(len(r))  # V[j]
    if bootstrap == "next":
        following = final_values("v_final", v_final, truncated, v)
    elif bootstrap == "current":
        places = torch.arange(v.shape[1], device=v.device)
        last = torch.where(live, places, 0).amax(dim=1)
        following = torch.where(truncated, v.gather(1, last[:, None]).squeeze(1), 0.0)

    advantages, chain = torch.zeros_like(v), torch.zeros_like(following)
    # Reward and discount between the decision at hand and the one after it. Turns are counted down as their tokens are passed, so that
    # one without any decision still pays its reward.
    reward, discount, turn = torch.zeros_like(following), torch.ones_like(following), mask.sum(1)
    for place in reversed(range(v.shape[1])):
        of_token, is_live = turns[:, place], live[:, place]
        while bool((ending := is_live & (of_token < turn)).any()):
            turn = torch.where(ending, turn - 1, turn)
            earned = r.gather(1, turn[:, None].clamp(max=r.shape[1] - 1)).squeeze(1)
            reward = torch.where(ending, earned + gamma * reward, reward)
            discount = torch.where(ending, gamma * discount, discount)
        found = reward + discount * following - v[:, place] + discount * lam * chain
        chain = torch.where(is_live, found, chain)
        following = torch.where(is_live, v[:, place], following)
        reward, discount = torch.where(is_live, 0.0, reward), torch.where(is_live, 1.0, discount)
        advantages[:, place] = torch.where(is_live, found, 0.0)
    return Advantages(advantages, torch.where(live, advantages + v, 0.0))

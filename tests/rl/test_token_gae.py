"""Rules pinned here, for GAE over tokens:

1. Numbers worked by hand: rewards at turns' ends, discount between turns, trace between tokens, the three bootstraps.
2. Tokens that were not chosen, and padding, change nothing; a turn without any decision still pays.
3. One decision a turn is GAE over turns.
4. With lam = 1 the advantage is the return to go less the value.
"""

from __future__ import annotations

import pytest
import torch

from hiper.errors import ConfigError
from hiper.rl.gae import turn_advantages
from hiper.rl.returns import returns_to_go
from hiper.rl.token_gae import token_advantages

REWARDS = torch.tensor([[1.0, 2.0]])
MASK = torch.tensor([[True, True]])
TURNS = torch.tensor([[0, 0, 1]])
VALUES = torch.tensor([[2.0, 4.0, 8.0]])
EVERY = torch.ones(1, 3, dtype=torch.bool)


@pytest.mark.parametrize(("bootstrap", "end"), [("none", 0.0), ("current", 8.0), ("next", 6.0)])
def test_by_hand(bootstrap: str, end: float) -> None:
    # gamma = lam = 1/2.  token 2: 2 + end/2 - 8;  token 1: 1 + 8/2 - 4 + A[2]/4;  token 0: 4 - 2 + A[1]/2, no time passes inside a turn
    found = token_advantages(
        REWARDS,
        VALUES,
        TURNS,
        EVERY,
        torch.tensor([False]),
        MASK,
        gamma=0.5,
        lam=0.5,
        bootstrap=bootstrap,
        v_final=torch.tensor([6.0]),
    )
    last = 2 + end / 2 - 8
    middle = 1 + last / 4
    assert found.advantages.tolist()[0] == pytest.approx([2 + middle / 2, middle, last])
    torch.testing.assert_close(found.targets, found.advantages + VALUES)


def ragged(seed: int, decisions: int) -> tuple[torch.Tensor, ...]:
    """6 trajectories of up to 5 turns, `decisions` tokens a turn: rewards, values, turns, live, terminated, mask, final values."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(5) < torch.randint(1, 6, (6, 1), generator=generator)
    live = mask.repeat_interleave(decisions, dim=1)
    turns = torch.arange(5).repeat_interleave(decisions).expand(6, -1) * live
    rewards, values = (torch.randn(6, width, dtype=torch.float64, generator=generator) for width in (5, 5 * decisions))
    return rewards, values, turns, live, torch.rand(6, generator=generator) < 0.5, mask, torch.randn(6, generator=generator).double()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("bootstrap", ["none", "current", "next"])
def test_one_decision_a_turn_is_gae_over_turns(seed: int, bootstrap: str) -> None:
    rewards, values, turns, live, terminated, mask, final = ragged(seed, 1)
    settings = {"gamma": 0.9, "lam": 0.8, "bootstrap": bootstrap, "v_final": final}
    ours = token_advantages(rewards, values, turns, live, terminated, mask, **settings)  # type: ignore[arg-type]
    theirs = turn_advantages(rewards, values, terminated, mask, **settings)  # type: ignore[arg-type]
    torch.testing.assert_close(ours.advantages, theirs.advantages)
    torch.testing.assert_close(ours.targets, theirs.targets)


@pytest.mark.parametrize("seed", range(3))
def test_full_traces_are_returns_to_go(seed: int) -> None:
    rewards, values, turns, live, terminated, mask, _ = ragged(seed, 3)
    found = token_advantages(rewards, values, turns, live, terminated, mask, gamma=0.9, lam=1.0, bootstrap="none")
    expected = returns_to_go(rewards, mask, gamma=0.9).gather(1, turns) - values
    torch.testing.assert_close(found.advantages, torch.where(live, expected, 0.0))


def test_what_was_not_chosen_changes_nothing() -> None:
    rewards, values, turns, live, terminated, mask, final = ragged(7, 2)
    settings = {"gamma": 0.9, "lam": 0.8, "bootstrap": "next", "v_final": final}
    plain = token_advantages(rewards, values, turns, live, terminated, mask, **settings)  # type: ignore[arg-type]
    # Before and after every decision a token that had no alternative, with a value nobody may read.
    at = torch.arange(1, 3 * values.shape[1], 3)
    wide = torch.full((6, 3 * values.shape[1]), float("nan"), dtype=torch.float64).index_copy(1, at, values)
    chosen = torch.zeros(wide.shape, dtype=torch.bool).index_copy(1, at, live)
    spread = token_advantages(rewards, wide, turns.repeat_interleave(3, dim=1), chosen, terminated, mask, **settings)  # type: ignore[arg-type]
    torch.testing.assert_close(spread.advantages[:, at], plain.advantages)
    assert (spread.advantages[~chosen] == 0).all() and (spread.targets[~chosen] == 0).all()


def test_a_turn_without_a_decision_still_pays() -> None:
    chosen = torch.tensor([[True, True, False]])
    found = token_advantages(REWARDS, VALUES, TURNS, chosen, torch.tensor([True]), MASK, gamma=0.5, lam=1.0)
    assert found.advantages.tolist()[0] == pytest.approx([1 + 2 / 2 - 2, 1 + 2 / 2 - 4, 0.0])


def test_refuses() -> None:
    ended = torch.tensor([False])
    with pytest.raises(ConfigError, match="needs v_final: 1 of 1"):
        token_advantages(REWARDS, VALUES, TURNS, EVERY, ended, MASK, gamma=1.0, lam=1.0)
    with pytest.raises(ValueError, match=r"live has shape \(1, 2\)"):
        token_advantages(REWARDS, VALUES, TURNS, EVERY[:, :2], ended, MASK, gamma=1.0, lam=1.0, bootstrap="none")
    with pytest.raises(ConfigError, match="lam=2"):
        token_advantages(REWARDS, VALUES, TURNS, EVERY, ended, MASK, gamma=1.0, lam=2, bootstrap="none")

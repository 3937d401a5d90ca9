"""Rules pinned here: turn-level GAE on numbers worked by hand, the three bootstraps, and its refusals. (HAE's tests compare with it.)"""

from __future__ import annotations

import pytest
import torch

from hiper.errors import ConfigError
from hiper.rl.gae import turn_advantages

REWARDS = torch.tensor([[1.0, 2.0, float("nan")], [0.0, 0.0, 4.0]])
VALUES = torch.tensor([[2.0, 4.0, float("nan")], [2.0, 2.0, 2.0]])
MASK = torch.tensor([[True, True, False], [True, True, True]])


@pytest.mark.parametrize(
    ("bootstrap", "first"),
    [
        # gamma = lam = 1/2. t1: 2 + end/2 - 4   t0: (1 + 4/2 - 2) + A[1]/4
        ("none", [0.5, -2.0, 0.0]),
        ("current", [1.0, 0.0, 0.0]),  # end = V[1] = 4
        ("next", [1.5, 2.0, 0.0]),  # end = 8
    ],
)
def test_by_hand(bootstrap: str, first: list[float]) -> None:
    result = turn_advantages(
        REWARDS,
        VALUES,
        torch.tensor([False, True]),
        MASK,
        gamma=0.5,
        lam=0.5,
        bootstrap=bootstrap,
        v_final=torch.tensor([8.0, float("nan")]),
    )
    # Second trajectory, terminated: t2: 4 - 2 = 2   t1: (0 + 1 - 2) + 2/4 = -0.5   t0: -1 - 0.5/4 = -1.125
    torch.testing.assert_close(result.advantages, torch.tensor([first, [-1.125, -0.5, 2.0]]))
    torch.testing.assert_close(result.targets, result.advantages + torch.where(MASK, VALUES, 0.0))


def test_refuses() -> None:
    ended = torch.tensor([False, True])
    with pytest.raises(ConfigError, match="needs v_final: 1 of 2 trajectories were truncated"):
        turn_advantages(REWARDS, VALUES, ended, MASK, gamma=1.0, lam=1.0)
    with pytest.raises(ConfigError, match="lam=2"):
        turn_advantages(REWARDS, VALUES, ended, MASK, gamma=1.0, lam=2)
    with pytest.raises(ValueError, match=r"values has shape \(1, 3\)"):
        turn_advantages(REWARDS, VALUES[:1], ended, MASK, gamma=1.0, lam=1.0)

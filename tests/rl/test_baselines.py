"""Rules pinned here, for the critic-free rivals of HAE (`grpo`, `rloo`, `reinforce_pp`, `gigpo`):

1. Numbers worked by hand.
2. Equal to a slow reading of their papers on random ragged batches.
3. Padding may hold anything; the order of trajectories does not matter; another task's trajectories do not either.
4. A group whose returns are all equal teaches exactly nothing.
5. Refusals: a group of one, wrong shapes and dtypes, scalars out of range.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import fmean, stdev

import pytest
import torch
from torch import Tensor

from hiper.errors import ConfigError
from hiper.rl.gigpo import gigpo_advantages
from hiper.rl.groups import EPSILON, centre
from hiper.rl.grpo import grpo_advantages
from hiper.rl.reinforce_pp import reinforce_pp_advantages
from hiper.rl.returns import returns_to_go
from hiper.rl.rloo import rloo_advantages

NAN = float("nan")

# Two tasks of two trajectories. Returns without discount: 3, 1 and 4, 4.
REWARDS = torch.tensor([[1.0, 2.0, NAN], [0.0, 0.0, 1.0], [4.0, NAN, NAN], [2.0, 2.0, NAN]])
MASK = torch.tensor([[True, True, False], [True, True, True], [True, False, False], [True, True, False]])
GROUPS = torch.tensor([7, 7, 3, 3])
ANCHORS = torch.tensor([[0, 1, 0], [0, 2, 1], [0, 0, 0], [0, 1, 0]])

Estimator = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
ESTIMATORS: dict[str, Estimator] = {
    "grpo": lambda r, m, g, a: grpo_advantages(r, m, g, gamma=0.9),
    "dr_grpo": lambda r, m, g, a: grpo_advantages(r, m, g, gamma=1.0, scale=False),
    "rloo": lambda r, m, g, a: rloo_advantages(r, m, g, gamma=0.9),
    "reinforce_pp": lambda r, m, g, a: reinforce_pp_advantages(r, m, gamma=0.9),
    "gigpo": lambda r, m, g, a: gigpo_advantages(r, m, g, a, gamma=0.9, weight=0.5),
}


def slow(name: str, rewards: Tensor, mask: Tensor, groups: Tensor, anchors: Tensor) -> list[list[float]]:
    """The papers, one turn at a time."""
    live = [[r for r, m in zip(*pair, strict=True) if m] for pair in zip(rewards.tolist(), mask.tolist(), strict=True)]

    def to_go(row: list[float], t: int, gamma: float) -> float:
        return sum(gamma ** (k - t) * row[k] for k in range(t, len(row)))

    def relative(value: float, peers: list[float], scale: bool = True) -> float:
        if len(peers) == 1:
            return 0.0
        return (value - fmean(peers)) / (stdev(peers) + EPSILON if scale else 1.0)

    def episode(i: int, gamma: float, scale: bool = True) -> float:
        return relative(to_go(live[i], 0, gamma), [to_go(live[j], 0, gamma) for j in range(len(live)) if groups[j] == groups[i]], scale)

    if name == "reinforce_pp":
        every = [to_go(row, t, 0.9) for row in live for t in range(len(row))]
        mean, deviation = fmean(every), math.sqrt(fmean([(g - fmean(every)) ** 2 for g in every]))
        return [[(to_go(row, t, 0.9) - mean) / (deviation + 1e-8) for t in range(len(row))] for row in live]
    result = []
    for i, row in enumerate(live):
        if name == "rloo":
            others = [to_go(live[j], 0, 0.9) for j in range(len(live)) if j != i and groups[j] == groups[i]]
            result.append([to_go(row, 0, 0.9) - fmean(others)] * len(row))
        elif name == "gigpo":
            turns = []
            for t in range(len(row)):
                peers = [
                    to_go(live[j], k, 0.9)
                    for j in range(len(live))
                    for k in range(len(live[j]))
                    if groups[j] == groups[i] and anchors[j, k] == anchors[i, t]
                ]
                turns.append(episode(i, 1.0) + 0.5 * relative(to_go(row, t, 0.9), peers))
            result.append(turns)
        else:
            result.append([episode(i, 0.9 if name == "grpo" else 1.0, name == "grpo")] * len(row))
    return result


def ragged(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """12 trajectories of 1 to 7 turns, 3 tasks, 4 states each."""
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.randn(12, 7, dtype=torch.float64, generator=generator)
    mask = torch.arange(7) < torch.randint(1, 8, (12, 1), generator=generator)
    groups = torch.arange(12)[torch.randperm(12, generator=generator)] % 3
    return rewards, mask, groups, torch.randint(0, 4, (12, 7), generator=generator)


def test_by_hand() -> None:
    torch.testing.assert_close(
        returns_to_go(REWARDS, MASK, gamma=0.5), torch.tensor([[2.0, 2.0, 0], [0.25, 0.5, 1.0], [4.0, 0, 0], [3.0, 2.0, 0]])
    )
    # Deviation of 3 and 1 with n - 1: sqrt 2.
    half = 1 / math.sqrt(2)
    torch.testing.assert_close(
        grpo_advantages(REWARDS, MASK, GROUPS, gamma=1.0),
        torch.tensor([[half, half, 0], [-half, -half, -half], [0, 0, 0], [0, 0, 0]]),
        atol=1e-6,
        rtol=0,
    )
    assert grpo_advantages(REWARDS, MASK, GROUPS, gamma=1.0, scale=False)[:2, 0].tolist() == [1.0, -1.0]
    assert rloo_advantages(REWARDS, MASK, GROUPS, gamma=1.0)[:, 0].tolist() == [2.0, -2.0, 0.0, 0.0]
    # Live returns 3 2 | 1 1 1 | 4 | 4 2: mean 18/8, variance 52/8 - (18/8)^2.
    plus = reinforce_pp_advantages(REWARDS, MASK, gamma=1.0)
    assert plus[0, 0].item() == pytest.approx((3 - 2.25) / math.sqrt(6.5 - 2.25**2))
    # Task 7, state 0: returns to go 3 and 1, once more +-1; state 1: 2 and 1; state 2 was seen once.
    gigpo = gigpo_advantages(REWARDS, MASK, GROUPS, ANCHORS, gamma=1.0, weight=2.0, scale=False)
    torch.testing.assert_close(gigpo, torch.tensor([[3.0, 2.0, 0], [-3.0, -1.0, -2.0], [0, 0, 0], [0, 0, 0]]))


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("seed", range(5))
def test_against_a_slow_reading_of_the_papers(name: str, seed: int) -> None:
    batch = ragged(seed)
    found, mask = ESTIMATORS[name](*batch), batch[1]
    assert (found[~mask] == 0).all()
    for row, expected in enumerate(slow(name, *batch)):
        assert found[row][mask[row]].tolist() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_padding_and_order_do_not_matter(name: str) -> None:
    rewards, mask, groups, anchors = ragged(9)
    found = ESTIMATORS[name](rewards, mask, groups, anchors)
    spoilt = torch.where(mask, rewards, NAN)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(ESTIMATORS[name](spoilt, mask, groups, anchors), found)
    torch.testing.assert_close(ESTIMATORS[name](rewards[order], mask[order], groups[order], anchors[order]), found[order])
    if name != "reinforce_pp":  # which standardises over the whole batch
        own = groups == 1
        torch.testing.assert_close(ESTIMATORS[name](rewards[own], mask[own], groups[own], anchors[own]), found[own])


def test_equal_returns_teach_exactly_nothing() -> None:
    third = torch.tensor([0.1 + 0.2 + 0.4] * 3 + [1.0])
    for scale in (True, False):
        assert centre(third, torch.tensor([5, 5, 5, 9]), scale=scale).tolist() == [0.0] * 4


def test_refuses() -> None:
    with pytest.raises(ConfigError, match="1 of 2 groups have one trajectory. Set algo.group_size"):
        grpo_advantages(REWARDS[:3], MASK[:3], GROUPS[:3], gamma=1.0)
    with pytest.raises(ConfigError, match="rloo compares"):
        rloo_advantages(REWARDS[:3], MASK[:3], GROUPS[:3], gamma=1.0)
    with pytest.raises(ValueError, match="groups has dtype torch.int32"):
        grpo_advantages(REWARDS, MASK, GROUPS.int(), gamma=1.0)
    with pytest.raises(ValueError, match=r"groups has shape \(2,\)"):
        gigpo_advantages(REWARDS, MASK, GROUPS[:2], ANCHORS, gamma=1.0)
    with pytest.raises(ValueError, match=r"anchors has shape \(2, 3\)"):
        gigpo_advantages(REWARDS, MASK, GROUPS, ANCHORS[:2], gamma=1.0)
    with pytest.raises(ConfigError, match="weight=-1"):
        gigpo_advantages(REWARDS, MASK, GROUPS, ANCHORS, gamma=1.0, weight=-1)
    with pytest.raises(ConfigError, match="gamma=2"):
        reinforce_pp_advantages(REWARDS, MASK, gamma=2)
    with pytest.raises(ValueError, match="mask has dtype"):
        rloo_advantages(REWARDS, MASK.float(), GROUPS, gamma=1.0)

"""Rules of the fitted critic.

1. Its weights are those of ridge regression with a free intercept, older iterations counting less (checked against an augmented
   least-squares problem, solved by another routine).
2. Linear values are found exactly when the penalty is small; constant ones at any penalty, by the intercept alone.
3. A head that no turn speaks for is left as it is.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hiper.train.value_fit import LeastSquares

WIDTH = 5


def observations(seed: int, count: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, WIDTH, generator=generator), torch.randn(count, generator=generator)


def test_is_ridge_regression_that_forgets() -> None:
    ridge, memory = 3.0, 0.6
    critic, heads = LeastSquares(WIDTH, 2, ridge=ridge, memory=memory), nn.Linear(WIDTH, 2)
    batches = [observations(seed) for seed in range(3)]
    for states, targets in batches:
        critic.fade()
        critic.add(0, states, targets)
        critic.add(1, states, -2.0 * targets)
    critic.write(heads)
    # the same as one unweighted problem: rows scaled by the root of their weight, the penalty as WIDTH more rows
    rows, wanted = [], []
    for age, (states, targets) in enumerate(reversed(batches)):
        weight = memory ** (age / 2)
        rows.append(weight * torch.cat([states, torch.ones(len(states), 1)], dim=1))
        wanted.append(weight * targets)
    rows.append(ridge**0.5 * torch.eye(WIDTH, WIDTH + 1))
    wanted.append(torch.zeros(WIDTH))
    solution = torch.linalg.lstsq(torch.cat(rows).double(), torch.cat(wanted).double()[:, None]).solution[:, 0].float()
    for head, factor in enumerate((1.0, -2.0)):
        torch.testing.assert_close(heads.weight[head].detach(), factor * solution[:-1], atol=1e-5, rtol=1e-5)
        assert heads.bias[head].item() == pytest.approx(factor * solution[-1].item(), abs=1e-5)


def test_finds_linear_values() -> None:
    critic, heads = LeastSquares(WIDTH, 1, ridge=1e-4, memory=0.9), nn.Linear(WIDTH, 1)
    states, _ = observations(0)
    weight = torch.arange(1.0, WIDTH + 1)
    critic.add(0, states, states @ weight + 7.0)
    critic.write(heads)
    torch.testing.assert_close(heads(states)[:, 0].detach(), states @ weight + 7.0, atol=1e-3, rtol=1e-3)


def test_the_intercept_is_free() -> None:
    critic, heads = LeastSquares(WIDTH, 1, ridge=1e9, memory=0.9), nn.Linear(WIDTH, 1)
    states, targets = observations(1)
    critic.add(0, states, targets + 20.0)
    critic.write(heads)
    assert heads.weight.abs().max().item() < 1e-6
    assert heads.bias.item() == pytest.approx(targets.mean().item() + 20.0, abs=1e-4)


def test_a_head_without_turns_is_left_alone() -> None:
    critic, heads = LeastSquares(WIDTH, 2, ridge=1.0, memory=0.5), nn.Linear(WIDTH, 2)
    before = heads.weight[1].detach().clone()
    critic.add(0, *observations(2))
    critic.write(heads)
    assert torch.equal(heads.weight[1].detach(), before)

"""Rules of the recursion behind returns, advantages and traces.

1. It is y[t] = x[t] + c[t] * y[t+1], for any length, also one, and any leading dimensions; the arguments stay as they were.
2. A zero in c cuts the chain; in float32 it is as exact as the turn-by-turn loop in float32.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hiper.rl._recursion import from_the_end


def turn_by_turn(terms: Tensor, decay: Tensor) -> Tensor:
    result, after = torch.zeros_like(terms), torch.zeros_like(terms[..., 0])
    for t in reversed(range(terms.shape[-1])):
        result[..., t] = after = terms[..., t] + decay[..., t] * after
    return result


@pytest.mark.parametrize("shape", [(1,), (7,), (3, 1), (3, 2), (5, 50), (2, 3, 33), (1, 1024)])
def test_it_is_the_loop(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(sum(shape))
    terms, decay = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    decay = decay.abs().clamp(max=1.0) * (torch.rand(shape, generator=generator) > 0.1)
    given = terms.clone(), decay.clone()
    torch.testing.assert_close(from_the_end(terms, decay), turn_by_turn(terms, decay), rtol=1e-12, atol=1e-12)
    assert torch.equal(terms, given[0])
    assert torch.equal(decay, given[1])


def test_by_hand_and_cut() -> None:
    terms = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert from_the_end(terms, torch.tensor(0.5)).tolist() == [3.25, 4.5, 5.0, 4.0]
    assert from_the_end(terms, torch.tensor([0.5, 0.0, 0.5, 9.0])).tolist() == [2.0, 2.0, 5.0, 4.0]


def test_in_single_precision_it_loses_no_more_than_the_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    terms, decay = torch.randn(64, 500, generator=generator), torch.full((64, 500), 0.999)
    exact = turn_by_turn(terms.double(), decay.double())
    ours, loops = ((result.double() - exact).abs().max() for result in (from_the_end(terms, decay), turn_by_turn(terms, decay)))
    assert ours <= loops

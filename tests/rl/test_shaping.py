"""Rules pinned here: each penalty on numbers worked by hand, turn 0, padding, and refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from hiper.errors import ConfigError
from hiper.rl.shaping import shape_rewards

# Four live turns, one of padding. KEEP said on turns 0, 1, 3; the subgoal of turn 3 is not that of turn 2; reply 2 is invalid.
REWARDS = torch.tensor([[0.0, 0.0, 0.0, 1.0, float("nan")]])


def flags(*turns: int) -> Tensor:
    return torch.isin(torch.arange(5), torch.tensor(turns, dtype=torch.long))[None]


BATCH: dict[str, Any] = {
    "invalid": flags(2, 4),
    "keep": flags(0, 1, 3, 4),
    "mismatch": flags(0, 2, 3),
    "mask": flags(0, 1, 2, 3),
    "invalid_penalty": -0.1,
    "keep_penalty": -0.4,
    "keep_mode": "fixed",
    "keep_mismatch_penalty": -0.3,
}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        # Turn 3: 1 - 0.4 - 0.3. Turn 2 says SWITCH, so its new text is no mismatch. Turn 0 keeps nothing.
        ({}, [0.0, -0.4, -0.1, 0.3]),
        # T = 4, so a KEEP costs 0.4 / 4: together penalty * 2/4 = penalty * keep_ratio.
        ({"keep_mode": "normalized"}, [0.0, -0.1, -0.1, 0.6]),
        ({"keep_mode": "off"}, [0.0, 0.0, -0.1, 0.7]),
        ({"scale": 10.0}, [0.0, -0.4, -0.1, 9.3]),
        # The authors' code penalises KEEP on turn 0 too; a mismatch needs a turn before it.
        ({"penalize_first": True}, [-0.4, -0.4, -0.1, 0.3]),
        ({"penalize_first": True, "keep_mode": "normalized"}, [-0.1, -0.1, -0.1, 0.6]),
    ],
)
def test_by_hand(change: dict[str, Any], expected: list[float]) -> None:
    shaped = shape_rewards(REWARDS, **{**BATCH, **change})
    torch.testing.assert_close(shaped, torch.tensor([[*expected, 0.0]]))
    assert REWARDS[0, 3] == 1.0, "the caller's rewards were written to"


def test_a_single_turn_keeps_nothing() -> None:
    yes = torch.ones(1, 1, dtype=torch.bool)
    for mode in ("fixed", "normalized"):
        args = (torch.ones(1, 1), ~yes, yes, yes, yes)
        assert shape_rewards(*args, invalid_penalty=0, keep_penalty=-1, keep_mode=mode, keep_mismatch_penalty=-1).item() == 1.0


@pytest.mark.parametrize("name", ["invalid_penalty", "keep_penalty", "keep_mismatch_penalty"])
@pytest.mark.parametrize("value", [0.1, float("nan")])
def test_a_penalty_is_never_a_prize(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name}={value!r} would pay"):
        shape_rewards(REWARDS, **{**BATCH, name: value})


def test_refuses() -> None:
    with pytest.raises(ConfigError, match="keep_mode='ratio' is unknown: it must be one of off, fixed, normalized"):
        shape_rewards(REWARDS, **{**BATCH, "keep_mode": "ratio"})
    with pytest.raises(ValueError, match=r"invalid has shape \(1, 4\)"):
        shape_rewards(REWARDS, **{**BATCH, "invalid": BATCH["invalid"][:, :4]})
    with pytest.raises(ValueError, match="keep has dtype torch.float32"):
        shape_rewards(REWARDS, **{**BATCH, "keep": BATCH["keep"].float()})

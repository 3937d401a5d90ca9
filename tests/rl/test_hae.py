"""Rules pinned here:

- the equations, on numbers worked by hand and against a slow, literal transcription on random ragged batches, in every mode;
- the identities: one segment is GAE, one turn a segment is GAE on V_high, lam = gamma = 1 is return minus value;
- the invariances: padding, what padding holds, order of trajectories, splitting the batch;
- `normalize`: zero mean and unit population deviation over the kept turns, harmless where there is nothing to standardise;
- every misuse is refused with what, where and what to do.
"""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch
from torch import Tensor

from hiper.errors import ConfigError
from hiper.rl.gae import turn_advantages
from hiper.rl.hae import SWITCH_CREDITS, HierarchicalAdvantages, hierarchical_advantages, normalize

NAN = float("nan")
BOOTSTRAPS = ("none", "current", "next")


def rows(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


def close(ours: Tensor, expected: Tensor | list[float]) -> None:
    torch.testing.assert_close(ours, torch.as_tensor(expected, dtype=ours.dtype).reshape(ours.shape), atol=1e-9, rtol=1e-9)


# --- by hand --------------------------------------------------------------------------------------

# Two segments of two turns, gamma = lam_low = lam_high = 1/2, so gamma * lam_low = 1/4 and gamma^2 = 1/4.
HAND: dict[str, Any] = {
    "rewards": rows(1, 0, 2, 4),
    "v_low": rows(1, 2, 0, 2),
    "v_high": rows(3, NAN, 2, NAN),  # read at the starts only
    "v_switch": rows(0, 1, 2, 3),
    "segment_starts": torch.tensor([[True, False, True, False]]),
    "mask": torch.ones(1, 4, dtype=torch.bool),
    "gamma": 0.5,
    "lam_low": 0.5,
    "lam_high": 0.5,
}


def hand(terminated: bool, **more: Any) -> HierarchicalAdvantages:
    return hierarchical_advantages(**{**HAND, "terminated": torch.tensor([terminated]), **more})


def test_by_hand_terminated() -> None:
    result = hand(True)
    # low:  t3: 4 + 0 - 2 = 2          t2: (2 + 2/2 - 0) + 2/4 = 3.5
    #       t1: 0 + V_high[2]/2 - 2 = -1 (the chain stops here)      t0: (1 + 2/2 - 1) - 1/4 = 0.75
    close(result.low, [0.75, -1, 3.5, 2])
    close(result.low_target, [1.75, 1, 3.5, 4])
    # high: k1: (2 + 4/2) + 0 - 2 = 2  k0: (1 + 0/2) + 2/4 - 3 + 1/4 * 1/2 * 2 = -1.25
    close(result.high, [-1.25, 0, 2, 0])
    close(result.high_target, [1.75, 0, 4, 0])
    # G:    t3: 4   t2: 2 + 4/2 = 4   t1: 0 + V_high[2]/2 = 1   t0: 1 + 1/2 = 1.5
    close(result.switch_target, [1.5, 1, 4, 4])
    close(result.switch, [1.5, 0, 2, 1])


def test_by_hand_truncated_next_reads_the_state_after_the_last_action() -> None:
    result = hand(False, bootstrap="next", v_low_final=torch.tensor([6.0]), v_high_final=torch.tensor([8.0]))
    close(result.low, [0.75, -1, 4.25, 5])  # t3: 4 + 6/2 - 2 = 5   t2: 3 + 5/4
    close(result.high, [-1, 0, 4, 0])  # k1: (2 + 4/2) + 8/4 - 2 = 4   k0: -1.5 + 4/8
    close(result.switch_target, [1.5, 1, 6, 8])  # t3: 4 + 8/2   t2: 2 + 8/2


def test_by_hand_truncated_current_reads_the_last_acting_turn() -> None:
    result = hand(False, bootstrap="current")
    close(result.low, [0.75, -1, 3.75, 3])  # t3: 4 + V_low[3]/2 - 2 = 3   t2: 3 + 3/4
    close(result.high, [-1.1875, 0, 2.5, 0])  # k1: 4 + V_high[s_1]/4 - 2 = 2.5   k0: -1.5 + 2.5/8
    close(result.switch_target, [1.5, 1, 4.5, 5])  # t3: 4 + V_high[s_1]/2   t2: 2 + 5/2


def test_by_hand_truncated_none_is_worth_nothing() -> None:
    for ours, expected in zip(hand(False, bootstrap="none"), hand(True), strict=True):
        close(ours, expected)


def test_by_hand_the_end_of_a_segment_hears_of_what_follows() -> None:
    result = hand(True, lam_end=0.5)
    # A_high is as before; the end of segment 0 is worth V_high[2] + 1/2 * A_high[1] = 2 + 1 = 3.
    close(result.high, [-1.25, 0, 2, 0])
    close(result.low, [0.875, -0.5, 3.5, 2])  # t1: 0 + 3/2 - 2 = -0.5   t0: (1 + 2/2 - 1) - 0.5/4
    close(result.low_target, [1.875, 1.5, 3.5, 4])
    close(result.switch_target, [1.75, 1.5, 4, 4])  # t1: 0 + 3/2   t0: 1 + 1.5/2


def test_by_hand_option_value() -> None:
    result = hand(
        True,
        v_high=rows(3, 5, 2, 1),
        v_switch=None,
        switch_credit="option_value",
        switch_probability=rows(0.9, 0.25, 0.25, 0.5),
        v_low_keep=rows(NAN, 1, 6, 3),  # no subgoal to keep on turn 0
    )
    # t1 KEEP: (0 - 1/4)(5 - 1) = -1   t2 SWITCH: (1 - 1/4)(2 - 6) = -3   t3 KEEP: (0 - 1/2)(1 - 3) = 1   turn 0 decides nothing
    close(result.switch, [0, -1, -3, 1])
    close(result.low, [0.75, -1, 3.5, 2])


# --- the slow, literal oracle ---------------------------------------------------------------------


def oracle(batch: dict[str, Any], b: int) -> dict[str, list[float]]:
    """One trajectory, Python floats, each sum written out from the definition."""
    gamma, lam_low, lam_high, lam_end = (batch[name] for name in ("gamma", "lam_low", "lam_high", "lam_end"))
    length = int(batch["mask"][b].sum())
    r, low, high, switch = (batch[name][b].tolist() for name in ("rewards", "v_low", "v_high", "v_switch"))
    cuts = [t for t in range(length) if batch["segment_starts"][b, t]]
    segments = [list(range(a, z)) for a, z in zip(cuts, [*cuts, length][1:], strict=True)]
    terminated = bool(batch["terminated"][b])

    def after(k: int, level: str) -> float:
        """Value of the state after segment k."""
        if k + 1 < len(segments):
            return float(high[segments[k + 1][0]])
        if terminated or batch["bootstrap"] == "none":
            return 0.0
        if batch["bootstrap"] == "current":
            return float(low[segments[k][-1]] if level == "low" else high[segments[k][0]])
        return float(batch[f"v_{level}_final"][b])

    out = {name: [0.0] * length for name in HierarchicalAdvantages._fields}
    td, discounts = [], []
    for k, segment in enumerate(segments):
        reward = sum(gamma**i * r[t] for i, t in enumerate(segment))
        td.append(reward + gamma ** len(segment) * after(k, "high") - high[segment[0]])
        discounts.append(gamma ** len(segment))
    planner = []
    for k, segment in enumerate(segments):
        total, weight = 0.0, 1.0
        for j in range(k, len(segments)):
            total += weight * td[j]
            weight *= discounts[j] * lam_high
        planner.append(total)
        out["high"][segment[0]] = total
        out["high_target"][segment[0]] = total + high[segment[0]]
    for k, segment in enumerate(segments):
        more = lam_end * planner[k + 1] if k + 1 < len(segments) else 0.0
        delta = []
        for t in segment:
            following = low[t + 1] if t != segment[-1] else after(k, "low") + more
            delta.append(r[t] + gamma * following - low[t])
        for i, t in enumerate(segment):
            out["low"][t] = sum((gamma * lam_low) ** j * d for j, d in enumerate(delta[i:]))
            out["low_target"][t] = out["low"][t] + low[t]
            left = segment[i:]
            value = sum(gamma**j * r[u] for j, u in enumerate(left)) + gamma ** len(left) * (after(k, "high") + more)
            out["switch_target"][t] = value
            if batch["switch_credit"] == "segment_return":
                out["switch"][t] = value - switch[t]
            elif t > 0:
                q = 1.0 if t == segment[0] else 0.0
                out["switch"][t] = (q - batch["switch_probability"][b, t].item()) * (high[t] - batch["v_low_keep"][b, t].item())
    return out


def random_batch(seed: int, **more: Any) -> dict[str, Any]:
    """Ragged trajectories, an empty one now and then, NaN in the padding."""
    dice = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    b, t = dice.randint(1, 5), dice.randint(1, 12)
    lengths = torch.tensor([dice.choice([dice.randint(0, t), dice.randint(1, t), t]) for _ in range(b)])
    mask = torch.arange(t) < lengths[:, None]
    segment_starts = torch.rand(b, t, generator=generator) < dice.choice([0.0, 0.2, 0.5, 1.0])
    segment_starts[:, 0] = True

    def numbers() -> Tensor:
        return torch.where(mask, torch.randn(b, t, generator=generator, dtype=torch.float64), NAN)

    return {
        **{name: numbers() for name in ("rewards", "v_low", "v_high", "v_switch", "v_low_keep")},
        "switch_probability": torch.where(mask, torch.rand(b, t, generator=generator, dtype=torch.float64), NAN),
        "segment_starts": segment_starts,
        "terminated": torch.rand(b, generator=generator) < 0.5,
        "mask": mask,
        "v_low_final": torch.randn(b, generator=generator, dtype=torch.float64),
        "v_high_final": torch.randn(b, generator=generator, dtype=torch.float64),
        "gamma": dice.choice([0.0, 0.9, 1.0]),
        "lam_low": dice.choice([0.0, 0.7, 1.0]),
        "lam_high": dice.choice([0.0, 0.95, 1.0]),
        "lam_end": 0.0,
        "bootstrap": "next",
        "switch_credit": "segment_return",
        **more,
    }


@pytest.mark.parametrize("lam_end", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("switch_credit", SWITCH_CREDITS)
@pytest.mark.parametrize("bootstrap", BOOTSTRAPS)
def test_agrees_with_the_oracle(bootstrap: str, switch_credit: str, lam_end: float) -> None:
    for seed in range(40):
        batch = random_batch(seed, bootstrap=bootstrap, switch_credit=switch_credit, lam_end=lam_end)
        result = hierarchical_advantages(**batch)
        for b in range(len(batch["mask"])):
            for name, expected in oracle(batch, b).items():
                ours = getattr(result, name)[b]
                close(ours[: len(expected)], expected)
                assert (ours[len(expected) :] == 0).all(), f"seed {seed}: {name} is not zero on padding"


# --- identities -----------------------------------------------------------------------------------


@pytest.mark.parametrize("bootstrap", BOOTSTRAPS)
def test_one_segment_and_equal_critics_is_gae(bootstrap: str) -> None:
    for seed in range(20):
        batch = random_batch(seed, bootstrap=bootstrap)
        batch["segment_starts"] = torch.zeros_like(batch["segment_starts"])
        batch["segment_starts"][:, 0] = True
        batch["v_high"] = batch["v_low"]
        flat = turn_advantages(
            batch["rewards"],
            batch["v_low"],
            batch["terminated"],
            batch["mask"],
            gamma=batch["gamma"],
            lam=batch["lam_low"],
            bootstrap=bootstrap,
            v_final=batch["v_low_final"],
        )
        result = hierarchical_advantages(**batch)
        close(result.low, flat.advantages)
        close(result.low_target, flat.targets)


@pytest.mark.parametrize("bootstrap", BOOTSTRAPS)
def test_one_turn_a_segment_is_gae_on_v_high(bootstrap: str) -> None:
    for seed in range(20):
        batch = random_batch(seed, bootstrap=bootstrap)
        batch["segment_starts"] = torch.ones_like(batch["segment_starts"])
        flat = turn_advantages(
            batch["rewards"],
            batch["v_high"],
            batch["terminated"],
            batch["mask"],
            gamma=batch["gamma"],
            lam=batch["lam_high"],
            bootstrap=bootstrap,
            v_final=batch["v_high_final"],
        )
        result = hierarchical_advantages(**batch)
        close(result.high, flat.advantages)
        close(result.high_target, flat.targets)


def test_undiscounted_monte_carlo_is_return_minus_value() -> None:
    for seed in range(20):
        batch = random_batch(seed, gamma=1.0, lam_low=1.0, lam_high=1.0)
        batch["terminated"] = torch.ones_like(batch["terminated"])
        result = hierarchical_advantages(**batch)
        for b, length in enumerate(batch["mask"].sum(dim=1).tolist()):
            r, high, segment_starts = batch["rewards"][b, :length], batch["v_high"][b, :length], batch["segment_starts"][b, :length]
            to_go = r.flip(0).cumsum(0).flip(0)
            close(result.high[b, :length], torch.where(segment_starts, to_go - high, 0.0))
            # The low level's return ends where its segment does, with the planner's value of the next.
            for t in range(length):
                end = next((u for u in range(t + 1, length) if segment_starts[u]), None)
                level_return = to_go[t] if end is None else to_go[t] - to_go[end] + high[end]
                close(result.low[b, t], level_return - batch["v_low"][b, t])


def test_with_all_traces_open_no_value_of_the_planner_matters() -> None:
    for seed in range(20):
        batch = random_batch(seed, gamma=0.9, lam_low=1.0, lam_high=1.0, lam_end=1.0)
        batch["terminated"] = torch.ones_like(batch["terminated"])
        result = hierarchical_advantages(**batch)
        for b, length in enumerate(batch["mask"].sum(dim=1).tolist()):
            to_go = 0.0
            for t in reversed(range(length)):
                to_go = batch["rewards"][b, t] + 0.9 * to_go
                close(result.low[b, t], to_go - batch["v_low"][b, t])
                close(result.switch[b, t], to_go - batch["v_switch"][b, t])


def test_exact_values_of_a_sure_world_leave_no_advantage() -> None:
    # One reward at the end and critics that know it: nothing is better or worse than expected at any level.
    value = rows(0.9**3, 0.9**2, 0.9, 1.0)
    mask, segment_starts = torch.ones(1, 4, dtype=torch.bool), torch.tensor([[True, False, True, False]])
    result = hierarchical_advantages(
        rows(0, 0, 0, 1), value, value, value, segment_starts, torch.tensor([True]), mask, gamma=0.9, lam_low=0.8, lam_high=0.7
    )
    for level in (result.low, result.high, result.switch):
        close(level, [0, 0, 0, 0])


# --- invariances ----------------------------------------------------------------------------------

PER_TRAJECTORY = ("terminated", "v_low_final", "v_high_final")
PER_TURN = ("rewards", "v_low", "v_high", "v_switch", "v_low_keep", "switch_probability", "segment_starts", "mask")


@pytest.mark.parametrize("switch_credit", SWITCH_CREDITS)
@pytest.mark.parametrize("bootstrap", BOOTSTRAPS)
def test_invariant_to_padding_order_and_splitting(bootstrap: str, switch_credit: str) -> None:
    for seed in range(15):
        batch = random_batch(seed, bootstrap=bootstrap, switch_credit=switch_credit)
        b, t = batch["mask"].shape
        result = hierarchical_advantages(**batch)

        padded = {**batch, **{name: torch.nn.functional.pad(batch[name], (0, 3)) for name in PER_TURN}}
        order = torch.randperm(b, generator=torch.Generator().manual_seed(seed))
        shuffled = {**batch, **{name: batch[name][order] for name in (*PER_TURN, *PER_TRAJECTORY)}}
        alone = [{**batch, **{name: batch[name][[i]] for name in (*PER_TURN, *PER_TRAJECTORY)}} for i in range(b)]
        for name, ours in result._asdict().items():
            close(getattr(hierarchical_advantages(**padded), name)[:, :t], ours)
            close(getattr(hierarchical_advantages(**shuffled), name), ours[order])
            for i in range(b):
                close(getattr(hierarchical_advantages(**alone[i]), name)[0], ours[i])


def test_inputs_are_left_alone_and_no_gradient_flows() -> None:
    batch = random_batch(3)
    before = {name: value.clone() for name, value in batch.items() if isinstance(value, Tensor)}
    for name in ("v_low", "v_high", "v_switch", "v_low_final", "v_high_final"):
        batch[name] = batch[name].clone().requires_grad_()
    result = hierarchical_advantages(**batch)
    assert not any(tensor.requires_grad for tensor in result)
    for name, value in before.items():
        assert torch.equal(batch[name].nan_to_num(), value.nan_to_num()), name


def test_half_precision_critics_are_summed_in_the_rewards_precision() -> None:
    batch = random_batch(4)
    batch["rewards"] = batch["rewards"].float()
    exact = hierarchical_advantages(**batch)
    half = hierarchical_advantages(**{**batch, "v_low": batch["v_low"].bfloat16(), "v_high": batch["v_high"].bfloat16()})
    assert all(tensor.dtype == torch.float32 for tensor in half)
    torch.testing.assert_close(half.low, exact.low, atol=0.1, rtol=0.05)


@pytest.mark.parametrize("shape", [(0, 5), (3, 0)])
def test_an_empty_batch_gives_empty_advantages(shape: tuple[int, int]) -> None:
    zeros = torch.zeros(shape)
    result = hierarchical_advantages(
        zeros,
        zeros,
        zeros,
        zeros,
        zeros.bool(),
        torch.ones(shape[0], dtype=torch.bool),
        zeros.bool(),
        gamma=1.0,
        lam_low=1.0,
        lam_high=1.0,
        bootstrap="current",
    )
    assert all(tensor.shape == shape for tensor in result)


# --- normalize ------------------------------------------------------------------------------------


def test_normalize_by_hand() -> None:
    # Kept: 1, 3, 5: mean 3, population deviation sqrt(8/3).
    result = normalize(rows(1, 100, 3, 5), torch.tensor([[True, False, True, True]]))
    close(result, [-2 / (math.sqrt(8 / 3) + 1e-8), 0, 0, 2 / (math.sqrt(8 / 3) + 1e-8)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normalize_has_nothing_to_say_about_equal_or_absent_advantages(dtype: torch.dtype) -> None:
    none, every = torch.zeros(1, 7, dtype=torch.bool), torch.ones(1, 7, dtype=torch.bool)
    one = none.clone()
    one[0, 2] = True
    tenth = torch.full((1, 7), 0.1, dtype=dtype)
    for keep in (none, one, every):
        # In float32 the mean of seven 0.1 misses 0.1 by 7e-9, which 1e-8 would turn into credit.
        assert normalize(tenth, keep).abs().max() < 1e-6
    assert normalize(torch.full((1, 7), NAN, dtype=dtype), none).eq(0).all()


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"mask": torch.ones(1, 5, dtype=torch.bool)}, ValueError, r"mask has shape \(1, 5\) but \(1, 4\)"),
        ({"v_low": rows(1, 2, 3)}, ValueError, r"v_low has shape \(1, 3\)"),
        ({"terminated": torch.ones(1, 4, dtype=torch.bool)}, ValueError, r"terminated has shape \(1, 4\).*\(B,\)"),
        ({"rewards": torch.zeros(4)}, ValueError, r"rewards has shape \(4,\); it must be \(B, T\)"),
        ({"rewards": torch.zeros(1, 4, dtype=torch.long)}, ValueError, r"rewards has dtype torch.int64"),
        ({"segment_starts": torch.ones(1, 4)}, ValueError, r"starts has dtype torch.float32; it must be torch.bool"),
        ({"segment_starts": torch.tensor([[False, True, False, False]])}, ValueError, r"first turn of trajectories \[0\]"),
        ({"mask": torch.tensor([[True, False, True, True]])}, ValueError, r"before a live turn in trajectories \[0\]"),
        ({"gamma": 1.5}, ConfigError, r"gamma=1.5 is out of range"),
        ({"lam_low": NAN}, ConfigError, r"lam_low=nan is out of range"),
        ({"lam_high": -0.1}, ConfigError, r"lam_high=-0.1"),
        ({"lam_end": 1.1}, ConfigError, r"lam_end=1.1"),
        ({"switch_credit": "q_value"}, ConfigError, r"switch_credit='q_value' is unknown: it must be one of segment_return, option_value"),
        ({"bootstrap": "last"}, ConfigError, r"bootstrap='last' is unknown: it must be one of none, current, next"),
        ({"v_switch": None}, ConfigError, r"needs v_switch"),
        ({"switch_credit": "option_value"}, ConfigError, r"needs switch_probability.*v_low_keep"),
        ({"terminated": torch.tensor([False])}, ConfigError, r"needs v_low_final: 1 of 1 trajectories were truncated.*'current' or 'none'"),
        ({"terminated": torch.tensor([False]), "v_low_final": torch.zeros(1)}, ConfigError, r"needs v_high_final"),
        ({"v_low_final": torch.zeros(2), "v_high_final": torch.zeros(1)}, ValueError, r"v_low_final has shape \(2,\)"),
    ],
)
def test_refuses(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        hierarchical_advantages(**{**HAND, "terminated": torch.tensor([True]), **change})


def test_normalize_refuses() -> None:
    with pytest.raises(ValueError, match=r"keep has shape \(1, 3\)"):
        normalize(rows(1, 2), torch.ones(1, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="keep has dtype"):
        normalize(rows(1, 2), torch.ones(1, 2))

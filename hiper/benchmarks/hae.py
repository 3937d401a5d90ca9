"""How exact and how fast hierarchical advantage estimation is, on the machine at hand."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hiper.errors import DataError
from hiper.rl.hae import HierarchicalAdvantages, hierarchical_advantages, normalize
from hiper.rl.shaping import shape_rewards
from hiper.runtime.reading import read_json_object

BATCH, TURNS = 128, 50
"""The published iteration: 128 trajectories of at most 50 turns."""
REPEATS = 30


def bench(conformance: Path | None) -> dict[str, Any]:
    """Agreement with recorded cases of the authors' code, and milliseconds for a published-size batch on one thread.

    Args:
        conformance: file of recorded cases; None leaves agreement out.

    Returns:
        dict: `milliseconds` (median, 128 trajectories x 50 turns), `python_loop_milliseconds` (the same recursion on Python floats, turn by
        turn, lists in and out), `scalar_tensor_milliseconds` (on 0-d tensors turn by turn, as the authors' code does), the two ratios
        to `milliseconds`, and with `conformance` also `cases` and `max_abs_error` (over every advantage and target of every case).

    Raises:
        DataError: the file is missing or is not a set of recorded cases.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return {**(conform(conformance) if conformance else {}), **_speed()}
    finally:
        torch.set_num_threads(threads)


def conform(path: Path) -> dict[str, Any]:
    """`cases` and `max_abs_error` against the recorded cases in `path`.

    Raises:
        DataError: the file is missing or is not a set of recorded cases.
    """
    try:
        errors = [case_error(case) for case in read_json_object(path)["cases"]]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RuntimeError, OverflowError) as error:  # torch has its own
        what = str(error) if isinstance(error, DataError) else f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise DataError(f"{path} cannot be read as recorded cases ({what}). Expected hae_reference.json.") from error
    if not errors:
        raise DataError(f"{path} holds no case. Expected hae_reference.json.")
    return {"cases": len(errors), "max_abs_error": max(errors)}


def case_error(case: dict[str, Any]) -> float:
    """Largest absolute difference between our result and one recorded case, over all turns, advantages and targets."""
    config, rows = case["config"], case["rows"]
    names = sorted({row["traj"] for row in rows})
    lengths = [sum(row["traj"] == name for row in rows) for name in names]
    where = torch.tensor([(names.index(row["traj"]), row["turn"]) for row in rows]).unbind(1)
    shape = (len(names), max(lengths))
    mask = torch.arange(shape[1]) < torch.tensor(lengths)[:, None]

    def column(key: str, dtype: torch.dtype = torch.float32) -> Tensor:
        values = torch.zeros(shape, dtype=dtype)
        values[where] = torch.tensor([row[key] for row in rows], dtype=dtype)
        return values

    segment_starts = column("switch", torch.bool)
    keep = mask & ~segment_starts
    segment_starts[:, 0] = True
    subgoals = column("sg", torch.long)
    rewards = shape_rewards(
        column("r"),
        mask & ~column("valid", torch.bool),
        keep,
        subgoals != subgoals.roll(1, dims=1),
        mask,
        invalid_penalty=-config["invalid_action_penalty_coef"],
        keep_penalty=config["keep_penalty"],
        keep_mode=config["keep_penalty_mode"],
        keep_mismatch_penalty=config["keep_consistency_penalty"],
        penalize_first=True,
    )
    result = hierarchical_advantages(
        rewards,
        column("vl"),
        column("vh"),
        column("vt"),
        segment_starts,
        column("done", torch.bool).any(dim=1),
        mask,
        gamma=config["gamma"],
        lam_low=config["lam_turn"],
        lam_high=config["lam_seg"],
        bootstrap="current" if config["bootstrap_truncated"] else "none",
    )
    if config["norm_adv"]:
        result = result._replace(
            low=normalize(result.low, mask), high=normalize(result.high, segment_starts & mask), switch=normalize(result.switch, mask)
        )
    keys = ("adv_low", "adv_high", "adv_term", "ret_low", "ret_high", "ret_term")
    return max(
        float((ours[where] - torch.tensor(case["expected"][key], dtype=torch.float64)).abs().max())
        for key, ours in zip(keys, result, strict=True)
    )


def _speed() -> dict[str, float]:
    generator = torch.Generator().manual_seed(0)
    rewards, v_low, v_high, v_switch = torch.randn(4, BATCH, TURNS, generator=generator)
    segment_starts = torch.rand(BATCH, TURNS, generator=generator) < 0.3
    segment_starts[:, 0] = True
    mask = torch.arange(TURNS) < torch.randint(TURNS // 2, TURNS + 1, (BATCH, 1), generator=generator)
    mask[0] = True
    terminated = torch.rand(BATCH, generator=generator) < 0.5
    args = (rewards, v_low, v_high, v_switch, segment_starts, terminated, mask)
    gamma, lam_low, lam_high = 0.99, 0.95, 0.9

    def vectorised() -> HierarchicalAdvantages:
        return hierarchical_advantages(*args, gamma=gamma, lam_low=lam_low, lam_high=lam_high, bootstrap="none")

    def loop(scalar_tensors: bool) -> HierarchicalAdvantages:
        return turn_by_turn(*args, gamma=gamma, lam_low=lam_low, lam_high=lam_high, scalar_tensors=scalar_tensors)

    milliseconds = _median(vectorised, REPEATS)
    floats, tensors = _median(lambda: loop(False), 5), _median(lambda: loop(True), 1)
    return {
        "milliseconds": milliseconds,
        "python_loop_milliseconds": floats,
        "ratio": floats / milliseconds,
        "scalar_tensor_milliseconds": tensors,
        "scalar_tensor_ratio": tensors / milliseconds,
    }


def _median(call: Callable[[], object], repeats: int) -> float:
    """Milliseconds of one call, after one to warm up."""
    call()
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds) * 1000


@torch.no_grad()
def turn_by_turn(
    rewards: Tensor,
    v_low: Tensor,
    v_high: Tensor,
    v_switch: Tensor,
    segment_starts: Tensor,
    terminated: Tensor,
    mask: Tensor,
    *,
    gamma: float,
    lam_low: float,
    lam_high: float,
    scalar_tensors: bool = False,
) -> HierarchicalAdvantages:
    """The same equations one trajectory and one turn at a time, with no value after a truncation: what vectorising is measured against.

    Arguments and result as in `hierarchical_advantages` (`segment_return`, bootstrap `none`, under which `terminated` changes nothing).
    """
    out = torch.zeros(6, *rewards.shape, dtype=rewards.dtype)
    for b, length in enumerate(mask.sum(dim=1).tolist()):
        r, low, high, switch = ([*t[b]] if scalar_tensors else t[b].tolist() for t in (rewards, v_low, v_high, v_switch))
        cuts = (
            [t for t in range(length) if segment_starts[b, t]]
            if scalar_tensors
            else [t for t, s in enumerate(segment_starts[b, :length].tolist()) if s]
        )
        advantages: list[list[Any]] = [[0.0] * length for _ in range(6)]
        following = 0.0
        for first, end in zip(reversed(cuts), reversed([*cuts, length][1:]), strict=True):
            after = high[end] if end < length else 0.0
            chain, segment_return, discount = 0.0, after, 1.0
            for t in reversed(range(first, end)):
                chain = r[t] + gamma * (low[t + 1] if t + 1 < end else after) - low[t] + gamma * lam_low * chain
                segment_return = r[t] + gamma * segment_return
                discount *= gamma
                for level, value in ((0, chain), (2, segment_return - switch[t]), (3, chain + low[t]), (5, segment_return)):
                    advantages[level][t] = value
            following = segment_return - high[first] + discount * lam_high * following
            advantages[1][first], advantages[4][first] = following, following + high[first]
        out[:, b, :length] = torch.tensor(advantages, dtype=rewards.dtype)
    return HierarchicalAdvantages(*out)

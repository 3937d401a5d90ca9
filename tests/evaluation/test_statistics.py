"""Rules of evaluation statistics.

1. Wilson's interval: the textbook's numbers, its defining equation, sane at 0 and 1.
2. Episodes weigh the same whatever their length; rates over turns count turns; both by hand on a small set.
3. Micro and macro averages, splits and task types, last, mean-of-last and best: each under its own name.
"""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiper.evaluation import History, history, summarise, wilson
from hiper.evaluation.statistics import KEYS
from hiper.rollout.trajectory import StopReason, Trajectory, Turn


def turn(switch: bool, *, faults: tuple[str, ...] = (), admissible: bool = True, reward: float = 0.0, tokens: int = 10) -> Turn:
    return Turn("You see a mug.", "...", switch, "find a mug", "look", list(faults), admissible, reward, reward, tokens)


def episode(
    switches: str,
    won: bool,
    *,
    split: str = "valid_seen",
    task_type: str = "pick_and_place_simple",
    stop: StopReason | None = None,
    bad: int = 0,
) -> Trajectory:
    """`switches` has a letter a turn, S or K; the last `bad` turns are faulty and not admitted."""
    ended = stop or (StopReason.terminated if won else StopReason.turn_limit)
    length = len(switches)
    turns = [
        turn(
            letter == "S",
            faults=("missing_action",) if number >= length - bad else (),
            admissible=number < length - bad,
            reward=float(won and number == length - 1),
        )
        for number, letter in enumerate(switches)
    ]
    return Trajectory("a/game.tw-pddl", split, task_type, "put a mug in the sink", won, ended, turns, "The end.")


def test_wilson_of_the_textbook() -> None:
    # Newcombe 1998, Statistics in Medicine 17, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    for successes, n, expected in [
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
    ]:
        assert wilson(successes, n) == pytest.approx(expected, abs=5e-5)


@given(n=st.integers(1, 10_000), data=st.data())
def test_wilson_bounds_solve_its_equation(n: int, data: st.DataObject) -> None:
    """Each bound b satisfies (p - b)^2 = z^2 b (1 - b) / n: the score test would just not reject it."""
    successes = data.draw(st.integers(0, n))
    low, high = wilson(successes, n)
    p, z = successes / n, 1.959964
    assert 0 <= low <= p <= high <= 1
    for bound in (low, high):
        assert (p - bound) ** 2 == pytest.approx(z * z * bound * (1 - bound) / n, abs=1e-12)
    mirrored = wilson(n - successes, n)
    assert (1 - mirrored[1], 1 - mirrored[0]) == pytest.approx((low, high), abs=1e-12)


def test_wilson_at_the_ends_is_exact() -> None:
    assert wilson(0, 7)[0] == 0.0
    assert wilson(7, 7)[1] == 1.0


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_the_impossible(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match=f"successes={successes}, n={n}"):
        wilson(successes, n)


def test_by_hand() -> None:
    # Episodes of 2, 4 and 10 turns; won, won, truncated.
    overall = summarise([episode("SK", True), episode("SKSK", True), episode("S" + "K" * 9, False, bad=4)])["overall"]
    assert (overall["tasks"], overall["successes"]) == (3, 2)
    assert overall["success_rate"] == 2 / 3
    assert (overall["wilson_low"], overall["wilson_high"]) == wilson(2, 3)
    assert overall["turns_mean"] == pytest.approx(16 / 3)  # the turn-weighted mean would be (4 + 16 + 100) / 16 = 7.5
    assert overall["turns_median"] == 4
    assert (overall["turns_won_mean"], overall["turns_won_median"]) == (3, 3)
    assert overall["return_mean"] == pytest.approx(2 / 3)
    assert overall["stops"] == {"terminated": 2, "turn_limit": 1, "token_limit": 0}
    assert overall["truncated"] == 1
    assert overall["valid_rate"] == 12 / 16
    assert overall["inadmissible_rate"] == 4 / 16
    assert overall["switch_rate"] == 1 / 13  # 16 turns, 3 of them first; one SWITCH among the other 13
    assert overall["segments_mean"] == 4 / 3  # 1 + 2 + 1 segments
    assert overall["segment_turns_mean"] == 16 / 4
    assert overall["reply_tokens_mean"] == 10


def test_token_limit_counts_as_truncated() -> None:
    overall = summarise([episode("S", False, stop=StopReason.token_limit), episode("S", False)])["overall"]
    assert overall["stops"] == {"terminated": 0, "turn_limit": 1, "token_limit": 1}
    assert overall["truncated"] == 2


def test_what_cannot_be_computed_is_none() -> None:
    overall = summarise([episode("S", False)])["overall"]
    assert overall["turns_won_mean"] is None and overall["turns_won_median"] is None
    assert overall["switch_rate"] is None  # no turn after a first
    assert summarise([episode("", False)])["overall"]["valid_rate"] is None


def test_micro_and_macro_are_apart() -> None:
    # Type A: 3 of 3 won; type B: 0 of 1. Micro 3/4, macro (1 + 0) / 2.
    result = summarise([episode("S", True)] * 3 + [episode("S", False, task_type="look_at_obj_in_light")])["splits"]["valid_seen"]
    assert result["success_rate"] == 0.75
    assert result["macro_success_rate"] == 0.5
    assert {name: entry["tasks"] for name, entry in result["task_types"].items()} == {"pick_and_place_simple": 3, "look_at_obj_in_light": 1}


def test_splits_are_apart_and_in_their_usual_order() -> None:
    episodes = [episode("S", True, split="other"), episode("S", False, split="valid_unseen"), episode("S", True)]
    result = summarise(episodes, ("train", "valid_seen", "valid_unseen"))
    assert list(result["splits"]) == ["valid_seen", "valid_unseen", "other"]
    assert list(summarise(episodes)["splits"]) == ["other", "valid_seen", "valid_unseen"]
    assert [entry["success_rate"] for entry in result["splits"].values()] == [1.0, 0.0, 1.0]
    assert "macro_success_rate" not in result["overall"]


def test_the_list_of_keys_is_the_truth() -> None:
    assert tuple(summarise([episode("S", True)])["overall"]) == KEYS


def test_nothing_to_summarise_is_refused() -> None:
    with pytest.raises(ValueError, match="no trajectories"):
        summarise([])


@given(st.lists(st.tuples(st.text("SK", min_size=1, max_size=8).map(lambda text: "S" + text[1:]), st.booleans()), min_size=1, max_size=12))
def test_order_does_not_matter_and_parts_add_up(drawn: list[tuple[str, bool]]) -> None:
    episodes = [
        episode(
            switches,
            won,
            split=("valid_seen", "valid_unseen")[len(switches) % 2],
            task_type=("look_at_obj_in_light", "pick_and_place_simple")[won],
        )
        for switches, won in drawn
    ]
    result = summarise(episodes)
    assert result == summarise(episodes[::-1])
    for count in ("tasks", "successes", "truncated"):
        assert result["overall"][count] == sum(entry[count] for entry in result["splits"].values())
        for entry in result["splits"].values():
            assert entry[count] == sum(part[count] for part in entry["task_types"].values())
    # turns = segments * turns a segment
    overall = result["overall"]
    assert overall["segments_mean"] * overall["segment_turns_mean"] == pytest.approx(overall["turns_mean"])


def test_last_mean_and_best_are_three_numbers() -> None:
    found = history([(5, 0.2), (10, 0.9), (15, 0.5), (20, 0.9), (25, 0.4)], k=3)
    assert found == History(last=0.4, last_iteration=25, mean_last=(0.5 + 0.9 + 0.4) / 3, k=3, best=0.9, best_iteration=10, count=5)


def test_a_short_series_says_how_many_it_averaged() -> None:
    found = history([(5, 0.2), (10, 0.4)], k=5)
    assert found is not None
    assert found.k == 2 and math.isclose(found.mean_last, 0.3)
    assert history([]) is None


@pytest.mark.parametrize(("series", "k", "message"), [([(1, 0.0)], 0, "k=0"), ([(5, 0.1), (5, 0.2)], 3, "5 follows 5")])
def test_a_series_out_of_order_is_refused(series: list[tuple[int, float]], k: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        history(series, k)

"""Rules of comparing what arms' credit says of the same decisions.

1. The figures are those of their definition, on numbers worked by hand.
2. The first use of an appliance or lamp under the subgoal to do so is a right decision, examining in its place a wrong one.
3. All arms judge the same episodes: arms that are alike get the same figures, others do not.
4. What cannot be compared is refused with the reason: no warm start, no decisions, critics that learn by gradient.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hiper.benchmarks.credit import Decision, compare_credit, contrast, first_use
from hiper.cli.main import main
from hiper.errors import ConfigError, DataError
from hiper.experiments.comparison import Comparison
from hiper.rollout.trajectory import StopReason, Trajectory, Turn

BASE = ("experiment=smoke", "rollout.constrain=grammar", "trainer.value_fit=least_squares", "trainer.value_ridge=1.0")
FINED = (*BASE, "rollout.trajectories=16", "algo.shaping.keep_mode=fixed", "algo.shaping.keep=-0.3")
"""Nothing is won at that size; a fine is something to give credit for."""


def test_contrast_by_hand() -> None:
    # Means 3 and 1; squared deviations 2 + 2 over 4 - 2 = 2; all turns: mean 2, population deviation sqrt(10 / 4).
    found = contrast(torch.tensor([2.0, 4.0]), torch.tensor([0.0, 2.0]), torch.tensor([2.0, 4.0, 0.0, 2.0]) * 5**0.5 / 2)
    assert found == {"mean_right": 3, "mean_wrong": 1, "gap": round(2 / 2.5**0.5, 4), "clarity": round(2 / 2**0.5, 4), "clarity_error": 1}


def test_where_nothing_differs_there_is_no_ratio() -> None:
    found = contrast(torch.zeros(2), torch.zeros(3), torch.zeros(9))
    assert (found["gap"], found["clarity"]) == (None, None)


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ([("find mug", "go to shelf 1"), ("heat mug", "go to microwave 1"), ("heat mug", "heat mug 1 with microwave 1")], (2, True)),
        ([("find mug", "examine mug 1"), ("heat mug", "examine mug 1"), ("heat mug", "heat mug 1 with microwave 1")], (1, False)),
        ([("look at mug under desklamp", "use desklamp 1")], (0, True)),
        ([("find mug", "use desklamp 1"), ("put mug in shelf", "put mug 1 in/on shelf 1")], None),
    ],
)
def test_the_decision_is_the_first_use_or_what_is_done_in_its_place(turns: list[tuple[str, str]], expected: Decision | None) -> None:
    rows = [Turn("", "", number == 0, plan, action, [], True, 0.0, 0.0, 3) for number, (plan, action) in enumerate(turns)]
    assert first_use(Trajectory("g", "train", "t", "task", True, StopReason.terminated, rows, "")) == expected


def parity(trajectory: Trajectory) -> Decision:
    """A decision that a model which has learned nothing makes both ways: a command whose letters add up to an even number."""
    return 0, sum(map(ord, trajectory.turns[0].action)) % 2 == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a comparison's warm start in it."""
    folder = tmp_path_factory.mktemp("credit")
    for stage in ("tasks", "demos", "sft"):
        assert main([stage, *BASE, f"paths.run={folder / 'runs' / 'small' / 'base'}"]) == 0
    return folder


def test_all_arms_judge_the_same_episodes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    arms = {"hae": (), "again": (), "far": ("algo.lam_end=1", "algo.gamma=0.5"), "grpo": ("algo=grpo", "algo.group_size=8")}
    arms["free"] = (*arms["grpo"], "trainer.value_fit=gradient")  # of a critic that is not there
    steps: list[tuple[int, int]] = []
    comparison = Comparison("small", FINED, arms)
    found = compare_credit(comparison, rounds=1, fitted=1, decision=parity, progress=lambda *step: steps.append(step))
    assert (found["episodes"], found["right"] + found["wrong"], steps) == (16, 16, [(1, 2), (2, 2)])
    assert list(found["arms"]) == list(arms)
    assert found["arms"]["hae"] == found["arms"]["again"] != found["arms"]["far"]
    assert found["arms"]["grpo"] == found["arms"]["free"]
    assert all(arm["clarity"] is not None for arm in found["arms"].values())
    assert found == compare_credit(comparison, rounds=1, fitted=1, decision=parity)


def test_what_cannot_be_compared_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    one = {"hae": ()}
    with pytest.raises(DataError, match=r"8 episodes hold 0 right and 0 wrong decisions.*demos.lapses"):
        compare_credit(Comparison("small", (*BASE, "rollout.trajectories=8"), one), 1, 1, decision=lambda _: None)
    with pytest.raises(ConfigError, match="arm 'hae': with trainer.value_fit=gradient no critic learns"):
        compare_credit(Comparison("small", (*BASE, "trainer.value_fit=gradient"), one))
    with pytest.raises(ConfigError, match="start from a model of their own each"):
        compare_credit(Comparison("small", BASE, one, own_start=True))
    monkeypatch.chdir(folder.parent)
    with pytest.raises(ConfigError, match="has no finished 'tasks' stage"):
        compare_credit(Comparison("absent", BASE, one))


def test_bench_credit_names_a_study_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "credit", "absent.yaml"]) == 2
    assert "there is no comparison at absent.yaml" in capsys.readouterr().err

"""Accepted models evaluated again.

Rules: the first evaluation is accepted; the same inputs give the same bytes; a damaged model, other games, another setting are named; a
significant fall, or a model that cannot be evaluated, is alarming; each evaluation is a line of the history.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from hiper.cli.main import main
from hiper.errors import ConfigError, DataError
from hiper.evaluation.drift import Entry, compare, read_history
from hiper.evaluation.statistics import fell
from hiper.experiments.reevaluate import Outcome, Plan, Watched, load_plan, reevaluate

ENTRY = Entry(
    time="2026-11-25T10:00:00+00:00",
    accepted=True,
    model="a" * 64,
    tasks={"valid_unseen": "b" * 64},
    settings={"temperature": 0.4, "engine": "native"},
    versions={"torch": "2.13.0"},
    successes={"valid_unseen": (107, 120)},
    evaluation="c" * 64,
)


def test_a_fall_by_hand() -> None:
    """40 of 100, then 25 of 100: pooled 65/200; z = -0.15 / sqrt(0.325 * 0.675 * 0.02) = -2.2645; the lower tail is 0.0118."""
    assert fell((40, 100), (25, 100)) == pytest.approx(0.011774, abs=1e-5)
    assert fell((25, 100), (40, 100)) == pytest.approx(1 - fell((40, 100), (25, 100)))
    assert fell((30, 100), (30, 100)) == 0.5
    assert fell((0, 10), (0, 10)) == fell((10, 10), (10, 10)) == 1.0
    assert fell((120, 120), (0, 120)) < 1e-50
    with pytest.raises(ValueError, match="two proportions need"):
        fell((3, 2), (1, 2))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": "d" * 64}, "the model's files changed"),
        ({"tasks": {"valid_unseen": "d"}}, "the task files of valid_unseen changed"),
        ({"settings": {"temperature": 0.4, "engine": "textworld"}}, "setting engine changed (native to textworld)"),
        ({"versions": {"torch": "2.14.0"}}, "package torch changed (2.13.0 to 2.14.0)"),
        ({"settings": {"temperature": 0.0, "engine": "native"}}, "setting temperature changed (0.4 to 0.0)"),
        ({"evaluation": "d"}, "the same inputs gave other numbers"),
    ],
)
def test_what_changed_is_named(change: dict[str, object], said: str) -> None:
    drift = compare(ENTRY, dataclasses.replace(ENTRY, **change), 0.01)  # type: ignore[arg-type]
    assert said in str(drift)
    assert not drift.bad


@pytest.mark.parametrize(("won", "bad"), [(107, False), (100, False), (90, True), (0, True), (120, False)])
def test_only_a_significant_fall_is_alarming(won: int, bad: bool) -> None:
    """Of 120 tasks, 107 won before: 100 has p = 0.095, 90 has p = 0.0021."""
    drift = compare(ENTRY, dataclasses.replace(ENTRY, successes={"valid_unseen": (won, 120)}), 0.01)
    assert drift.bad is bad
    assert ("success on valid_unseen fell from 89.2 %" in str(drift)) is bad


@pytest.fixture
def plan(finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """A plan to watch a copy of the finished run."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished_run, tmp_path / "run")
    return Plan(models=[Watched(name="small", run="run")])


def again(plan: Plan, **options: bool) -> Outcome:
    return reevaluate(plan, plan.models[0], **options)


def test_the_same_inputs_give_the_same_bytes(plan: Plan) -> None:
    first = again(plan)
    written = Path("runs/reevaluations/small/evaluation/evaluation.json").read_bytes()
    second = again(plan)
    assert first.entry is not None and second.entry is not None
    assert (first.entry.accepted, second.entry.accepted) == (True, False)
    assert Path("runs/reevaluations/small/evaluation/evaluation.json").read_bytes() == written
    assert str(second.drift) == "nothing differs"
    assert [one.accepted for one in read_history(Path("reevaluations/small.jsonl"))] == [True, False]
    assert first.entry.successes["valid_unseen"][1] == 6, "the full split, whatever limit the run had"


def test_a_damaged_model_is_named(plan: Plan) -> None:
    again(plan)
    weights = Path("run/train/model/model.safetensors")
    tensors = load_file(weights)
    name = max(tensors, key=lambda key: tensors[key].numel())
    tensors[name][: len(tensors[name]) // 2] = math.pi
    save_file(tensors, weights, metadata={"format": "pt"})
    outcome = again(plan)
    assert "the model's files changed" in str(outcome.drift)
    assert again(plan, accept=True).entry is not None
    assert str(again(plan).drift) == "nothing differs", "what was accepted last is compared with"


def test_a_model_that_does_not_load_is_alarming_and_leaves_no_line(plan: Plan) -> None:
    again(plan)
    weights = Path("run/train/model/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:1000])
    outcome = again(plan)
    assert outcome.bad
    assert "small: NOT EVALUATED" in str(outcome)
    assert len(read_history(Path("reevaluations/small.jsonl"))) == 1


def test_a_changed_game_is_named(plan: Plan) -> None:
    again(plan)
    game = next(Path("run/tasks/data/valid_unseen").glob("*/*/game.tw-pddl"))
    game.write_text(game.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert str(again(plan).drift) == "the task files of valid_unseen changed"


def test_the_command_says_which_and_leaves_with_4(plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    Path("plan.yaml").write_text("models: [{name: small, run: run}, {name: gone, run: nowhere}]\n", encoding="utf-8")
    assert main(["reevaluate", "plan.yaml"]) == 4
    printed = capsys.readouterr()
    assert "small: valid_seen" in printed.out
    assert "gone: NOT EVALUATED" in printed.out
    assert printed.err.splitlines()[-1].startswith("hiper: gone: see above")


def test_the_flow_fails_and_shows_all(prefect_server: None, plan: Plan) -> None:
    from prefect.client.orchestration import get_client

    from hiper.integrations.prefect.reevaluate import reevaluate as flow

    Path("plan.yaml").write_text("models: [{name: small, run: run}, {name: gone, run: nowhere}]\n", encoding="utf-8")
    state = flow("plan.yaml", return_state=True)
    assert state.is_failed()
    assert "gone: NOT EVALUATED" in (state.message or "")
    with get_client(sync_client=True) as client:
        shown = next(one for one in client.read_artifacts() if one.key == "reevaluation")
    assert "small: valid_seen" in str(shown.data)
    assert "gone" in str(shown.data)


LEARNT = [
    "experiment=smoke",
    "rollout=grammar",
    "protocol.dialect=full",
    *("alfworld.train=8", "alfworld.valid_seen=1", "alfworld.valid_unseen=1", "alfworld.max_receptacles=6", "alfworld.max_objects=10"),
    *("alfworld.task_types=[pick_and_place_simple]", "env.max_turns=12"),
    *("demos.count=16", "alfworld.fresh=false", "alfworld.renumber=false", "alfworld.detours=0", "demos.slips=0", "demos.lapses=0"),
    *("sft.max_steps=100", "sft.batch_size=4", "sft.lr=4.0e-3", "sft.beta2=0.99"),
]
"""Eight games that a model learns by heart: it wins most of them."""


@pytest.mark.slow
def test_a_damaged_copy_fails_the_flow_by_name(prefect_server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It still loads and plays; only its success says that something is wrong with it."""
    from prefect.client.orchestration import get_client

    from hiper.integrations.prefect.reevaluate import reevaluate as flow

    monkeypatch.chdir(tmp_path)
    for stage in ("tasks", "demos", "sft"):
        assert main([stage, *LEARNT, "paths.run=learnt"]) == 0
    shutil.copytree("learnt/sft", "copy")
    watched = 'name: copy, model: copy/model, tasks: learnt/tasks, overrides: ["evaluate.splits=[train]", "evaluate.temperature=0"]'
    Path("plan.yaml").write_text(f"models: [{{{watched}}}]\n", encoding="utf-8")
    for _ in range(2):
        state = flow("plan.yaml", return_state=True)
        assert state.is_completed()
    entries = read_history(Path("reevaluations/copy.jsonl"))
    assert entries[0].evaluation == entries[1].evaluation
    won, played = entries[0].successes["train"]
    assert played == 8
    assert won >= 6, "a fall to nothing is significant"

    weights = Path("copy/model/model.safetensors")
    tensors = load_file(weights)
    for name in tensors:
        tensors[name] = tensors[name].roll(1, dims=-1)
    save_file(tensors, weights, metadata={"format": "pt"})
    state = flow("plan.yaml", return_state=True)
    assert state.is_failed()
    said = state.message or ""
    assert f"success on train fell from {100 * won / played:.1f} %" in said
    assert "the model's files changed" in said
    with get_client(sync_client=True) as client:
        shown = [str(one.data) for one in client.read_artifacts() if one.key == "reevaluation"]
    assert any("copy: FELL" in data and "the model's files changed" in data for data in shown)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("models: []\n", "at least one"),
        ("models: [{name: a/b, run: x}]\n", "they name files"),
        ("models: [{name: a}]\n", "name a run"),
        ("models: [{name: a, model: x}]\n", "a model and its tasks"),
        ("models: [{name: a, model: x, tasks: y, rev: main}]\n", "name a run"),
        ("models: [{name: a, rnu: x}]\n", "rnu"),
        ("models: [{name: a, run: x}]\nalpha: 2\n", "alpha=2.0 must lie between"),
    ],
)
def test_a_plan_that_cannot_stand_is_refused(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_plan(tmp_path / "plan.yaml")
    assert said in str(caught.value)


def test_a_damaged_history_is_named_by_line(tmp_path: Path) -> None:
    (tmp_path / "h.jsonl").write_text("{}\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"h\.jsonl:1 is not an entry"):
        read_history(tmp_path / "h.jsonl")

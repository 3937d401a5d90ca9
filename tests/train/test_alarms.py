"""Rules of the alarms.

1. An alarm goes off when its metric has been outside its limits for `patience` iterations in a row, and again after as many more; one good
   iteration ends the row. Not-a-number goes off at once. A metric that is not logged is not judged, an alarm that is off is not counted.
2. What went off, and what is coming up, is part of the run's state.
3. `stop` ends the run with an error that says how to go on, and leaves it resumable; a run of numbers that are none is not saved.
4. `rollback` returns to the newest checkpoint from before the trouble, with smaller steps and other draws, at most `rollbacks` times; it
   survives being killed like everything else. An evaluation amid what may lead to it is never the best.
"""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hiper.config import AlarmsConfig, OnAlarm, RunConfig
from hiper.errors import CollapseError
from hiper.runs import checkpoint as ckpt
from hiper.suites.tasks import TaskIndex
from hiper.train import iteration, trainer
from hiper.train.alarms import Watch
from hiper.train.trainer import train
from tests.train.running import Killed, assert_same, bits, config, killer

FINE = {
    "switch/rate": 0.3,
    "hae/mask_coverage": 1.0,
    "hae/mask_coverage_subgoal": 1.0,
    "optim/kl_ref": 0.02,
    "optim/approx_kl": 0.001,
    "optim/entropy": 0.3,
    "switch/entropy": 0.1,
}


def names(watch: Watch, *rows: dict[str, float]) -> list[list[str]]:
    return [[alarm.name for alarm in watch.look(number, FINE | row)] for number, row in enumerate(rows, 1)]


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("collapse", {"switch/rate": 0.0}),
        ("collapse", {"switch/rate": 1.0}),
        ("mask_coverage", {"hae/mask_coverage": 0.2}),
        ("mask_coverage", {"hae/mask_coverage_subgoal": 0.0}),
        ("kl", {"optim/kl_ref": 0.6}),
        ("kl", {"optim/approx_kl": 0.2}),
        ("entropy", {"optim/entropy": 0.001}),
        ("entropy", {"switch/entropy": 0.0}),
    ],
)
def test_it_goes_off_after_patience_iterations_in_a_row(name: str, bad: dict[str, float]) -> None:
    watch = Watch(AlarmsConfig(patience=2))
    assert names(watch, bad, {}, bad, bad, bad, bad) == [[], [], [], [name], [], [name]]
    assert [event["iterations"] for event in watch.events] == [2, 4]
    assert watch.quiet, "it only warns"
    assert names(Watch(AlarmsConfig(patience=1, **{name: OnAlarm.off})), bad) == [[]]


def test_what_leads_to_a_rollback_is_not_quiet() -> None:
    watch = Watch(AlarmsConfig(patience=2, collapse=OnAlarm.rollback))
    for row, quiet in (({"switch/rate": 0.0}, False), ({}, True), ({"optim/kl_ref": 9.0}, True)):
        names(watch, row)
        assert watch.quiet is quiet


def test_not_a_number_goes_off_at_once_and_names_its_metric(caplog: pytest.LogCaptureFixture) -> None:
    watch = Watch(AlarmsConfig(patience=5))
    with caplog.at_level(logging.WARNING):
        assert names(watch, {"value/loss": math.nan}) == [["nan"]]
    assert "alarm nan in iteration 1: value/loss is nan, outside the finite numbers. Lower trainer.lr_actor" in caplog.text
    assert json.loads(json.dumps(watch.events, allow_nan=False))[0]["value"] == "nan"


def test_what_is_not_logged_is_not_judged() -> None:
    assert Watch(AlarmsConfig(patience=1)).look(1, {"rollout/success_rate": 0.0}) == []


def test_it_is_part_of_the_state() -> None:
    first, second = Watch(AlarmsConfig(patience=2)), Watch(AlarmsConfig(patience=2))
    bad = {"switch/rate": 0.0}
    names(first, bad, bad, bad)
    second.restore(json.loads(json.dumps(first.state())))
    assert second.events == first.events
    assert names(second, bad) == names(first, bad) == [["collapse"]]


def alarmed(action: OnAlarm, **settings: float) -> RunConfig:
    """Every iteration's switch rate is outside limits that nothing can meet."""
    cfg = config(iterations=5, eval_every=0)
    off = dict.fromkeys(("mask_coverage", "kl", "entropy"), OnAlarm.off)
    cfg.alarms = AlarmsConfig(collapse=action, **off, switch_rate_min=0.999, switch_rate_max=1.0, patience=2, **settings)  # type: ignore[arg-type]
    return cfg


def test_stop_leaves_a_run_that_others_settings_resume(speaker: Path, task_index: TaskIndex, tmp_path: Path) -> None:
    cfg = alarmed(OnAlarm.stop)
    with pytest.raises(CollapseError, match="alarm collapse in iteration 2: switch/rate is .* outside 0.999 to 1 for 2 iterations.*resume"):
        train(cfg, speaker, task_index, tmp_path)
    assert [path.name for path in ckpt.list_checkpoints(tmp_path / "checkpoints")] == ["iteration-000001", "iteration-000002"]
    assert collapses(tmp_path) == [(2, "stop")]
    cfg.alarms.collapse = OnAlarm.warn
    assert train(cfg, speaker, task_index, tmp_path, resume=True).iterations == 5
    assert collapses(tmp_path) == [(2, "stop"), (4, "warn")]


def test_numbers_that_are_none_are_not_saved(speaker: Path, task_index: TaskIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = config(iterations=3, eval_every=0)
    real = iteration.assign_credit

    def poisoned(*given: object) -> object:
        credit = real(*given)  # type: ignore[arg-type]
        return credit._replace(advantages=credit.advantages * (math.nan if len(read(tmp_path)) == 1 else 1.0))

    monkeypatch.setattr(iteration, "assign_credit", poisoned)
    with pytest.raises(CollapseError, match="alarm nan in iteration 2"):
        train(cfg, speaker, task_index, tmp_path)
    assert [path.name for path in ckpt.list_checkpoints(tmp_path / "checkpoints")] == ["iteration-000001"]


def collapses(out: Path) -> list[tuple[int, str]]:
    events = json.loads((out / "alarms.json").read_text())
    return [(event["iteration"], event["action"]) for event in events if event["name"] == "collapse"]


def read(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_rollback_returns_to_before_the_trouble_and_then_gives_up(speaker: Path, task_index: TaskIndex, tmp_path: Path) -> None:
    with pytest.raises(CollapseError, match="alarm collapse in iteration 2: .* It came back 2 times."):
        train(alarmed(OnAlarm.rollback, rollbacks=2), speaker, task_index, tmp_path)
    assert collapses(tmp_path) == [(2, "rollback")] * 3
    values = {event["value"] for event in json.loads((tmp_path / "alarms.json").read_text()) if event["name"] == "collapse"}
    assert len(values) > 1, "another try draws otherwise"


def test_a_rollback_takes_smaller_steps_and_survives_a_kill(
    speaker: Path, task_index: TaskIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trouble in iterations 3 and 4, once: the run returns to 2, the last quiet checkpoint, though 3 and 4 were saved."""
    cfg = alarmed(OnAlarm.rollback)
    lr_scales: list[float] = []

    class Troubled(Watch):
        def look(self, iteration: int, metrics: dict[str, float]) -> list[object]:  # type: ignore[override]
            trouble = iteration in (3, 4) and not any(event["iteration"] == 4 for event in self.events)
            return super().look(iteration, metrics | {"switch/rate": 0.0 if trouble else 1.0})  # type: ignore[return-value]

    real = trainer.Learner.update

    def update(self: trainer.Learner, *given: object, lr_scale: float = 1.0, **more: object) -> object:
        lr_scales.append(lr_scale)
        return real(self, *given, lr_scale=lr_scale, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(trainer, "Watch", Troubled)
    monkeypatch.setattr(trainer.Learner, "update", update)
    train(cfg, speaker, task_index, tmp_path / "whole")
    assert lr_scales == [1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5]
    assert [row["iteration"] for row in read(tmp_path / "whole")] == [1, 2, 3, 4, 5]
    for stop in (2, 3, 5):  # before it, amid it, after it
        out = tmp_path / f"stopped-{stop}"
        with pytest.raises(Killed):
            train(cfg, speaker, task_index, out, progress=killer(stop))
        train(cfg, speaker, task_index, out, resume=True)
        assert_same(bits(out), bits(tmp_path / "whole"))
        assert (out / "alarms.json").read_bytes() == (tmp_path / "whole" / "alarms.json").read_bytes()


def test_an_evaluation_amid_trouble_is_not_the_best(
    speaker: Path, task_index: TaskIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trouble in 3 and 4, once, and the highest evaluation in 3: the rollback gives that policy up, so the best is the one of 2."""
    cfg = alarmed(OnAlarm.rollback)
    cfg.trainer.eval_every, cfg.trainer.keep_last = 1, 1

    class Troubled(Watch):
        def look(self, iteration: int, metrics: dict[str, float]) -> list[object]:  # type: ignore[override]
            trouble = iteration in (3, 4) and not self.events
            metrics["eval/success_rate"] = {1: 0.1, 2: 0.6, 3: 0.9 if trouble else 0.5}.get(iteration, 0.3)
            return super().look(iteration, metrics | {"switch/rate": 0.0 if trouble else 1.0})  # type: ignore[return-value]

    monkeypatch.setattr(trainer, "Watch", Troubled)
    summary = train(cfg, speaker, task_index, tmp_path)
    assert (summary.best_iteration, summary.best_success_rate) == (2, 0.6)
    tensors, _ = ckpt.load_checkpoint(tmp_path / "checkpoints" / "iteration-000002")
    best = load_file(tmp_path / "best" / "model.safetensors")
    assert best, "the best policy's weights are those of its checkpoint"
    for name, tensor in best.items():
        assert torch.equal(tensor, tensors[f"actor.lm.{name}"]), name

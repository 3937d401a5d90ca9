"""Trials on real small trainings: what they share, what they report, what stops them; and what a study leaves."""

from __future__ import annotations

import dataclasses
import statistics
from pathlib import Path

import pytest
from optuna import TrialPruned
from optuna.trial import TrialState

from hiper.composition.compose import compose, override
from hiper.errors import CollapseError, ConfigError
from hiper.experiments.sweep.outcome import check_best_file, record
from hiper.experiments.sweep.spec import SweepSpec
from hiper.experiments.sweep.study import SweepStudy, TrialLost
from hiper.experiments.sweep.trial import folder, run_trial, shared_stages
from hiper.experiments.sweep.worker import IN_A_ROW, work
from hiper.pipeline.stages import STAGES
from hiper.report.curves import evaluations
from hiper.runs.fingerprint import stage_fingerprint
from hiper.runs.run_dir import load_config
from hiper.runtime.lock import locked
from hiper.tracking import read_metrics


def nothing() -> None:
    """Go on."""


@pytest.fixture
def begun(finished_sweep: tuple[SweepSpec, Path], tmp_path: Path) -> tuple[SweepSpec, SweepStudy]:
    """A fresh study that finds its games, demonstrations and warm starts made."""
    spec = dataclasses.replace(finished_sweep[0], directory=str(tmp_path / "sweep"), trials=1)
    spec.place.mkdir()
    (spec.place / "base").symlink_to((finished_sweep[0].place / "base").resolve())
    return spec, SweepStudy.begin(spec)


def test_the_objective_is_the_mean_of_the_last_evaluations_over_seeds(finished_sweep: tuple[SweepSpec, Path]) -> None:
    spec, _ = finished_sweep
    for slot in SweepStudy.join(spec).slots():
        runs = [folder(spec, slot.number) / f"seed-{seed}" for seed in spec.seeds]
        series = [[value for _, value in evaluations(read_metrics(run / "train" / "metrics.jsonl"))] for run in runs]
        assert [len(values) for values in series] == [2, 2]
        assert slot.last.value == pytest.approx(statistics.fmean(statistics.fmean(values[-2:]) for values in series))
        assert sorted(slot.last.intermediate_values) == [1, 2, 3, 4], "the second seed's iterations come after the first's"
        assert slot.turns == sum(read_metrics(run / "train" / "metrics.jsonl")[-1]["env/turns"] for run in runs)


def test_trials_share_a_warm_start_a_seed(finished_sweep: tuple[SweepSpec, Path]) -> None:
    spec, _ = finished_sweep
    for seed in spec.seeds:
        places = {load_config(folder(spec, slot) / f"seed-{seed}" / "train").paths.base for slot in range(spec.trials)}
        assert len(places) == 1
    assert len(list((spec.place / "base").iterdir())) == len(spec.seeds)


def test_ended_trials_keep_no_checkpoints(finished_sweep: tuple[SweepSpec, Path]) -> None:
    spec, _ = finished_sweep
    assert not list(spec.place.glob("trials/*/*/train*/checkpoints"))
    assert (folder(spec, 0) / "seed-0" / "train" / "model" / "model.safetensors").is_file()


def test_the_best_settings_compose_and_train_to_their_objective(
    finished_sweep: tuple[SweepSpec, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec, conf = finished_sweep
    monkeypatch.setenv("HIPER_CONF", str(conf))
    best = max(SweepStudy.join(spec).slots(), key=lambda slot: slot.last.value or 0.0)
    scores = []
    for seed in spec.seeds:
        run = tmp_path / str(seed)
        cfg = compose(["experiment=small_best", f"seed={seed}", f"paths.run={run}"])
        assert cfg.algo.kl_coef == best.last.params["algo.kl_coef"]
        STAGES["train"](override(cfg, [f"paths.base={shared_stages(spec, cfg)}"]))
        metrics = run / "train" / "metrics.jsonl"
        assert metrics.read_bytes() == (folder(spec, best.number) / f"seed-{seed}" / "train" / "metrics.jsonl").read_bytes()
        scores.append(statistics.fmean(value for _, value in evaluations(read_metrics(metrics))[-spec.last :]))
    assert statistics.fmean(scores) == best.last.value


def test_a_file_of_somebody_else_is_not_overwritten(spec: SweepSpec, own_conf: Path) -> None:
    (own_conf / "experiment" / "small_best.yaml").write_text("# mine\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="was not written by the sweep 'small'"):
        check_best_file(spec)


def test_the_page_shows_every_trial(finished_sweep: tuple[SweepSpec, Path]) -> None:
    spec, _ = finished_sweep
    shown = record(SweepStudy.join(spec))
    assert [(row.number, row.state, row.iterations) for row in shown.trials] == [(n, "complete", 4) for n in range(2)]
    page = (spec.place / "report" / "report.html").read_text(encoding="utf-8")
    assert all(key in page for key in spec.space)
    assert "2 trials: 2 complete" in page
    assert "<script" not in page
    assert {path.stem for path in (spec.place / "report" / "charts").iterdir()} >= {"history", *(f"slice-{key}" for key in spec.space)}


def test_a_pruned_trial_stops_where_it_is_and_costs_less(
    begun: tuple[SweepSpec, SweepStudy], finished_sweep: tuple[SweepSpec, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, study = begun
    monkeypatch.setattr("optuna.pruners.NopPruner.prune", lambda self, study, trial: True)
    work(spec, nothing)
    (slot,) = study.slots()
    assert slot.last.state is TrialState.PRUNED
    assert sorted(slot.last.intermediate_values) == [1]
    assert 0 < slot.turns < min(full.turns for full in SweepStudy.join(finished_sweep[0]).slots())
    assert not (folder(spec, 0) / "seed-1").exists()


def test_a_stopped_trial_goes_on_from_its_checkpoint(begun: tuple[SweepSpec, SweepStudy], tmp_path: Path) -> None:
    spec, study = begun
    calls = 0

    def interrupt() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:  # before the claim, and after each iteration
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work(spec, interrupt)
    metrics = folder(spec, 0) / "seed-0" / "train.partial" / "metrics.jsonl"
    first = metrics.read_text(encoding="utf-8")
    assert list(metrics.parent.glob("checkpoints/iteration-*"))
    work(spec, nothing)
    (slot,) = study.slots()
    assert slot.last.state is TrialState.COMPLETE
    assert sorted(slot.last.intermediate_values) == [1, 2, 3, 4], "what the first attempt evaluated is reported for the second, too"
    finished = (folder(spec, 0) / "seed-0" / "train" / "metrics.jsonl").read_text(encoding="utf-8")
    assert finished.startswith(first)


def test_a_collapsed_training_counts_as_pruned(begun: tuple[SweepSpec, SweepStudy], monkeypatch: pytest.MonkeyPatch) -> None:
    spec, study = begun

    def collapse(*_: object) -> None:
        raise CollapseError("every turn is KEEP")

    collapsing = dataclasses.replace(STAGES["train"], work=collapse)
    monkeypatch.setattr("hiper.experiments.sweep.trial.STAGES", {**STAGES, "train": collapsing})
    claim = study.claim()
    assert claim is not None
    with pytest.raises(TrialPruned, match="every turn is KEEP"):
        run_trial(spec, claim, nothing)


def test_a_worker_taken_for_dead_leaves_its_trial_alone(begun: tuple[SweepSpec, SweepStudy]) -> None:
    spec, study = begun
    claim = study.claim()
    assert claim is not None

    def given_away() -> None:
        study.requeue(claim)

    with pytest.raises(TrialLost):
        run_trial(spec, claim, given_away)
    again = study.claim()
    assert again is not None
    assert again.slot == claim.slot
    with locked(folder(spec, 0) / "seed-0"):
        pass


def test_failing_trainings_are_named_and_end_the_worker(
    finished_sweep: tuple[SweepSpec, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = dataclasses.replace(finished_sweep[0], directory=str(tmp_path / "sweep"), trials=9)
    study = SweepStudy.begin(spec)

    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("hiper.experiments.sweep.trial.shared_stages", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        work(spec, nothing)
    failed = [row for row in record(study).trials if row.state == "failed"]
    assert [row.note for row in failed] == ["RuntimeError: out of memory"] * IN_A_ROW


def test_a_changed_warm_start_is_made_anew(begun: tuple[SweepSpec, SweepStudy]) -> None:
    spec, _ = begun
    before = {path.name for path in (spec.place / "base").iterdir()}
    cfg = spec.compose({"sft.lr": 0.5}, 0, spec.place / "run")
    assert stage_fingerprint(cfg, "sft") not in before
    assert stage_fingerprint(spec.compose({}, 0, spec.place), "sft") in before

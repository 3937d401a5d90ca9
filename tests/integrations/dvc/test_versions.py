"""Versioned runs.

Rules: a stage done twice leaves the same bytes; and, slowly, with the
programs themselves: a clean clone pulls and has nothing to do, a changed setting does what depends on it, models are listed.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from hiper.cli.main import main
from hiper.composition.compose import compose
from hiper.errors import ConfigError
from hiper.integrations.dvc import LOCK, PARAMS, models
from hiper.pipeline.stages import STAGES
from hiper.runs.run_dir import begin_run, load_config, save_config
from hiper.runs.stage_folder import read_stage
from tests.checkout import ROOT, commit, done, dvc, make_checkout, run


def test_the_settings_dvc_runs_under_are_of_this_version(root: Path, tmp_path: Path) -> None:
    assert main(["config", "experiment=quickstart", "--out", str(tmp_path / PARAMS)]) == 0
    assert (root / PARAMS).read_bytes() == (tmp_path / PARAMS).read_bytes(), "hiper config experiment=quickstart --out params.yaml"
    versioned = OmegaConf.load(root / "conf" / "versioned.yaml")
    assert {"override experiment": "quickstart"} in versioned.defaults


def test_stages_done_twice_leave_the_same_bytes(finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for files that say so in their name; .dvcignore leaves those out."""
    ignored = (ROOT / ".dvcignore").read_text(encoding="utf-8").splitlines()[1:]
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        shutil.copytree(finished_run, Path(name) / "run")
        monkeypatch.chdir(tmp_path / name)
        cfg = load_config(Path("run"))
        cfg.paths.run = "run"
        begin_run(cfg)
        STAGES["evaluate"](cfg, force=True)
        STAGES["report"](cfg, force=True, timestamps=False)
        monkeypatch.chdir(tmp_path)
    files = sorted(path.relative_to("one") for path in Path("one/run").glob("*/**/*") if path.is_file())
    assert len(files) > 40
    differ = {file.name for file in files if ("one" / file).read_bytes() != ("two" / file).read_bytes()}
    assert differ <= set(ignored)
    assert "times.json" in differ
    first, second = (read_stage(Path(name) / "run", "evaluate") for name in ("one", "two"))
    assert first == second


def test_a_place_without_dvc_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no .dvc/"):
        models(tmp_path)


LOCK_TEXT = """schema: '2.0'
stages:
  train: {cmd: x, outs: [{path: runs/%s/train, md5: %s.dir}]}
  evaluate: {cmd: x}
"""


@pytest.mark.parametrize(
    "damaged",
    [
        b"stages:\n  train: {\n",
        b"a: \x00\xff",
        b"[]",
        b"stages: [train]",
        b"stages: {train: {outs: [{path: [1]}]}, evaluate: {}}",
        b"stages: {train: 3, evaluate: {}}",
        b"&a [*a, *a]",
        b"[" * 5000,
        b"",
        None,
    ],
    ids=lambda damaged: "deleted" if damaged is None else str(damaged[:20]),
)
def test_a_bad_lock_in_history_is_named_and_left_out(
    damaged: bytes | None, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_checkout(tmp_path / "checkout")
    lock = folder / LOCK
    lock.write_text(LOCK_TEXT % ("first", "a" * 32), encoding="utf-8")
    commit(folder, "good")
    if damaged is None:
        lock.unlink()
    else:
        lock.write_bytes(damaged)
    commit(folder, "bad")
    bad = run("git", "rev-parse", "--short=9", "HEAD", cwd=folder).strip()
    lock.write_text(LOCK_TEXT % ("second", "b" * 32), encoding="utf-8")
    commit(folder, "good again")
    monkeypatch.setattr("hiper.integrations.dvc.versions._metrics", lambda root: None)  # seconds of DVC; see the slow test below
    assert [one.path for one in models(folder)] == ["runs/second/train/model", "runs/first/train/model"]
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warned) == (0 if damaged is None else 1)
    assert all(f"commit {bad} is left out" in message for message in warned)


@pytest.mark.slow
def test_a_bad_lock_in_history_costs_no_other_commit_its_metrics(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_checkout(tmp_path / "checkout")
    metrics = {
        "good": '{"trained": {"valid_seen": 0.5}, "tasks": {"valid_seen": 4}}',
        "odd": '{"trained": {"valid_seen": "x"}, "tasks": []}',
    }
    for name, text in metrics.items():
        stages = {
            stage: {
                "cmd": f"mkdir -p runs/{name}/{stage} && echo '{text}' > runs/{name}/{stage}/metrics.json",
                "outs": [f"runs/{name}/{stage}"],
            }
            for stage in ("train", "evaluate")
        }
        OmegaConf.save(OmegaConf.create({"stages": stages, "metrics": [f"runs/{name}/evaluate/metrics.json"]}), folder / "dvc.yaml")
        dvc(folder, "repro")
        commit(folder, name)
        good = (folder / LOCK).read_bytes()
        (folder / LOCK).write_text("stages: {", encoding="utf-8")
        commit(folder, "bad")
        (folder / LOCK).write_bytes(good)
    monkeypatch.chdir(folder)
    assert main(["models"]) == 0
    printed = capsys.readouterr()
    odd, known = printed.out.splitlines()
    assert "runs/odd/train/model" in odd
    assert "metrics not pulled" in odd
    assert "runs/good/train/model  valid_seen 50.0 %" in known
    assert printed.err.count("is left out, its dvc.lock is damaged") == 2
    assert "Traceback" not in printed.err


@pytest.fixture
def checkout(tmp_path: Path, small_settings: list[str]) -> Path:
    """A repository with this project's DVC files and settings of a small run; no cache yet."""
    folder = make_checkout(tmp_path / "checkout", "dvc.yaml", "hiper/__init__.py")
    save_config(compose([*small_settings, "paths.run=runs/small"]), folder / PARAMS, every=True)
    commit(folder, "begin")
    return folder


@pytest.mark.slow
def test_the_round_trip(checkout: Path, small_settings: list[str], tmp_path: Path) -> None:
    dvc(checkout, "repro")
    first = (checkout / LOCK).read_text(encoding="utf-8")
    commit(checkout, "a run")
    dvc(checkout, "push")

    clone = tmp_path / "clone"
    run("git", "clone", "--quiet", str(checkout), str(clone), cwd=tmp_path)
    dvc(clone, "pull")
    assert "up to date" in dvc(clone, "status")
    assert "Running stage" not in dvc(clone, "repro")
    assert (clone / LOCK).read_text(encoding="utf-8") == first

    # From nothing, without the cache: the same files, and so the same lock.
    again = tmp_path / "again"
    run("git", "clone", "--quiet", str(checkout), str(again), cwd=tmp_path)
    (again / LOCK).unlink()
    dvc(again, "repro")
    assert (again / LOCK).read_text(encoding="utf-8") == first

    # The flow has DVC do it, and leaves what DVC leaves.
    flow = tmp_path / "flow"
    run("git", "clone", "--quiet", str(checkout), str(flow), cwd=tmp_path)
    (flow / LOCK).unlink()
    run(str(Path(sys.executable).with_name("hiper")), "run", "--versioned", *small_settings, "paths.run=runs/small", cwd=flow)
    assert (flow / LOCK).read_text(encoding="utf-8") == first
    assert "up to date" in dvc(flow, "status")

    # A changed setting does its stage and those after it again.
    changes = [*small_settings, "paths.run=runs/small", "evaluate.limit=2"]
    said = dvc(clone, "exp", "run", *(word for change in changes for word in ("--set-param", change)))
    assert done(said) == ["evaluate", "report"]
    assert "evaluate.limit" in dvc(clone, "params", "diff")
    assert "tasks.valid_seen" in dvc(clone, "metrics", "diff")
    page = dvc(clone, "plots", "show", "--out", str(tmp_path / "plots")).strip().removeprefix("file://")
    assert all(name in Path(page).read_text(encoding="utf-8") for name in ("curves.csv", "evaluations.csv", "valid_unseen: all"))

    changes = [*small_settings, "paths.run=runs/small", "algo.lam_high=0.5", "trainer.lr_actor=0.01"]
    said = dvc(clone, "exp", "run", *(word for change in changes for word in ("--set-param", change)))
    assert done(said) == ["train", "evaluate", "report"]
    commit(clone, "another model")
    newest, oldest = models(clone)
    assert newest.path == oldest.path == "runs/small/train/model"
    assert newest.md5 != oldest.md5
    assert oldest.commit == run("git", "rev-parse", "HEAD~1", cwd=clone).strip()
    assert set(newest.success) == set(newest.tasks) == {"valid_seen", "valid_unseen"}
    assert os.linesep not in str(newest)

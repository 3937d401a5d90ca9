"""Rules of tracking.

1. `metrics.jsonl` holds every number, one object a line, at once; numbers stay numbers and the file stays JSON.
2. A resumed run's file is the same, byte for byte, as that of a run that never stopped.
3. Weights & Biases is neither imported nor needed unless asked for; a resumed run keeps its W&B id.
"""

from __future__ import annotations

import json
import logging
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from hiper.config import TrackingConfig, WandbMode
from hiper.errors import ConfigError, DataError, MissingDependencyError
from hiper.tracking import MetricsFile, Tracker, read_metrics

OFF = TrackingConfig()


def test_numbers_are_written_at_once_and_exactly(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path / "train", OFF, None)
    tracker.log(1, {"a/x": 0.1 + 0.2, "a/n": 3, "a/f32": np.float32(0.5), "a/t": torch.tensor(2.0)})  # type: ignore[dict-item]
    text = (tmp_path / "train" / "metrics.jsonl").read_text()  # before close
    assert text == '{"iteration": 1, "a/x": 0.30000000000000004, "a/n": 3, "a/f32": 0.5, "a/t": 2.0}\n'
    tracker.close()
    tracker.close()


def test_not_a_number_becomes_null_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), Tracker(tmp_path, OFF) as tracker:
        tracker.log(4, {"optim/kl": float("nan"), "optim/loss": float("inf"), "ok": 1.0})
    line = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(line, parse_constant=lambda name: pytest.fail(name)) == {
        "iteration": 4,
        "optim/kl": None,
        "optim/loss": None,
        "ok": 1.0,
    }
    assert "optim/kl is nan in iteration 4" in caplog.text and "optim/loss is inf" in caplog.text


def test_a_resumed_run_leaves_the_file_of_one_that_never_stopped(tmp_path: Path) -> None:
    def log(tracker: Tracker, iterations: range) -> None:
        for iteration in iterations:
            tracker.log(iteration, {"a/x": iteration / 7})
            if iteration % 2 == 0:
                tracker.log(iteration, {"eval/x": iteration / 3})

    with Tracker(tmp_path / "whole", OFF) as tracker:
        log(tracker, range(1, 9))
    path = tmp_path / "killed" / "metrics.jsonl"
    with Tracker(tmp_path / "killed", OFF) as tracker:
        log(tracker, range(1, 5))
        saved = path.stat().st_size
        log(tracker, range(5, 7))
    path.write_bytes(path.read_bytes()[:-5] + b"\xff garbage\n[[[")  # what is beyond the checkpoint is cut, not parsed
    with Tracker(tmp_path / "killed", OFF) as tracker:
        tracker.truncate_to(saved)
        log(tracker, range(5, 9))
    assert path.read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    assert not list(path.parent.glob("*.tmp"))


def test_truncating_before_everything_empties_the_file(tmp_path: Path) -> None:
    with Tracker(tmp_path, OFF) as tracker:
        tracker.log(3, {"x": 1.0})
        tracker.truncate_to(0)
        tracker.log(1, {"x": 2.0})
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"iteration": 1, "x": 2.0}]


@pytest.mark.parametrize("garbage", [b'{"iteration": 3', b"\xff\n", b'{"iteration": "3"}\n', b"[" * 5000 + b"\n"])
def test_later_iterations_are_dropped_and_all_after_garbage(tmp_path: Path, garbage: bytes) -> None:
    path = tmp_path / "timings.jsonl"
    kept = b'{"iteration": 1, "x": 1.0}\n{"iteration": 2, "x": 1.0}\n'
    path.write_bytes(kept + garbage + b'{"iteration": 2, "x": 1.0}\n')
    file = MetricsFile(path)
    file.truncate_after(2)
    assert path.read_bytes() == kept
    file.truncate_after(1)
    file.close()
    assert path.read_bytes() == kept[: len(kept) // 2]


def test_going_back_without_truncating_is_refused(tmp_path: Path) -> None:
    with Tracker(tmp_path, OFF) as tracker:
        tracker.log(3, {"x": 1.0})
        with pytest.raises(ValueError, match=r"iteration 2 comes after 3.*truncate_after\(2\)"):
            tracker.log(2, {"x": 1.0})


def test_a_metric_may_not_be_called_iteration(tmp_path: Path) -> None:
    with Tracker(tmp_path, OFF) as tracker, pytest.raises(ValueError, match="named 'iteration'"):
        tracker.log(2, {"iteration": 1.0})


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"iteration": 1, "x": 1.0}\n{"iteration": 2, "x"')
    assert read_metrics(path) == [{"iteration": 1, "x": 1.0}]


@pytest.mark.parametrize(
    "line", ["{", "[1]", '{"x": 1}', '{"iteration": "1"}', "\xff", '{"iteration": 2, "x": "1"}', '{"iteration": 2, "x": 1e999}']
)
def test_damage_inside_the_file_is_named_by_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"iteration": 1}\n' + line.encode("latin-1") + b'\n{"iteration": 3}\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl:2"):
        read_metrics(path)


def test_missing_metrics_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There are no metrics at"):
        read_metrics(tmp_path / "metrics.jsonl")


def test_a_full_disk_is_a_clear_error_and_costs_only_its_own_line(tmp_path: Path) -> None:
    """The kernel takes part of a line and refuses the rest, through a limit on the size of files."""
    path = tmp_path / "metrics.jsonl"
    tracker = Tracker(tmp_path, OFF)
    tracker.log(1, {"x": 1.0})
    saved = path.stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, limits[1]))
    try:
        with pytest.raises(DataError, match=r"iteration 2 could not be written to .*File too large"):
            tracker.log(2, {"x": 2.0})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    tracker.close()
    assert not path.read_bytes().endswith(b"\n")
    with Tracker(tmp_path, OFF) as tracker:
        tracker.truncate_to(saved)
        tracker.log(2, {"x": 2.0})
    assert read_metrics(path) == [{"iteration": 1, "x": 1.0}, {"iteration": 2, "x": 2.0}]


def test_wandb_is_not_imported_unless_asked(tmp_path: Path) -> None:
    program = """
import pathlib, sys
from hiper.config import TrackingConfig
from hiper.tracking import Tracker
Tracker(pathlib.Path(sys.argv[1]), TrackingConfig(), {}).close()
assert "wandb" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)


def test_wandb_missing_is_said_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'hiper\[wandb\]'`, or set tracking\.wandb=off"):
        Tracker(tmp_path, TrackingConfig(wandb=WandbMode.offline))


@pytest.mark.slow
def test_an_offline_run_needs_no_key_and_resumes_under_its_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_API_KEY", "s3cr3t" * 7)
    cfg = TrackingConfig(wandb=WandbMode.offline, project="test")
    for iterations in (range(1, 4), range(3, 5)):
        with Tracker(tmp_path, cfg, {"seed": 7}) as tracker:
            lines = (tmp_path / "metrics.jsonl").read_bytes().splitlines(keepends=True)
            tracker.truncate_to(sum(map(len, lines[: iterations[0] - 1])))
            for iteration in iterations:
                tracker.log(iteration, {"a/x": iteration / 2})
    identity = (tmp_path / "wandb-id.txt").read_text().strip()
    runs = sorted((tmp_path / "wandb").glob("offline-run-*"))
    assert len(runs) >= 1 and all(run.name.endswith(identity) for run in runs)
    assert [record["iteration"] for record in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4]
    files = [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_symlink()]
    assert files and not any(b"s3cr3t" in path.read_bytes() for path in files)


def test_wandb_that_does_not_start_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")

    def refuse(**_: object) -> None:
        raise wandb.errors.UsageError("No API key configured.")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(ConfigError, match=r"tracking\.wandb=online did not start: No API key configured\..*use offline"):
        Tracker(tmp_path, TrackingConfig(wandb=WandbMode.online))
    assert not (tmp_path / "wandb-id.txt").exists()

"""A push that fails half way: a remote that is full, or turns read-only, or `dvc push` killed; real file systems, slow.

Rules: the next push completes it, and a clone then pulls every byte; until then `hiper` says what is missing, without a traceback.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from hiper.composition.compose import compose
from hiper.integrations.dvc import PARAMS, dvc_command, dvc_environment
from hiper.runs.run_dir import save_config
from tests.checkout import commit, dvc, make_checkout, run

pytestmark = pytest.mark.slow

RUN = "runs/small"
SPACE = 512 * 2**20
"""Bytes: more than the run has."""


@pytest.fixture
def checkout(tmp_path: Path, small_settings: list[str], finished_run: Path) -> Path:
    """A repository with a versioned run, committed and not pushed."""
    folder = make_checkout(tmp_path / "checkout", "dvc.yaml", "hiper/__init__.py")
    save_config(compose([*small_settings, f"paths.run={RUN}"]), folder / PARAMS, every=True)
    shutil.copytree(finished_run, folder / RUN)
    dvc(folder, "commit", "--force")
    commit(folder, "a run")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Path]:
    """The remote: a file system of its own, which only root can make."""
    folder = tmp_path / "dvc-store"
    folder.mkdir()
    try:
        run("mount", "-t", "tmpfs", "-o", f"size={SPACE}", "tmpfs", str(folder), cwd=tmp_path)
    except (AssertionError, FileNotFoundError) as error:  # only root may mount, and not in every container
        pytest.skip(f"no file system can be mounted here: {error}")
    yield folder
    run("umount", str(folder), cwd=tmp_path)


def remount(store: Path, options: str) -> None:
    run("mount", "-o", f"remount,{options}", str(store), cwd=store.parent)


def test_a_push_to_a_full_remote_is_completed_by_the_next(checkout: Path, store: Path) -> None:
    remount(store, f"size={sum(file.stat().st_size for file in (checkout / '.dvc/cache').rglob('*') if file.is_file()) // 2}")
    said = fails(checkout, "push")
    assert "No space left on device" in said
    half_pushed(checkout, store)
    remount(store, f"size={SPACE}")
    completed(checkout)


def test_a_push_to_a_remote_that_turns_read_only_is_completed_by_the_next(checkout: Path, store: Path) -> None:
    process = start_push(checkout)
    when_begun(store, process)
    # Files that are open for writing keep it writable: try until a moment between two of them.
    while process.poll() is None and subprocess.run(["mount", "-o", "remount,ro", str(store)], capture_output=True, check=False).returncode:
        pass
    assert process.wait(300) != 0
    assert process.stdout is not None
    assert "Read-only file system" in process.stdout.read()
    half_pushed(checkout, store)
    remount(store, "rw")
    completed(checkout)


def test_a_killed_push_is_completed_by_the_next(checkout: Path, tmp_path: Path) -> None:
    store = tmp_path / "dvc-store"
    process = start_push(checkout)
    when_begun(store, process)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    half_pushed(checkout, store)
    completed(checkout)


def start_push(checkout: Path) -> subprocess.Popen[str]:
    command = [dvc_command(), "push", "--jobs", "1"]
    return subprocess.Popen(
        command, cwd=checkout, env=dvc_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def when_begun(store: Path, process: subprocess.Popen[str]) -> None:
    while len(objects(store)) < 5:
        assert process.poll() is None, "it was too quick"
        time.sleep(0.005)


def objects(store: Path) -> set[str]:
    """Hashes of what the remote has; DVC gives a file its name when all of it is there."""
    return {file.parent.name + file.name for file in store.glob("files/md5/??/*") if not file.name.endswith(".tmp")}


def half_pushed(checkout: Path, store: Path) -> None:
    """Some of it is there, and a clone is told so."""
    wanted = objects(checkout / ".dvc" / "cache")
    there = objects(store)
    assert set() < there < wanted
    clone = clone_of(checkout, "too-early")
    assert "not found" in (said := fails(clone, "pull").lower()) or "missing" in said
    said = hiper(clone, 0, "models")
    assert f"{RUN}/train/model" in said
    plan = OmegaConf.create({"models": [{"name": "small", "run": RUN, "rev": "HEAD"}]})
    (clone / "plan.yaml").write_text(OmegaConf.to_yaml(plan), encoding="utf-8")
    said = hiper(clone, 4, "reevaluate", "plan.yaml")
    assert "NOT EVALUATED, DVC cannot fetch runs/small/" in said
    assert "`dvc push` where it was made" in said


def completed(checkout: Path) -> None:
    """The next push brings what is missing, and no more; a clone has every byte."""
    assert "pushed" in dvc(checkout, "push")
    assert "Everything is up to date" in dvc(checkout, "push")
    clone = clone_of(checkout, "clone")
    dvc(clone, "pull")
    assert "up to date" in dvc(clone, "status")
    files = [file.relative_to(checkout) for file in (checkout / RUN).rglob("*") if file.is_file()]
    ignored = (checkout / ".dvcignore").read_text(encoding="utf-8").splitlines()
    compared = [file for file in files if file.name not in ignored and file.parent != Path(RUN)]
    assert len(compared) > 40
    assert all((clone / file).read_bytes() == (checkout / file).read_bytes() for file in compared)
    assert "metrics not pulled" not in hiper(clone, 0, "models")


def clone_of(checkout: Path, name: str) -> Path:
    run("git", "clone", "--quiet", str(checkout), str(checkout.parent / name), cwd=checkout.parent)
    return checkout.parent / name


def fails(folder: Path, *arguments: str) -> str:
    """What a dvc command that must fail says."""
    ran = subprocess.run([dvc_command(), *arguments], cwd=folder, env=dvc_environment(), capture_output=True, text=True, check=False)
    assert ran.returncode != 0
    return ran.stdout + ran.stderr


def hiper(folder: Path, code: int, *arguments: str) -> str:
    """What a command of ours says, which must leave with this code and without a traceback."""
    command = [str(Path(sys.executable).with_name("hiper")), *arguments]  # not -m: the checkout has a folder of that name
    ran = subprocess.run(command, cwd=folder, env=dvc_environment(), capture_output=True, text=True, check=False)
    assert ran.returncode == code, ran.stdout + ran.stderr
    assert "Traceback" not in ran.stdout + ran.stderr
    return ran.stdout + ran.stderr

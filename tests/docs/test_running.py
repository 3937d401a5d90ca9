"""Rules of the guides: what they show works, as a user would do it; slow, `make test-docs`.

1. Each page is a story: its blocks are run in their order, in one shell, in a checkout of their own; a later command uses what an earlier
   one made. README begins with a fresh checkout, and the other pages after its `make run`.
2. `tests/docs/small.py` states how sizes are made small and placeholders filled in; `tests/docs/guides.py` what a mark is that a line is
   not tried.
3. Every command ends with exit code 0, and no flow fails; servers listen on the loopback interface and end with the page; nothing outlives
   it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.docs.guides import Step, blocks_of, pages, steps
from tests.docs.small import RECORDED, copy_checkout, environment, filled
from tests.processes import MARK, living, marked, orphans

pytestmark = pytest.mark.slow

SERVERS = ("make server", "make worker", "optuna-dashboard")
"""Commands that stay until the page ends."""
LISTENING = ("make server", "optuna-dashboard")
"""Those that are waited for until they answer on `$PORT`, which is free and another for each."""
SECONDS = 3600.0
"""Most that a page may take; the machine may be busy."""

GIVEN = """import torch
rewards, v_low, v_high, v_switch = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0))
segment_starts = torch.tensor([[True, False, True], [True, False, False]])
terminated, mask = torch.tensor([True, False]), torch.ones(2, 3, dtype=torch.bool)
DIR = "../catalogue"
"""
"""What a Python block may take for granted: a batch of two trajectories of three turns, and where a catalogue is."""

# Each background job is a process group, which ends as by Ctrl-C in its terminal.
HEAD = r"""shopt -s expand_aliases
set -m
trap 'for job in $(jobs -p); do kill -INT -- -$job; done; wait' EXIT
failed() { code=$?; echo "FAILED with exit code $code: $1"; exit 1; }
listening() { until (exec 3<>/dev/tcp/127.0.0.1/$PORT) 2>/dev/null; do sleep 0.2; kill -0 $! || exit 1; done; }
"""

TOLD = [page for page in pages() if any(step.reason is None for block in blocks_of(page) for step in steps(block))]
"""Pages with something to run."""


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_checkout(tmp_path_factory.mktemp("fresh") / "checkout")


@pytest.fixture(scope="module")
def after_make_run(fresh: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    shutil.copytree(fresh.parent, folder, symlinks=True, dirs_exist_ok=True)
    tell(["hiper run experiment=quickstart --direct || failed 'the run that guides take for granted'"], folder / "checkout")
    return folder / "checkout"


@pytest.mark.parametrize("page", TOLD)
def test_its_commands_work(page: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    begin: Path = request.getfixturevalue("fresh" if page == "README.md" else "after_make_run")
    shutil.copytree(begin.parent, tmp_path / "place", symlinks=True)
    story = [step for block in blocks_of(page) for step in steps(block) if step.reason is None]
    recorded = Path(environment(tmp_path)["HIPER_SHARED"]).is_dir()
    left = [step.command for step in story if RECORDED in filled(step) and not recorded]
    tell(script(step for step in story if step.command not in left), tmp_path / "place/checkout")
    if left:  # recordings of other projects are not ours to carry
        pytest.skip(f"all but {left} was run: no reference data in {environment(tmp_path)['HIPER_SHARED']}; set HIPER_SHARED")


def script(story: Iterable[Step]) -> list[str]:
    """Lines for bash."""
    lines = []
    for step in story:
        command = filled(step)
        lines.append(f"echo {shlex.quote(f'--- {step.block.page}:{step.block.line}: {command}')}")
        failed = f"|| failed {shlex.quote(f'{step.block.page}, block at line {step.block.line}: {command}')}"
        if step.block.language == "python":
            lines.append(f"python - <<'END' {failed}\n{GIVEN}{command}\nEND")
        elif command.startswith(SERVERS):
            lines += [f"export PORT={free_port()}", f"{command} &", "listening"] if command.startswith(LISTENING) else [f"{command} &"]
        else:
            lines.append(f"{command} {failed}")
    return lines


def tell(lines: list[str], checkout: Path) -> None:
    """Run them in one shell in a checkout; what was said is in `said.txt` beside it, where a failure shows the end of it."""
    _, mark = marked()
    said = checkout.parent / "said.txt"
    with said.open("w", encoding="utf-8") as out:
        shell = subprocess.Popen(
            ["bash", "-c", HEAD + "\n".join(lines)],
            cwd=checkout,
            env=environment(checkout) | {MARK: mark},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        try:
            code = shell.wait(SECONDS)
        finally:
            left = living(mark) if shell.poll() is None else orphans(mark)
            for process in left:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
    text = said.read_text(encoding="utf-8", errors="replace")
    assert code == 0, text[-4000:]
    assert "Finished in state Failed" not in text, "a flow failed that no command waited for"
    assert left == {}, "these outlived the page"


def free_port() -> int:
    """One of the loopback interface that nothing listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])

"""Two commands want one run's directory at once, under different settings: one works, the other is refused.

Fifty times, seeded: the second starts at a random moment of the first one's life. Whoever was let in has the directory to itself from its
first look at it to its end, so that config and results belong together: they are those of that contender's undisturbed run, to the bit.

44 times both run `hiper run --direct`; three times the first is a Prefect flow; three times it is one whose stages have processes of their
own, as on a GPU. The second is direct, which is quick to find a gap between two stages. `make prove-lock` shows each.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from hiper.errors import ConfigError
from hiper.runs.run_dir import load_config
from tests.crash.compare import Files, damaged_stages, differences, files
from tests.crash.processes import ENVIRONMENT, hiper, hiper_command

pytestmark = pytest.mark.slow

COUNTS = {"direct": 44, "flow": 3, "processes": 3}
"""How the first contender does its stages -> how often."""

SETTINGS = ["evaluate.limit=1", "evaluate.baseline=false"]
GAMMAS = {"first": 0.9, "second": 0.8}

LIMIT_SECONDS = 600.0

IN_PROCESSES = (
    "import sys, hiper.runtime.device; hiper.runtime.device.uses_cuda = lambda cfg: True; from hiper.cli.main import main; sys.exit(main())"
)
"""`hiper` that takes this machine for one with a GPU when it decides in which process a stage is done."""


@dataclass(frozen=True)
class Contest:
    """What came of two contenders."""

    offset: float
    codes: Mapping[str, int]
    said: Mapping[str, str]


@pytest.fixture(scope="module")
def base(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose games, demonstrations and warm start are done."""
    run = shutil.copytree(finished_run, tmp_path_factory.mktemp("base") / "run")
    for stage in ("train", "evaluate", "report"):
        shutil.rmtree(run / stage)
    return run


@pytest.fixture(scope="module")
def undisturbed(base: Path, small_settings: list[str]) -> dict[str, Files]:
    """The files of each contender's run when it is alone."""
    found = {}
    for name in GAMMAS:
        run = shutil.copytree(base, base.with_name(name))
        code, said = hiper(run, *arguments(name, run, small_settings), "--direct")
        assert code == 0, said
        found[name] = files(run)
    assert differences(*found.values()), "they differ in their results"
    return found


@pytest.mark.parametrize("way", COUNTS)
def test_one_works_and_the_other_is_refused(
    way: str, base: Path, undisturbed: dict[str, Files], small_settings: list[str], tmp_path: Path
) -> None:
    rng = random.Random(f"contest-{way}")
    life = contest(way, shutil.copytree(base, tmp_path / "alone"), small_settings, None).offset
    wrong, refused = [], 0
    for number in range(COUNTS[way]):
        run = shutil.copytree(base, tmp_path / f"run-{number}")
        came = contest(way, run, small_settings, rng.uniform(0.0, 0.9 * life))
        problem = problem_of(came, run, undisturbed)
        refused += ConfigError.exit_code in came.codes.values()
        print(
            f"{way} {number + 1:>2}: second after {came.offset:4.1f} of {life:.1f} s, exit codes {came.codes}: {problem or 'good'}",
            flush=True,
        )
        if problem:
            wrong.append(problem)
        shutil.rmtree(run)
    print(f"{way}: {COUNTS[way] - len(wrong)} of {COUNTS[way]} good; {refused} times one was refused, else it came after the other")
    assert wrong == []
    assert refused > COUNTS[way] / 2, "they were there at the same time"


def contest(way: str, run: Path, settings: Sequence[str], offset: float | None) -> Contest:
    """Let both come; with no offset the first alone, whose life is then the contest's offset."""
    environment = {name: value for name, value in ENVIRONMENT.items() if name != "PREFECT_API_URL"}
    commands = {
        "first": {
            "direct": hiper_command(*arguments("first", run, settings), "--direct"),
            "flow": hiper_command(*arguments("first", run, settings)),
            "processes": [sys.executable, "-c", IN_PROCESSES, *arguments("first", run, settings)],
        }[way],
        "second": hiper_command(*arguments("second", run, settings), "--direct"),
    }
    running: dict[str, subprocess.Popen[str]] = {}
    logs = {name: run.with_name(f"{run.name}-{name}.log") for name in commands}
    started = time.monotonic()
    try:
        for name, command in commands.items():
            if name == "second":
                if offset is None:
                    break
                time.sleep(offset)
            with logs[name].open("w", encoding="utf-8") as log:
                more = {"PREFECT_HOME": str(run.with_name(f"{run.name}-prefect"))}
                running[name] = subprocess.Popen(command, cwd=run.parent, env={**environment, **more}, stdout=log, stderr=log, text=True)
        codes = {name: process.wait(timeout=LIMIT_SECONDS) for name, process in running.items()}
    finally:
        for process in running.values():
            process.kill()
            process.wait()
    said = {name: logs[name].read_text(encoding="utf-8") for name in running}
    if offset is None:
        assert codes == {"first": 0}, said["first"]
    return Contest(time.monotonic() - started if offset is None else offset, codes, said)


def arguments(name: str, run: Path, settings: Sequence[str]) -> list[str]:
    """Of `hiper`, for a contender."""
    return ["run", *settings, *SETTINGS, f"algo.gamma={GAMMAS[name]}", f"paths.run={run}"]


def problem_of(came: Contest, run: Path, undisturbed: Mapping[str, Files]) -> str | None:
    """What is wrong with how a contest came out; None: nothing."""
    winners = [name for name, code in came.codes.items() if code == 0]
    for name, code in came.codes.items():
        if code != 0 and (code != ConfigError.exit_code or "another process works in" not in came.said[name]):
            return f"{name} ended with {code}: {came.said[name].strip().splitlines()[-1]}"
    if not winners:
        return "both were refused"
    winner = winners[-1]  # where both were let in, the second came when the first had ended
    gamma = load_config(run).algo.gamma
    if gamma != GAMMAS[winner]:
        return f"{winner} worked, but the run's config is the other's"
    differing = [*differences(files(run), undisturbed[winner]), *damaged_stages(run)]
    return f"{winner} worked, but {len(differing)} files are not its own: {', '.join(differing[:3])}" if differing else None

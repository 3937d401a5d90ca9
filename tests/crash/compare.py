"""What of a run must not depend on what happened to it: every file of its six stages, but for places and times of day."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from hiper.errors import DataError
from hiper.report import write_report
from hiper.runs.stage import REPORT_FILE, STAGES
from hiper.runs.stage_folder import verify_stage

Files = dict[str, bytes]
"""Name -> contents."""

OF_THE_DAY = {"times.json", "timings.jsonl", "seen.json", "environment.json", f"report/{REPORT_FILE}", "report/curves/seconds.svg"}
"""Files that say when, how long and on what machine, by name or by path. The page is compared without that instead."""


def files(run: Path, stages: Iterable[str] = STAGES, *, page: bool = True) -> Files:
    """The files of a run's stages as they would be in any other run under the same settings.

    Args:
        run: the run's directory.
        stages: of which stages.
        page: also the report's page, written anew without times of day; the run has to be whole for that.
    """
    found: Files = {}
    for stage in stages:
        for path in (run / stage).rglob("*"):
            name = path.relative_to(run).as_posix()
            manifest = path.name == "manifest.json" and path.parent == run / stage  # of files that differ as above; see `damaged_stages`
            if path.is_file() and not manifest and not OF_THE_DAY.intersection((path.name, name)):
                found[name] = _plain(path).replace(str(run).encode(), b"RUN")
        if page and stage == "report" and (run / stage).is_dir():
            found[f"report/{REPORT_FILE}"] = _page(run).replace(str(run).encode(), b"RUN")
    return found


def assert_same(run: Path, undisturbed: Path, stages: Iterable[str] = STAGES) -> int:
    """Every file is that of the undisturbed run, and nothing is left over; how many files were compared."""
    ours, theirs = files(run, stages), files(undisturbed, stages)
    assert (names := differences(ours, theirs)) == [], f"these differ: {names}"  # pytest explains asserts of test modules alone
    assert (damaged := damaged_stages(run)) == [], f"these are damaged: {damaged}"
    assert _timed(run) == _timed(undisturbed)
    assert _names(run) == _names(undisturbed)
    return len(ours)


def differences(ours: Files, theirs: Files) -> list[str]:
    """Names of the files that differ or that one of them lacks."""
    return [name for name in sorted({*ours, *theirs}) if ours.get(name) != theirs.get(name)]


def damaged_stages(run: Path) -> list[str]:
    """Stages whose files are not those that they wrote, each hashed anew."""
    damaged = []
    for stage in STAGES:
        try:
            verify_stage(run, stage, full=True)
        except DataError:
            damaged.append(stage)
    return damaged


def _timed(run: Path) -> list[int]:
    """Iterations whose seconds are known. A power cut may lose some, a kill does not."""
    return [json.loads(line)["iteration"] for line in (run / "train" / "timings.jsonl").read_text(encoding="utf-8").splitlines()]


def _names(run: Path) -> list[str]:
    return sorted(path.name for path in run.iterdir() if not path.name.startswith(".lock"))


def _plain(path: Path) -> bytes:
    contents = path.read_bytes()
    if path.name == "config.yaml":  # a copied run's says where it was made
        return re.sub(rb"(?m)^(paths:\n  run: ).*$", rb"\1RUN", contents)
    with suppress(ValueError, KeyError):  # damaged: compared as it is
        if path.name == "stage.json":  # digests of files that name the run's place differ with it
            return json.dumps(json.loads(contents)["facts"]).encode()
    return contents


def _page(run: Path) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return write_report(run, Path(folder) / REPORT_FILE, timestamps=False).read_bytes()

"""After a power cut: what the disk holds, what going on does, and whether the run ends as if nothing had happened."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hiper.pipeline.stages import STAGES
from tests.crash.compare import Files, damaged_stages, differences, files
from tests.crash.disk import Disk
from tests.crash.power import Cut
from tests.crash.processes import hiper


@dataclass(frozen=True)
class Recovery:
    """One power cut and what came of it."""

    cut: Cut
    found: str
    """On the disk, before anything was done."""
    outcome: str
    """Which stages were done again or continued; or what went wrong."""
    good: bool

    def __str__(self) -> str:
        return f"{self.cut.moment!s:<32} {self.cut.working or 'between':<10} {self.found:<60} {self.outcome}"


def recover(disk: Disk, cut: Cut, run: Path, arguments: Sequence[str], undisturbed: Files) -> Recovery:
    """Start the machine again and let the run go on to its end.

    Args:
        disk: where the run lies.
        cut: the power cut.
        run: the run's directory.
        arguments: of the command that was at work; given again where nothing was left that could be resumed.
        undisturbed: the files of a run that nothing disturbed.
    """
    disk.mount(cut.image)
    found = survey(run, undisturbed)
    if (run / "config.yaml").exists():
        arguments = ["resume", "--direct", str(run)]
    code, said = hiper(disk.place.parent, *arguments)
    if code != 0:
        message = (said.strip().splitlines() or [""])[-1].replace(str(run), "RUN")
        return Recovery(cut, found, f"ended with {code}: {message[:120]}", False)
    differing = differences(files(run), undisturbed)
    damaged = damaged_stages(run)
    if differing or damaged:
        where = sorted({name.split("/")[0] for name in differing} | set(damaged))
        return Recovery(cut, found, f"SAYS DONE, BUT {len(differing)} files differ: {', '.join(where)}", False)
    return Recovery(cut, found, "; ".join([outcome(said), *leftovers(run)]), True)


def survey(run: Path, undisturbed: Files) -> str:
    """What a disk holds of a run: stages that are done, files of theirs that are not as they should be, and stages that were begun."""
    done = [stage for stage in STAGES if (run / stage / "stage.json").exists()]
    begun = [stage for stage in STAGES if (run / f"{stage}.partial").exists()]
    wanted = {name: text for name, text in undisturbed.items() if name.split("/")[0] in done}
    bad = [name for name in differences(files(run, done, page=False), wanted) if name != "report/report.html"]
    parts = [f"done: {' '.join(done)}"] if done else []
    parts += [f"damaged: {len(bad)} files of {' '.join(sorted({name.split('/')[0] for name in bad}))}"] if bad else []
    parts += [f"begun: {' '.join(begun)}"] if begun else []
    return "; ".join(parts) or "nothing"


def leftovers(run: Path) -> list[str]:
    """What a finished run holds that none needs."""
    known = {*STAGES, "config.yaml", "environment.json"}
    return [f"{path.name} is left" for path in sorted(run.iterdir()) if path.name not in known and not path.name.startswith(".lock")]


def outcome(said: str) -> str:
    """What a command said that it did."""
    again = [stage for stage in STAGES if re.search(rf" {stage.replace('_', ' ')}: [\d.]+ s\b", said)]
    continued = [stage for stage in again if f" {stage}: continuing the work in" in said]
    parts = [f"{stage} {'continued' if stage in continued else 'done again'}" for stage in again]
    return ", ".join(parts) or "all was done"

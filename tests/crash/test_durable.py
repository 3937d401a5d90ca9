"""The power is cut at twenty random moments over all stages of a run of either suite; each run goes on and ends with the same bits.

1. After each cut the disk holds stages that are done and whole, or not done; never one that says it is done and is damaged.
2. Going on does the rest, from a checkpoint where there is one, and ends with every file of a run that nothing disturbed.
3. Where files are not forced to the disk, the same proof fails: it can.

`make prove-durable` shows a table of moments, what was found on the disk, and what came of it. See `disk.py` for what a cut loses.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from hiper.pipeline.stages import STAGES
from tests.crash.compare import differences, files
from tests.crash.disk import Disk
from tests.crash.power import Done, During, Moment, Watch, work
from tests.crash.processes import hiper_command, hiper_to
from tests.crash.recovery import Recovery, recover
from tests.crash.suites import SUITES

pytestmark = pytest.mark.slow

AFTER_DONE = 4
"""Moments, of the ten of a suite, that follow shortly on a stage's end."""
AFTER_DONE_SECONDS = 8.0


def random_moments(suite: str, undisturbed: Watch) -> list[Moment]:
    """One within each stage, and some within seconds after one was said to be done."""
    rng = random.Random(f"power-{suite}")
    within: list[Moment] = [During(stage, rng.uniform(0.0, undisturbed.ended[stage] - undisturbed.begun[stage])) for stage in STAGES]
    after: list[Moment] = [Done(stage, rng.uniform(0.0, AFTER_DONE_SECONDS)) for stage in rng.sample(list(STAGES), AFTER_DONE)]
    return within + after


@pytest.fixture(scope="module")
def table() -> Iterator[list[tuple[str, Recovery]]]:
    """What came of each case; shown at the end."""
    rows: list[tuple[str, Recovery]] = []
    yield rows
    for suite, row in rows:
        print(f"\n{'good' if row.good else 'BAD ':<5}{suite:<10}{row}", end="")
    print(f"\n{sum(row.good for _, row in rows)} of {len(rows)} power cuts: a stage was done again, or the run ended with the same bits")


@pytest.mark.parametrize("suite", SUITES)
def test_a_power_cut_at_any_moment_is_survived(suite: str, disk: Disk, table: list[tuple[str, Recovery]]) -> None:
    run = disk.place / "run"
    arguments = ["run", "--direct", *SUITES[suite], f"paths.run={run}"]
    _, watch = work(disk, run, hiper_command(*arguments), [], list(STAGES))
    undisturbed = files(run)
    print(f"\n{suite}: {len(undisturbed)} files of an undisturbed run, {watch.now():.0f} s")
    disk.renew()
    cuts, _ = work(disk, run, hiper_command(*arguments), random_moments(suite, watch), list(STAGES))
    assert differences(files(run), undisturbed) == []
    rows = []
    for cut in cuts:
        rows.append(recover(disk, cut, run, arguments, undisturbed))
        table.append((suite, rows[-1]))
        print(f"{suite}: {rows[-1]}", flush=True)
    assert [str(row) for row in rows if not row.good] == []


def test_without_forced_files_the_proof_fails(disk: Disk) -> None:
    run = disk.place / "run"
    arguments = ["run", "--direct", *SUITES["webshop"], f"paths.run={run}"]
    cuts, _ = work(disk, run, hiper_to("stop", "", *arguments, careless=True), [Done("train", 1.0), Done("report", 0.0)], list(STAGES))
    undisturbed = files(run)
    rows = [recover(disk, cut, run, arguments, undisturbed) for cut in cuts]
    print("".join(f"\ncareless: {row}" for row in rows))
    assert not any(row.good for row in rows)

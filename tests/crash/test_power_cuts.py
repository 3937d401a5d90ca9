"""The power is cut at the worst places of a training that replaces a finished one; each run goes on and ends with the same bits.

The short version of `make prove-durable` (test_durable.py), part of every test run; the places that are marked slow are part of the proof.
See `disk.py` for what a cut loses.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from hiper.pipeline.stages import STAGES
from hiper.runs.run_dir import begin_run, load_config
from tests.crash import places
from tests.crash.compare import damaged_stages, differences, files
from tests.crash.disk import Disk
from tests.crash.power import Done, Moment, Place, work
from tests.crash.processes import hiper_to

CHANGES = ["trainer.lr_actor=0.0002", "evaluate.baseline=false", "evaluate.limit=2"]
"""What makes the training another one than that which it replaces, and its evaluation short."""

WORST: Sequence[Moment] = [Place(places.METRICS_LINE), Place(places.BETWEEN_SWAP), Done("train", 0.0)]
OTHERS: Sequence[Moment] = [
    *(Place(place) for place in (*places.SAVING, *places.FINISHING)),
    Done("train", 1.0),
    Done("evaluate", 0.0),
    Done("report", 1.0),
    Done("report", 8.0),
]


@pytest.mark.parametrize("moments", [pytest.param(WORST, id="worst"), pytest.param(OTHERS, id="others", marks=pytest.mark.slow)])
def test_after_a_power_cut_the_run_ends_with_the_same_bits(
    moments: Sequence[Moment], disk: Disk, finished_run: Path, small_settings: list[str]
) -> None:
    run = shutil.copytree(finished_run, disk.place / "run")
    disk.settle()
    there = " and ".join(moment.place for moment in moments if isinstance(moment, Place))
    arguments = ["run", "--direct", *small_settings, *CHANGES, f"paths.run={run}"]
    cuts, _ = work(disk, run, hiper_to("stop", there, *arguments), moments, list(STAGES))
    undisturbed = files(run)
    assert undisturbed["train/model/model.safetensors"] != (finished_run / "train/model/model.safetensors").read_bytes()
    bad = {}
    for cut in cuts:
        disk.mount(cut.image)
        go_on(run)
        bad[str(cut.moment)] = [*differences(files(run), undisturbed), *damaged_stages(run)]
    assert bad == {str(moment): [] for moment in moments}


def go_on(run: Path) -> None:
    """As `hiper resume --direct`, without a process of its own."""
    cfg = load_config(run)
    begin_run(cfg)
    for stage in STAGES.values():
        stage(cfg)

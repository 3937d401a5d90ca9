"""dvc.yaml as the table of the stages has it: a stage of DVC's is one command with its files, its settings, and the stages it reads."""

from __future__ import annotations

from typing import Any

import yaml

from hiper.integrations.dvc.versions import PARAMS
from hiper.runs.fingerprint import watched_settings
from hiper.runs.stage import STAGES, Stage

DVC_FILE = "dvc.yaml"
VERSION = "hiper/__init__.py"
"""A new version of hiper does all stages again."""
WIDTH = 140

_HEAD = f"""\
# Written by `python -m hiper.integrations.dvc` from hiper/runs/stage.py: change that, not this.
# The stages, versioned: `dvc repro`, or `dvc exp run -S algo.lam_high=0.9`. Settings come from {PARAMS}, which DVC composes from
# conf/ (`dvc exp run`) or `hiper config --out {PARAMS}` writes. A new version of hiper does all stages again.
"""


def text() -> str:
    """All of dvc.yaml."""
    written: str = yaml.safe_dump(dvc_file(), sort_keys=False, default_flow_style=None, width=WIDTH)
    return _HEAD + written


def dvc_file() -> dict[str, Any]:
    """What dvc.yaml says."""
    return {
        "stages": {name: _stage(stage) for name, stage in STAGES.items()},
        "metrics": [f"{folder(name)}/{file}" for name, stage in STAGES.items() for file in stage.metrics],
        "plots": [plot for stage in STAGES.values() for plot in _plots(stage)],
    }


def folder(stage: str) -> str:
    """Where a stage's files are, for DVC to fill in."""
    return f"${{paths.run}}/{stage}"


def _stage(stage: Stage) -> dict[str, Any]:
    return {
        "cmd": f"hiper {stage.command} --config {PARAMS}" + (" --no-timestamps" if stage.dated else ""),
        "deps": [VERSION, *map(folder, stage.upstream)],
        "params": watched_settings(stage.name),
        "outs": [folder(stage.name)],
    }


def _plots(stage: Stage) -> list[dict[str, Any]]:
    return [
        {
            plot.title: {
                **({"template": plot.template} if plot.template is not None else {}),
                "title": plot.title,
                "x": plot.x,
                "y": {f"{folder(stage.name)}/{file}": column for file, column in plot.y.items()},
            }
        }
        for plot in stage.plots
    ]

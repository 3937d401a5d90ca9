"""dvc.yaml as the table of the stages has it: a stage of DVC's is one command with its files, its settings, and the stages it reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from hiper.config import EnvConfig
from hiper.integrations.dvc.versions import PARAMS
from hiper.runs.fingerprint import watched_settings
from hiper.runs.plan import stages_of_suite
from hiper.runs.stage import STAGES, Stage

DVC_FILE = "dvc.yaml"
DEFAULT = EnvConfig.name
"""The suite of a config that names none."""
VERSION = "hiper/__init__.py"
"""A new version of hiper does all stages again."""
WIDTH = 140

_HEAD = f"""\
# Written by `python -m hiper.integrations.dvc` from hiper/runs/stage.py: change that, not this.
# The stages, versioned: `dvc repro`, or `dvc exp run -S algo.lam_high=0.9`. Settings come from {PARAMS}, which DVC composes from
# conf/ (`dvc exp run`) or `hiper config --out {PARAMS}` writes. A new version of hiper does all stages again.
"""


def text(suite: str = DEFAULT) -> str:
    """All of dvc.yaml, for runs with a suite."""
    written: str = yaml.safe_dump(dvc_file(suite), sort_keys=False, default_flow_style=None, width=WIDTH)
    return _HEAD + written


def dvc_file(suite: str = DEFAULT) -> dict[str, Any]:
    """What dvc.yaml says, for runs with a suite: one without an expert has fewer stages."""
    stages = {name: STAGES[name] for name in stages_of_suite(suite)}
    return {
        "stages": {name: _stage(stage, [one for one in stage.upstream if one in stages]) for name, stage in stages.items()},
        "metrics": [f"{folder(name)}/{file}" for name, stage in stages.items() for file in stage.metrics],
        "plots": [plot for stage in stages.values() for plot in _plots(stage)],
    }


def folder(stage: str) -> str:
    """Where a stage's files are, for DVC to fill in."""
    return f"${{paths.run}}/{stage}"


def _stage(stage: Stage, upstream: Sequence[str]) -> dict[str, Any]:
    return {
        "cmd": f"hiper {stage.command} --config {PARAMS}" + (" --no-timestamps" if stage.dated else ""),
        "deps": [VERSION, *map(folder, upstream)],
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

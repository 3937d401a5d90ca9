"""A comparison for DVC: the warm start, every cell and the page of results as stages of a dvc.yaml of their own.

It lies in a folder named after the comparison's file, beside that file, and is written rather than kept: arms and seeds are said once, in
that file. Its params.yaml has the settings as they compose now, so that a changed default of `conf/` does again what depends on it.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from hiper.composition.sections import as_node
from hiper.config import RunConfig
from hiper.config.dotted import flat
from hiper.errors import ConfigError
from hiper.experiments.comparison.spec import BASE, Comparison
from hiper.runs.fingerprint import watched_settings
from hiper.runs.plan import stages_of
from hiper.runs.stage import STAGES
from hiper.runtime.files import write_text

OWN = ("seed", "sft.seed", "evaluate.baseline", "paths.run", "paths.base")
"""Settings in which every cell differs from the base; the stages' commands have them."""


def write_versioned(comparison: Comparison, file: Path, root: Path, changes: Sequence[str] = ()) -> Path:
    """Write dvc.yaml and params.yaml of a comparison.

    Args:
        comparison: what `load_comparison(file, changes)` gave.
        file: the comparison's.
        root: the checkout, in which the runs lie.
        changes: overrides for the stages' commands, too.

    Returns:
        The dvc.yaml; `dvc repro` takes it.

    Raises:
        ConfigError: an arm's settings do not compose, its name has a dot, or the file lies outside the checkout.
    """
    if not (root / ".dvc").is_dir() or not file.resolve().is_relative_to(root.resolve()):
        raise ConfigError(f"{file} is in no checkout with DVC at {root}: give the command in the folder that has .dvc/ and holds the file.")
    dotted = [arm for arm in comparison.arms if "." in arm]
    if dotted:
        raise ConfigError(f"{file}: arms {', '.join(dotted)}: to DVC a dot in a name divides keys. Use letters, digits, '-' and '_'.")
    place = file.with_suffix("")
    here = place.resolve().relative_to(root.resolve())
    place.mkdir(exist_ok=True)
    head = f"# Written by `{shlex.join(['hiper', 'compare', str(file), '--dvc', *changes])}`: again when the comparison or conf/ changed.\n"
    write_text(place / "params.yaml", head + OmegaConf.to_yaml(OmegaConf.create(_params(comparison))))
    words = shlex.join(["hiper", "compare", str(file.resolve().relative_to(root.resolve())), *changes]).replace("${", "\\${")
    stages = _stages(comparison, words, here)
    write_text(place / "dvc.yaml", head + OmegaConf.to_yaml(OmegaConf.create({"stages": stages})))
    return place / "dvc.yaml"


def _params(comparison: Comparison) -> dict[str, Any]:
    """What the base composes to, and in what each arm differs from it."""
    shared, arms = flat(_container(comparison.base_cfg)), {}
    for cell in comparison.cells():
        changes = {
            key: value
            for key, value in flat(_container(cell.cfg)).items()
            if (key not in shared or value != shared[key]) and key not in OWN
        }
        arms[cell.arm] = changes or "as base"
    return {
        "base": _container(comparison.base_cfg),
        "arms": arms,
        "page": {"seeds": list(comparison.seeds), "thresholds": list(comparison.thresholds)},
    }


def _container(cfg: RunConfig) -> dict[str, Any]:
    node: Any = OmegaConf.to_container(as_node(cfg), resolve=True, enum_to_str=True)
    assert isinstance(node, dict)
    return node


def _settings(*stages: str) -> list[str]:
    """The base's settings that stages depend on."""
    return [f"base.{name}" for name in sorted({name for stage in stages for name in watched_settings(stage)} - {"seed"})]


def _stages(comparison: Comparison, command: str, place: Path) -> dict[str, Any]:
    params = f"{place}/params.yaml"
    common = {"wdir": os.path.relpath(".", place)}
    names = stages_of(comparison.base_cfg)
    start = [name for name in names if STAGES[name].shared]  # of the base; or of each cell, where it has a warm start of its own
    after = [name for name in names if not STAGES[name].shared and not STAGES[name].dated]  # a report has times of day in it
    made = [f"{comparison.folder}/{BASE}/{stage}" for stage in start] if comparison.one_start else []
    base = [] if not comparison.one_start else [*made, f"{comparison.folder}/{BASE}/evaluate"]
    own = after if comparison.one_start else [*start, *after]
    cell = f"{comparison.folder}/${{item.arm}}/seed-${{item.seed}}"
    cells = [f"{comparison.folder}/{arm}/seed-{seed}/{stage}" for arm in comparison.arms for seed in comparison.seeds for stage in own]
    page = [f"{place}/results.md", f"{place}/results"]
    # hiper knows what is left to do in a run, so DVC leaves it there; but the base's evaluation is only known by its age.
    shared = {
        BASE: {
            **common,
            "cmd": f"{command} --only {BASE}",
            "deps": ["hiper/__init__.py"],
            "params": [{params: ["base.seed", *_settings(*start, "evaluate")]}],
            "outs": [*({out: {"persist": True}} for out in made), *base[len(made) :]],
        }
    }
    return {
        **(shared if comparison.one_start else {}),
        "cell": {
            **common,
            "matrix": {"arm": list(comparison.arms), "seed": list(comparison.seeds)},
            "cmd": f"{command} --only ${{item.arm}}/${{item.seed}}",
            "deps": ["hiper/__init__.py", *base],
            "params": [{params: [*_settings(*own), "arms.${item.arm}"]}],
            "outs": [{f"{cell}/{stage}": {"persist": True}} for stage in own],
        },
        "results": {
            **common,
            "cmd": f"{command} --report-only --out {page[0]}",
            "deps": ["hiper/__init__.py", *base, *cells],
            "params": [{params: ["page"]}],
            "outs": [{out: {"cache": False}} for out in page],
        },
    }

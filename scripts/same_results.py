"""Do two checkouts compute the same? `python scripts/same_results.py OLD NEW [--only WORD] [--work DIR]` prints JSON; exit code 1 if not.

Trains in each checkout: smoke runs of both suites under every estimator, and three iterations of the quickstart. Weights, metrics,
evaluations and trajectories have to be equal to the bit. Names may differ: what was renamed stands in the tables below. A run that is in
the work directory already is not done again.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

OVERRIDES: Mapping[str, str] = {
    "algo.resample": "algo.dynamic_sampling",
    "algo.importance_cap": "algo.tis_cap",
    **{f"tasks.{name}": f"alfworld.{name}" for name in ("train", "valid_seen", "valid_unseen")},
    **{f"tasks.{name}": f"alfworld.{name}" for name in ("max_receptacles", "max_objects", "task_types")},
    **{f"demos.{name}": f"alfworld.{name}" for name in ("fresh", "renumber", "scatter", "detours")},
    "env.engine": "alfworld.engine",
}
"""Beginnings of overrides as they are written in OLD, and in NEW."""
SHOP = {"experiment=smoke": "experiment=webshop_smoke", "env=webshop": "name=smoke"}
"""Likewise, for runs with WebShop: its smoke experiment is one of its own, since settings of the other suite are refused."""
FILES: Mapping[str, str] = {"evaluate/warm_start": "evaluate/sft", "warm_start": "sft"}
"""Folders of a run, likewise."""
KEYS: Mapping[str, str] = {"benchmark": "suite", "games": "tasks", "game": "task_id"}
"""Keys of metrics, evaluations and trajectories, likewise."""
VALUES: Mapping[str, str] = {"warm_start": "sft"}
"""Texts that are names, likewise."""
LEFT_OUT = ("model", "engine", "digest", "in_train")
"""Keys that one side alone writes, or that name a place."""

ALGOS = ("gae", "gigpo", "grpo", "hae", "hae_paper", "reinforce_pp", "rloo", "turn_gae")
_SHOP = [
    "env=webshop", "webshop.products=60", "webshop.test=12", "webshop.valid=6", "env.max_turns=8", "rollout.max_reply_tokens=80"
]  # fmt: skip
_GROUPS = ["rollout.trajectories=16", "algo.group_size=8"]
RUNS: Mapping[str, Sequence[str]] = {
    **{
        f"{suite}-{algo}": ["experiment=smoke", *more, f"algo={algo}", *(_GROUPS if algo in ("gigpo", "grpo", "rloo") else [])]
        for suite, more in {"alfworld": [], "webshop": _SHOP}.items()
        for algo in ALGOS
    },
    "quickstart": ["experiment=quickstart", "trainer.iterations=3", "threads=1"],
}

COMPARED = (
    "warm_start/model/model.safetensors",
    "train/model/model.safetensors",
    "train/model/value_heads.safetensors",
    "train/metrics.jsonl",
    "train/samples.jsonl",
    "evaluate/trained/evaluation.json",
    "evaluate/trained/trajectories.jsonl",
    "evaluate/warm_start/evaluation.json",
    "evaluate/warm_start/trajectories.jsonl",
)
"""Files by their names in OLD."""


def main(old: Path, new: Path, work: Path, only: str) -> dict[str, list[str]]:
    """What differs, by run; a run is not in it where nothing does."""
    found: dict[str, list[str]] = {}
    for name, overrides in RUNS.items():
        if only not in name:
            continue
        before, after = (work / side / name for side in ("old", "new"))
        train(old, before, overrides)
        renames = {**OVERRIDES, **(SHOP if name.startswith("webshop") else {})}
        train(new, after, [renamed(text, renames) for text in overrides])
        differing = [file for file in COMPARED if contents(before, file, {}, {}) != contents(after, file, FILES, KEYS)]
        print(f"{name}: {', '.join(differing) or 'the same'}", file=sys.stderr, flush=True)
        if differing:
            found[name] = differing
    return found


def train(checkout: Path, run: Path, overrides: Sequence[str]) -> None:
    """A whole run by a checkout's own code."""
    if (run / "report").is_dir():
        return
    command = [sys.executable, "-m", "hiper", "run", "--direct", *overrides, f"paths.run={run}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(checkout), "HIPER_CONF": str(checkout / "conf")}
    ran = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
    if ran.returncode != 0:
        raise SystemExit(f"{' '.join(command)} in {checkout}: exit code {ran.returncode}\n{ran.stderr[-3000:]}")


def contents(run: Path, file: str, files: Mapping[str, str], keys: Mapping[str, str]) -> Any:
    """What a file says, in OLD's words; bytes of a file that is no JSON; None where there is none."""
    path = run / renamed(file, files)
    if not path.exists():
        return None
    if path.suffix == ".safetensors":
        return path.read_bytes()
    lines = path.read_text(encoding="utf-8").splitlines() if path.suffix == ".jsonl" else [path.read_text(encoding="utf-8")]
    back = {ours: theirs for theirs, ours in keys.items()}
    return [in_old_words(json.loads(line), back) for line in lines]


def in_old_words(value: Any, back: Mapping[str, str]) -> Any:
    """JSON with its keys as OLD writes them, without times and without what only NEW says."""
    if isinstance(value, dict):
        kept = {back.get(key, key): one for key, one in value.items() if key not in LEFT_OUT and not re.match("time/|seconds", key)}
        return {key: in_old_words(one, back) for key, one in sorted(kept.items())}
    if isinstance(value, list):
        return [in_old_words(one, back) for one in value]
    return {ours: theirs for theirs, ours in VALUES.items()}.get(value, value) if isinstance(value, str) and back else value


def renamed(text: str, table: Mapping[str, str]) -> str:
    """A name, or the beginning of one, as the table has it."""
    for before, after in table.items():
        if text == before or text.startswith((f"{before}.", f"{before}=", f"{before}/")):
            return after + text[len(before) :]
    return text


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path, help="a checkout")
    parser.add_argument("new", type=Path, help="a checkout")
    parser.add_argument("--work", type=Path, default=Path("runs/same_results"), help="where the runs go")
    parser.add_argument("--only", default="", metavar="WORD", help="runs whose names hold it")
    options = parser.parse_args()
    differing = main(options.old.resolve(), options.new.resolve(), options.work.resolve(), options.only)
    print(json.dumps({"differing": differing}, indent=2))
    sys.exit(1 if differing else 0)

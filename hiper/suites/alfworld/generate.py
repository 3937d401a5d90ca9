"""Games without a download: random scenes in ALFRED's real floor plans, written in the official layout and file format.

Each game has its own random stream, named by seed, split and number: the same seed writes the same bytes, and asking for more
games changes none of the earlier ones. Training and `valid_seen` share rooms; `valid_unseen` has the rooms that ALFRED holds out.
"""

from __future__ import annotations

import json
import logging
import random
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from hiper.errors import DataError, TaskError
from hiper.runtime.files import write_text
from hiper.runtime.progress import Progress
from hiper.runtime.reading import read_json_object
from hiper.suites.alfworld.floorplans import HELD_OUT_SCENES, LAMP, scenes, tables
from hiper.suites.alfworld.game import Game
from hiper.suites.alfworld.games import GAME_FILE
from hiper.suites.alfworld.layout import Layout, Task, furnish, solve, tasks_in
from hiper.suites.alfworld.problem import problem_text
from hiper.suites.alfworld.settings import SPLITS, ALFWorldConfig

logger = logging.getLogger(__name__)

VERSION = 1
"""Of the generator: raised whenever the same configuration writes other bytes."""

MANIFEST = "manifest.json"
_TASK_SLOT = "UNKNOWN GOAL"
"""Where `alfworld`'s grammar expects the goal sentence."""


@dataclass(frozen=True, slots=True)
class GeneratedGame:
    """A game in memory."""

    task: Task
    layout: Layout
    sentence: str
    walkthrough: list[str]
    record: dict[str, Any]
    """Content of `game.tw-pddl`."""


def make_game(name: str, split: str, task_type: str, rng: random.Random, cfg: ALFWorldConfig) -> GeneratedGame:
    """One game of a task type, in a random room of the split.

    Args:
        name: of the trial, a PDDL symbol.
        split: `valid_unseen` plays in held-out rooms, the others in ALFRED's training rooms.
        task_type: one of the six.
        rng: advanced.
        cfg: its two caps are read.

    Raises:
        MissingDependencyError: `alfworld` is not installed.
    """
    table = tables()
    rooms = [scene for scene in scenes() if (scene in HELD_OUT_SCENES) == (split == "valid_unseen") and tasks_in(scene, task_type)]
    task = rng.choice(tasks_in(rng.choice(rooms), task_type))
    layout = furnish(task, rng, max_receptacles=cfg.max_receptacles, max_objects=cfg.max_objects)
    words = {"obj": task.object, "recep": task.target, "toggle": task.target}
    sentence = rng.choice(table.sentences[task_type]).format(**{key: word.lower() for key, word in words.items()})
    walkthrough = solve(task, layout, _put_command(table.grammar))
    pickupable = frozenset(kind for kinds in table.holds.values() for kind in kinds) - {LAMP}
    goal = table.goals[task_type].format(**words)
    record = {
        "pddl_domain": table.domain,
        "grammar": table.grammar.replace(_TASK_SLOT, sentence),
        "pddl_problem": problem_text(name, layout.receptacles, layout.things, layout.start, goal, table, pickupable),
        "solvable": True,
        "walkthrough": walkthrough,
    }
    return GeneratedGame(task, layout, sentence, walkthrough, record)


def generate_games(out: Path, cfg: ALFWorldConfig, seed: int = 0, progress: Progress | None = None) -> Path:
    """Write the three splits under `out`, each game confirmed to be won by its walkthrough.

    The manifest is marked complete last, so an interrupted directory is recognised and written again; a complete one with the
    same settings is left as it is.

    Args:
        out: a new or empty directory, or one that this function wrote.
        cfg: counts, caps and task types are read.
        seed: of the generator, `tasks.seed`.
        progress: called with (games written, games in all).

    Returns:
        `out`.

    Raises:
        MissingDependencyError: `alfworld` is not installed.
        DataError: `out` holds something else.
        TaskError: a walkthrough does not win, which is a bug.
    """
    settings = _settings(cfg, seed)
    if _complete(out, settings):
        logger.info("games in %s are up to date", out)
        return out
    _clear(out)
    out.mkdir(parents=True, exist_ok=True)
    _write_manifest(out, {"complete": False, "settings": settings})
    sizes = {split: int(getattr(cfg, split)) for split in SPLITS}
    total, written = sum(sizes.values()), 0
    summary: dict[str, dict[str, float]] = {}
    for split, count in sizes.items():
        receptacles, objects = [], []
        for number in range(count):
            name = f"{split}_{number:06d}"
            task_type = cfg.task_types[number % len(cfg.task_types)]
            game = make_game(name, split, task_type, random.Random(f"{seed}/{split}/{number}"), cfg)
            path = _write(out / split, f"trial_{name}", game, seed)
            _confirm(path, game)
            receptacles.append(len(game.layout.receptacles))
            objects.append(game.layout.objects)
            written += 1
            if progress is not None:
                progress(written, total)
        summary[split] = {"games": count, "mean_receptacles": round(fmean(receptacles), 2), "mean_objects": round(fmean(objects), 2)}
    _write_manifest(out, {"complete": True, "settings": settings, "splits": summary})
    means = [
        f"{split} {one['games']}, {one['mean_receptacles']:g} receptacles and {one['mean_objects']:g} objects each"
        for split, one in summary.items()
    ]
    logger.info("generated %d games in %s: %s", total, out, "; ".join(means))
    return out


def _settings(cfg: ALFWorldConfig, seed: int) -> dict[str, Any]:
    names = (*SPLITS, "max_receptacles", "max_objects", "task_types")
    return {"seed": seed, **{name: getattr(cfg, name) for name in names}, "generator": VERSION, "alfworld": tables().version}


def _put_command(grammar: str) -> str:
    match = re.search(r'action PutObject \{\s*template :: "([^"]*)"', grammar)
    if match is None:
        raise DataError("the grammar of the installed alfworld package has no PutObject action. Install alfworld 0.4.2.")
    return match.group(1)


def _write(folder: Path, trial: str, game: GeneratedGame, seed: int) -> Path:
    task = game.task
    directory = folder / f"{task.type}-{task.object}-None-{task.target}-{task.scene}" / trial
    directory.mkdir(parents=True)
    description = {
        "task_id": trial,
        "task_type": task.type,
        "pddl_params": {
            "mrecep_target": "",
            "object_sliced": False,
            "object_target": task.object,
            "parent_target": "" if task.in_light else task.target,
            "toggle_target": task.target if task.in_light else "",
        },
        "turk_annotations": {"anns": [{"task_desc": game.sentence, "high_descs": game.walkthrough}]},
        "scene": {"floor_plan": f"FloorPlan{task.scene}", "scene_num": task.scene, "random_seed": seed},
    }
    (directory / "traj_data.json").write_text(json.dumps(description), encoding="utf-8")
    path = directory / GAME_FILE
    path.write_text(json.dumps(game.record), encoding="utf-8")
    return path


def _confirm(path: Path, generated: GeneratedGame) -> None:
    game = Game.load(path)
    game.reset()
    if game.won:
        raise TaskError(f"{path} is won before it starts. This is a bug of the generator: please report the seed.")
    for command in generated.walkthrough:
        game.step(command)
    if not game.won:
        raise TaskError(
            f"{path} is not won by its walkthrough {generated.walkthrough}. This is a bug of the generator: please report the seed."
        )


def _complete(out: Path, settings: dict[str, Any]) -> bool:
    manifest = _read_manifest(out)
    if manifest is None or not manifest.get("complete") or manifest.get("settings") != settings:
        return False
    return all(sum(1 for _ in (out / split).glob(f"*/*/{GAME_FILE}")) == settings[split] for split in SPLITS)


def _clear(out: Path) -> None:
    """Remove an earlier generation; refuse to touch anything else."""
    if not out.exists():
        return
    if not out.is_dir() or (any(out.iterdir()) and _read_manifest(out) is None):
        raise DataError(f"{out} is not empty and was not written by the generator (no {MANIFEST}). Choose another directory, or empty it.")
    for split in SPLITS:
        if (out / split).exists():
            shutil.rmtree(out / split)


def _read_manifest(out: Path) -> dict[str, Any] | None:
    try:
        record = read_json_object(out / MANIFEST)
    except DataError:
        return None
    return record if "settings" in record else None


def _write_manifest(out: Path, record: dict[str, Any]) -> None:
    write_text(out / MANIFEST, json.dumps(record, indent=1) + "\n")

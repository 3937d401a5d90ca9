"""Our engine against the `alfworld` package: the same games, the same commands, every word compared, and the clock."""

from __future__ import annotations

import random
from pathlib import Path
from time import process_time
from typing import Any

from hiper.errors import DataError
from hiper.suites.alfworld.game import Game
from hiper.suites.alfworld.textworld import TextWorldGame
from hiper.suites.base import TextEnv

GAME_FILE = "game.tw-pddl"
TREATMENT = {
    "clean": ("isclean", "CleanObject", "sinkbasin"),
    "hot": ("ishot", "HeatObject", "microwave"),
    "cool": ("iscool", "CoolObject", "fridge"),
}
"""Condition of a goal -> the predicate it is, the action that brings it about, the type of receptacle for that."""
AFTER_THE_END = 3
"""Commands still compared after a win, before the episode starts again."""
EXAMPLES = 5
"""Mismatches shown in full."""
REPEATS = 5
"""Our engine replays the commands this often: one pass is over too soon to be timed well."""


def bench(data: Path, split: str, games: int, commands: int = 60, seed: int = 0) -> dict[str, Any]:
    """Play `games` games of a split in both engines with the same `commands` commands each.

    The commands mix a player that sees everything and works at the goal, random admissible commands, and invalid ones (typos,
    other letter case, odd spaces, objects that are not there). Compared are the observation, the admissible commands in their
    order, reward, end and `won`, after the intro and after each command.

    Args:
        data: a directory in the official layout: `[json_2.1.1/]SPLIT/*/*/game.tw-pddl`.
        split: "valid_seen", ...
        games: how many, chosen with `seed`; all if there are fewer.
        commands: per game.
        seed: of the choice of games and commands.

    Returns:
        games, commands, mismatches (counts), steps_per_second (reading the admissible commands at each step) and
        reference_steps_per_second, ratio, load_seconds and reference_load_seconds (mean per game, load and reset), load_ratio,
        examples (a few mismatches). Rates and seconds are of processor time, which either engine spends on one core.

    Raises:
        DataError: no games there. MissingDependencyError: no `alfworld` package.
    """
    rng = random.Random(seed)
    files = find_games(data, split)
    files = rng.sample(files, min(games, len(files)))
    warm_up = files[0]  # what either engine does once per process is no cost of a game
    Game.load(warm_up).reset()
    TextWorldGame.load(warm_up).reset()

    examples: list[dict[str, Any]] = []
    mismatches = played = 0
    seconds = {"ours": 0.0, "reference": 0.0, "load": 0.0, "reference_load": 0.0}
    for file in files:
        started = process_time()
        reference = TextWorldGame.load(file)
        intro = reference.reset()
        seconds["reference_load"] += process_time() - started
        started = process_time()
        for _ in range(REPEATS):
            ours = Game.load(file)
            first = ours.reset()
        seconds["load"] += (process_time() - started) / REPEATS

        script: list[str | None] = [None]
        differences = [_compare(intro, reference, first, ours)]
        left = AFTER_THE_END
        for _ in range(commands):
            command = choose_command(ours, rng)
            script.append(command)
            started = process_time()
            expected = reference.step(command)
            seconds["reference"] += process_time() - started
            result = ours.step(command)
            differences.append(_compare(expected, reference, result, ours))
            left -= result.terminated
            if not left:
                left = AFTER_THE_END
                script.append(None)
                differences.append(_compare(reference.reset(), reference, ours.reset(), ours))
        reference.close()
        played += commands
        for position, (played_command, difference) in enumerate(zip(script, differences, strict=True)):
            if difference:
                mismatches += 1
                if len(examples) < EXAMPLES:
                    examples.append({"game": str(file), "position": position, "command": played_command, **difference})
        seconds["ours"] += _replay(ours, script)
    speed, reference_speed = played / seconds["ours"], played / seconds["reference"]
    return {
        "games": len(files),
        "commands": played,
        "mismatches": mismatches,
        "steps_per_second": round(speed, 1),
        "reference_steps_per_second": round(reference_speed, 2),
        "ratio": round(speed / reference_speed, 1),
        "load_seconds": round(seconds["load"] / len(files), 6),
        "reference_load_seconds": round(seconds["reference_load"] / len(files), 4),
        "load_ratio": round(seconds["reference_load"] / seconds["load"], 1),
        "examples": examples,
    }


def find_games(data: Path, split: str) -> list[Path]:
    """The game files of a split, sorted.

    Raises:
        DataError: there are none.
    """
    for folder in (data / split, data / "json_2.1.1" / split):
        if files := sorted(folder.glob(f"*/*/{GAME_FILE}")):
            return files
    raise DataError(f"{data}: no games of the split {split!r}; expected [json_2.1.1/]{split}/*/*/{GAME_FILE}")


def _compare(expected: Any, reference: TextEnv, result: Any, ours: TextEnv) -> dict[str, Any]:
    """What differs: {field: [reference, ours]}. The first and third argument are intros or step results."""
    pairs = {
        "result": (expected, result),
        "admissible_commands": (reference.admissible_commands, ours.admissible_commands),
        "won": (reference.won, ours.won),
    }
    return {field: [str(theirs), str(own)] for field, (theirs, own) in pairs.items() if theirs != own}


def _replay(game: Game, script: list[str | None]) -> float:
    """Seconds a pass over the script takes, None meaning reset, which is not counted."""
    total = 0.0
    for _ in range(REPEATS):
        game.reset()
        started = process_time()
        for command in script:
            if command is None:
                stopped = process_time()
                game.reset()
                started += process_time() - stopped
                continue
            game.step(command)
            _ = game.admissible_commands
        total += process_time() - started
    return total / REPEATS


def choose_command(game: Game, rng: random.Random) -> str:
    """A command for the comparison: at work on the goal, random, or invalid."""
    draw = rng.random()
    if draw < 0.45:
        return next_toward_goal(game) or rng.choice(game.admissible_commands)
    if draw < 0.8:
        return rng.choice(game.admissible_commands)
    return _spoil(game, rng)


def _spoil(game: Game, rng: random.Random) -> str:
    """A command that mostly is not admissible."""
    command = rng.choice(game.admissible_commands)
    place = rng.randrange(len(command))
    objects, receptacles = game.objects, game.receptacles
    return rng.choice(
        [
            command[:place] + command[place + 1 :],
            command[:place] + rng.choice("xyz 0Ω") + command[place:],
            command.upper(),
            command.capitalize(),
            f"  {command}\t\n",
            command.replace(" ", "  ", 1),
            command + ".",
            "",
            " ",
            "dance",
            game.command("PickupObject", rng.choice(objects), rng.choice(receptacles)),
            game.command("PutObject", rng.choice(objects), rng.choice(receptacles)),
            game.command("HeatObject", rng.choice(objects), rng.choice(receptacles)),
            game.command("ExamineObject", rng.choice(objects)),
            game.command("ToggleObject", rng.choice(objects)),
            game.command("OpenObject", None, rng.choice(receptacles)),
            game.command("GotoLocation", None, rng.choice(receptacles)),
        ]
    )


def next_toward_goal(game: Game) -> str | None:
    """The next command of a player that sees through doors; None if it sees no way. Not optimal, and blind to mutual exclusion."""
    goal = game.goal
    if goal is None:
        return None

    def reach(receptacle: str, command: str) -> str:
        if receptacle not in game.here:
            return game.command("GotoLocation", None, receptacle)
        if game.has(receptacle, "openable") and not game.has(receptacle, "opened"):
            return game.command("OpenObject", None, receptacle)
        return command

    held = game.held
    if held is None or game.type_of(held) != goal.object_type:
        if held is not None:
            places = [place for place in game.here if game.command("PutObject", held, place) in game.admissible_commands]
            return game.command("PutObject", held, places[0]) if places else None
        for receptacle in game.receptacles:
            if game.type_of(receptacle) == goal.receptacle_type and not goal.conditions:
                continue
            for thing in game.contents(receptacle):
                if game.type_of(thing) == goal.object_type and game.has(thing, "pickupable"):
                    return reach(receptacle, game.command("PickupObject", thing, receptacle))
        return None
    for condition in goal.conditions:
        predicate, action, tool = TREATMENT[condition]
        if not game.has(held, predicate):
            for receptacle in game.receptacles:
                if game.type_of(receptacle) == tool:
                    return reach(receptacle, game.command(action, held, receptacle))
            return None
    for receptacle in game.receptacles:
        if goal.light_type:
            for thing in game.contents(receptacle):
                if game.type_of(thing) == goal.light_type:
                    return reach(receptacle, game.command("ToggleObject", thing))
        elif game.type_of(receptacle) == goal.receptacle_type:
            return reach(receptacle, game.command("PutObject", held, receptacle))
    return None

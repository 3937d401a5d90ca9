"""A task in the terminal, for a person, the expert or a model; where the words go is the caller's choice.

Tasks are files that anybody may have written: what they say is shown by `visible`, so that none of it acts on the terminal.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from hiper.cli.parsing import OVERRIDES, Commands
from hiper.errors import ConfigError
from hiper.runtime.text import visible

if TYPE_CHECKING:
    from hiper.config import RunConfig
    from hiper.rollout.trajectory import Trajectory
    from hiper.suites.base import TextEnv
    from hiper.suites.expert import Expert
    from hiper.suites.suite import Suite
    from hiper.suites.tasks import TaskIndex

HELP = "? lists what can be done now; q leaves"
PRIOR_GAMES = 300
"""Training tasks an expert sees before it is watched; more change little."""
MAX_TURNS = 100


def add(commands: Commands) -> None:
    """Add `hiper play`."""
    parser = commands.add("play", command, "play a task in the terminal, or watch the expert or a model")
    parser.add_argument("words", nargs="*", metavar="GAME | OVERRIDE", help="a game.tw-pddl file; " + OVERRIDES)
    parser.add_argument("--data", type=Path, metavar="DIR", help="games in the official layout; without it a task is generated")
    parser.add_argument("--split", metavar="SPLIT", help="the last of evaluate.splits, if not given")
    parser.add_argument("--index", type=int, default=0, metavar="N", help="which task of the split")
    watched = parser.add_mutually_exclusive_group()
    watched.add_argument("--expert", action="store_true", help="watch the expert")
    watched.add_argument("--model", type=Path, metavar="DIR", help="watch a model play greedily, under the settings saved beside it")


def command(options: argparse.Namespace) -> int:
    """A task for a person, or one played by the expert or a model."""
    from hiper.api import check_model_folder
    from hiper.composition.compose import compose, override
    from hiper.runs.run_dir import config_beside
    from hiper.suites import splits_of, suite_of

    files = [word for word in options.words if "=" not in word]
    overrides = [word for word in options.words if "=" in word]
    if options.model is not None:
        check_model_folder(options.model, "--model")
    saved = None if options.model is None else config_beside(options.model)
    cfg = compose(overrides) if saved is None else override(saved, overrides)
    suite = suite_of(cfg)
    if len(files) > 1:
        raise ConfigError(f"{', '.join(files)}: only one task can be played at a time.")
    if files and options.model is not None:
        show(played(cfg, options.model, Path(), Path(files[0])), print)
        return 0
    if files and not options.expert:
        play(suite.make_env(cfg, Path(files[0])), input, print)
        return 0
    split = options.split or splits_of(cfg)[-1]
    with small_data(suite, cfg, options.data, 60 if options.expert else 1, options.index + 1) as root:
        path = Path(files[0]) if files else _pick(suite.index(root, cfg, [split]), split, options.index)
        if options.model is not None:
            show(played(cfg, options.model, root, path.relative_to(root)), print)
            return 0
        env = suite.make_env(cfg, path)
        if options.expert:
            seen = replace(cfg, tasks=replace(cfg.tasks, limit=PRIOR_GAMES))
            watch(env, suite.expert(suite.index(root, seen, ["train"]), cfg, Random(0)), print)
        else:
            play(env, input, print)
    return 0


@contextmanager
def small_data(suite: Suite, cfg: RunConfig, data: Path | None, train: int, held_out: int) -> Iterator[Path]:
    """The folder of tasks that was named, or one made for the moment."""
    if data is not None:
        yield data
        return
    with tempfile.TemporaryDirectory(prefix="hiper-tasks-") as folder:
        yield suite.data(Path(folder) / "data", suite.small(cfg, train, held_out))


def _pick(index: TaskIndex, split: str, number: int) -> Path:
    entries = index.split(split)
    if not 0 <= number < len(entries):
        raise ConfigError(f"--index {number} is not in {split}, which has tasks 0 to {len(entries) - 1}.")
    return index.resolve(entries[number])


def play(task: TextEnv, ask: Callable[[str], str], say: Callable[[str], object]) -> bool:
    """Let a person play until the goal is reached or they leave; whether it was reached.

    Args:
        task: is started anew.
        ask: shows a prompt and returns a line, as `input` does; EOFError leaves the task.
        say: shows text, as `print` does.
    """
    say(visible(task.reset()))
    say(f"({HELP})")
    turns = 0
    while not task.won:
        try:
            with completing(lambda: task.admissible_commands):
                command = ask("> ").strip()
        except EOFError:
            break
        if command == "q":
            break
        if command == "?":
            say(visible("\n".join(task.admissible_commands)))
        elif command:
            say(visible(task.step(command).observation))
            turns += 1
    say(f"You {'won' if task.won else 'left'} after {turns} turns.")
    return task.won


@contextmanager
def completing(candidates: Callable[[], list[str]]) -> Iterator[None]:
    """Inside, a line that is typed can be edited, earlier ones come back, and Tab completes to a candidate.

    Nothing of it where there is no terminal, or Python has no readline.
    """
    with suppress(ImportError):
        import readline

        if sys.stdin.isatty():

            def complete(text: str, state: int) -> str | None:
                fitting = [one for one in candidates() if one.startswith(readline.get_line_buffer())]
                begun = readline.get_begidx()
                return fitting[state][begun:] if state < len(fitting) else None

            readline.set_completer(complete)
            readline.set_completer_delims(" ")
            readline.parse_and_bind("tab: complete")
            try:
                yield
            finally:
                readline.set_completer(None)
            return
    yield


def watch(task: TextEnv, expert: Expert, say: Callable[[str], object]) -> bool:
    """Show the expert playing, with the subgoal it follows; whether it reached the goal."""
    observation = task.reset()
    say(visible(observation))
    expert.start(task.task, observation)
    turns = 0
    while not task.won and turns < MAX_TURNS:
        decision = expert.act(observation, task.admissible_commands)
        if decision.switch:
            say(visible(f"[{decision.subgoal}]"))
        observation = task.step(decision.action).observation
        say(visible(f"> {decision.action}\n{observation}"))
        turns += 1
    say(f"The expert {'won' if task.won else 'gave up'} after {turns} turns.")
    return task.won


def played(cfg: RunConfig, model: Path, root: Path, path: Path) -> Trajectory:
    """What a model does with a task, greedily.

    Raises:
        ModelError: it does not load.
    """
    from torch import Generator

    from hiper.rollout.player import TaskPlayer
    from hiper.runtime.device import pick_device
    from hiper.suites.tasks import Task

    player = TaskPlayer.start(cfg, model, root)
    (episode,) = player.play([Task(path.as_posix(), "", "")], 0.0, Generator(pick_device(cfg)))
    player.sampler.close()
    return episode.trajectory


def show(trajectory: Trajectory, say: Callable[[str], object]) -> None:
    """Show an episode, with the subgoals that were followed and what was wrong with replies."""
    for turn in trajectory.turns:
        say(visible(turn.observation))
        if turn.switch:
            say(visible(f"[{turn.subgoal}]"))
        if turn.faults:
            say(visible(f"(the reply {turn.reply!r}: {', '.join(turn.faults)})"))
        say(visible(f"> {turn.action}"))
    say(visible(trajectory.final_observation))
    say(f"The model {'won' if trajectory.won else 'gave up'} after {len(trajectory.turns)} turns.")

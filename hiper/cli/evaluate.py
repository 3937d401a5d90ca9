"""Full splits, played by a run's models or by any model directory."""

from __future__ import annotations

import argparse
from pathlib import Path

from hiper.cli.parsing import Commands, add_overrides, add_stage_options, say
from hiper.cli.stage import run_stage
from hiper.errors import ConfigError


def add(commands: Commands) -> None:
    """Add `hiper evaluate`."""
    parser = commands.add(
        "evaluate", evaluate, "play full splits with a run's models, or with any model directory (--model) on any tasks (--data)"
    )
    parser.add_argument("--model", type=Path, metavar="DIR", help="a model directory that AutoModelForCausalLM loads")
    parser.add_argument("--planner", type=Path, metavar="DIR", help="a model that writes the switch and the subgoal of every reply")
    parser.add_argument("--executor", type=Path, metavar="DIR", help="with --planner: the model that writes the action")
    parser.add_argument("--data", type=Path, metavar="DIR", help="tasks as their suite lays them out: RUN/tasks/data")
    parser.add_argument("--split", action="append", metavar="SPLIT", help="a folder of --data; may be given again")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write evaluation.json and the trajectories")
    parser.add_argument("--temperature", type=float, metavar="T", help="0: greedy")
    parser.add_argument("--limit", type=int, metavar="N", help="tasks per split")
    add_stage_options(parser)
    add_overrides(parser)


def evaluate(options: argparse.Namespace) -> int:
    """A run's own evaluation, or that of a model directory."""
    model = _model(options)
    if model is None:
        return run_stage(options)
    if options.config is not None:
        raise ConfigError("--config belongs to a run's own evaluation; --model brings the settings saved beside it.")
    if options.data is None:
        raise ConfigError("--model, --planner and --executor need --data DIR, a folder of tasks in the official layout: RUN/tasks/data.")
    from hiper.api import evaluate as play
    from hiper.runtime.progress import track

    out = options.out or Path("evaluations") / "+".join(_label(path) for path in (options.planner, model) if path is not None)
    options.place = str(out)
    with track("evaluate") as progress:
        summary = play(model, options.data, out, [*options.overrides, *_changes(options)], planner=options.planner, progress=progress)
    say(summary)
    say(f"written: {out / 'evaluation.json'}")
    return 0


def _model(options: argparse.Namespace) -> Path | None:
    """The model directory that was named, --executor or --model; None: the run's own models are meant.

    Raises:
        ConfigError: options that do not go together.
        ModelError: no directory.
    """
    from hiper.api import check_model_folder

    named = {flag: getattr(options, flag.removeprefix("--")) for flag in ("--model", "--planner", "--executor")}
    given = [flag for flag, path in named.items() if path is not None]
    if given not in ([], ["--model"], ["--planner", "--executor"]):
        raise ConfigError(f"{', '.join(given)}: that does not say who plays. Name --model DIR, or --planner DIR and --executor DIR.")
    if not given:
        flags = ("--data", "--split", "--out", "--limit", "--temperature")
        outside = [flag for flag in flags if getattr(options, flag.removeprefix("--")) is not None]
        if outside:
            raise ConfigError(
                f"{', '.join(outside)} belong with --model DIR. To change a run's own evaluation use overrides: evaluate.limit=20."
            )
        return None
    for flag in given:
        check_model_folder(named[flag], flag)
    path = named[given[-1]]
    assert isinstance(path, Path)
    return path


def _label(model: Path) -> str:
    return f"{model.resolve().parent.name}-{model.resolve().name}"


def _changes(options: argparse.Namespace) -> list[str]:
    splits = options.split or []
    changes = [f"evaluate.splits=[{','.join(splits)}]"] if splits else []
    changes += [f"evaluate.temperature={options.temperature}"] if options.temperature is not None else []
    return changes + ([f"evaluate.limit={options.limit}"] if options.limit is not None else [])

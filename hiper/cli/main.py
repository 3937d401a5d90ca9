"""The `hiper` command. Its start imports nothing heavy: a command imports what it needs when it runs."""

from __future__ import annotations

import argparse
import atexit
import contextlib
import errno
import gc
import json
import logging
import os
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from hiper import __version__
from hiper.errors import ConfigError, DataError, HiperError, MissingDependencyError, ModelError, WorkflowError
from hiper.runtime.text import visible

if TYPE_CHECKING:
    from hiper.config import RunConfig
    from hiper.pipeline.stages import StageResult
    from hiper.suites.suite import Benchmark
    from hiper.suites.tasks import GameIndex

logger = logging.getLogger(__name__)

INTERRUPTED = 130
"""Exit code after Ctrl-C or SIGTERM."""

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
"""Errors of writing that are the machine's, not the program's."""
IN_THE_WAY = (errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
"""A folder or a link stands where a file of ours belongs."""

OVERRIDES = "Hydra overrides: experiment=NAME, group=FILE or key.path=value, such as algo.lam_high=0.9"
CONFIG_HELP = "settings saved in a file, or in a run's directory; overrides go on top"
STAGE_HELP = {
    "games": "generate the games, or find and index the official ones",
    "demos": "let the expert write plan-execute demonstrations",
    "warm-start": "fine-tune the base model on the demonstrations",
    "train": "train with Hierarchical Advantage Estimation",
    "report": "write the run's HTML page",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code. What the user can mend is said in a sentence, without a traceback (HIPER_DEBUG=1 shows it)."""
    options = _parse(arguments)
    # A process that ends looks through all its objects for garbage, which takes a second with torch and Prefect loaded, and for nothing:
    # the system takes the memory back. Frozen objects are not looked at.
    atexit.register(gc.freeze)
    previous = signal.signal(signal.SIGTERM, _terminate)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # a bar a file, drawn across our own
    if not _debug():
        warnings.simplefilter("ignore", FutureWarning)  # of packages below; nothing the user of a command can act on
    try:
        from hiper.runtime.progress import start_logging

        start_logging(options.verbose)
        _refuse_torchrun()
        command: Callable[[argparse.Namespace], int] = options.command
        return command(options)
    except HiperError as error:
        if _debug():
            raise
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail(_interrupted(options), INTERRUPTED)
    except Exception as error:
        code = _foreseen(error, options)
        if code is None:
            raise
        return code
    finally:
        signal.signal(signal.SIGTERM, previous)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Options and overrides in any order: argparse takes no second group of words after an option, and leaves them over."""
    parser = _parser()
    options, left = parser.parse_known_args(arguments)
    if left and (not hasattr(options, "overrides") or any(word.startswith("-") or "=" not in word for word in left)):
        parser.error(f"unrecognized arguments: {' '.join(left)}")
    if left:
        options.overrides += left
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hiper", description="Hierarchical plan-execute reinforcement learning of language-model agents.")
    parser.add_argument("--version", action="version", version=f"hiper {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("-v", "--verbose", action="store_true", help="say more")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", parents=[common])
        sub.set_defaults(command=run, verb=name)
        return sub

    whole = add("run", _run, "all six stages; finished ones are not done again")
    _flow_options(whole)
    _overrides(whole)
    for name, text in STAGE_HELP.items():
        stage = add(name, _stage, text)
        _stage_options(stage)
        if name == "report":
            stage.add_argument("--timeless", action="store_true", help="leave out when, how long and on what machine")
        _overrides(stage)

    play_split = add(
        "evaluate", _evaluate, "play full splits with a run's models, or with any model directory (--model) on any games (--data)"
    )
    play_split.add_argument("--model", type=Path, metavar="DIR", help="a model directory that AutoModelForCausalLM loads")
    play_split.add_argument("--planner", type=Path, metavar="DIR", help="a model that writes the switch and the subgoal of every reply")
    play_split.add_argument("--executor", type=Path, metavar="DIR", help="with --planner: the model that writes the action")
    play_split.add_argument("--data", type=Path, metavar="DIR", help="games in the official layout")
    play_split.add_argument("--split", action="append", metavar="SPLIT", help="a folder of --data; may be given again")
    play_split.add_argument("--out", type=Path, metavar="DIR", help="where to write evaluation.json and the trajectories")
    play_split.add_argument("--temperature", type=float, metavar="T", help="0: greedy")
    play_split.add_argument("--limit", type=int, metavar="N", help="games per split")
    _stage_options(play_split)
    _overrides(play_split)

    resume = add("resume", _resume, "continue a run from where it stopped")
    resume.add_argument("run", type=Path, metavar="RUN", help="the run's directory")
    _flow_options(resume)
    _overrides(resume)

    verify = add("verify", _verify, "compare every file of a run with what its stages wrote")
    verify.add_argument("run", type=Path, metavar="RUN", help="the run's directory")

    clean = add("clean", _clean, "delete unfinished work that was set aside, and what killed processes left")
    clean.add_argument("run", type=Path, metavar="RUN", help="the run's directory")
    clean.add_argument("--dry-run", action="store_true", help="say what would be deleted")

    study = add("study", _study, "compare arms over seeds from one warm start; goes on with what is not done")
    study.add_argument("file", type=Path, metavar="FILE", help="a study, such as studies/estimators.yaml")
    study.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time (1)")
    study.add_argument("--out", type=Path, metavar="FILE", help="the page to write (docs/results.md)", default=Path("docs/results.md"))
    study.add_argument("--split", default="valid_seen", metavar="SPLIT", help="whose games the page is about (valid_seen)")
    study.add_argument("--report-only", action="store_true", help="write the page from what is there")
    study.add_argument("--only", metavar="PART", help="do one part and write no page: base (the warm start), or ARM/SEED")
    study.add_argument("--dvc", action="store_true", help="do nothing but write a dvc.yaml of the parts; see docs/orchestration.md")
    _overrides(study)

    sweep = add("sweep", _sweep, "search settings of the training with Optuna; goes on with a study that was begun")
    sweep.add_argument("file", type=Path, metavar="FILE", help="a file of sweeps/")
    sweep.add_argument("--workers", type=_count, default=1, metavar="N", help="processes on this machine (1)")
    sweep.add_argument("--join", action="store_true", help="only work for the study, which was begun elsewhere")
    sweep.add_argument("--direct", "--no-prefect", action="store_true", help="without Prefect")
    sweep.add_argument("overrides", nargs="*", metavar="CHANGE", help="changes to the file: trials=8 sampler.seed=1")

    again = add("reevaluate", _reevaluate, "evaluate accepted models again; exit code 4 where one does worse")
    again.add_argument("file", type=Path, metavar="FILE", help="a file of conf/reevaluate/")
    again.add_argument("--accept", action="store_true", help="compare later evaluations with this one")

    play = add("play", _play, "play a game in the terminal, or watch the expert")
    play.add_argument("words", nargs="*", metavar="GAME | OVERRIDE", help="a game.tw-pddl file; " + OVERRIDES)
    play.add_argument("--data", type=Path, metavar="DIR", help="games in the official layout; without it a game is generated")
    play.add_argument("--split", metavar="SPLIT", help="the last of evaluate.splits, if not given")
    play.add_argument("--index", type=int, default=0, metavar="N", help="which game of the split")
    play.add_argument("--expert", action="store_true", help="watch the expert")

    config = add("config", _config, "every setting as it would run, as YAML")
    config.add_argument(
        "--config", type=Path, metavar="FILE", help="settings saved in a file, or in a run's directory; overrides go on top"
    )
    config.add_argument("--out", type=Path, metavar="FILE", help="write it to a file")
    _overrides(config)

    add("models", _models, "the trained models that DVC versions, with their success and commit")

    doctor = add("doctor", _doctor, "what this machine has and lacks")
    doctor.add_argument("--json", action="store_true", help="as JSON")

    bench = add("bench", _bench, "measure speed, exactness and credit")
    kinds = bench.add_subparsers(title="what", required=True, metavar="WHAT")
    alfworld = kinds.add_parser("alfworld", help="the ALFWorld engine beside the `alfworld` package", parents=[common])
    alfworld.add_argument("--data", type=Path, metavar="DIR", help="games in the official layout; without it some are generated")
    alfworld.add_argument("--split", default="valid_seen", metavar="SPLIT")
    alfworld.add_argument("--games", type=int, default=20, metavar="N")
    alfworld.set_defaults(measure=_bench_alfworld)
    hae = kinds.add_parser("hae", help="Hierarchical Advantage Estimation", parents=[common])
    hae.add_argument("--conformance", type=Path, metavar="FILE", help="recorded cases to agree with")
    hae.set_defaults(measure=_bench_hae)
    train = kinds.add_parser("train", help="an iteration of training: growing conversations beside a sample a turn", parents=[common])
    train.add_argument("--data", type=Path, metavar="DIR", help="games in the official layout; without it some are generated")
    train.add_argument("--repeats", type=int, default=3, metavar="N", help="iterations of each scheme; the fastest counts")
    _overrides(train)
    train.set_defaults(measure=_bench_train)
    credit = kinds.add_parser("credit", help="how clearly the credit of a study's arms tells right decisions from wrong", parents=[common])
    credit.add_argument("file", type=Path, metavar="FILE", help="a study whose warm start has been made, such as studies/estimators.yaml")
    credit.add_argument("--rounds", type=_count, default=3, metavar="N", help="iterations' worth of episodes that are judged (3)")
    credit.add_argument("--fitted", type=_count, default=2, metavar="N", help="such rounds before them that critics alone see (2)")
    _overrides(credit)
    credit.set_defaults(measure=_bench_credit)
    webshop = kinds.add_parser("webshop", help="the WebShop of a catalogue beside recordings of the original", parents=[common])
    webshop.add_argument(
        "--catalogue", type=Path, metavar="DIR", help="the official files, or one product list of several; if not given, generated"
    )
    webshop.add_argument("--recordings", type=Path, nargs="+", default=[], metavar="FILE", help="of the original to agree with")
    webshop.set_defaults(measure=_bench_webshop)
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least 1")
    return int(text)


def _overrides(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help=OVERRIDES)


def _stage_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="settings saved in a file, or in a run's directory; overrides go on top"
    )
    parser.add_argument("--force", action="store_true", help="do it again even if it has finished under these settings")


def _settings(options: argparse.Namespace) -> RunConfig:
    """The config of a stage: composed, or a saved one."""
    from hiper.config.compose import compose, override
    from hiper.runs.run_dir import load_config

    return compose(options.overrides) if options.config is None else override(load_config(options.config), options.overrides)


def _flow_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--direct", "--no-prefect", action="store_true", help="call the stages plainly, without Prefect")
    parser.add_argument("--versioned", action="store_true", help="by DVC, stage by stage; see docs/orchestration.md")
    parser.add_argument("--force", action="store_true", help="do finished stages again")


def _run(options: argparse.Namespace) -> int:
    from hiper.config.compose import compose

    cfg = compose(options.overrides)  # refused here, before Prefect takes its seconds to start
    options.place = cfg.paths.run
    return _pipeline(cfg, options, {"overrides": options.overrides})


def _resume(options: argparse.Namespace) -> int:
    options.place = str(options.run)
    cfg = _saved(options)
    return _pipeline(cfg, options, {"overrides": options.overrides, "run": str(options.run)})


def _saved(options: argparse.Namespace) -> RunConfig:
    """The config of the run that is to go on."""
    from hiper.config.compose import override
    from hiper.runs.run_dir import load_config

    cfg = override(load_config(options.run), options.overrides)
    cfg.paths.run = str(options.run)  # a run may have been moved since
    return cfg


def _pipeline(cfg: RunConfig, options: argparse.Namespace, parameters: dict[str, Any]) -> int:
    if options.versioned and options.direct:
        raise ConfigError("--versioned runs `dvc repro` as Prefect tasks; without Prefect, call `dvc repro`.")
    if options.versioned:
        parameters["how"] = "versioned"
    compose_again = partial(_saved, options) if options.verb == "resume" else None
    results = _direct(cfg, options.force, compose_again) if options.direct else _through_prefect(parameters, options.force)
    logger.info("all done in %.0f s of work", sum(result.seconds for result in results if not result.reused))
    _say(outcome(Path(cfg.paths.run)))
    return 0


def _verify(options: argparse.Namespace) -> int:
    from hiper.pipeline.verify import verify_run

    problems = 0
    for line, ok in verify_run(options.run):
        _say(line)
        problems += not ok
    if problems:
        raise DataError(f"{problems} of what {options.run} holds is damaged; see above.")
    return 0


def _clean(options: argparse.Namespace) -> int:
    from hiper.runs.stage_folder import remove, set_aside
    from hiper.runtime.lock import locked

    if not options.run.is_dir():
        raise ConfigError(f"{options.run} is not a directory. Name a run, such as runs/quickstart/seed-0.")
    with locked(options.run):
        found = set_aside(options.run)
        for path in found:
            size = sum(file.lstat().st_size for file in path.rglob("*") if not file.is_dir())
            _say(f"{'would delete' if options.dry_run else 'deleted'} {path} ({size / 1e6:.1f} MB)")
            if not options.dry_run:
                remove(path)
    if not found:
        _say(f"{options.run} holds nothing that was set aside.")
    return 0


def outcome(run: Path) -> str:
    """What a finished run shows last: success by split, with the 95 % interval, and where the page lies."""
    from hiper.evaluate import read_evaluation
    from hiper.pipeline.stages import REPORT_FILE

    lines = []
    for folder in sorted((path.parent for path in run.glob("evaluate/*/evaluation.json")), key=lambda path: path.name, reverse=True):
        for split, found in read_evaluation(folder)["splits"].items():
            rate, low, high = (100 * found[name] for name in ("success_rate", "wilson_low", "wilson_high"))
            share = f"{found['successes']} of {found['games']} games"
            share += f", mean score {found['score_mean']:.3f}" if found["score_mean"] != found["success_rate"] else ""
            lines.append(f"{folder.name.replace('_', ' '):<12}{split:<14}{rate:5.1f} %  (95 % interval {low:.1f}-{high:.1f}, {share})")
    return "\n".join([*lines, f"report: {run / 'report' / REPORT_FILE}"])


def _direct(cfg: RunConfig, force: bool, compose_again: Callable[[], RunConfig] | None = None) -> list[StageResult]:
    """All stages.

    Args:
        cfg: everything.
        force: do finished stages again.
        compose_again: gives the config as it stands once the run is held, where it comes from there.
    """
    from hiper.pipeline.stages import STAGES, check_needs, recover_run
    from hiper.runs.run_dir import begin_run
    from hiper.runtime.lock import locked
    from hiper.runtime.progress import track

    results = []
    with locked(Path(cfg.paths.run)):
        cfg = compose_again() if compose_again is not None else cfg
        recover_run(cfg)
        check_needs(cfg, list(STAGES), force)
        begin_run(cfg)
        for name, stage in STAGES.items():
            with track(name) as progress:
                results.append(stage(cfg, progress, force=force))
            logger.info("%s", results[-1])
    return results


def _through_prefect(parameters: dict[str, Any], force: bool) -> list[StageResult]:
    """Run the pipeline flow."""
    _start_prefect()
    from hiper.integrations.prefect.pipeline import pipeline

    results: list[StageResult] = pipeline(**parameters, force=force)
    return results


def _start_prefect() -> None:
    """Make Prefect ready, with a server of its own where PREFECT_API_URL names none."""
    quiet = {
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_LOGGING_LEVEL": "CRITICAL",  # on the terminal the stages tell the story
        "PREFECT_LOGGING_EXTRA_LOGGERS": "hiper",  # and in Prefect's UI, too
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
        "PREFECT_CLIENT_MAX_RETRIES": "3",  # each waits longer; a server that has gone is given up after some 15 seconds
    }
    for name, value in quiet.items():
        os.environ.setdefault(name, value)
    if "PREFECT_API_URL" not in os.environ:
        logger.info("starting Prefect's embedded server, which takes some ten seconds (--direct goes without)")
    try:
        from hiper.integrations.prefect.server import use_server

        use_server()
    except ImportError as error:
        raise MissingDependencyError(
            f"Prefect cannot be imported ({error}). Install it with `pip install -e .`, or add --direct."
        ) from error
    except WorkflowError as error:
        raise WorkflowError(f"{error} `--direct` does the same work without Prefect.") from error


def _sweep(options: argparse.Namespace) -> int:
    try:
        import hiper.experiments.sweep.spec
        import hiper.experiments.sweep.sweep
    except ImportError as error:
        raise MissingDependencyError(f"sweeps need Optuna ({error}): pip install -e '.[sweep]'.") from error
    from hiper.runtime.progress import track

    spec = hiper.experiments.sweep.spec.load_spec(
        options.file, options.overrides
    )  # refused here, before Prefect takes its seconds to start
    options.place = str(spec.place)
    if options.join or options.direct:
        with track("trials", spec.trials) as progress:
            do = hiper.experiments.sweep.sweep.join if options.join else hiper.experiments.sweep.sweep.sweep
            _say(do(options.file, options.overrides, options.workers, progress))
        return 0
    _start_prefect()
    from hiper.integrations.prefect.sweep import sweep

    _say(sweep(str(options.file), options.overrides, options.workers))
    return 0


def _config(options: argparse.Namespace) -> int:
    from hiper.runs.run_dir import save_config, shown_config

    cfg = _settings(options)
    if options.out is None:
        shown = shown_config(cfg)
        print(visible(shown) if sys.stdout.isatty() else shown, end="")  # a file is to be read back
    else:
        save_config(cfg, options.out)
    return 0


def _stage(options: argparse.Namespace) -> int:
    from hiper.pipeline.stages import STAGES, check_needs, check_upstream, recover_run
    from hiper.runs.run_dir import begin_run
    from hiper.runtime.lock import locked
    from hiper.runtime.progress import track

    cfg = _settings(options)
    stage = options.verb.replace("-", "_")
    options.place = cfg.paths.run
    if not Path(cfg.paths.run).exists():
        check_upstream(cfg, stage)  # what cannot be done leaves no directory
    with locked(Path(cfg.paths.run)):
        recover_run(cfg)
        check_upstream(cfg, stage)  # before the run's config says what was asked for
        check_needs(cfg, [stage], options.force)
        begin_run(cfg)
        more = {"timeless": True} if getattr(options, "timeless", False) else {}
        with track(options.verb) as progress:
            _say(STAGES[stage](cfg, progress, force=options.force, **more))
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    model = _model(options)
    if model is None:
        return _stage(options)
    if options.config is not None:
        raise ConfigError("--config belongs to a run's own evaluation; --model brings the settings saved beside it.")
    if options.data is None:
        raise ConfigError("--model, --planner and --executor need --data DIR, a folder of games in the official layout: RUN/games/data.")
    from hiper.config import GamesConfig
    from hiper.config.compose import compose, override
    from hiper.evaluate import evaluate
    from hiper.runs.run_dir import config_beside
    from hiper.runtime.progress import track
    from hiper.suites import benchmark_of

    saved = config_beside(model)
    cfg = override(saved, options.overrides) if saved is not None else compose(options.overrides)
    cfg = override(cfg, _changes(options))
    index = benchmark_of(cfg).index(options.data, replace(cfg, games=GamesConfig()), cfg.evaluate.splits)
    for split in cfg.evaluate.splits:
        index.split(split)  # an empty one is refused before the model is loaded
    out = options.out or Path("evaluations") / "+".join(_label(path) for path in (options.planner, model) if path is not None)
    options.place = str(out)
    with track("evaluate") as progress:
        summary = evaluate(cfg, model, index, out, progress, options.planner)
    _say(summary)
    _say(f"written: {out / 'evaluation.json'}")
    return 0


def _model(options: argparse.Namespace) -> Path | None:
    """The model directory that was named, --executor or --model; None: the run's own models are meant.

    Raises:
        ConfigError: options that do not go together.
        ModelError: no directory.
    """
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
        if not named[flag].is_dir():
            raise ModelError(f"{flag} {named[flag]} is not a directory. Name one that AutoModelForCausalLM loads, such as RUN/train/model.")
    path = named[given[-1]]
    assert isinstance(path, Path)
    return path


def _label(model: Path) -> str:
    return f"{model.resolve().parent.name}-{model.resolve().name}"


def _study(options: argparse.Namespace) -> int:
    from hiper.experiments.comparison import BASE, load_study, run_base, run_study, write_results
    from hiper.experiments.comparison.versioned import write_versioned
    from hiper.runtime.progress import track

    if options.jobs < 1:
        raise ConfigError(f"--jobs {options.jobs} must be at least 1.")
    study = load_study(options.file, options.overrides)
    options.place = str(study.folder)
    if options.dvc:
        _say(f"written: {write_versioned(study, options.file, Path.cwd(), options.overrides)}")
        return 0
    if options.only == BASE and not study.own_start:
        run_base(study)
        return 0
    if options.only is not None:
        cell = study.cell(options.only)
        _direct(cell.cfg, force=False)
        _say(outcome(Path(cell.cfg.paths.run)))
        return 0
    if not options.report_only:
        with track("study") as progress:
            run_study(study, options.jobs, progress)
    _say(f"written: {write_results(study, options.out, options.split, f'hiper study {options.file}')}")
    return 0


def _changes(options: argparse.Namespace) -> list[str]:
    splits = options.split or []
    changes = [f"evaluate.splits=[{','.join(splits)}]"] if splits else []
    changes += [f"evaluate.temperature={options.temperature}"] if options.temperature is not None else []
    return changes + ([f"evaluate.limit={options.limit}"] if options.limit is not None else [])


def _reevaluate(options: argparse.Namespace) -> int:
    from hiper.errors import DriftError
    from hiper.evaluate.reevaluate import load_plan, reevaluate
    from hiper.runtime.progress import track

    plan = load_plan(options.file)
    options.place = plan.work
    outcomes = []
    for one in plan.models:
        with track(one.name) as progress:
            outcomes.append(reevaluate(plan, one, options.accept, progress))
        _say(outcomes[-1])
    bad = [outcome.name for outcome in outcomes if outcome.bad]
    if bad:
        raise DriftError(f"{', '.join(bad)}: see above. `--accept` makes a new evaluation the one to compare with.")
    return 0


def _play(options: argparse.Namespace) -> int:
    from hiper.cli.play import PRIOR_GAMES, play, watch
    from hiper.config.compose import compose
    from hiper.suites import benchmark_of

    files = [word for word in options.words if "=" not in word]
    cfg = compose([word for word in options.words if "=" in word])
    benchmark = benchmark_of(cfg)
    if len(files) > 1:
        raise ConfigError(f"{', '.join(files)}: only one game can be played at a time.")
    if files and not options.expert:
        play(benchmark.make_env(cfg, Path(files[0])), input, print)
        return 0
    split = options.split or cfg.evaluate.splits[-1]
    with _games(benchmark, cfg, options.data, 60 if options.expert else 1, options.index + 1) as root:
        path = Path(files[0]) if files else _pick(benchmark.index(root, cfg, [split]), split, options.index)
        env = benchmark.make_env(cfg, path)
        if options.expert:
            seen = replace(cfg, games=replace(cfg.games, limit=PRIOR_GAMES))
            watch(env, benchmark.expert(benchmark.index(root, seen, ["train"]), cfg, Random(0)), print)
        else:
            play(env, input, print)
    return 0


@contextlib.contextmanager
def _games(benchmark: Benchmark, cfg: RunConfig, data: Path | None, train: int, held_out: int) -> Iterator[Path]:
    """The folder of games that was named, or one made for the moment."""
    if data is not None:
        yield data
        return
    with tempfile.TemporaryDirectory(prefix="hiper-games-") as folder:
        yield benchmark.data(Path(folder) / "data", benchmark.small(cfg, train, held_out))


def _pick(index: GameIndex, split: str, number: int) -> Path:
    entries = index.split(split)
    if not 0 <= number < len(entries):
        raise ConfigError(f"--index {number} is not in {split}, which has games 0 to {len(entries) - 1}.")
    return index.resolve(entries[number])


def _models(options: argparse.Namespace) -> int:
    from hiper.integrations.dvc import models

    found = models(Path.cwd())
    _say("\n".join(map(str, found)) if found else "no commit has a trained model in dvc.lock yet: `dvc repro`, then commit dvc.lock.")
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from hiper.cli.doctor import examine, text

    findings = examine()
    _say(json.dumps([finding.record() for finding in findings], indent=2) if options.json else text(findings))
    return 0 if all(finding.ok or not finding.required for finding in findings) else 1


def _bench(options: argparse.Namespace) -> int:
    print(json.dumps(options.measure(options), indent=2))
    return 0


def _bench_alfworld(options: argparse.Namespace) -> object:
    from hiper.config import RunConfig
    from hiper.suites.alfworld.conformance import bench
    from hiper.suites.alfworld.suite import ALFWorld

    with _games(ALFWorld(), RunConfig(), options.data, 1, options.games) as root:
        return bench(root, options.split, options.games)


def _bench_hae(options: argparse.Namespace) -> object:
    from hiper.benchmarks.hae import bench

    return bench(options.conformance)


def _bench_train(options: argparse.Namespace) -> object:
    from hiper.benchmarks.training import SETTINGS, bench
    from hiper.config.compose import compose
    from hiper.runtime.progress import track
    from hiper.suites.alfworld.suite import ALFWorld

    cfg = compose([*SETTINGS, *options.overrides])
    with _games(ALFWorld(), cfg, options.data, cfg.games.train, 1) as root, track("bench train") as progress:
        return bench(
            cfg, ALFWorld().index(root, replace(cfg, games=replace(cfg.games, limit=cfg.games.train)), ["train"]), options.repeats, progress
        )


def _bench_credit(options: argparse.Namespace) -> object:
    from hiper.benchmarks.credit import compare_credit
    from hiper.experiments.comparison import load_study
    from hiper.runtime.progress import track

    with track("bench credit") as progress:
        return compare_credit(load_study(options.file, options.overrides), options.rounds, options.fitted, progress=progress)


def _bench_webshop(options: argparse.Namespace) -> object:
    from hiper.suites.webshop.conformance import bench
    from hiper.suites.webshop.generate import generate_catalogue

    if options.catalogue is not None:
        return bench(options.catalogue, options.recordings)
    with tempfile.TemporaryDirectory(prefix="hiper-webshop-") as folder:
        return bench(generate_catalogue(Path(folder) / "data", 1000), options.recordings)


def _refuse_torchrun() -> None:
    """Several of one command would only stand in each other's way, and torchrun listens on every network interface."""
    size = os.environ.get("WORLD_SIZE", "1")
    if "TORCHELASTIC_RUN_ID" in os.environ and size != "1":
        raise ConfigError(
            f"torchrun has started this command {size} times. Give it once, without torchrun, with trainer.processes={size}: "
            "hiper starts the processes of a training itself."
        )


def _terminate(signum: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _foreseen(error: Exception, options: argparse.Namespace) -> int | None:
    """Answer an error that is nobody's mistake in the program; None: it is one."""
    if _after_interrupt(error):
        return _fail(_interrupted(options), INTERRUPTED)
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left; nothing more can be said to it
        return 1
    if isinstance(error, OSError) and error.errno in IN_THE_WAY and not _debug():
        return _fail(f"something is in the way: {error}. Move it away and give the command again; what was finished is intact.", 1)
    if _unreachable(error) and not _debug():
        where, why = os.environ.get("PREFECT_API_URL", "its address"), str(error) or type(error).__name__
        return _fail(
            f"the Prefect server at {where} cannot be reached ({why}). "
            "Start it, or unset PREFECT_API_URL, or add --direct. What was finished before is kept: give the command again.",
            WorkflowError.exit_code,
        )
    if isinstance(error, OSError) and error.errno in NO_ROOM and not _debug():
        return _fail(
            f"cannot write: {error}. What was finished before is intact; make room (or allow writing) and give the command again.", 1
        )
    return None


def _unreachable(error: BaseException) -> bool:
    """Whether a server did not answer; Prefect's client is the only one of ours that asks one."""
    return any(f"{kind.__module__.split('.')[0]}.{kind.__name__}" == "httpx.TransportError" for kind in type(error).__mro__)


def _after_interrupt(error: BaseException) -> bool:
    """Whether an error only happened on the way out, say because Prefect's server was stopped by the same signal."""
    context: BaseException | None = error
    while context is not None:
        if isinstance(context, KeyboardInterrupt) or type(context).__name__ == "TerminationSignal":
            return True
        context = context.__context__
    return False


def _interrupted(options: argparse.Namespace) -> str:
    place = getattr(options, "place", None)
    if place is None:
        return "interrupted."
    if options.verb == "reevaluate":
        return "interrupted; models that were evaluated have their line in the history."
    if options.verb == "sweep":
        return f"interrupted; trials so far are kept in {place}. Give the command again to go on."
    if options.verb == "evaluate" and _model(options) is not None:
        return f"interrupted; {place} holds no evaluation of this command. Give it again to start over."
    if not Path(place).exists():
        return f"interrupted before {place} was begun."
    if options.verb == "study":
        return f"interrupted; finished work is kept in {place}. Give the command again to go on."
    return f"interrupted; finished work is kept in {place}. Continue with `hiper resume {place}`."


def _say(what: object) -> None:
    """Print what may hold words of a file, a model or a game: none of them acts on the terminal."""
    print(visible(str(what)))


def _fail(message: str, code: int) -> int:
    print(f"hiper: {visible(message)}", file=sys.stderr)
    return code


def _debug() -> bool:
    return os.environ.get("HIPER_DEBUG", "") not in ("", "0")

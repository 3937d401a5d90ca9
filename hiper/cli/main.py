"""The `hiper` command. Its start imports nothing heavy: a command imports what it needs when it runs."""

from __future__ import annotations

import argparse
import atexit
import gc
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from hiper import __version__
from hiper.cli import benchmark, clean, compare, completion, config, doctor, evaluate, play, reevaluate, run, stage, sweep, verify
from hiper.cli.failures import INTERRUPTED, debug, fail, foreseen, interrupted
from hiper.cli.parsing import Command, Commands, Parser
from hiper.errors import ConfigError, HiperError
from hiper.runtime.text import nearest

MODULES = (run, stage, evaluate, play, config, compare, sweep, reevaluate, verify, clean, benchmark, doctor, completion)
"""What adds commands, in the order of the help."""

EXAMPLES = """examples:
  hiper run experiment=quickstart            tasks, demonstrations, warm start, training, evaluation, report
  hiper resume runs/quickstart/seed-0        goes on where a run stopped
  hiper evaluate --model DIR --data DIR      any model on any tasks
  hiper compare comparisons/estimators.yaml  arms over seeds, on one page
  hiper sweep sweeps/hae.yaml --workers 2    a search with Optuna
  hiper play --expert                        watch the expert
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code. What the user can mend is said in a sentence, without a traceback (HIPER_DEBUG=1 shows it)."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    if sys.platform == "win32":
        return fail("HiPER runs on Linux and macOS. On Windows use the Windows Subsystem for Linux.", ConfigError.exit_code)
    # A process that ends looks through all its objects for garbage, which takes a second with torch and Prefect loaded, and for nothing:
    # the system takes the memory back. Frozen objects are not looked at.
    atexit.register(gc.freeze)
    previous = signal.signal(signal.SIGTERM, _terminate)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # a bar a file, drawn across our own
    # Threads of torch that wait for another on a core that is busy elsewhere let go of their own instead of spinning on it.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if not debug():
        warnings.simplefilter("ignore", FutureWarning)  # of packages below; nothing the user of a command can act on
    try:
        from hiper.runtime.progress import start_logging

        start_logging(options.verbose)
        _refuse_torchrun()
        command: Command = options.command
        return command(options)
    except HiperError as error:
        if debug():
            raise
        return fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return fail(interrupted(options), INTERRUPTED)
    except Exception as error:
        code = foreseen(error, options)
        if code is None:
            raise
        return code
    finally:
        signal.signal(signal.SIGTERM, previous)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Options and overrides in any order: argparse takes no second group of words after an option, and leaves them over."""
    parser, commands = make_parser()
    if not arguments:
        parser.print_help()
        parser.exit(0)
    first = arguments[0]
    if not first.startswith("-") and first not in commands.names:
        close = nearest(first, commands.names)
        parser.error(f"there is no command {first!r}" + (f"; did you mean {close!r}?" if close else ""))
    options, left = parser.parse_known_args(arguments)
    if not hasattr(options, "command"):
        parser.error("a command is missing")
    if left and (not hasattr(options, "overrides") or any(word.startswith("-") or "=" not in word for word in left)):
        options.parser.error(f"not understood: {' '.join(left)}")
    if left:
        options.overrides += left
    return options


def make_parser() -> tuple[Parser, Commands]:
    """The parser of `hiper`, and its commands."""
    parser = Parser(
        prog="hiper",
        description="Hierarchical plan-execute reinforcement learning of language-model agents.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"hiper {__version__}")
    commands = Commands(parser, "commands", "COMMAND")
    for module in MODULES:
        module.add(commands)
    return parser, commands


def _refuse_torchrun() -> None:
    """Several of one command would only stand in each other's way, and torchrun listens on every network interface."""
    size = os.environ.get("WORLD_SIZE", "1")
    if "TORCHELASTIC_RUN_ID" in os.environ and size != "1":
        raise ConfigError(
            f"torchrun has started this command {size} times. Give it once, without torchrun, with trainer.processes={size} "
            "(for the warm start, sft.processes): hiper starts the processes itself."
        )


def _terminate(signum: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())

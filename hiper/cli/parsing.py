"""What commands share: options, and how a mistake on the command line is told."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from hiper.runtime.text import visible

if TYPE_CHECKING:
    from hiper.config import RunConfig

OVERRIDES = "Hydra overrides: experiment=NAME, group=FILE or key.path=value, such as algo.lam_high=0.9"
CONFIG_HELP = "settings saved in a file, or in a run's directory; overrides go on top"

Command = Callable[[argparse.Namespace], int]


class Parser(argparse.ArgumentParser):
    """One that tells a mistake on one line below the usage of the command it was made in."""

    def error(self, message: str) -> NoReturn:
        """Say it, and end with exit code 2."""
        self.print_usage(sys.stderr)
        self.exit(2, f"hiper: {visible(message)}. `{self.prog} --help` lists what it takes.\n")


class Commands:
    """The commands of a parser; each module of this package adds its own."""

    def __init__(self, parser: argparse.ArgumentParser, title: str, metavar: str) -> None:
        self._parsers = parser.add_subparsers(title=title, metavar=metavar, parser_class=Parser)
        self._common = Parser(add_help=False)
        self._common.add_argument("-v", "--verbose", action="store_true", help="say more")

    def add(self, name: str, command: Command, text: str) -> argparse.ArgumentParser:
        """A command's parser, which hands its options to `command`."""
        description = text[0].upper() + text[1:] + "."
        parser = self._parsers.add_parser(name, help=text, description=description, parents=[self._common])
        parser.set_defaults(command=command, verb=name, parser=parser)
        return parser

    @property
    def names(self) -> list[str]:
        """All that were added."""
        return list(self._parsers.choices)


def count(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least 1")
    return int(text)


def add_overrides(parser: argparse.ArgumentParser, metavar: str = "OVERRIDE") -> None:
    """Hydra overrides, anywhere among the options."""
    parser.add_argument("overrides", nargs="*", metavar=metavar, help=OVERRIDES)


def add_stage_options(parser: argparse.ArgumentParser) -> None:
    """What all stages take."""
    parser.add_argument("--config", type=Path, metavar="FILE", help=CONFIG_HELP)
    parser.add_argument("--force", action="store_true", help="do it again even if it has finished under these settings")


def add_flow_options(parser: argparse.ArgumentParser) -> None:
    """What commands for a whole run take."""
    parser.add_argument("--direct", "--no-prefect", action="store_true", help="call the stages plainly, without Prefect")
    parser.add_argument("--versioned", action="store_true", help="by DVC, stage by stage; see docs/orchestration.md")
    parser.add_argument("--force", action="store_true", help="do finished stages again")


def settings(options: argparse.Namespace) -> RunConfig:
    """The config of a stage: composed, or a saved one."""
    from hiper.composition.compose import compose, override
    from hiper.runs.run_dir import load_config

    return compose(options.overrides) if options.config is None else override(load_config(options.config), options.overrides)


def say(what: object) -> None:
    """Print what may hold words of a file, a model or a task: none of them acts on the terminal."""
    print(visible(str(what)))

"""Completion of commands and options in a shell."""

from __future__ import annotations

import argparse

from hiper.cli.parsing import Commands

SHELLS = ("bash", "zsh", "tcsh")


def add(commands: Commands) -> None:
    """Add `hiper completion`."""
    text = 'print a shell\'s completion script: eval "$(hiper completion bash)"'
    commands.add("completion", completion, text).add_argument("shell", choices=SHELLS)


def completion(options: argparse.Namespace) -> int:
    """Print it."""
    import shtab

    from hiper.cli.main import make_parser

    parser, _ = make_parser()
    print(shtab.complete(parser, options.shell))
    return 0

"""Settings as they would run, and the models that DVC versions."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hiper.cli.parsing import CONFIG_HELP, Commands, add_overrides, say, settings
from hiper.runtime.text import visible


def add(commands: Commands) -> None:
    """Add `hiper config` and `hiper models`."""
    parser = commands.add("config", config, "every setting as it would run, as YAML")
    parser.add_argument("--config", type=Path, metavar="FILE", help=CONFIG_HELP)
    parser.add_argument("--out", type=Path, metavar="FILE", help="write it to a file")
    add_overrides(parser)
    commands.add("models", models, "the trained models that DVC versions, with their success and commit")


def config(options: argparse.Namespace) -> int:
    """Print the settings, or write them to a file."""
    from hiper.runs.run_dir import save_config, shown_config

    cfg = settings(options)
    if options.out is None:
        shown = shown_config(cfg, every=True)
        print(visible(shown) if sys.stdout.isatty() else shown, end="")  # a file is to be read back
    else:
        save_config(cfg, options.out, every=True)
    return 0


def models(options: argparse.Namespace) -> int:
    """Print them."""
    from hiper.integrations.dvc import models as versioned

    found = versioned(Path.cwd())
    say("\n".join(map(str, found)) if found else "no commit has a trained model in dvc.lock yet: `dvc repro`, then commit dvc.lock.")
    return 0

"""Measurements: speed, exactness and credit; JSON on standard output."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hiper.cli.parsing import Commands, add_overrides, count
from hiper.cli.play import small_data
from hiper.errors import ConfigError

if TYPE_CHECKING:
    from hiper.config import RunConfig
    from hiper.suites.tasks import TaskIndex


def add(commands: Commands) -> None:
    """Add `hiper benchmark` and its kinds."""
    kinds = Commands(commands.add("benchmark", _which, "measure speed, exactness and credit"), "what", "WHAT")
    _add_engines(kinds)
    hae = kinds.add("hae", _printed(_bench_hae), "Hierarchical Advantage Estimation")
    hae.add_argument("--conformance", type=Path, metavar="FILE", help="recorded cases to agree with")
    train = kinds.add("train", _printed(_bench_train), "an iteration of training: growing conversations beside a sample a turn")
    train.add_argument("--data", type=Path, metavar="DIR", help="games in the official layout; without it some are generated")
    train.add_argument("--repeats", type=int, default=3, metavar="N", help="iterations of each scheme; the fastest counts")
    add_overrides(train)
    sft = kinds.add("sft", _printed(_bench_sft), "steps of the warm start beside TRL's trainer as it is")
    sft.add_argument("--data", type=Path, metavar="DIR", help="games in the official layout; without it some are generated")
    sft.add_argument("--steps", type=count, default=24, metavar="N", help="optimiser steps (24)")
    add_overrides(sft)
    credit = kinds.add("credit", _printed(_bench_credit), "how clearly the credit of a comparison's arms tells right decisions from wrong")
    credit.add_argument("file", type=Path, metavar="FILE", help="a comparison whose warm start has been made: comparisons/estimators.yaml")
    credit.add_argument("--rounds", type=count, default=3, metavar="N", help="iterations' worth of episodes that are judged (3)")
    credit.add_argument("--fitted", type=count, default=2, metavar="N", help="such rounds before them that critics alone see (2)")
    add_overrides(credit)


def _add_engines(kinds: Commands) -> None:
    alfworld = kinds.add("alfworld", _printed(_bench_alfworld), "the ALFWorld engine beside the `alfworld` package")
    alfworld.add_argument("--data", type=Path, metavar="DIR", help="games in the official layout; without it some are generated")
    alfworld.add_argument("--split", default="valid_seen", metavar="SPLIT")
    alfworld.add_argument("--games", type=int, default=20, metavar="N")
    webshop = kinds.add("webshop", _printed(_bench_webshop), "the WebShop of a catalogue beside recordings of the original")
    webshop.add_argument(
        "--catalogue", type=Path, metavar="DIR", help="the official files, or one product list of several; if not given, generated"
    )
    webshop.add_argument("--recordings", type=Path, nargs="+", default=[], metavar="FILE", help="of the original to agree with")


def _which(options: argparse.Namespace) -> int:
    raise ConfigError("hiper benchmark needs to know which: alfworld, hae, train, sft, credit or webshop.")


def _printed(measure: Callable[[argparse.Namespace], object]) -> Callable[[argparse.Namespace], int]:
    def command(options: argparse.Namespace) -> int:
        print(json.dumps(measure(options), indent=2))
        return 0

    return command


def _bench_alfworld(options: argparse.Namespace) -> object:
    from hiper.config import RunConfig
    from hiper.suites.alfworld.conformance import bench
    from hiper.suites.alfworld.suite import ALFWorld

    with small_data(ALFWorld(), RunConfig(), options.data, 1, options.games) as root:
        return bench(root, options.split, options.games)


def _bench_hae(options: argparse.Namespace) -> object:
    from hiper.benchmarks.hae import bench

    return bench(options.conformance)


def _bench_train(options: argparse.Namespace) -> object:
    from hiper.benchmarks.training import SETTINGS, bench
    from hiper.composition.compose import compose
    from hiper.runtime.progress import track

    cfg = compose([*SETTINGS, *options.overrides])
    with _training_games(cfg, options.data) as index, track("benchmark train") as progress:
        return bench(cfg, index, options.repeats, progress)


def _bench_sft(options: argparse.Namespace) -> object:
    from hiper.benchmarks.sft import SETTINGS, bench
    from hiper.composition.compose import compose

    cfg = compose([*SETTINGS, *options.overrides])
    with _training_games(cfg, options.data) as index:
        return bench(cfg, index, options.steps)


@contextmanager
def _training_games(cfg: RunConfig, data: Path | None) -> Iterator[TaskIndex]:
    """As many as the config would generate: those of a folder, or some made for the moment."""
    from hiper.suites.alfworld.settings import ALFWorldConfig
    from hiper.suites.alfworld.suite import ALFWorld

    count = cfg.own(ALFWorldConfig).train
    with small_data(ALFWorld(), cfg, data, count, 1) as root:
        yield ALFWorld().index(root, replace(cfg, tasks=replace(cfg.tasks, limit=count)), ["train"])


def _bench_credit(options: argparse.Namespace) -> object:
    from hiper.benchmarks.credit import compare_credit
    from hiper.experiments.comparison import load_comparison
    from hiper.runtime.progress import track

    with track("benchmark credit") as progress:
        return compare_credit(load_comparison(options.file, options.overrides), options.rounds, options.fitted, progress=progress)


def _bench_webshop(options: argparse.Namespace) -> object:
    from hiper.suites.webshop.conformance import bench
    from hiper.suites.webshop.generate import generate_catalogue

    if options.catalogue is not None:
        return bench(options.catalogue, options.recordings)
    with tempfile.TemporaryDirectory(prefix="hiper-webshop-") as folder:
        return bench(generate_catalogue(Path(folder) / "data", 1000), options.recordings)

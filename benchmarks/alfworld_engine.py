"""Our ALFWorld engine against the `alfworld` package: `python benchmarks/alfworld_engine.py DATA [SPLIT] [--games N]` prints JSON."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from hiper.suites.alfworld.conformance import bench

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="games in the official layout: DATA/[json_2.1.1/]SPLIT/*/*/game.tw-pddl")
    parser.add_argument("split", nargs="?", default="valid_seen")
    parser.add_argument("--games", type=int, default=20)
    parser.add_argument("--commands", type=int, default=60, help="per game")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of games and commands")
    options = parser.parse_args()
    print(json.dumps(bench(options.data, options.split, options.games, options.commands, options.seed), indent=2))

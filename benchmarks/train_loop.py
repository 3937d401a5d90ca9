"""Speed of a training iteration, as `hiper benchmark train`: `python benchmarks/train_loop.py [--data DIR] [OVERRIDE ...]` prints JSON."""

from __future__ import annotations

import sys

from hiper.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["benchmark", "train", *sys.argv[1:]]))

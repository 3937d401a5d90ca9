"""How clearly a study's estimators tell right from wrong, as `hiper benchmark credit`: `python benchmarks/credit.py STUDY` prints JSON."""

from __future__ import annotations

import sys

from hiper.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["benchmark", "credit", *sys.argv[1:]]))

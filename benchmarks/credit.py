"""How clearly a study's estimators tell right from wrong, as `hiper bench credit`: `python benchmarks/credit.py STUDY` prints JSON."""

from __future__ import annotations

import sys

from hiper.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["bench", "credit", *sys.argv[1:]]))

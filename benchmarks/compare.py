"""What changed in speed between two commits: `python benchmarks/compare.py BEFORE.json AFTER.json`, files that `make bench` wrote."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hiper.benchmarks.table import changes, load_rows
from hiper.errors import DataError

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    options = parser.parse_args()
    try:
        print(changes(load_rows(options.before), load_rows(options.after)))
    except DataError as error:
        sys.exit(f"compare.py: {error}")

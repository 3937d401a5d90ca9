"""Exactness and speed of hierarchical advantage estimation: `python benchmarks/hae.py [hae_reference.json]` prints JSON."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from hiper.benchmarks.hae import bench

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("conformance", type=Path, nargs="?", help="recorded cases of the authors' code; left out: speed only")
    print(json.dumps(bench(parser.parse_args().conformance), indent=2))

"""A search over HAE's settings from Python: `python examples/sweep_from_python.py [TRIALS]`; given again, it goes on where it stopped.

The same as `hiper sweep FILE`, whose file this writes. Every trial is a run of its own, all from one warm start.
"""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from hiper.experiments.sweep.sweep import SweepSummary, sweep

SPEC = {
    "name": "example",
    "base": ["experiment=smoke", "trainer.iterations=2", "trainer.eval_every=1", "trainer.eval_tasks=2"],
    "space": {
        "algo.lam_high": {"low": 0.5, "high": 1.0},
        "trainer.lr_actor": {"low": 1.0e-5, "high": 1.0e-3, "log": True},
    },
    "last": 1,  # evaluations at a trial's end whose mean is its objective
    "sampler": {"name": "random", "seed": 0},
}


def main(trials: int, workers: int = 1) -> SweepSummary:
    """Run it, or go on with it."""
    file = Path("runs/example_sweep.yaml")
    file.parent.mkdir(exist_ok=True)
    file.write_text(yaml.safe_dump({**SPEC, "trials": trials, "directory": "runs/example_sweep"}))
    return sweep(file, workers=workers)


if __name__ == "__main__":
    print(main(int(sys.argv[1]) if len(sys.argv) > 1 else 2))

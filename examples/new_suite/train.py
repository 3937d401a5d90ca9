"""A suite of one's own: `python examples/new_suite/train.py [OVERRIDE ...]`. Nothing in `hiper/` knows of it.

As a package, it would name `register` under the entry-point group `hiper.suites`, and `hiper run env.name=vault` would find it.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from pathlib import Path

from expert import VaultExpert
from vault import Vault

import hiper
from hiper.config import RunConfig
from hiper.runtime.progress import Progress
from hiper.suites.suite import Suite, Wording
from hiper.suites.tasks import Task, TaskIndex

COUNTS = {"train": 40, "valid": 10, "test": 10}


class VaultSuite(Suite):
    """Sixty vaults in three splits; a task is named `SPLIT/NUMBER`."""

    scene = "You are in a vault. Find the key and open the chest."
    wording = Wording("vault", "vaults")

    def data(self, folder: Path, cfg: RunConfig, progress: Progress | None = None) -> Path:
        folder.mkdir(parents=True)  # vaults need no files: their numbers say it all
        return folder

    def index(self, root: Path, cfg: RunConfig, splits: Sequence[str] | None = None) -> TaskIndex:
        entries = [Task(f"{split}/{n:04d}", split, "vault") for split in splits or COUNTS for n in range(COUNTS[split])]
        return TaskIndex(root, tuple(entries))

    def make_env(self, cfg: RunConfig, path: Path, rng: random.Random | None = None) -> Vault:
        return Vault(1000 * list(COUNTS).index(path.parent.name) + int(path.name))

    def expert(self, index: TaskIndex, cfg: RunConfig, rng: random.Random) -> VaultExpert:
        return VaultExpert(rng)


def register() -> None:
    hiper.register_suite("vault", VaultSuite)


SMOKE = (
    "name=vault env.name=vault evaluate.splits=[valid,test] env.max_turns=8 threads=1 rollout=grammar protocol.style=terse "
    "model.tiny.hidden=64 model.tiny.layers=2 model.tiny.intermediate=128 demos.count=200 "
    "sft.max_steps=60 sft.batch_size=8 sft.lr=2.0e-3 rollout.trajectories=8 rollout.slots=8 "
    "trainer.iterations=2 trainer.minibatch=4 trainer.lr_actor=1.0e-4 trainer.eval_every=1 trainer.eval_tasks=4"
)

if __name__ == "__main__":
    register()
    for result in hiper.run([*SMOKE.split(), *sys.argv[1:]]):
        print(result)

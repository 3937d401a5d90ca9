"""The suite: its tasks, their environments and its expert. Its interface is `hiper.suites.suite.Suite`.

As a package, it would name `register` under the entry-point group `hiper.suites`, and `hiper run env.name=vault` would find it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from expert import VaultExpert
from settings import VaultConfig
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
        return Vault(1000 * list(COUNTS).index(path.parent.name) + int(path.name), cfg.own(VaultConfig).boxes)

    def expert(self, index: TaskIndex, cfg: RunConfig, rng: random.Random) -> VaultExpert:
        return VaultExpert(rng)


def register() -> None:
    """Make it known to a program, before it composes a config."""
    hiper.register_suite("vault", VaultSuite, VaultConfig)

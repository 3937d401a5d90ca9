"""Small whole runs of both suites, for tests that disturb them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_TINY = ["model.tiny.hidden=64", "model.tiny.layers=2", "model.tiny.heads=2", "model.tiny.kv_heads=2", "model.tiny.intermediate=128"]
_TRAINER = ["trainer.iterations=3", "trainer.minibatch=4", "trainer.save_every=1", "trainer.eval_every=1", "trainer.eval_tasks=4"]

SUITES: Mapping[str, Sequence[str]] = {
    "alfworld": ["experiment=smoke", *_TRAINER],
    "webshop": [
        "experiment=webshop_quickstart",
        "threads=1",
        "webshop.products=60",
        "webshop.test=12",
        "webshop.valid=6",
        "demos.count=100",
        "env.max_turns=8",
        *_TINY,
        "sft.max_steps=24",
        "rollout.trajectories=8",
        "rollout.slots=8",
        *_TRAINER,
        "trainer.samples=2",
    ],
}
"""Suite -> settings of a run of half a minute."""

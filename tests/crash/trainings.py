"""Runs that are killed in `test_kills.py` and `test_damaged_checkpoints.py`: their settings and how they begin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

SETTINGS = [
    "experiment=smoke",
    "rollout=grammar",
    "alfworld.train=40",
    "alfworld.task_types=[pick_and_place_simple,look_at_obj_in_light]",
    "alfworld.max_receptacles=6",
    "alfworld.max_objects=10",
    "demos.count=400",
    "alfworld.fresh=true",
    "sft.max_steps=240",
    "sft.beta2=0.99",
    "sft.save_every=50",
    "rollout.slots=5",
    "algo.shaping.keep_mode=off",
    "trainer.iterations=5",
    "trainer.save_every=2",
    "trainer.lr_actor=3e-4",
    "trainer.microbatch_tokens=1024",
    "evaluate.splits=[valid_seen]",
    "evaluate.limit=1",
    "evaluate.baseline=false",
    "evaluate.temperature=0.7",
]
"""Small rooms and two kinds of tasks, which so short a warm start now and then solves: training has something to learn from."""

EXPERIMENTS: Mapping[str, Sequence[str]] = {
    "hae": [],
    "fitted": [
        "trainer.value_fit=least_squares",
        "trainer.critic_warmup=1",
        "trainer.anneal=true",
        "trainer.save_every=1",
        "trainer.keep_last=1",
    ],
    "grpo": ["algo=grpo", "algo.group_size=4", "trainer.keep_last=1"],
    "evaluate": ["evaluate.limit=6", "evaluate.chunk=2", "evaluate.baseline=true"],
}
"""Name -> what it sets besides. The last evaluates the first one's training at more length."""


def beginning(experiment: str, run: Path) -> list[str]:
    """Arguments of `hiper` that begin an experiment in a directory."""
    return ["run", "--direct", *SETTINGS, *EXPERIMENTS[experiment], f"paths.run={run}"]

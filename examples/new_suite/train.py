"""A suite of one's own, trained: `python examples/new_suite/train.py [vault.boxes=6 ...]`. Nothing in `hiper/` knows of it."""

from __future__ import annotations

import sys

from suite import register

import hiper

SMOKE = (
    "name=vault env.name=vault env.max_turns=8 threads=1 rollout=grammar protocol.style=terse "
    "model.tiny.hidden=64 model.tiny.layers=2 model.tiny.intermediate=128 demos.count=200 "
    "sft.max_steps=60 sft.batch_size=8 sft.lr=2.0e-3 rollout.trajectories=8 rollout.slots=8 "
    "trainer.iterations=2 trainer.minibatch=4 trainer.lr_actor=1.0e-4 trainer.eval_every=1 trainer.eval_tasks=4"
)

if __name__ == "__main__":
    register()
    for result in hiper.run([*SMOKE.split(), *sys.argv[1:]]):
        print(result)

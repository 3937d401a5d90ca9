"""Small training runs: their settings, what stops them, and what of them must not depend on that."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hiper.algos.hae import HAEConfig
from hiper.config import (
    Constrain,
    Context,
    Critic,
    EnvConfig,
    EvaluateConfig,
    ModelConfig,
    ProtocolConfig,
    RolloutConfig,
    RunConfig,
    Style,
    TrainerConfig,
)
from hiper.config.algo import KeepMode, ShapingConfig
from hiper.runs import checkpoint as ckpt
from hiper.suites.tasks import TaskIndex
from hiper.train.trainer import train


def config(seed: int = 0, critic: Critic = Critic.shared, context: Context = Context.append, **trainer: int) -> RunConfig:
    settings = {
        "iterations": 4,
        "minibatch": 2,
        "epochs": 2,
        "save_every": 1,
        "keep_last": 3,
        "eval_every": 2,
        "eval_tasks": 2,
        "samples": 2,
    }
    return RunConfig(
        seed=seed,
        threads=1,
        device="cpu",
        env=EnvConfig(max_turns=3),
        model=ModelConfig(critic=critic),
        protocol=ProtocolConfig(style=Style.terse, context=context),
        rollout=RolloutConfig(trajectories=4, slots=3, max_reply_tokens=20, constrain=Constrain.admissible),
        algo=HAEConfig(kl_coef=0.01, entropy_coef=0.01, shaping=ShapingConfig(keep=-0.3, keep_mode=KeepMode.fixed, keep_mismatch=-0.3)),
        trainer=TrainerConfig(**(settings | trainer), lr_actor=1e-3, lr_critic=1e-2),
        evaluate=EvaluateConfig(temperature=0.7),
    )


class Killed(Exception):
    """Stands for whatever stops a run."""


def killer(after: int) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        if done == after:
            raise Killed

    return progress


Bits = dict[str, torch.Tensor | str | bytes]


def bits(out: Path) -> Bits:
    """All that a resumed run must reproduce: the last checkpoint's tensors and state, the metrics and the samples."""
    tensors, state = ckpt.load_checkpoint(ckpt.latest_checkpoint(out / "checkpoints") or out)
    files = {name: (out / name).read_bytes() for name in ("metrics.jsonl", "samples.jsonl")}
    return {**tensors, "state": json.dumps(state, sort_keys=True), **files}


def assert_same(ours: Bits, theirs: Bits) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        other = theirs[name]
        same = torch.equal(value, other) if isinstance(value, torch.Tensor) and isinstance(other, torch.Tensor) else value == other
        assert same, name


def goes_on_to_the_bit(cfg: RunConfig, model: Path, index: TaskIndex, folder: Path, after: int = 1) -> Bits:
    """See that a training killed after an iteration and gone on from, in `folder/parts`, ends as an undisturbed one, in `folder/whole`.

    Another process finds torch's own generators elsewhere.
    """
    train(cfg, model, index, folder / "whole")
    with pytest.raises(Killed):
        train(cfg, model, index, folder / "parts", progress=killer(after))
    torch.manual_seed(12345)
    train(cfg, model, index, folder / "parts", resume=True)
    ours = bits(folder / "parts")
    assert_same(ours, bits(folder / "whole"))
    return ours

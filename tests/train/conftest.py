"""Episodes that a model really played."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hiper.config import Constrain, Context, EnvConfig, ModelConfig, ProtocolConfig, RolloutConfig, RunConfig, Style
from hiper.model.actor import load_actor, load_tokenizer
from hiper.rollout.chat import ChatCodec
from hiper.rollout.collect import Collector
from hiper.rollout.episode import Episode
from hiper.rollout.samplers.transformers import TransformersSampler
from hiper.suites import make_env
from hiper.suites.tasks import TaskIndex

TEMPERATURE = 1.1


@pytest.fixture(scope="session")
def play(speaker: Path, task_index: TaskIndex) -> dict[tuple[Context, Constrain], list[Episode]]:
    """Five episodes of one to five turns under each context and constraint, sampled at temperature 1.1, replies of up to 24 tokens."""
    codec = ChatCodec(load_tokenizer(speaker))
    network = load_actor(speaker, ModelConfig()).eval().double()  # so that other passes can be compared closely
    episodes: dict[tuple[Context, Constrain], list[Episode]] = {}
    for context in Context:
        for constrain in Constrain:
            found: list[Episode] = []
            for turns in (3, 5):
                cfg = RunConfig(
                    env=EnvConfig(max_turns=turns),
                    rollout=RolloutConfig(max_reply_tokens=24, constrain=constrain),
                    protocol=ProtocolConfig(context=context, style=Style.terse),
                )
                sampler = TransformersSampler(network, codec, slots=3, max_reply_tokens=24)
                sampler.begin(TEMPERATURE, torch.Generator().manual_seed(turns))
                entries = task_index.split("train")[turns : turns + turns // 2 + 1]
                found += Collector(sampler, codec, cfg).play(((e, make_env(cfg, task_index.resolve(e))) for e in entries), 3)
            episodes[context, constrain] = found
    return episodes

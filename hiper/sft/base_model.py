"""The base model: that of `model.path`, or a new one of `model.tiny`'s size, whose vocabulary is that of the texts it is given.

A suite with an expert gives it the demonstrations. One without is played at random, in the agent's own protocol, so that a new model knows
the words of the environment; which to say when, reward alone then teaches.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from hiper.config import RunConfig
from hiper.errors import ModelError
from hiper.model.actor import Actor, load_lm, load_tokenizer, save_actor
from hiper.model.tiny import build_tiny
from hiper.model.tokenizer import build_tokenizer
from hiper.protocol import Prompter
from hiper.rollout.chat import ChatCodec
from hiper.runtime.files import move, sync_tree
from hiper.sft.demos import TRAIN, conversations_of
from hiper.suites import make_env, suite_of
from hiper.suites.base import WORDS
from hiper.suites.expert import PlanStep, demonstrate
from hiper.suites.tasks import TaskIndex

logger = logging.getLogger(__name__)

EPISODES = 200
"""Most training tasks that are played at random for their words."""


def base_model(cfg: RunConfig, texts: Iterable[str]) -> tuple[PreTrainedTokenizerBase, Any]:
    """Tokenizer and language model to start from: those of `model.path`, or new ones with the vocabulary of the texts.

    Raises:
        ModelError: `model.path` does not load.
    """
    if cfg.model.path is None:
        tokenizer = build_tokenizer(texts)
        lm: Any = build_tiny(cfg.model.tiny, tokenizer, cfg.sft_seed)
        return tokenizer, lm.to(getattr(torch, cfg.model.dtype))
    tokenizer, lm = load_tokenizer(cfg.model.path), load_lm(cfg.model.path, cfg.model.dtype)
    if len(tokenizer) > (rows := lm.get_input_embeddings().weight.shape[0]):
        raise ModelError(
            f"the tokenizer of {cfg.model.path} has {len(tokenizer)} tokens, its model knows {rows}: they do not belong together."
        )
    return tokenizer, lm


def write_base_model(cfg: RunConfig, index: TaskIndex, out: Path) -> None:
    """Write the base model of a suite without an expert as a model directory; one that is there already is left as it is.

    Args:
        cfg: model, protocol and environment settings.
        index: tasks; only the training split is played.
        out: the model directory, made in one move.

    Raises:
        DataError: there are no training tasks.
        ModelError: `model.path` does not load.
    """
    if out.is_dir():
        return
    tokenizer, lm = base_model(cfg, aimless_texts(cfg, index))
    unfinished = out.with_name(out.name + ".partial")
    generation = ChatCodec(tokenizer).generation(cfg.rollout.max_reply_tokens)
    save_actor(Actor(lm, cfg.model.critic), tokenizer, unfinished, generation)
    sync_tree(unfinished)
    move(unfinished, out)
    logger.info("base model: %.2f M parameters, %d tokens of vocabulary", lm.num_parameters() / 1e6, len(tokenizer))


def aimless_texts(cfg: RunConfig, index: TaskIndex) -> Iterator[str]:
    """What an agent that acts at random reads and writes in the training tasks, in the words of the protocol; the same for every seed."""
    rng = random.Random("base model")
    entries = index.split(TRAIN)
    prompter = Prompter(cfg.protocol, suite_of(cfg).scene)
    for entry in rng.sample(entries, min(EPISODES, len(entries))):
        demo = demonstrate(make_env(cfg, index.resolve(entry)), _Aimless(rng), cfg.env.max_turns)
        for messages, _ in conversations_of(demo, prompter, cfg):
            yield from (message["content"] for message in messages)


class _Aimless:
    """Acts at random, as an expert would act: each command is a subgoal of its own."""

    stops = False
    through = False

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def start(self, task: str, observation: str, lapse: bool = False) -> None:
        self._words = task.split()

    def act(self, observation: str, admissible: list[str]) -> PlanStep:
        action = self._rng.choice(admissible or ["wait"])
        action = action.replace(WORDS, self._rng.choice(self._words)) if WORDS in action else action
        return PlanStep(True, action, action)

    def slip(self, step: PlanStep, admissible: list[str], rng: random.Random) -> PlanStep:
        return step

    def stray(self, step: PlanStep, admissible: list[str], rng: random.Random) -> PlanStep | None:
        return None

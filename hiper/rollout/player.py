"""Playing tasks of an index: environments are made as they are needed, one sampler and one collector serve all batches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from hiper.config import RunConfig
from hiper.errors import ModelError
from hiper.model.actor import load_tokenizer
from hiper.rollout.chat import ChatCodec
from hiper.rollout.collect import Collector, recording
from hiper.rollout.episode import Episode
from hiper.rollout.samplers.pair import PairSampler
from hiper.rollout.samplers.transformers import TransformersSampler
from hiper.rollout.samplers.types import Sampler
from hiper.runtime.progress import Progress
from hiper.suites import make_env
from hiper.suites.tasks import Task


class TaskPlayer:
    """Plays tasks with a sampler, any number of times."""

    def __init__(self, cfg: RunConfig, root: Path, sampler: Sampler, codec: ChatCodec) -> None:
        """Prepare to play.

        Args:
            cfg: protocol, environment and rollout settings.
            root: of the tasks.
            sampler: writes the replies, up to `rollout.slots` at once.
            codec: the sampler's chat template.
        """
        self.sampler, self.codec = sampler, codec
        self._cfg, self._root = cfg, root
        self._collector = Collector(sampler, codec, cfg)

    @classmethod
    def start(cls, cfg: RunConfig, model: Path | str, root: Path, planner: Path | str | None = None) -> TaskPlayer:
        """Play with the model in a directory, or with two.

        Args:
            cfg: protocol, environment and rollout settings.
            model: directory or hub id.
            root: of the tasks.
            planner: writes the switch and the subgoal of every reply, the model then only the action; None: the model writes all.

        Raises:
            ModelError: a model does not load, or planner and model do not share a tokenizer.
        """
        if planner is not None and load_tokenizer(planner).get_vocab() != load_tokenizer(model).get_vocab():
            raise ModelError(
                f"the planner {planner} and the executor {model} have different vocabularies, so neither can read what the other writes. "
                "Take models that were trained from the same base."
            )
        executor = TransformersSampler.start(model, cfg)
        sampler: Sampler = executor
        if planner is not None:
            started = TransformersSampler.start(planner, cfg)
            sampler = PairSampler(started, executor, executor.codec, cfg.protocol.dialect, cfg.rollout.max_reply_tokens)
        return cls(cfg, root, sampler, executor.codec)

    def play(
        self,
        entries: Sequence[Task],
        temperature: float,
        generator: torch.Generator,
        progress: Progress | None = None,
        max_turns: int | None = None,
        record: bool = False,
    ) -> list[Episode]:
        """Play each task once.

        Args:
            entries: the tasks, paths relative to the root.
            temperature: 0 is greedy.
            generator: source of every draw, on the sampler's device.
            progress: called with (finished, all).
            max_turns: truncate episodes here; None: `env.max_turns`.
            record: keep the network's hidden states with the episodes' tokens.

        Returns:
            One episode a task, in order: the same whatever was played before.

        Raises:
            ConfigError: `record`, and the sampler keeps no states.
        """
        if record:
            recording(self.sampler).begin(temperature, generator, record=True)
        else:
            self.sampler.begin(temperature, generator)
        tasks = ((entry, make_env(self._cfg, self._root / entry.path)) for entry in entries)
        slots = min(self._cfg.rollout.slots, len(entries))
        return self._collector.play(tasks, slots, len(entries), progress, max_turns, record)

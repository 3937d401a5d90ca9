"""Whose episodes training learns from, and whose it watches: the tasks that are drawn, and the policy playing them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from hiper.config import RunConfig
from hiper.model.actor import Actor
from hiper.rollout.chat import ChatCodec
from hiper.rollout.episode import Episode
from hiper.rollout.player import TaskPlayer
from hiper.rollout.samplers.transformers import TransformersSampler
from hiper.runtime.distributed import ALONE, World
from hiper.suites import splits_of
from hiper.suites.tasks import Task, TaskIndex
from hiper.train.metrics import Metrics, rollout_metrics
from hiper.train.stream import TaskStream


@dataclass
class Player:
    """Plays with the policy as it stands. `stream` and `generator` are part of the run's state."""

    cfg: RunConfig
    actor: Actor
    codec: ChatCodec
    index: TaskIndex
    stream: TaskStream
    """Training tasks in the order they are played."""
    generator: torch.Generator
    """Of training episodes, on the actor's device."""
    world: World = ALONE
    """The processes that share the tasks; each ends up with all episodes."""

    def __post_init__(self) -> None:
        rollout = self.cfg.rollout
        sampler = TransformersSampler(self.actor, self.codec, slots=rollout.slots, max_reply_tokens=rollout.max_reply_tokens)
        self._tasks = TaskPlayer(self.cfg, self.index.root, sampler, self.codec)

    def sample(self) -> tuple[list[Episode], list[Episode]]:
        """Play an iteration's tasks: every episode, and those to learn from.

        They are the same unless `algo.dynamic_sampling` is set: a group whose members all earned the same has nothing to compare, so others
        are played in its place. Where all groups of all attempts are such, the last attempt's are learned from.
        """
        rollout, algo = self.cfg.rollout, self.cfg.algo
        played: list[Episode] = []
        useful: list[Episode] = []
        for _ in range(1 + algo.dynamic_sampling):
            tasks = self.stream.draw(rollout.trajectories - len(useful), algo.group_size)
            record = not self.cfg.trainer.recompute_logprobs
            episodes = self._play(tasks, rollout.temperature, self.generator, rollout.max_turns, record=record)
            played += episodes
            useful += _differing(episodes, algo.group_size) if algo.dynamic_sampling else episodes
            if len(useful) == rollout.trajectories:
                break
        return played, useful or episodes

    def evaluate(self) -> Metrics:
        """Success on the watched tasks, always the same ones with the same draws; the run's own generator is not touched."""
        tasks, count = self.index.split(splits_of(self.cfg)[0]), self.cfg.trainer.eval_tasks
        watched = [tasks[i * len(tasks) // count] for i in range(count)] if count < len(tasks) else tasks
        generator = torch.Generator(self.actor.device).manual_seed(self.cfg.evaluate.seed)
        episodes = self._play(watched, self.cfg.evaluate.temperature, generator)
        metrics = rollout_metrics([episode.trajectory for episode in episodes])
        return {key.replace("rollout/", "eval/").replace("switch/", "eval/switch_"): value for key, value in metrics.items()}

    def _play(
        self, entries: Sequence[Task], temperature: float, generator: torch.Generator, max_turns: int | None = None, *, record: bool = False
    ) -> list[Episode]:
        if self.world.size > 1:  # each draws from a generator of its own, seeded alike by all from the common one
            device = generator.device
            seeds = torch.randint(2**62, (self.world.size,), generator=generator, device=device).tolist()
            generator = torch.Generator(device).manual_seed(seeds[self.world.rank])
        mine = self.world.shard(list(entries))
        self._tasks.sampler.load_weights(self.actor.lm.state_dict())
        return self.world.gather(self._tasks.play(mine, temperature, generator, None, max_turns, record) if mine else [], Episode)


def _differing(episodes: Sequence[Episode], size: int) -> list[Episode]:
    """Episodes of the groups, `size` in a row, whose members did not all earn the same from the environment."""
    kept: list[Episode] = []
    for first in range(0, len(episodes), size):
        world = episodes[first : first + size]
        if len({sum(turn.reward for turn in episode.trajectory.turns) for episode in world}) > 1:
            kept += world
    return kept

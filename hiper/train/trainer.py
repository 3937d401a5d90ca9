"""The training loop: play, credit, learn, record; stoppable after any iteration and resumable to the bit.

OUT/metrics.jsonl     one line an iteration, free of wall-clock times so that a resumed run writes the same bytes
OUT/timings.jsonl     seconds by phase
OUT/alarms.json       alarms that went off
OUT/samples.jsonl     a few trajectories an iteration with their credit
OUT/checkpoints/      see `hiper.train.checkpoint`
OUT/model/            the last policy, a directory `from_pretrained` loads
OUT/best/             likewise, the policy with the best evaluation in between
"""

from __future__ import annotations

import copy
import json
import logging
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from hiper.config import Estimator, OnAlarm, RunConfig, SwitchCredit
from hiper.device import pick_device
from hiper.envs import TextEnv, make_env
from hiper.envs.alfworld.games import GameEntry, GameIndex
from hiper.errors import CheckpointError, CollapseError
from hiper.files import write_text
from hiper.model.actor import Actor, load_actor, load_tokenizer, save_actor
from hiper.protocol import Fault
from hiper.rollout.chat import ChatCodec
from hiper.rollout.collect import Collector
from hiper.rollout.episode import Episode
from hiper.rollout.policy import TransformersPolicy
from hiper.rollout.trajectory import Levels, Trajectory
from hiper.tracking import MetricsFile, Tracker
from hiper.train import checkpoint as ckpt
from hiper.train.alarms import ADVICE, Alarm, Watch
from hiper.train.batch import Batch, make_batch
from hiper.train.credit import Credit, Metrics, assign_credit, credit_metrics
from hiper.train.keep import keep_values
from hiper.train.learner import Learner
from hiper.train.score import Scores, score
from hiper.train.stream import TaskStream

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class TrainSummary:
    """What a training run did. Success rates are of sampled training episodes; `hiper evaluate` measures the policy."""

    model: str
    iterations: int
    env_turns: int
    first_success_rate: float
    last_success_rate: float
    switch_rate: float
    """Of the last iteration."""
    segment_length: float
    """Turns, of the last iteration."""
    best_iteration: int | None
    """With the best evaluation in between, the first of equals; None: there was no evaluation."""
    best_success_rate: float | None
    """Of that evaluation; the best of several is a flattering one."""


def train(cfg: RunConfig, model: Path, index: GameIndex, out: Path, resume: bool = False, progress: Progress | None = None) -> TrainSummary:
    """Train a warm-started model with HAE.

    Args:
        cfg: everything.
        model: the warm start; also the reference of the KL.
        index: games; the training split is played, `valid_seen` is sampled for evaluations in between.
        out: the training directory.
        resume: continue from the newest good checkpoint in `out`, or start if there is none.
        progress: called with (iterations done, all).

    Raises:
        DataError: a split is empty or a game file is damaged.
        ModelError: the model directory does not load.
        CheckpointError: a checkpoint cannot be written, or belongs to another run.
    """
    run = _Run(cfg, model, index, out)
    if resume:
        run.resume()
    return run.go(progress)


class _Run:
    """One training run's state. Whatever changes from iteration to iteration is in `save` and `resume`."""

    def __init__(self, cfg: RunConfig, model: Path, index: GameIndex, out: Path) -> None:
        self.cfg, self.index, self.out = cfg, index, out
        self.device = pick_device(cfg)
        self.tokenizer = load_tokenizer(model)
        self.codec = ChatCodec(self.tokenizer)
        self.actor = load_actor(model, cfg.model).to(self.device).eval()  # as after an update: dropout is for updates alone
        self.reference: Actor | None = None
        if cfg.algo.kl_coef > 0:
            self.reference = copy.deepcopy(self.actor).requires_grad_(False).eval()
        self.sampler = torch.Generator(self.device).manual_seed(cfg.seed)
        self.learner = Learner.create(self.actor, cfg, torch.Generator().manual_seed(cfg.seed + 1))
        self.stream = TaskStream(index.split("train"), cfg.seed)
        watched = index.split("valid_seen") if cfg.trainer.eval_every else []
        self.watched = [watched[i * len(watched) // cfg.trainer.eval_games] for i in range(min(cfg.trainer.eval_games, len(watched)))]
        self.iteration = 0
        self.env_turns = 0
        self.first_success: float | None = None
        self.last: Metrics = {}
        self.watch = Watch(cfg.alarms)
        self.rollbacks = 0
        self.best: dict[str, Any] | None = None

    def go(self, progress: Progress | None) -> TrainSummary:
        trainer = self.cfg.trainer
        self.out.mkdir(parents=True, exist_ok=True)
        timings = MetricsFile(self.out / "timings.jsonl")
        with Tracker(self.out, self.cfg.tracking, asdict(self.cfg)) as tracker:
            self._forget_later(tracker, timings)
            if self.iteration == 0 and OnAlarm.rollback in vars(self.cfg.alarms).values():
                self.save()  # somewhere to return to
            while not self._over():
                metrics, seconds = self._iterate()
                self.iteration += 1
                better = False
                if trainer.eval_every and (self.iteration % trainer.eval_every == 0 or self._over()):
                    with _timed(seconds, "time/evaluate"):
                        metrics |= self._evaluate()
                    better = self._is_best(metrics["eval/success_rate"])
                alarms = self.watch.look(self.iteration, metrics)
                if alarms:
                    self._write_alarms()
                tracker.log(self.iteration, metrics)
                timings.append(self.iteration, seconds)
                self.last = metrics
                logger.info("%s", _line(self.iteration, trainer.iterations, metrics, seconds))
                if any(alarm.action is OnAlarm.rollback for alarm in alarms):
                    self._roll_back(alarms)
                    self._forget_later(tracker, timings)
                    continue
                stops = [alarm for alarm in alarms if alarm.action is OnAlarm.stop]
                if all(map(math.isfinite, metrics.values())):  # weights that are not numbers are nothing to resume from
                    if better:  # before the checkpoint: killed in between, the run comes here again
                        save_actor(self.actor, self.tokenizer, self.out / "best")
                    if better or stops or self.iteration % trainer.save_every == 0 or self._over():
                        self.save()
                if stops:
                    raise self._stopped(stops[0], "")
                if progress is not None:
                    progress(self.iteration, trainer.iterations)
        timings.close()
        save_actor(self.actor, self.tokenizer, self.out / "model")
        return TrainSummary(
            model=str(self.out / "model"),
            iterations=self.iteration,
            env_turns=self.env_turns,
            first_success_rate=self.first_success or 0.0,
            last_success_rate=self.last.get("rollout/success_rate", 0.0),
            switch_rate=self.last.get("switch/rate", 0.0),
            segment_length=self.last.get("switch/segment_length", 0.0),
            best_iteration=self.best["iteration"] if self.best else None,
            best_success_rate=self.best["success_rate"] if self.best else None,
        )

    def _share(self, env_turns: int) -> float:
        """Share of the training that is done at the current iteration, when that many turns have been played."""
        trainer = self.cfg.trainer
        return min(1.0, env_turns / trainer.env_turns) if trainer.env_turns is not None else self.iteration / trainer.iterations

    def _over(self) -> bool:
        return self.iteration >= self.cfg.trainer.iterations or self._share(self.env_turns) >= 1.0

    def _forget_later(self, tracker: Tracker, timings: MetricsFile) -> None:
        """Cut the files back to where the run stands."""
        tracker.truncate_after(self.iteration)
        timings.truncate_after(self.iteration)
        self._truncate_samples()
        self._write_alarms()

    def _write_alarms(self) -> None:
        write_text(self.out / "alarms.json", json.dumps(self.watch.events, indent=1) + "\n")

    def _roll_back(self, alarms: list[Alarm]) -> None:
        """Return to the newest checkpoint from before the trouble, with smaller steps and other draws: the same would happen again."""
        alarm = next(alarm for alarm in alarms if alarm.action is OnAlarm.rollback)
        events, rollbacks = self.watch.events, self.rollbacks + 1
        good = self._good_checkpoint()
        if good is None or rollbacks > self.cfg.alarms.rollbacks:
            raise self._stopped(
                alarm, "There is no checkpoint from before it. " if good is None else f"It came back {rollbacks - 1} times. "
            )
        self._load(good)
        self.watch.events, self.rollbacks = events, rollbacks
        for offset, generator in enumerate((self.sampler, self.learner.generator)):
            generator.manual_seed(self.cfg.seed + offset + 2 * 7919 * rollbacks)
        self.save()
        logger.warning("back at iteration %d, learning rates times %g", self.iteration, self.cfg.alarms.rollback_pace**rollbacks)

    def _good_checkpoint(self) -> Path | None:
        """The newest checkpoint that was written while no alarm was coming up."""
        for path in reversed(ckpt.list_checkpoints(self.out / "checkpoints")):
            try:
                if ckpt.load_state(path)["quiet"]:
                    return path
            except CheckpointError as error:
                logger.warning("Passing over a damaged checkpoint. %s", error)
        return None

    def _stopped(self, alarm: Alarm, why: str) -> CollapseError:
        return CollapseError(
            f"{alarm} {why}{ADVICE[alarm.name]} `hiper resume RUN alarms.{alarm.name}=warn` goes on from the newest checkpoint regardless."
        )

    def _iterate(self) -> tuple[Metrics, Metrics]:
        cfg = self.cfg
        seconds: Metrics = {}
        before = self.env_turns
        # Dropout, where a model has any, draws from torch's own generators, which no checkpoint holds.
        torch.manual_seed(random.Random(f"dropout-{cfg.seed}-{self.iteration}").getrandbits(63))
        with _timed(seconds, "time/rollout"):
            played, episodes = self._sample()
        with _timed(seconds, "time/score"):
            batch = make_batch(episodes, self.device)
            scores = score(
                self.actor,
                self.reference,
                batch,
                budget=cfg.trainer.microbatch_tokens,
                temperature=cfg.rollout.temperature,
                with_states=self.learner.critic is not None,
                with_token_values=cfg.algo.name is Estimator.gae,
            )
            if cfg.algo.name is Estimator.hae and cfg.algo.switch_credit is SwitchCredit.option_value:
                scores = scores._replace(keep_values=self._keep_values(batch, episodes, scores))
            credit = assign_credit(batch, scores, cfg.algo)
        metrics = rollout_metrics([episode.trajectory for episode in played]) | credit_metrics(batch, scores, credit)
        metrics["rollout/return"] = float(credit.shaped.sum(1).mean())
        if cfg.algo.resample:
            metrics["rollout/used_rate"] = len(episodes) / len(played)
        self.env_turns += sum(len(episode.trajectory.turns) for episode in played)
        metrics["env/turns"] = self.env_turns
        metrics["tokens/read"] = batch.read_tokens
        metrics["tokens/reply"] = batch.tokens
        if self.first_success is None:
            self.first_success = metrics["rollout/success_rate"]
        with _timed(seconds, "time/update"):
            pace = 1.0 - self._share(before) if cfg.trainer.anneal else 1.0
            pace *= cfg.alarms.rollback_pace**self.rollbacks
            warming = self.iteration < cfg.trainer.critic_warmup and credit.judged  # without a critic there is nothing to warm up
            metrics |= self.learner.update(batch, scores, credit, critic_only=warming, pace=pace)
        self._record_samples(episodes, batch, scores, credit)
        return metrics, seconds

    def _sample(self) -> tuple[list[Episode], list[Episode]]:
        """Play an iteration's games: every episode, and those to learn from.

        They are the same unless `algo.resample` is set: a group whose members all earned the same has nothing to compare, so others are
        played in its place. Where all groups of all attempts are such, the last attempt's are learned from.
        """
        rollout, algo = self.cfg.rollout, self.cfg.algo
        played: list[Episode] = []
        useful: list[Episode] = []
        for _ in range(1 + algo.resample):
            tasks = self.stream.draw(rollout.trajectories - len(useful), algo.group_size)
            episodes = self._play(tasks, rollout.temperature, self.sampler, rollout.max_turns)
            played += episodes
            useful += _differing(episodes, algo.group_size) if algo.resample else episodes
            if len(useful) == rollout.trajectories:
                break
        return played, useful or episodes

    def _keep_values(self, batch: Batch, episodes: list[Episode], scores: Scores) -> torch.Tensor:
        return keep_values(
            self.actor,
            batch,
            episodes,
            scores.values,
            lambda text: self.tokenizer.encode(text, add_special_tokens=False),
            self.cfg.protocol.dialect,
            budget=self.cfg.trainer.microbatch_tokens,
        )

    def _play(
        self, entries: Sequence[GameEntry], temperature: float, generator: torch.Generator, max_turns: int | None = None
    ) -> list[Episode]:
        slots = min(self.cfg.rollout.slots, len(entries))
        policy = TransformersPolicy(
            self.actor,
            self.codec,
            slots=slots,
            temperature=temperature,
            max_reply_tokens=self.cfg.rollout.max_reply_tokens,
            generator=generator,
        )
        return Collector(policy, self.codec, self.cfg, max_turns).play(self._games(entries), slots)

    def _games(self, entries: Sequence[GameEntry]) -> Iterator[tuple[GameEntry, TextEnv]]:
        return ((entry, make_env(self.cfg.env, self.index.resolve(entry))) for entry in entries)

    def _evaluate(self) -> Metrics:
        """Success on the watched games, always the same ones with the same draws; the run's own sampler is not touched."""
        generator = torch.Generator(self.device).manual_seed(self.cfg.evaluate.seed)
        episodes = self._play(self.watched, self.cfg.evaluate.temperature, generator)
        metrics = rollout_metrics([episode.trajectory for episode in episodes])
        return {key.replace("rollout/", "eval/").replace("switch/", "eval/switch_"): value for key, value in metrics.items()}

    def _is_best(self, success_rate: float) -> bool:
        """Whether the last iteration's evaluation beats all before, which is remembered."""
        if self.best is not None and success_rate <= self.best["success_rate"]:
            return False
        self.best = {"iteration": self.iteration, "success_rate": success_rate}
        return True

    def _record_samples(self, episodes: list[Episode], batch: Batch, scores: Scores, credit: Credit) -> None:
        shaped, values = credit.shaped.tolist(), scores.values.tolist()
        low, high, switch = (level.tolist() for level in credit.levels)
        with (self.out / "samples.jsonl").open("a", encoding="utf-8") as file:
            for row, episode in enumerate(episodes[: self.cfg.trainer.samples]):
                trajectory = episode.trajectory
                trajectory.iteration = self.iteration + 1
                for t, turn in enumerate(trajectory.turns):
                    turn.shaped = shaped[row][t]
                    turn.values = Levels(*values[row][t])
                    turn.advantages = Levels(low[row][t], high[row][t], switch[row][t])
                file.write(trajectory.to_json() + "\n")

    def _truncate_samples(self) -> None:
        path = self.out / "samples.jsonl"
        if path.exists():
            lines = path.read_bytes().splitlines(keepends=True)
            kept = [line for line in lines if line.endswith(b"\n") and (json.loads(line)["iteration"] or 0) <= self.iteration]
            write_text(path, b"".join(kept).decode())

    def save(self) -> None:
        """Write a checkpoint and drop the oldest, but not the best."""
        optimizer, optimizer_rest = ckpt.optimizer_tensors(self.learner.optimizer)
        tensors = {
            **ckpt.add_prefix("actor", self.actor.state_dict()),
            **ckpt.add_prefix("optimizer", optimizer),
            "generator.sampler": ckpt.generator_state(self.sampler),
            "generator.minibatch": ckpt.generator_state(self.learner.generator),
            **self._critic_tensors(),
        }
        state: dict[str, Any] = {
            "seed": self.cfg.seed,
            "iteration": self.iteration,
            "env_turns": self.env_turns,
            "first_success": self.first_success,
            "last": self.last,
            "best": self.best,
            "stream": self.stream.state(),
            "optimizer": optimizer_rest,
            "watch": self.watch.state(),
            "quiet": self.watch.quiet,
            "rollbacks": self.rollbacks,
        }
        ckpt.save_checkpoint(self.out / "checkpoints", _name(self.iteration), tensors, state)
        self._prune()

    def _prune(self) -> None:
        keep = {_name(self.best["iteration"])} if self.best else set()
        good = None if self.watch.quiet else self._good_checkpoint()
        if good is not None:
            keep.add(good.name)
        ckpt.prune(self.out / "checkpoints", _name(self.iteration), self.cfg.trainer.keep_last, keep)

    def _critic_tensors(self) -> dict[str, torch.Tensor]:
        critic = self.learner.critic
        return {} if critic is None else {"critic.moments": critic.moments, "critic.products": critic.products}

    def resume(self) -> None:
        """Continue from the newest good checkpoint, if there is one."""
        path = ckpt.latest_checkpoint(self.out / "checkpoints")
        if path is None:
            logger.info("no checkpoint under %s: training starts from the warm start", self.out)
            return
        self._load(path)
        self._prune()  # a process killed after its last save may have left what no later save removes
        logger.info("resumed from %s", path)

    def _load(self, path: Path) -> None:
        tensors, state = ckpt.load_checkpoint(path)
        if state["seed"] != self.cfg.seed:
            raise CheckpointError(
                f"{path} belongs to seed {state['seed']}, this run has seed {self.cfg.seed}. Resume the run it was written by."
            )
        try:
            self.actor.load_state_dict(ckpt.strip_prefix("actor", tensors))
        except RuntimeError as error:
            raise CheckpointError(f"{path} does not fit the configured model: {str(error).splitlines()[0]}") from error
        ckpt.restore_optimizer(self.learner.optimizer, ckpt.strip_prefix("optimizer", tensors), state["optimizer"])
        ckpt.restore_generator(self.sampler, tensors["generator.sampler"])
        ckpt.restore_generator(self.learner.generator, tensors["generator.minibatch"])
        for name, tensor in self._critic_tensors().items():
            if name not in tensors:
                raise CheckpointError(
                    f"{path} lacks {name}: its run did not have trainer.critic_fit=least_squares. Resume with that run's settings."
                )
            tensor.copy_(tensors[name])
        self.stream.restore(state["stream"])
        self.iteration, self.env_turns = state["iteration"], state["env_turns"]
        self.first_success, self.last = state["first_success"], state["last"]
        self.watch.restore(state["watch"])
        self.rollbacks = state["rollbacks"]
        self.best = state["best"]


def rollout_metrics(trajectories: Sequence[Trajectory]) -> Metrics:
    """Episode-weighted statistics: each episode counts once, however long it was.

    `switch/rate` is the share of turns after the first that start a segment; the first turn's start is forced.
    """
    count = len(trajectories)
    turns = [turn for trajectory in trajectories for turn in trajectory.turns]
    later = sum(len(trajectory.turns) - 1 for trajectory in trajectories)
    segments = sum(trajectory.segments for trajectory in trajectories)
    won = [trajectory for trajectory in trajectories if trajectory.won]
    return {
        "rollout/success_rate": len(won) / count,
        "rollout/turns": len(turns) / count,
        "rollout/turns_won": sum(len(trajectory.turns) for trajectory in won) / max(1, len(won)),
        "rollout/truncated_rate": sum(trajectory.stop != "terminated" for trajectory in trajectories) / count,
        "rollout/reply_tokens": sum(turn.tokens for turn in turns) / len(turns),
        "rollout/valid_rate": sum(not turn.faults for turn in turns) / len(turns),
        "rollout/missing_action_rate": sum(Fault.missing_action in turn.faults for turn in turns) / len(turns),
        "rollout/inadmissible_rate": sum(not turn.admissible for turn in turns) / len(turns),
        "switch/rate": (segments - count) / max(1, later),
        "switch/segment_length": len(turns) / segments,
        "switch/segments": segments / count,
    }


def _differing(episodes: Sequence[Episode], size: int) -> list[Episode]:
    """Episodes of the groups, `size` in a row, whose members did not all earn the same from the environment."""
    kept: list[Episode] = []
    for first in range(0, len(episodes), size):
        group = episodes[first : first + size]
        if len({sum(turn.reward for turn in episode.trajectory.turns) for episode in group}) > 1:
            kept += group
    return kept
def _name(iteration: int) -> str:
    return f"iteration-{iteration:06d}"


@contextmanager
def _timed(seconds: Metrics, key: str) -> Iterator[None]:
    begun = time.perf_counter()
    yield
    seconds[key] = time.perf_counter() - begun


def _line(iteration: int, total: int, metrics: Metrics, seconds: Metrics) -> str:
    text = (
        f"iteration {iteration}/{total}: success {metrics['rollout/success_rate']:.2f}, turns {metrics['rollout/turns']:.1f}, "
        f"switch {metrics['switch/rate']:.2f}, segment {metrics['switch/segment_length']:.1f}, "
        f"inadmissible {metrics['rollout/inadmissible_rate']:.2f}, kl {metrics.get('optim/kl_ref', 0.0):.3f}, {sum(seconds.values()):.1f} s"
    )
    return text + (f", evaluation {metrics['eval/success_rate']:.2f}" if "eval/success_rate" in metrics else "")

"""The training loop: play, credit, learn, record; stoppable after any iteration and resumable to the bit.

OUT/metrics.jsonl     one line an iteration, free of wall-clock times so that a resumed run writes the same bytes
OUT/timings.jsonl     seconds by phase
OUT/alarms.json       alarms that went off
OUT/samples.jsonl     a few trajectories an iteration with their credit
OUT/checkpoints/      see `hiper.runs.checkpoint`
OUT/model/            the last policy, a directory `from_pretrained` loads
OUT/best/             likewise, the policy with the best evaluation in between; both are written at the end

A checkpoint says under which settings, from which weights and with which tasks its training was begun, and how long `metrics.jsonl` and
`samples.jsonl` were when it was written. What belongs to another training is refused, what was lost since is noticed.
"""

from __future__ import annotations

import copy
import hashlib
import logging
import math
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from hiper.algos.registry import make_estimator
from hiper.config import OnAlarm, RunConfig
from hiper.config.algo import Level
from hiper.errors import CheckpointError, CollapseError, ConfigError
from hiper.model.actor import Actor, load_actor, load_tokenizer, save_actor
from hiper.rollout.chat import ChatCodec
from hiper.rollout.episode import Episode
from hiper.rollout.trajectory import Levels
from hiper.runs import checkpoint as ckpt
from hiper.runs.fingerprint import differences, stage_settings, told
from hiper.runs.stage import STAGES
from hiper.runtime.device import pick_device
from hiper.runtime.distributed import ALONE, World
from hiper.runtime.files import cut, sync, write_json
from hiper.runtime.progress import Progress
from hiper.runtime.reading import open_file
from hiper.suites import splits_of
from hiper.suites.tasks import TaskIndex
from hiper.tracking import MetricsFile, Tracker
from hiper.train.alarms import ADVICE, Alarm, Watch
from hiper.train.credit import credit_metrics
from hiper.train.iteration import Assessed, assess
from hiper.train.learner import Learner
from hiper.train.metrics import Metrics, log_line, rollout_metrics
from hiper.train.sample import Player
from hiper.train.stream import TaskStream

logger = logging.getLogger(__name__)

METRICS, SAMPLES, TIMINGS = "metrics.jsonl", "samples.jsonl", "timings.jsonl"


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


def train(
    cfg: RunConfig,
    model: Path,
    index: TaskIndex,
    out: Path,
    resume: bool = False,
    progress: Progress | None = None,
    world: World = ALONE,
) -> TrainSummary:
    """Train a warm-started model, alone or as one of the processes that `hiper.train.ranks` starts.

    Args:
        cfg: everything.
        model: the warm start; also the reference of the KL.
        index: tasks; the training split is played, the first split of `evaluate.splits` is sampled for evaluations in between.
        out: the training directory.
        resume: continue from the newest good checkpoint in `out`, or start if there is none.
        progress: called with (iterations done, all).
        group: the processes that train together; the main one writes.

    Raises:
        ConfigError: the group is not of `trainer.processes`.
        DataError: a split is empty or a task file is damaged.
        ModelError: the model directory does not load.
        CheckpointError: a checkpoint cannot be written, or belongs to another training.
    """
    if world.size != cfg.trainer.processes:
        raise ConfigError(
            f"trainer.processes={cfg.trainer.processes}, but this is a world of {world.size}. `hiper train` starts the others, and so does "
            "hiper.train.ranks.train_in_processes."
        )
    run = _Run(cfg, model, index, out, world)
    if resume:
        run.resume()
    return run.go(progress)


class _Records(NamedTuple):
    """What gets a line an iteration."""

    tracker: Tracker
    timings: MetricsFile


class _Run:
    """One training run's state. Whatever changes from iteration to iteration is in `save` and `resume`."""

    def __init__(self, cfg: RunConfig, model: Path, index: TaskIndex, out: Path, world: World) -> None:
        self.cfg, self.out, self.world = cfg, out, world
        self.device = pick_device(cfg, world)
        self.tokenizer = load_tokenizer(model)
        self.actor = load_actor(model, cfg.model).to(self.device).eval()  # as after an update: dropout is for updates alone
        self.reference: Actor | None = None
        if cfg.algo.kl_coef > 0:
            self.reference = copy.deepcopy(self.actor).requires_grad_(False).eval()
        self.player = Player(
            cfg,
            self.actor,
            ChatCodec(self.tokenizer),
            index,
            TaskStream(index.split("train"), cfg.seed),
            torch.Generator(self.device).manual_seed(cfg.seed),
            world,
        )
        if cfg.trainer.eval_every:
            index.split(splits_of(cfg)[0])  # an empty one is refused before work is lost
        self.origin = {"weights": str(bit_sum(self.actor)), "tasks": _tasks_digest(index)}
        """What the training began from: a checkpoint of another origin is not one of it."""
        self.recorded: dict[str, dict[str, Any]] = {}
        """File -> size and SHA-256 of what of it counts."""
        self.estimator = make_estimator(cfg.algo)
        self.learner = Learner.create(self.actor, cfg, torch.Generator().manual_seed(cfg.seed + 1), world)
        self.iteration = 0
        self.env_turns = 0
        self.first_success: float | None = None
        self.last: Metrics = {}
        self.watch = Watch(cfg.alarms)
        self.rollbacks = 0
        self.best: dict[str, Any] | None = None

    def go(self, progress: Progress | None) -> TrainSummary:
        trainer = self.cfg.trainer
        with self._records() as records:
            self._forget_later(records)
            if self.iteration == 0 and OnAlarm.rollback in vars(self.cfg.alarms).values():
                self.save()  # somewhere to return to
            while not self._over():
                metrics, seconds = self._iterate()
                self.iteration += 1
                if trainer.eval_every and (self.iteration % trainer.eval_every == 0 or self._over()):
                    with _timed(seconds, "time/evaluate"):
                        metrics |= self.player.evaluate()
                metrics = self.world.broadcast_object(metrics, dict[str, float])
                self._compare()
                alarms = self.watch.look(self.iteration, metrics)
                if alarms:
                    self._write_alarms()
                if records is not None:
                    records.tracker.log(self.iteration, metrics)
                    records.timings.append(self.iteration, seconds)
                self.last = metrics
                logger.info("%s", log_line(self.iteration, trainer.iterations, metrics, seconds))
                if any(alarm.action is OnAlarm.rollback for alarm in alarms):
                    self._roll_back(alarms, records)
                    continue
                stops = [alarm for alarm in alarms if alarm.action is OnAlarm.stop]
                sound = all(map(math.isfinite, metrics.values()))  # weights that are NaN are nothing to resume from
                if sound and (self._is_best(metrics) or stops or self.iteration % trainer.save_every == 0 or self._over()):
                    self.save()
                if stops:
                    raise self._stopped(stops[0], "")
                if progress is not None:
                    progress(self.iteration, trainer.iterations)
        if self.world.main:
            self._write_models()
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

    @contextmanager
    def _records(self) -> Iterator[_Records | None]:
        """Open them, in the process that writes."""
        if not self.world.main:
            yield None
            return
        self.out.mkdir(parents=True, exist_ok=True)
        for name in (METRICS, SAMPLES, TIMINGS):
            if os.path.lexists(self.out / name):
                open_file(self.out / name).close()  # what is written to a pipe or a device is gone, or waits for a reader
        timings = MetricsFile(self.out / TIMINGS)
        with Tracker(self.out, self.cfg.tracking, self.cfg.sections()) as tracker:
            yield _Records(tracker, timings)
        timings.close()

    def _forget_later(self, records: _Records | None) -> None:
        """Cut the files back to where the run stands."""
        if records is None:
            return
        sizes = {name: self.recorded.get(name, {}).get("bytes", 0) for name in (METRICS, SAMPLES)}
        records.tracker.truncate_to(sizes[METRICS])
        records.timings.truncate_after(self.iteration)
        if (self.out / SAMPLES).exists():
            cut(self.out / SAMPLES, sizes[SAMPLES])
        self._write_alarms()

    def _check_records(self, path: Path) -> None:
        """See that what a checkpoint says was recorded before it still is.

        Raises:
            CheckpointError: a file is shorter or was altered; the message names it.
        """
        for name, expected in ckpt.load_state(path).get("records", {}).items():
            file = self.out / name
            found = _recorded(file, int(expected["bytes"]))
            if found != expected:
                size = file.stat().st_size if file.exists() else 0
                how = f"has {size} bytes" if size < expected["bytes"] else "was altered"
                raise CheckpointError(f"{file} {how}; when {path} was written it had {expected['bytes']}. Restore it, if there is a copy.")

    def _write_alarms(self) -> None:
        if self.world.main:
            write_json(self.out / "alarms.json", self.watch.events)

    def _write_models(self) -> None:
        """The last policy, and the one with the best evaluation in between, which its checkpoint holds."""
        generation = self.player.codec.generation(self.cfg.rollout.max_reply_tokens)
        save_actor(self.actor, self.tokenizer, self.out / "model", generation)
        if self.best is None:
            return
        if self.best["iteration"] != self.iteration:
            try:
                tensors, _ = ckpt.load_checkpoint(self.out / "checkpoints" / _name(self.best["iteration"]))
            except CheckpointError as error:
                logger.warning("best/ is not written: %s", error)
                return
            self.actor.load_state_dict(ckpt.strip_prefix("actor", tensors))
        save_actor(self.actor, self.tokenizer, self.out / "best", generation)

    def _roll_back(self, alarms: list[Alarm], records: _Records | None) -> None:
        """Return to the newest checkpoint from before the trouble, with smaller steps and other draws: the same would happen again."""
        alarm = next(alarm for alarm in alarms if alarm.action is OnAlarm.rollback)
        events, rollbacks = self.watch.events, self.rollbacks + 1
        good = self.world.broadcast_object(self._good_checkpoint() if self.world.main else None, Path | None)
        if good is None or rollbacks > self.cfg.alarms.rollbacks:
            raise self._stopped(
                alarm, "There is no checkpoint from before it. " if good is None else f"It came back {rollbacks - 1} times. "
            )
        self._load(good)
        self.watch.events, self.rollbacks = events, rollbacks
        for offset, generator in enumerate((self.player.generator, self.learner.generator)):
            generator.manual_seed(self.cfg.seed + offset + 2 * 7919 * rollbacks)
        self._forget_later(records)
        self.save()
        logger.warning("back at iteration %d, learning rates times %g", self.iteration, self.cfg.alarms.rollback_lr_scale**rollbacks)

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
        whose = f"-{self.world.rank}" if self.world.rank else ""
        torch.manual_seed(random.Random(f"dropout-{cfg.seed}-{self.iteration}{whose}").getrandbits(63))
        with _timed(seconds, "time/rollout"):
            played, episodes = self.player.sample()
        with _timed(seconds, "time/score"):
            assessed = assess(self.learner, self.estimator, self.reference, episodes, self._encode)
        batch, outputs, credit = assessed
        metrics = rollout_metrics([episode.trajectory for episode in played]) | credit_metrics(batch, outputs, credit)
        metrics["rollout/return"] = float(credit.shaped.sum(1).mean())
        if cfg.algo.dynamic_sampling:
            metrics["rollout/used_rate"] = len(episodes) / len(played)
        self.env_turns += sum(len(episode.trajectory.turns) for episode in played)
        metrics["env/turns"] = self.env_turns
        metrics["tokens/read"] = batch.read_tokens
        metrics["tokens/reply"] = batch.tokens
        if self.first_success is None:
            self.first_success = metrics["rollout/success_rate"]
        with _timed(seconds, "time/update"):
            lr_scale = 1.0 - self._share(before) if cfg.trainer.anneal else 1.0
            lr_scale *= cfg.alarms.rollback_lr_scale**self.rollbacks
            warming = self.iteration < cfg.trainer.critic_warmup and cfg.algo.needs.critic  # without a critic there is nothing to warm up
            metrics |= self.learner.update(batch, outputs, credit, critic_only=warming, lr_scale=lr_scale)
        if self.world.main:
            self._record_samples(episodes, assessed)
        return metrics, seconds

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def _compare(self) -> None:
        """See that all processes hold the same policy; once they do not, what they add up means nothing."""
        if self.world.size == 1:
            return
        sums = self.world.gather([bit_sum(self.actor)], int)
        if len(set(sums)) > 1:
            raise RuntimeError(
                f"after iteration {self.iteration} the processes hold different weights: by rank, the sums of their bits are {sums}."
            )

    def _is_best(self, metrics: Metrics) -> bool:
        """Whether the last iteration's evaluation, if there was one, beats all before, which is remembered.

        Amid trouble none does: a rollback may give that policy up, and its checkpoint would have taken the place of the best before.
        """
        success_rate = metrics.get("eval/success_rate")
        if success_rate is None or not self.watch.quiet or (self.best is not None and success_rate <= self.best["success_rate"]):
            return False
        self.best = {"iteration": self.iteration, "success_rate": success_rate}
        return True

    def _record_samples(self, episodes: list[Episode], assessed: Assessed) -> None:
        shaped, values = assessed.credit.shaped.tolist(), assessed.outputs.values.tolist()
        low, high, switch = (assessed.credit.levels[level].tolist() for level in Level)
        with (self.out / SAMPLES).open("a", encoding="utf-8") as file:
            for row, episode in enumerate(episodes[: self.cfg.trainer.samples]):
                trajectory = episode.trajectory
                trajectory.iteration = self.iteration + 1
                for t, turn in enumerate(trajectory.turns):
                    turn.shaped = shaped[row][t]
                    turn.values = Levels(*values[row][t])
                    turn.advantages = Levels(low[row][t], high[row][t], switch[row][t])
                file.write(trajectory.to_json() + "\n")

    def save(self) -> None:
        """Write a checkpoint and drop the oldest, but not the best."""
        self.world.barrier()  # until nobody reads what this replaces
        if self.world.main:
            self._write_checkpoint()
        self.world.barrier()

    def _write_checkpoint(self) -> None:
        optimizer, optimizer_rest = ckpt.optimizer_tensors(self.learner.optimizer)
        tensors = {
            **ckpt.add_prefix("actor", self.actor.state_dict()),
            **ckpt.add_prefix("optimizer", optimizer),
            "generator.sampler": ckpt.generator_state(self.player.generator),
            "generator.minibatch": ckpt.generator_state(self.learner.generator),
            **self._critic_tensors(),
        }
        for name in (METRICS, SAMPLES):
            if (self.out / name).exists():
                sync(self.out / name)
                self.recorded[name] = _recorded(self.out / name)
        sync(self.out)
        state: dict[str, Any] = {
            "settings": stage_settings(self.cfg, "train"),
            "origin": self.origin,
            "records": self.recorded,
            "iteration": self.iteration,
            "env_turns": self.env_turns,
            "first_success": self.first_success,
            "last": self.last,
            "best": self.best,
            "stream": self.player.stream.state(),
            "optimizer": optimizer_rest,
            "estimator": self.estimator.state(),
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
        checkpoints = self.out / "checkpoints"
        newest = ckpt.latest_checkpoint(checkpoints, self._check_records) if self.world.main else None
        path = self.world.broadcast_object(newest, Path | None)
        if path is None:
            logger.info("no checkpoint under %s: training starts from the warm start", self.out)
            return
        self._load(path)
        self.world.barrier()
        if self.world.main:
            self._prune()  # a process killed after its last save may have left what no later save removes
        logger.info("resumed from %s", path)

    def _load(self, path: Path) -> None:
        tensors, state = ckpt.load_checkpoint(path)
        self._check_origin(path, state)
        try:
            self.actor.load_state_dict(ckpt.strip_prefix("actor", tensors))
        except RuntimeError as error:
            raise CheckpointError(f"{path} does not fit the configured model: {str(error).splitlines()[0]}") from error
        ckpt.restore_optimizer(self.learner.optimizer, ckpt.strip_prefix("optimizer", tensors), state["optimizer"])
        ckpt.restore_generator(self.player.generator, tensors["generator.sampler"])
        ckpt.restore_generator(self.learner.generator, tensors["generator.minibatch"])
        for name, tensor in self._critic_tensors().items():
            if name not in tensors:
                raise CheckpointError(
                    f"{path} lacks {name}: its run did not have trainer.value_fit=least_squares. Resume with that run's settings."
                )
            tensor.copy_(tensors[name])
        self.player.stream.restore(state["stream"])
        self.iteration, self.env_turns = state["iteration"], state["env_turns"]
        self.first_success, self.last = state["first_success"], state["last"]
        self.estimator.restore(state["estimator"])
        self.watch.restore(state["watch"])
        self.rollbacks = state["rollbacks"]
        self.best = state["best"]
        self.recorded = state["records"]

    def _check_origin(self, path: Path, state: dict[str, Any]) -> None:
        """See that a checkpoint is one of this training; how long that goes on may have changed.

        Raises:
            CheckpointError: other settings, other weights or other tasks; the message names them.
        """
        changed = differences(state["settings"], stage_settings(self.cfg, "train"))
        other = {key: values for key, values in changed.items() if key not in STAGES["train"].extendable}
        if other:
            raise CheckpointError(f"{path} belongs to another training: {told(other)}. Resume the run it was written by.")
        if state["origin"] != self.origin:
            what = ", ".join(f"other {name}" for name in self.origin if state["origin"].get(name) != self.origin[name])
            raise CheckpointError(f"{path} belongs to another training: it began from {what}. Resume the run it was written by.")
        if changed and self.cfg.trainer.anneal:
            logger.warning("%s; learning rates follow the new length from here on", told(changed))


def bit_sum(actor: Actor) -> int:
    """The sum of the weights' bits, read as whole numbers: one bit that differs changes it."""
    whole = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    return sum(int(weights.detach().view(whole[weights.element_size()]).sum(dtype=torch.int64)) for weights in actor.parameters())


def _recorded(file: Path, size: int | None = None) -> dict[str, Any]:
    """Size and SHA-256 of a file, or of no more than its first `size` bytes."""
    data = b""
    if os.path.lexists(file):
        with open_file(file) as stream:
            data = stream.read() if size is None else stream.read(size)
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _tasks_digest(index: TaskIndex) -> str:
    return hashlib.sha256("\n".join(f"{entry.path} {entry.digest}" for entry in index.split("train")).encode()).hexdigest()


def _name(iteration: int) -> str:
    return f"iteration-{iteration:06d}"


@contextmanager
def _timed(seconds: Metrics, key: str) -> Iterator[None]:
    begun = time.perf_counter()
    yield
    seconds[key] = time.perf_counter() - begun

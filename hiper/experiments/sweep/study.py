"""A study in its storage: a queue of trials, heartbeats, and what became of each.

The number of trials is a queue: a study begins with so many waiting trials, its slots, and workers take them one by one. A worker that
died leaves a running trial without heartbeats; whoever looks next marks that one failed and requeues its slot, as
a new trial with the same settings, which continues from the checkpoint. So each slot ends once, whatever happens to the workers and to
the database. The queue is changed in turns (`Storage.in_turn`), by functions that look at what is there and so may be called again.
"""

from __future__ import annotations

import copy
import logging
import os
import platform
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, Trial, TrialState

from hiper.errors import ConfigError
from hiper.experiments.sweep.spec import PrunerName, SamplerName, SweepSpec
from hiper.experiments.sweep.storage import SILENT, Storage, StorageAway, open_storage, quietly, shown

logger = logging.getLogger("hiper.sweep")

MARK = "mark"
"""Attribute of a study: `SweepSpec.mark` when it was begun."""
SLOT = "failed_trial"
"""Attribute of a trial that was requeued: its slot. The name is Optuna's."""
WORKER, TURNS, ERROR = "worker", "env_turns", "error"
"""Attributes of a trial: who had it last (host:process), turns of the environment played for it, what its training failed with."""
CLAIM = "claim"
"""Attribute of a trial: the call of `SweepStudy.claim` that took it; no two have the same."""


class TrialLost(Exception):
    """The study counted this worker as dead and gave its trial to another."""


@dataclass(frozen=True)
class Claim:
    """A trial that this process runs."""

    trial: Trial
    slot: int
    """Which of the study's trials it is an attempt at."""
    id: int
    """In the storage."""
    storage: Storage


@dataclass(frozen=True)
class Slot:
    """One of the study's trials, through all attempts at it."""

    number: int
    last: FrozenTrial
    """The newest attempt: what became of the slot."""
    turns: int
    """Turns of the environment that were played for it."""
    given_up: bool
    """Whether its workers died or were stopped too often."""

    @property
    def ended(self) -> bool:
        """Whether nothing more is to be done for it."""
        lost = self.last.state is TrialState.FAIL and ERROR not in self.last.user_attrs  # about to be requeued
        return self.last.state.is_finished() and (self.given_up or not lost)


class SweepStudy:
    """The study of a sweep, as one process sees it."""

    def __init__(self, spec: SweepSpec, storage: Storage, study: optuna.Study) -> None:
        self.spec, self.storage, self.study = spec, storage, study
        self._id = storage.get_study_id_from_name(spec.name)
        self._queue_again = quietly(RetryHeartbeatStaleTrialCallback, max_retry=spec.retries)

    @classmethod
    def begin(cls, spec: SweepSpec) -> SweepStudy:
        """Create the study, or come back to it; its queue then holds what is left to do.

        Raises:
            ConfigError: a study of this name was begun with another space, base or objective.
            WorkflowError: its storage cannot be opened.
        """
        spec.place.mkdir(parents=True, exist_ok=True)
        storage = open_storage(spec)
        study = optuna.create_study(storage=storage, study_name=spec.name, direction="maximize", pruner=_pruner(spec), load_if_exists=True)
        self = cls(spec, storage, study)
        storage.in_turn(self._fill)
        return self

    def _fill(self) -> None:
        if MARK not in self.study.user_attrs:
            self.study.set_user_attr(MARK, self.spec.mark())
        self._check_mark()
        self._take_back()
        for _ in range(self.spec.trials - len(self.slots())):
            self.study.enqueue_trial({})

    @classmethod
    def join(cls, spec: SweepSpec, wait: bool = False) -> SweepStudy:
        """Come to a study that was begun.

        Args:
            spec: the sweep.
            wait: for a database server that is away.

        Raises:
            ConfigError: there is none, or it was begun with another space, base or objective.
        """
        storage = open_storage(spec, wait)
        try:
            study = optuna.load_study(storage=storage, study_name=spec.name, pruner=_pruner(spec))
        except KeyError as error:
            raise ConfigError(f"there is no study {spec.name!r} in {shown(spec)}. Begin it without --join.") from error
        self = cls(spec, storage, study)
        self._check_mark()
        return self

    def claim(self) -> Claim | None:
        """Take the next trial from the queue, after the trials of dead workers were requeued; None: the queue is empty.

        Once the budget is spent, only trials that were begun before are still handed out.
        """
        token = uuid.uuid4().hex
        return self.storage.in_turn(lambda: self._claim(token))

    def _claim(self, token: str) -> Claim | None:
        for one in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if one.user_attrs.get(CLAIM) == token:  # taken before the connection was lost
                return self._claimed(one)
        self._take_back()
        waiting = self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        if self.spec.budget is not None and self.spent() >= self.spec.budget:
            waiting = [trial for trial in waiting if SLOT in trial.system_attrs]
        for one in waiting:
            trial_id = self._id_of(one)
            self.storage.record_heartbeat(trial_id)  # first: a trial that runs without a heartbeat would never be missed
            self.storage.set_trial_user_attr(trial_id, WORKER, f"{platform.node()}:{os.getpid()}")
            self.storage.set_trial_user_attr(trial_id, CLAIM, token)
            if self.storage.set_trial_state_values(trial_id, TrialState.RUNNING):
                return self._claimed(one)
        return None

    def _claimed(self, trial: FrozenTrial) -> Claim:
        slot, trial_id = slot_number(trial), self._id_of(trial)
        self.study.sampler = _sampler(self.spec, slot)
        return Claim(Trial(self.study, trial_id), slot, trial_id, self.storage)

    def _take_back(self) -> None:
        """Put the trials of dead workers back into the queue, and those whose way there was interrupted."""
        quietly(optuna.storages.fail_stale_trials, self.study)
        for slot in self.slots():
            if slot.last.state.is_finished() and not slot.ended:
                self._queue_again(self.study, copy.deepcopy(slot.last))  # a copy: it lengthens the trial's history in place

    def _id_of(self, trial: FrozenTrial) -> int:
        return self.storage.get_trial_id_from_study_id_trial_number(self._id, trial.number)

    @contextmanager
    def alive(self, claim: Claim) -> Iterator[None]:
        """Send heartbeats for a trial while it runs."""
        over = threading.Event()

        def beat() -> None:
            missed = 0
            while not over.wait(self.spec.heartbeat):
                try:
                    with self.storage.briefly():  # the next beat is soon
                        self.storage.record_heartbeat(claim.id)
                    missed = 0
                except (StorageAway, StorageInternalError) as error:
                    missed += 1
                    if missed == 1:
                        logger.warning("trial %d: no heartbeat could be recorded (%s)", claim.slot, error)
            self.storage.remove_session()

        thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def complete(self, claim: Claim, value: float) -> None:
        """A trial reached its end; its objective.

        Raises:
            TrialLost: another worker has it now.
        """
        self._tell(claim, TrialState.COMPLETE, value)

    def prune(self, claim: Claim) -> None:
        """A trial was stopped because others did better.

        Raises:
            TrialLost: another worker has it now.
        """
        self._tell(claim, TrialState.PRUNED)

    def fail(self, claim: Claim, error: Exception) -> None:
        """A trial's training failed, and would again.

        Raises:
            TrialLost: another worker has it now.
        """
        with suppress(UpdateFinishedTrialError):
            claim.trial.set_user_attr(ERROR, f"{type(error).__name__}: {error}"[:1000])
        self._tell(claim, TrialState.FAIL)

    def _tell(self, claim: Claim, state: TrialState, value: float | None = None) -> None:
        with suppress(UpdateFinishedTrialError):  # written before, and the answer was lost; or the trial is another's
            self.study.tell(claim.trial, value, state=state, skip_if_finished=True)
        found = self.storage.get_trial(claim.id)
        if found.state is not state or (state is TrialState.FAIL and ERROR not in found.user_attrs):
            raise TrialLost(f"trial {claim.slot} was given to another worker")

    def requeue(self, claim: Claim) -> None:
        """Hand back a trial that was interrupted; the next worker continues it. Who is interrupted does not wait for a database."""
        try:
            with self.storage.briefly():
                self.storage.in_turn(lambda: self._requeue(claim))
        except StorageAway as error:
            logger.warning("trial %d is taken up in %d s, not at once: %s", claim.slot, SILENT * self.spec.heartbeat, error)

    def _requeue(self, claim: Claim) -> None:
        with suppress(UpdateFinishedTrialError):
            self.storage.set_trial_state_values(claim.id, TrialState.FAIL)
        self._take_back()

    def running(self) -> bool:
        """Whether some worker has a trial, be it alive or dead."""
        return bool(self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))

    def slots(self) -> list[Slot]:
        """What became of each trial, by number."""
        attempts: dict[int, list[FrozenTrial]] = {}
        for trial in self.study.get_trials(deepcopy=False):
            attempts.setdefault(slot_number(trial), []).append(trial)
        return [
            Slot(
                number,
                of[-1],
                turns=max(int(one.user_attrs.get(TURNS, 0)) for one in of),
                given_up=len(of[-1].system_attrs.get("retry_history", [])) >= self.spec.retries,
            )
            for number, of in sorted(attempts.items())
        ]

    def spent(self) -> int:
        """Turns of the environment played so far, by all trials."""
        return sum(slot.turns for slot in self.slots())

    def _check_mark(self) -> None:
        if self.study.user_attrs.get(MARK) != self.spec.mark():
            raise ConfigError(
                f"the study {self.spec.name!r} in {shown(self.spec)} was begun with another base, space, seeds or objective (last): its "
                "trials could not be compared. Choose another name, or undo the change. More trials, another sampler or pruner are fine."
            )


def slot_number(trial: FrozenTrial) -> int:
    """The slot an attempt belongs to: the number of the first attempt."""
    return int(trial.system_attrs.get(SLOT, trial.number))


def _sampler(spec: SweepSpec, slot: int) -> BaseSampler:
    """A sampler for one trial: several workers then never draw the same, and one worker draws the same however often it is stopped."""
    seed = (spec.sampler.seed * 1_000_003 + slot) % 2**32
    if spec.sampler.name is SamplerName.random:
        return RandomSampler(seed=seed)
    grouped = any(one.when for one in spec.space.values())
    sampler: BaseSampler = quietly(TPESampler, n_startup_trials=spec.sampler.startup, seed=seed, multivariate=True, group=grouped)
    return sampler


def _pruner(spec: SweepSpec) -> BasePruner:
    pruner = spec.pruner
    if pruner.name is PrunerName.none:
        return NopPruner()
    if pruner.name is PrunerName.median:
        return MedianPruner(n_startup_trials=pruner.startup, n_warmup_steps=pruner.warmup)
    trainer = spec.compose({}, spec.seeds[0], spec.place).trainer
    return HyperbandPruner(trainer.eval_every, len(spec.seeds) * trainer.iterations, pruner.reduction)

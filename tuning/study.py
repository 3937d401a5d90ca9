"""A study in its storage: a queue of trials, signs of life, and what became of each.

The number of trials is a queue: a study begins with so many waiting trials, its slots, and workers take them one by one. A worker that
died leaves a running trial without signs of life; whoever looks next marks that one failed and puts its slot back into the queue, as
a new trial with the same settings, which continues from the checkpoint. So each slot ends once, whatever happens to the workers.
"""

from __future__ import annotations

import logging
import os
import platform
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import optuna
import sqlalchemy
from optuna.exceptions import ExperimentalWarning, StorageInternalError, UpdateFinishedTrialError
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, Trial, TrialState

from hiper.errors import ConfigError, WorkflowError
from hiper.lock import locked
from tuning.spec import PrunerName, SamplerName, SweepSpec

logger = logging.getLogger("hiper.sweep")

P = ParamSpec("P")
T = TypeVar("T")

SILENT = 4
"""Signs of life a worker may miss before it counts as dead."""

MARK = "mark"
"""Attribute of a study: `SweepSpec.mark` when it was begun."""
SLOT = "failed_trial"
"""Attribute of a trial that was put back into the queue: its slot. The name is Optuna's."""
WORKER, TURNS, ERROR = "worker", "env_turns", "error"
"""Attributes of a trial: who had it last (host:process), turns of the environment played for it, what its training failed with."""


@dataclass(frozen=True)
class Claim:
    """A trial that this process runs."""

    trial: Trial
    slot: int
    """Which of the study's trials it is an attempt at."""
    id: int
    """In the storage."""


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
        lost = self.last.state is TrialState.FAIL and ERROR not in self.last.user_attrs  # about to be put back into the queue
        return self.last.state.is_finished() and (self.given_up or not lost)


class SweepStudy:
    """The study of a sweep, as one process sees it."""

    def __init__(self, spec: SweepSpec, storage: RDBStorage, study: optuna.Study) -> None:
        self.spec, self.storage, self.study = spec, storage, study
        self._id = storage.get_study_id_from_name(spec.name)
        self._queue_again = _quietly(RetryHeartbeatStaleTrialCallback, max_retry=spec.retries)

    @classmethod
    def begin(cls, spec: SweepSpec) -> SweepStudy:
        """Create the study, or come back to it; its queue then holds what is left to do. One process at a time.

        Raises:
            ConfigError: a study of this name was begun with another space, base or objective.
        """
        spec.place.mkdir(parents=True, exist_ok=True)
        storage = open_storage(spec)
        study = optuna.create_study(storage=storage, study_name=spec.name, direction="maximize", pruner=_pruner(spec), load_if_exists=True)
        if MARK not in study.user_attrs:
            study.set_user_attr(MARK, spec.mark())
        self = cls(spec, storage, study)
        self._check_mark()
        with self._turn():
            for slot in self.slots():
                if slot.last.state.is_finished() and not slot.ended:
                    self._queue_again(study, slot.last)  # a process died between the two halves of putting it back
            for _ in range(spec.trials - len(self.slots())):
                study.enqueue_trial({})
        return self

    @classmethod
    def join(cls, spec: SweepSpec) -> SweepStudy:
        """Come to a study that was begun.

        Raises:
            ConfigError: there is none, or it was begun with another space, base or objective.
        """
        storage = open_storage(spec)
        try:
            study = optuna.load_study(storage=storage, study_name=spec.name, pruner=_pruner(spec))
        except KeyError as error:
            raise ConfigError(f"there is no study {spec.name!r} in {shown(spec)}. Begin it without --join.") from error
        self = cls(spec, storage, study)
        self._check_mark()
        return self

    def claim(self) -> Claim | None:
        """Take the next trial from the queue, after the trials of dead workers were put back; None: the queue is empty.

        Once the budget is spent, only trials that were begun before are still handed out.
        """
        with self._turn():
            _quietly(optuna.storages.fail_stale_trials, self.study)
            waiting = self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
            if self.spec.budget is not None and self.spent() >= self.spec.budget:
                waiting = [trial for trial in waiting if SLOT in trial.system_attrs]
            for one in waiting:
                trial_id = self.storage.get_trial_id_from_study_id_trial_number(self._id, one.number)
                self.storage.record_heartbeat(trial_id)  # first: a trial that runs without a sign of life would never be missed
                try:
                    if self.storage.set_trial_state_values(trial_id, TrialState.RUNNING):
                        self.storage.set_trial_user_attr(trial_id, WORKER, f"{platform.node()}:{os.getpid()}")
                        slot = slot_number(one)
                        self.study.sampler = _sampler(self.spec, slot)
                        return Claim(Trial(self.study, trial_id), slot, trial_id)
                except UpdateFinishedTrialError:
                    continue
        return None

    @contextmanager
    def alive(self, claim: Claim) -> Iterator[None]:
        """Give signs of life for a trial while it runs."""
        over = threading.Event()

        def beat() -> None:
            while not over.wait(self.spec.heartbeat):
                try:
                    self.storage.record_heartbeat(claim.id)
                except StorageInternalError as error:
                    logger.warning("trial %d: no sign of life could be given (%s)", claim.slot, error)
            self.storage.remove_session()

        thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def complete(self, claim: Claim, value: float) -> None:
        """A trial reached its end; its objective."""
        self.study.tell(claim.trial, value, skip_if_finished=True)  # finished: it was taken for dead, and another repeats it

    def prune(self, claim: Claim) -> None:
        """A trial was stopped because others did better."""
        self.study.tell(claim.trial, state=TrialState.PRUNED, skip_if_finished=True)

    def fail(self, claim: Claim, error: Exception) -> None:
        """A trial's training failed, and would again."""
        with suppress(UpdateFinishedTrialError):
            claim.trial.set_user_attr(ERROR, f"{type(error).__name__}: {error}"[:1000])
        self.study.tell(claim.trial, state=TrialState.FAIL, skip_if_finished=True)

    def put_back(self, claim: Claim) -> None:
        """Hand back a trial that was interrupted; the next worker continues it."""
        with self._turn(), suppress(UpdateFinishedTrialError):
            if self.storage.set_trial_state_values(claim.id, TrialState.FAIL):
                self._queue_again(self.study, self.storage.get_trial(claim.id))

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

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One process of this machine at a time: SQLite locks no rows, so two could take the same trial. Servers lock them."""
        with locked(self.spec.place / "trials", wait=True):
            yield

    def _check_mark(self) -> None:
        if self.study.user_attrs.get(MARK) != self.spec.mark():
            raise ConfigError(
                f"the study {self.spec.name!r} in {shown(self.spec)} was begun with another base, space, seeds or objective (last): its "
                "trials could not be compared. Choose another name, or undo the change. More trials, another sampler or pruner are fine."
            )


def slot_number(trial: FrozenTrial) -> int:
    """The slot an attempt belongs to: the number of the first attempt."""
    return int(trial.system_attrs.get(SLOT, trial.number))


def open_storage(spec: SweepSpec) -> RDBStorage:
    """The study's database.

    Raises:
        WorkflowError: it cannot be reached.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    url = spec.storage or f"sqlite:///{(spec.place / 'study.db').resolve()}"
    patience = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {"pool_pre_ping": True}
    try:
        storage: RDBStorage = _quietly(
            RDBStorage,
            url,
            engine_kwargs=patience,
            heartbeat_interval=spec.heartbeat,
            grace_period=SILENT * spec.heartbeat,
            heartbeat_stale_trial_callback=_quietly(RetryHeartbeatStaleTrialCallback, max_retry=spec.retries),
        )
    except (sqlalchemy.exc.SQLAlchemyError, StorageInternalError, ImportError) as error:
        raise WorkflowError(
            f"the study's storage {shown(spec)} cannot be opened: {type(error).__name__}. See `storage` of the sweep."
        ) from None
    return storage


def shown(spec: SweepSpec) -> str:
    """Where the study lies, without a password."""
    if spec.storage is None:
        return str(spec.place / "study.db")
    try:
        return sqlalchemy.make_url(spec.storage).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:
        return "(not a database URL)"


def _sampler(spec: SweepSpec, slot: int) -> BaseSampler:
    """A sampler for one trial: several workers then never draw the same, and one worker draws the same however often it is stopped."""
    seed = (spec.sampler.seed * 1_000_003 + slot) % 2**32
    if spec.sampler.name is SamplerName.random:
        return RandomSampler(seed=seed)
    grouped = any(one.when for one in spec.space.values())
    sampler: BaseSampler = _quietly(TPESampler, n_startup_trials=spec.sampler.startup, seed=seed, multivariate=True, group=grouped)
    return sampler


def _pruner(spec: SweepSpec) -> BasePruner:
    pruner = spec.pruner
    if pruner.name is PrunerName.none:
        return NopPruner()
    if pruner.name is PrunerName.median:
        return MedianPruner(n_startup_trials=pruner.startup, n_warmup_steps=pruner.warmup)
    trainer = spec.compose({}, spec.seeds[0], spec.place).trainer
    return HyperbandPruner(trainer.eval_every, len(spec.seeds) * trainer.iterations, pruner.reduction)


def _quietly(function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """Call what Optuna calls experimental; the pinned version is the one that was tried."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return function(*arguments, **options)

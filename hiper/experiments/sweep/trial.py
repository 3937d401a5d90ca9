"""One trial: settings from the space, a warm start shared with the others, a training watched while it runs."""

from __future__ import annotations

import logging
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from optuna import TrialPruned
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import Trial

from hiper.composition.compose import override
from hiper.config import RunConfig
from hiper.errors import CollapseError
from hiper.evaluation.history import history
from hiper.experiments.sweep.spec import SweepSpec
from hiper.experiments.sweep.storage import StorageAway
from hiper.experiments.sweep.study import TURNS, Claim, TrialLost
from hiper.pipeline.stages import STAGES
from hiper.report.curves import evaluations
from hiper.runs.fingerprint import stage_fingerprint
from hiper.runs.plan import stages_of
from hiper.runtime.lock import locked
from hiper.runtime.progress import Progress, track
from hiper.tracking import read_metrics

logger = logging.getLogger("hiper.sweep")


def run_trial(spec: SweepSpec, claim: Claim, check: Callable[[], None]) -> float:
    """Train with settings of the space, once a seed.

    Args:
        spec: the sweep.
        claim: the trial.
        check: called after each iteration; raises to stop the trial.

    Returns:
        The mean over seeds of the mean success of the last evaluations.

    Raises:
        TrialPruned: others did better by the same iteration, or an alarm ended the training.
        TrialLost: another worker has it now.
        ConfigError: settings that cannot stand together.
        StorageAway: the study's server is away, and nothing is left to do without it.
    """
    try:
        settings = suggest(spec, claim.trial)
        scores, turns = [], 0
        for number, seed in enumerate(spec.seeds):
            run = folder(spec, claim.slot) / f"seed-{seed}"
            cfg = spec.compose(settings, seed, run)
            watch = _Watch(spec, claim, cfg, check, turns, number * cfg.trainer.iterations)
            cfg = override(cfg, [f"paths.base={shared_stages(spec, cfg)}"])
            with locked(run, wait=True):  # a worker that was taken for dead leaves at its next report
                STAGES["train"](cfg, watch)
            scores.append(watch.finish())
            turns = watch.turns
    except UpdateFinishedTrialError as error:
        raise TrialLost(f"trial {claim.slot} was given to another worker") from error
    except CollapseError as error:
        raise TrialPruned(str(error)) from error
    return statistics.fmean(scores)


def suggest(spec: SweepSpec, trial: Trial) -> dict[str, Any]:
    """Settings for a trial, those whose conditions hold; one that was begun before keeps its own."""
    chosen: dict[str, Any] = {}
    for key, one in spec.space.items():
        if not all(name in chosen and chosen[name] in values for name, values in one.when.items()):
            continue
        if one.choices is not None:
            chosen[key] = trial.suggest_categorical(key, one.choices)
        elif one.whole:
            chosen[key] = trial.suggest_int(key, int(one.low), int(one.high), log=one.log)
        else:
            chosen[key] = trial.suggest_float(key, one.low, one.high, log=one.log)
    return chosen


def shared_stages(spec: SweepSpec, cfg: RunConfig, progress: Progress | None = None) -> Path:
    """The run that holds the stages of a config that runs may share, to the warm start; made now if it is the first that needs them."""
    base = spec.place / "base" / stage_fingerprint(cfg, _shared(cfg)[-1])
    own = override(cfg, [f"paths.run={base}"])
    with locked(base, wait=True):
        for name in _shared(cfg):
            STAGES[name](own, progress)
    return base


def _shared(cfg: RunConfig) -> list[str]:
    return [name for name in stages_of(cfg) if STAGES[name].shared]


def prepare(spec: SweepSpec) -> None:
    """Make what trials share before they begin, unless the space itself changes it."""
    for seed in spec.seeds:
        cfg = spec.compose({}, seed, spec.place)
        last = _shared(cfg)[-1]
        if all(stage_fingerprint(end, last) == stage_fingerprint(cfg, last) for end in spec.ends(seed)):
            with track("what trials share") as progress:
                shared_stages(spec, cfg, progress)


def folder(spec: SweepSpec, slot: int) -> Path:
    """Where the trainings of a trial lie."""
    return spec.place / "trials" / f"{slot:04d}"


def forget_checkpoints(spec: SweepSpec, slot: int) -> None:
    """Delete what only a resumed trial needs."""
    for checkpoints in folder(spec, slot).glob("seed-*/train*/checkpoints"):
        shutil.rmtree(checkpoints, ignore_errors=True)


class _Watch:
    """Called by the trainer after each iteration: tells the study of each new evaluation, and asks whether to go on.

    Training does not wait for a database server that is away: what was evaluated meanwhile is told later, at the latest at its end.
    What is reported is the mean of the last evaluations so far, as the objective is: a single one is noise, and pruners keep its peak.
    """

    def __init__(self, spec: SweepSpec, claim: Claim, cfg: RunConfig, check: Callable[[], None], turns: int, offset: int) -> None:
        self._spec, self._claim, self._trial, self._run, self._check = spec, claim, claim.trial, Path(cfg.paths.run), check
        self._before, self._offset = turns, offset
        self._reported = 0
        self._untold = False
        self.turns = turns
        """Turns played for this trial, earlier seeds included."""

    def __call__(self, done: int, total: int) -> None:
        self._check()
        if done > 0 and self._should_prune():
            raise TrialPruned(f"at iteration {done} of {total}")

    def _should_prune(self) -> bool:
        try:
            with self._claim.storage.briefly():
                self._report(self._run / "train.partial")
                found = self._trial.should_prune()
        except StorageAway as error:
            if not self._untold:
                logger.warning("trial %d: training goes on without the study: %s", self._claim.slot, error)
            self._untold = True
            return False
        if self._untold:
            logger.info("trial %d: the study knows of all its evaluations again", self._claim.slot)
        self._untold = False
        return found

    def finish(self) -> float:
        """The objective of this training."""
        return self._report(self._run / "train")

    def _report(self, training: Path) -> float:
        metrics = read_metrics(training / "metrics.jsonl")
        points = evaluations(metrics)
        for count in range(self._reported + 1, len(points) + 1):
            self._trial.report(self._mean(points[:count]), self._offset + points[count - 1][0])
            self._reported = count
        self.turns = self._before + int(metrics[-1]["env/turns"])
        self._trial.set_user_attr(TURNS, self.turns)
        return self._mean(points) if points else 0.0

    def _mean(self, points: list[tuple[int, float]]) -> float:
        found = history(points, self._spec.last)
        assert found is not None, "there are evaluations"
        return found.mean_last

"""A worker process: takes trials from the study until none is left.

A sweep starts it: `python -m hiper.experiments.sweep.worker FILE [OVERRIDE ...]`.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from optuna import TrialPruned

from hiper.errors import HiperError
from hiper.experiments.sweep.spec import SweepSpec, load_spec
from hiper.experiments.sweep.storage import StorageAway
from hiper.experiments.sweep.study import Claim, SweepStudy, TrialLost
from hiper.experiments.sweep.trial import forget_checkpoints, run_trial
from hiper.runtime.progress import start_logging

logger = logging.getLogger("hiper.sweep")

IN_A_ROW = 3
"""Failed trainings after which a worker gives up: it is then not the settings' fault."""


def work(spec: SweepSpec, check: Callable[[], None]) -> None:
    """Run trials until the queue is empty and no other worker's trial can come back to it.

    Args:
        spec: the sweep.
        check: called after each iteration; raises to stop.
    """
    study = SweepStudy.join(spec, wait=True)  # it was there when the sweep began
    failed = 0
    while True:
        check()
        claim = study.claim()
        if claim is None:
            if not study.running():
                return
            time.sleep(min(spec.heartbeat, 5))
            continue
        logger.info("trial %d: begins", claim.slot)
        try:
            error = _attempt(spec, study, claim, check)
        except TrialLost as lost:
            logger.warning("%s", lost)
            continue
        except StorageAway:
            raise  # not the trial's fault; it is taken up again
        except BaseException:
            study.requeue(claim)
            raise
        forget_checkpoints(spec, claim.slot)
        failed = failed + 1 if error is not None else 0
        if error is not None and failed == IN_A_ROW:
            raise error


def _attempt(spec: SweepSpec, study: SweepStudy, claim: Claim, check: Callable[[], None]) -> Exception | None:
    """Train, and tell the study what came of it; what the training failed with."""
    try:
        with study.alive(claim):
            value = run_trial(spec, claim, check)
            study.complete(claim, value)
        logger.info("trial %d: %.3f", claim.slot, value)
    except TrialPruned as pruned:
        study.prune(claim)
        logger.info("trial %d: pruned %s", claim.slot, pruned)
    except (TrialLost, StorageAway):
        raise
    except Exception as error:  # a training may fail in any way; the study goes on without it
        logger.exception("trial %d failed", claim.slot)
        study.fail(claim, error)
        return error
    return None


def main(arguments: list[str]) -> int:
    """Work for the sweep in the file named; 0: nothing is left to do."""
    start_logging()
    parent = os.getppid()

    def stop(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    def check() -> None:
        if os.getppid() != parent:
            raise KeyboardInterrupt  # the sweep that started this worker is gone, and nobody would see it go on

    signal.signal(signal.SIGTERM, stop)
    try:
        work(load_spec(Path(arguments[0]), arguments[1:]), check)
    except KeyboardInterrupt:
        return 130
    except HiperError as error:
        logger.error("%s", error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

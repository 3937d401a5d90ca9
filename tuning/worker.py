"""A worker process: takes trials from the study until none is left. `python -m tuning.worker FILE [OVERRIDE ...]`, started by a sweep."""

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
from hiper.progress import start_logging
from tuning.spec import SweepSpec, load_spec
from tuning.study import SweepStudy
from tuning.trial import TrialLost, forget_checkpoints, run_trial

logger = logging.getLogger("hiper.sweep")

IN_A_ROW = 3
"""Failed trainings after which a worker gives up: it is then not the settings' fault."""


def work(spec: SweepSpec, check: Callable[[], None]) -> None:
    """Run trials until the queue is empty and no other worker's trial can come back to it.

    Args:
        spec: the sweep.
        check: called after each iteration; raises to stop.
    """
    study = SweepStudy.join(spec)
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
            with study.alive(claim):
                value = run_trial(spec, claim, check)
            study.complete(claim, value)
            logger.info("trial %d: %.3f", claim.slot, value)
            failed = 0
        except TrialPruned as pruned:
            study.prune(claim)
            logger.info("trial %d: pruned %s", claim.slot, pruned)
            failed = 0
        except TrialLost as lost:
            logger.warning("%s", lost)
            continue
        except Exception as error:  # a training may fail in any way; the study goes on without it
            logger.exception("trial %d failed", claim.slot)
            study.fail(claim, error)
            failed += 1
            if failed == IN_A_ROW:
                raise
        except BaseException:
            study.put_back(claim)
            raise
        forget_checkpoints(spec, claim.slot)


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

"""Several processes train together: `trainer.processes`, by torchrun.

`train_in_processes` is `hiper.train.trainer.train` with others doing the work. Three kinds of processes take part: the one that calls
it, which holds the run's lock and finishes the stage; torchrun, which this module is when it is run (`python -m hiper.train.launch`) and
which therefore imports nothing heavy; and those that train, `hiper.train.worker`. Each ends when the one that started it does, and torchrun
ends all when one of them fails.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import signal
import sys
import tempfile
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from time import time
from typing import TYPE_CHECKING

from hiper import errors
from hiper.errors import HiperError, WorkflowError
from hiper.files import write_text
from hiper.leash import LEASH, end_with_parent
from hiper.process import run_process
from hiper.progress import Progress

if TYPE_CHECKING:
    from hiper.config import RunConfig
    from hiper.envs.index import GameIndex
    from hiper.train.trainer import TrainSummary

logger = logging.getLogger(__name__)

_SUMMARY = "summary.json"
_KILLED = "killed.txt"


@dataclass(frozen=True)
class Order:
    """What the processes are to do: the arguments of `train`."""

    cfg: RunConfig
    model: Path
    index: GameIndex
    out: Path
    resume: bool


def train_in_processes(
    cfg: RunConfig, model: Path, index: GameIndex, out: Path, resume: bool = False, progress: Progress | None = None
) -> TrainSummary:
    """Train with `trainer.processes` processes; arguments and errors as of `hiper.train.trainer.train`.

    Raises:
        WorkflowError: a process failed for no reason that is the user's to mend; its last lines are in the message.
    """
    from hiper.train.trainer import TrainSummary

    with tempfile.TemporaryDirectory(prefix="hiper-") as name:
        desk = Path(name)
        (desk / "order").write_bytes(pickle.dumps(Order(cfg, model, index, out, resume)))
        command = [sys.executable, "-m", "hiper.train.launch", str(cfg.trainer.processes), name]
        try:
            run_process(command, {**os.environ, LEASH: str(os.getpid())}, logger.info, progress or (lambda done, total: None))
        except WorkflowError as error:
            raise _failure(desk, error) from error
        return TrainSummary(**json.loads((desk / _SUMMARY).read_text(encoding="utf-8")))


def take_order(desk: Path) -> Order:
    """What this process is to do. The folder is its starter's own, so what is pickled there can be trusted."""
    order = pickle.loads((desk / "order").read_bytes())
    assert isinstance(order, Order)
    return order


def report_summary(desk: Path, summary: TrainSummary) -> None:
    """Hand the result to who ordered it."""
    write_text(desk / _SUMMARY, json.dumps(asdict(summary)))


def report_failure(desk: Path, rank: int, error: Exception) -> None:
    """Say why this process ends, where the others cannot talk in between."""
    text = str(error) if isinstance(error, HiperError) else "".join(traceback.format_exception(error))
    write_text(desk / f"failure-{rank}.json", json.dumps({"time": time(), "rank": rank, "kind": type(error).__name__, "text": text}))


def _failure(desk: Path, error: WorkflowError) -> HiperError:
    """What came first: the other processes' errors are that they miss one."""
    reports = [json.loads(path.read_text(encoding="utf-8")) for path in desk.glob("failure-*.json")]
    reports.sort(key=lambda report: float(report["time"]))
    for report in reports:
        kind = getattr(errors, report["kind"], None)
        if isinstance(kind, type) and issubclass(kind, HiperError):
            return kind(report["text"])
    kept = "What the training had finished is kept."
    if (desk / _KILLED).exists():
        return WorkflowError(f"{(desk / _KILLED).read_text(encoding='utf-8')}. {kept}")
    if reports:
        return WorkflowError(f"process {reports[0]['rank']} of the training failed. {kept} Its error:\n{reports[0]['text'].rstrip()}")
    return error


def main() -> int:
    """Be torchrun, for processes on this machine that end with it."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    end_with_parent()
    os.environ[LEASH] = str(os.getpid())
    processes, desk = sys.argv[1:]
    here = ["--standalone", "--local-addr=127.0.0.1", f"--nproc-per-node={processes}"]
    try:
        run(parse_args([*here, "-m", "hiper.train.worker", desk]))  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        for rank, failure in error.failures.items():
            if failure.exitcode < 0 and failure.exitcode != -signal.SIGTERM:  # that one is torchrun's, to the others
                how = f"signal {failure.signal_name()}" + (", perhaps for lack of memory" if failure.exitcode == -signal.SIGKILL else "")
                write_text(Path(desk) / _KILLED, f"process {rank} of the training's {processes} ended with {how}; the others were stopped")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

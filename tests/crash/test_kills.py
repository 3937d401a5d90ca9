"""`kill -9` at any moment, then `hiper resume`: the bits of a run that was never killed.

Killed in each phase of an iteration, in each step of writing a checkpoint, a line or the finished stage, and at random moments, some runs
more than once, each ends with the files of the undisturbed run: weights, every checkpoint with its optimiser and generators, metrics,
samples, evaluations and the report, byte for byte; nothing is left over.

Every process is a real `hiper`, every kill a real SIGKILL (see `stand_at.py`). `make prove-resume` shows each.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from hiper.pipeline.stages import STAGES
from hiper.runs import checkpoint as ckpt
from hiper.runs.run_dir import load_config
from tests.crash.compare import assert_same
from tests.crash.harm import flip_a_bit
from tests.crash.places import BEFORE_RECORD, CHUNK, EVALUATION, ITERATION, LINE, MODEL, MODELS, REPLY, SFT_STEP, TENSORS, WRITE
from tests.crash.processes import ENVIRONMENT, hiper, hiper_command
from tests.crash.trainings import beginning

pytestmark = pytest.mark.slow


def damage_newest(run: Path) -> None:
    flip_a_bit(ckpt.list_checkpoints(run / "train.partial" / "checkpoints")[-1] / "tensors.safetensors")


@dataclass(frozen=True)
class Moment:
    """By the clock: so many iterations of a process, and a share of another's time."""

    iterations: int
    share: float

    def __str__(self) -> str:
        return f"{self.iterations + self.share:.2f} iterations"


@dataclass(frozen=True)
class Case:
    """One run and what happens to it, a process each; then it is resumed to its end."""

    what: str
    experiment: str
    blows: Sequence[str | Moment | Callable[[Path], None]]
    """Places of `stand_at.py`, moments, or what is done to the run between two processes."""
    over: str | None = None
    """The experiment whose finished training this run replaces."""
    stage: str = "train"
    """The stage that is killed; it and those after it are to be done, those before it are."""
    kept: str | None = None
    """What a process that goes on says of earlier work that it does not do again."""


def moments(seed: int) -> list[Moment]:
    """One for the first process and one for that which resumes; early enough for both to come."""
    rng = random.Random(f"kills-{seed}")
    return [Moment(rng.randrange(1, 3), rng.uniform(0.0, 1.0)), Moment(rng.randrange(0, 2), rng.uniform(0.0, 1.0))]


KEPT_GAMES = r"\d tasks were played before and are kept"

CASES = [
    Case(
        "before the first checkpoint: before, in the first rollout, in writing it",
        "hae",
        ["call hiper.train.stream:TaskStream.draw 1", f"{REPLY} 4", f"cut {TENSORS} 1 - 100000"],
    ),
    Case("in a rollout, in an evaluation", "hae", [f"{ITERATION} 4 then {REPLY} 6", f"{EVALUATION} 1 then {REPLY} 5"]),
    Case(
        "in scoring, in fitting the critic",
        "fitted",
        [
            f"{ITERATION} 3 then call hiper.train.microbatch:token_entropy 2",
            f"{ITERATION} 2 then call hiper.train.value_fit:LeastSquares.write 1",
        ],
    ),
    Case(
        "in an update, between gradient and step",
        "hae",
        [f"{ITERATION} 2 then call hiper.train.learner:Learner._step 2", f"{ITERATION} 2 then call torch.optim:AdamW.step 1"],
    ),
    Case(
        "in an evaluation, in writing samples",
        "grpo",
        [f"{EVALUATION} 3 then {REPLY} 3", "cut hiper.train.trainer:_Run._record_samples 2 train.partial/samples.jsonl 1500"],
    ),
    Case(
        "in writing metrics, in writing timings",
        "hae",
        [f"{LINE} 5 train.partial/metrics.jsonl 300", f"{LINE} 4 train.partial/timings.jsonl 20"],
    ),
    Case(
        "in writing tensors, between tensors and state",
        "hae",
        [f"cut {TENSORS} 2 - 100000", f"call {WRITE} 3"],
    ),
    Case("between state and manifest, in writing the manifest", "fitted", [f"call {WRITE} 4", f"cut {WRITE} 2 - 100"]),
    Case(
        "before a checkpoint's rename, before the pruning after it",
        "hae",
        ["file os.rename */.iteration-000002.tmp", "call hiper.train.trainer:_Run._prune 3"],
    ),
    Case(
        "between the two renames that replace a damaged checkpoint",
        "hae",
        [f"{ITERATION} 5", damage_newest, "file os.rename */.iteration-000004.replaced then file os.rename */.iteration-000004.tmp"],
    ),
    Case(
        "in the last pruning: before the rename, with the half deleted",
        "grpo",
        [
            "call hiper.train.trainer:_Run._prune 4 then file os.rename */.iteration-*.replaced",
            "file shutil.rmtree */.iteration-*.replaced then file os.remove state.json",
        ],
    ),
    Case(
        "after the last checkpoint: in writing the model, in writing the best one, before the stage's record",
        "fitted",
        [f"call {MODELS} 1 then {MODEL} 1", f"call {MODELS} 1 then {MODEL} 2", BEFORE_RECORD],
    ),
    Case(
        "in finishing the stage: before its mark goes, before its rename",
        "hae",
        ["file os.remove */train.partial/begun.json", "file os.rename */train.partial"],
    ),
    Case(
        "between the two renames that replace a finished training",
        "grpo",
        ["file os.rename */.train.replaced then file os.rename */train.partial"],
        over="hae",
    ),
    Case(
        "in deleting the training that was replaced", "fitted", ["file shutil.rmtree */.train.replaced then file os.remove *"], over="grpo"
    ),
    Case(
        "in resuming: reading the checkpoint, cutting back metrics, cutting back samples",
        "grpo",
        [
            f"{ITERATION} 4",
            "call hiper.runs.checkpoint:load_file 1",
            "call hiper.tracking.metrics:cut 1",
            "call hiper.train.trainer:cut 1",
        ],
    ),
    Case(
        "warm start: in a step, in writing a checkpoint",
        "hae",
        [f"{SFT_STEP} 130", f"cut {TENSORS} 1 - 100000"],
        stage="sft",
        kept="resumed from .*step-000100",
    ),
    Case(
        "warm start: before the first checkpoint, in writing the model",
        "hae",
        [f"{SFT_STEP} 20", f"{MODEL} 1"],
        stage="sft",
        kept="resumed from .*step-000200",
    ),
    Case(
        "warm start: before the stage's record, before its rename",
        "hae",
        ["file os.rename */sft.partial/stage.json", "file os.rename */sft.partial"],
        stage="sft",
    ),
    Case(
        "evaluation: in a game, in writing its chunk",
        "evaluate",
        [f"call {CHUNK} 2 then {REPLY} 3", "cut hiper.evaluation.chunks:write_trajectories 1 - 500"],
        stage="evaluate",
        kept=KEPT_GAMES,
    ),
    Case(
        "evaluation: before the mark of a whole chunk, in writing the evaluation",
        "evaluate",
        ["file os.rename */evaluate.partial/sft/chunks/001.json", "file os.rename */evaluate.partial/sft/evaluation.json"],
        stage="evaluate",
        kept=KEPT_GAMES,
    ),
    Case(
        "evaluation: between two models, in deleting the chunks, before the stage's record",
        "evaluate",
        [
            "file os.rename */evaluate.partial/trained/chunks/begun.json",
            "file shutil.rmtree */evaluate.partial/trained/chunks then file os.remove *",
            "file os.rename */evaluate.partial/stage.json",
        ],
        stage="evaluate",
        kept=KEPT_GAMES,
    ),
    *(Case(f"at random moments ({seed})", experiment, moments(seed)) for seed, experiment in enumerate(["hae", "fitted", "grpo", "hae"])),
]


def hiper_killed_at(moment: Moment, seconds: float, run: Path, *arguments: str) -> tuple[int, str]:
    """The same, killed from outside; `seconds` is an iteration's time until the process has shown its own, which depends on the load."""
    command = hiper_command(*arguments)
    with subprocess.Popen(command, cwd=run, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said: list[str] = []
        marks: list[float] = []  # when training began, and when each iteration ended
        for line in process.stderr:
            said.append(line)
            if re.search(r" iteration \d+/|resumed from|no checkpoint under", line):
                marks.append(time.monotonic())
            if len(marks) == moment.iterations + 1:
                pace = marks[-1] - marks[-2] if moment.iterations else seconds
                time.sleep(moment.share * pace)
                process.kill()
                break
        said += process.stderr
    return process.returncode, "".join(said)


def seconds_an_iteration(run: Path) -> float:
    rows = [json.loads(line) for line in (run / "train" / "timings.jsonl").read_text().splitlines()]
    return sum(value for row in rows for key, value in row.items() if key.startswith("time/")) / len(rows)


def test_there_is_something_to_compare(base: Path, whole: dict[str, Path]) -> None:
    """Every run meets successes, moves the weights, and keeps a best checkpoint that is not among the last ones."""
    for experiment, run in whole.items():
        rows = [json.loads(line) for line in (run / "train" / "metrics.jsonl").read_text().splitlines()]
        assert any(row["rollout/success_rate"] for row in rows)
        assert sum(row["optim/grad_norm"] > 0 for row in rows) >= 4, "the fitted critic's first iteration takes no step"
        assert (run / "train/model/model.safetensors").read_bytes() != (base / "sft/model/model.safetensors").read_bytes()
        keep_last = load_config(run).trainer.keep_last
        best = json.loads((run / "train/stage.json").read_text())["facts"]["best_iteration"]
        kept = [path.name for path in ckpt.list_checkpoints(run / "train" / "checkpoints")]
        assert len(kept) == keep_last + 1 and kept[0] == f"iteration-{best:06d}", experiment


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.experiment}: {case.what}")
def test_killed_and_resumed_it_ends_with_the_same_bits(case: Case, whole: dict[str, Path], tmp_path: Path) -> None:
    run = shutil.copytree(whole[case.over or case.experiment], tmp_path / "run")
    if case.over is None:
        for stage in list(STAGES)[list(STAGES).index(case.stage) :]:
            shutil.rmtree(run / stage)
    arguments, kills, resumed = beginning(case.experiment, run), 0, ""
    for blow in case.blows:
        if callable(blow):
            blow(run)
            continue
        if isinstance(blow, Moment):
            code, said = hiper_killed_at(blow, seconds_an_iteration(whole[case.experiment]), run, *arguments)
        else:
            code, said = hiper(run, *arguments, place=blow)
        assert code == -signal.SIGKILL, f"{blow}: ended with {code}\n{said}"
        print(f"{case.experiment}: killed at: {blow}")
        resumed += said if kills else ""
        arguments, kills = ["resume", "--direct", str(run)], kills + 1
    code, said = hiper(run, *arguments)
    assert code == 0, said
    assert case.kept is None or re.search(case.kept, resumed + said), f"all was done again\n{resumed}{said}"
    print(f"{case.experiment}: after {kills} kills {assert_same(run, whole[case.experiment])} files are those of the undisturbed run")

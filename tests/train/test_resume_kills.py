"""`kill -9` at any moment, then `hiper resume`: the bits of a run that was never killed.

1. Killed in each phase of an iteration, in each step of writing a checkpoint, a line or the finished stage, and at random moments, some
   runs more than once, each ends with the files of the undisturbed run: weights, every checkpoint with its optimiser and generators,
   metrics and samples, byte for byte; nothing is left over.
2. A damaged newest checkpoint is named with what is wrong, the one before is used, and the run ends with the same bits. Where all are
   damaged the run is not begun again but refused.

Every process is a real `hiper`, every kill a real SIGKILL (see `kill_at.py`). `make prove-resume` shows each.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from hiper.compose import compose
from hiper.errors import CheckpointError
from hiper.runs import begin_run, load_config
from hiper.stages import STAGES
from hiper.train import checkpoint as ckpt

pytestmark = pytest.mark.slow

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
KILL_AT = str(Path(__file__).with_name("kill_at.py"))

SETTINGS = [
    "experiment=smoke",
    "rollout=grammar",
    "games.train=40",
    "games.task_types=[pick_and_place_simple,look_at_obj_in_light]",
    "games.max_receptacles=6",
    "games.max_objects=10",
    "demos.count=400",
    "demos.fresh=true",
    "warm_start.max_steps=240",
    "warm_start.beta2=0.99",
    "rollout.slots=5",
    "algo.shaping.keep_mode=off",
    "trainer.iterations=5",
    "trainer.lr_actor=3e-4",
    "trainer.microbatch_tokens=1024",
    "evaluate.splits=[valid_seen]",
    "evaluate.limit=1",
    "evaluate.baseline=false",
    "evaluate.temperature=0.7",
]
"""Small rooms and two kinds of tasks, which so short a warm start now and then solves: training has something to learn from."""

EXPERIMENTS = {
    "hae": ["trainer.save_every=2"],
    "fitted": ["trainer.critic_fit=least_squares", "trainer.critic_warmup=1", "trainer.anneal=true", "trainer.keep_last=1"],
    "grpo": ["algo=grpo", "algo.group_size=4", "trainer.save_every=2", "trainer.keep_last=1"],
}

ITERATION = "call hiper.train.trainer:_Run._iterate"
EVALUATION = "call hiper.train.play:Player.evaluate"
REPLY = "call hiper.rollout.policy:TransformersPolicy.reply"
LINE = "cut hiper.tracking.metrics:MetricsFile.append"
WRITE = "hiper.train.checkpoint:_write"


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


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
    """Places of `kill_at.py`, moments, or what is done to the run between two processes."""
    over: str | None = None
    """The experiment whose finished training this run replaces."""


def moments(seed: int) -> list[Moment]:
    """One for the first process and one for that which resumes; early enough for both to come."""
    rng = random.Random(f"kills-{seed}")
    return [Moment(rng.randrange(1, 3), rng.uniform(0.0, 1.0)), Moment(rng.randrange(0, 2), rng.uniform(0.0, 1.0))]


CASES = [
    Case(
        "before the first checkpoint: before, in the first rollout, in writing the first best policy",
        "hae",
        [
            "call hiper.train.stream:TaskStream.draw 1",
            f"{REPLY} 4",
            "call hiper.train.trainer:_Run._is_best 1 then call hiper.model.actor:save_file 1",
        ],
    ),
    Case("in a rollout, in an evaluation", "hae", [f"{ITERATION} 4 then {REPLY} 6", f"{EVALUATION} 1 then {REPLY} 5"]),
    Case(
        "in scoring, in fitting the critic",
        "fitted",
        [f"{ITERATION} 3 then call hiper.train.batch:token_entropy 2", f"{ITERATION} 2 then call hiper.train.critic:LeastSquares.write 1"],
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
        ["cut hiper.train.checkpoint:save_file 2 - 100000", f"call {WRITE} 3"],
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
        "after the last checkpoint: in writing the model, before the stage's record",
        "fitted",
        ["call hiper.train.trainer:_Run.save 5 then call hiper.model.actor:save_file 1", "file os.rename */train.partial/stage.json"],
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
            "call hiper.train.checkpoint:load_file 1",
            "file os.rename */metrics.jsonl.tmp",
            "file os.rename */samples.jsonl.tmp",
        ],
    ),
    *(Case(f"at random moments ({seed})", experiment, moments(seed)) for seed, experiment in enumerate(["hae", "fitted", "grpo", "hae"])),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose games, demonstrations and warm start are done."""
    cfg = compose([*SETTINGS, f"paths.run={tmp_path_factory.mktemp('base') / 'run'}"])
    run = begin_run(cfg)
    for name in ("games", "demos", "warm_start"):
        STAGES[name](cfg)
    return run


@pytest.fixture(scope="module")
def whole(base: Path) -> dict[str, Path]:
    """A finished run of each experiment that nothing disturbed."""
    runs = {name: shutil.copytree(base, base.with_name(name)) for name in EXPERIMENTS}
    for name, run in runs.items():
        code, said = hiper(run, *beginning(name, run))
        assert code == 0, said
    return runs


def beginning(experiment: str, run: Path) -> list[str]:
    return ["run", "--direct", *SETTINGS, *EXPERIMENTS[experiment], f"paths.run={run}"]


def hiper(run: Path, *arguments: str, place: str | None = None) -> tuple[int, str]:
    """A process of its own: exit code, and what it said on standard error."""
    program = ["-m", "hiper"] if place is None else [KILL_AT, place]
    done = subprocess.run([sys.executable, *program, *arguments], cwd=run, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


def hiper_killed_at(moment: Moment, seconds: float, run: Path, *arguments: str) -> tuple[int, str]:
    """The same, killed from outside; `seconds` is an iteration's time until the process has shown its own, which depends on the load."""
    command = [sys.executable, "-m", "hiper", *arguments]
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


def files(run: Path) -> dict[str, bytes]:
    """Whatever training left, by name, but for places and times of day."""
    found = {path.relative_to(run / "train").as_posix(): path.read_bytes() for path in (run / "train").rglob("*") if path.is_file()}
    found["config.yaml"] = found["config.yaml"].replace(str(run).encode(), b"RUN")
    found["stage.json"] = json.dumps(json.loads(found["stage.json"])["facts"]).encode()
    del found["times.json"]
    found["timings.jsonl"] = str([json.loads(line)["iteration"] for line in found["timings.jsonl"].splitlines()]).encode()
    return found


def assert_same(run: Path, undisturbed: Path) -> int:
    """How many files were compared."""
    ours, theirs = files(run), files(undisturbed)
    assert [name for name in sorted({*ours, *theirs}) if ours.get(name) != theirs.get(name)] == []
    assert sorted(path.name for path in run.iterdir()) == sorted(path.name for path in undisturbed.iterdir())
    return len(ours)


def test_there_is_something_to_compare(base: Path, whole: dict[str, Path]) -> None:
    """Every run meets successes, moves the weights, and keeps a best checkpoint that is not among the last ones."""
    for experiment, run in whole.items():
        rows = [json.loads(line) for line in (run / "train" / "metrics.jsonl").read_text().splitlines()]
        assert any(row["rollout/success_rate"] for row in rows)
        assert sum(row["optim/grad_norm"] > 0 for row in rows) >= 4, "the fitted critic's first iteration takes no step"
        assert (run / "train/model/model.safetensors").read_bytes() != (base / "warm_start/model/model.safetensors").read_bytes()
        keep_last = load_config(run).trainer.keep_last
        best = json.loads((run / "train/stage.json").read_text())["facts"]["best_iteration"]
        kept = [path.name for path in ckpt.list_checkpoints(run / "train" / "checkpoints")]
        assert len(kept) == keep_last + 1 and kept[0] == f"iteration-{best:06d}", experiment


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.experiment}: {case.what}")
def test_killed_and_resumed_it_ends_with_the_same_bits(case: Case, base: Path, whole: dict[str, Path], tmp_path: Path) -> None:
    run = shutil.copytree(whole[case.over] if case.over else base, tmp_path / "run")
    arguments, kills = beginning(case.experiment, run), 0
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
        arguments, kills = ["resume", "--direct", str(run)], kills + 1
    code, said = hiper(run, *arguments)
    assert code == 0, said
    print(f"{case.experiment}: after {kills} kills {assert_same(run, whole[case.experiment])} files are those of the undisturbed run")


DAMAGE: Mapping[str, tuple[str, Callable[[Path], None], str]] = {
    "truncated tensors": ("tensors.safetensors", halve, "was truncated or altered, it has"),
    "a flipped bit in the tensors": ("tensors.safetensors", flip_a_bit, "was truncated or altered, its SHA-256 differs"),
    "a flipped bit in the state": ("state.json", flip_a_bit, "was truncated or altered, its SHA-256 differs"),
    "missing tensors": ("tensors.safetensors", Path.unlink, "is missing"),
    "missing state": ("state.json", Path.unlink, "is missing"),
    "missing manifest": ("manifest.json", Path.unlink, "is missing"),
}
"""File, what happens to it, and what is said of it."""


@pytest.fixture(scope="module")
def stopped(base: Path) -> Path:
    """A run that was killed with all its checkpoints written and the stage not finished."""
    run = shutil.copytree(base, base.with_name("stopped"))
    code, said = hiper(run, *beginning("hae", run), place="file os.rename */train.partial/stage.json")
    assert code == -signal.SIGKILL, said
    return run


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_used(
    damage: str, stopped: Path, whole: dict[str, Path], tmp_path: Path
) -> None:
    run = shutil.copytree(stopped, tmp_path / "run")
    *_, before, newest = ckpt.list_checkpoints(run / "train.partial" / "checkpoints")
    file, harm, message = DAMAGE[damage]
    harm(newest / file)
    code, said = hiper(run, "resume", "--direct", str(run))
    assert code == 0, said
    assert f"Passing over a damaged checkpoint, an earlier one will be used. Checkpoint {newest} is " in said
    assert f"{file} {message}" in said
    assert f"resumed from {before}" in said
    print(f"{damage}: {before.name} is used instead; {assert_same(run, whole['hae'])} files are those of the undisturbed run")


def test_where_all_are_damaged_the_run_is_refused_until_told_to_start_again(stopped: Path, whole: dict[str, Path], tmp_path: Path) -> None:
    run = shutil.copytree(stopped, tmp_path / "run")
    folder = run / "train.partial" / "checkpoints"
    checkpoints = ckpt.list_checkpoints(folder)
    for path in checkpoints:
        flip_a_bit(path / "state.json")
    lines = (run / "train.partial" / "metrics.jsonl").read_bytes()
    code, said = hiper(run, "resume", "--direct", str(run))
    assert code == CheckpointError.exit_code, said
    assert f"hiper: All 3 checkpoints in {folder} are damaged (details in the log). Remove that directory to train" in said
    assert all(f"Checkpoint {path} is damaged: state.json" in said for path in checkpoints)
    assert (run / "train.partial" / "metrics.jsonl").read_bytes() == lines
    shutil.rmtree(folder)
    code, said = hiper(run, "resume", "--direct", str(run))
    assert code == 0, said
    assert_same(run, whole["hae"])

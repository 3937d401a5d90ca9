"""Rules of training with several processes.

1. Forward outputs, gradients, metrics and fitted critics of two processes are those of one, up to rounding, whatever the rows fall to whom;
   a process without a row of a step takes it all the same. Both hold the same bits.
2. Shares come together in the order they were dealt in.
3. `hiper train trainer.processes=2` leaves what one process leaves: each iteration once, one model, checkpoints, no file of a process.
4. A process killed with SIGKILL ends the command with a message, and a killed command ends its processes. Resumed, the run ends with the
   bits of an undisturbed one.
5. An error that only one process meets is reported as itself, and ends all. So is an alarm, which all meet: rolled back, then stopped.
6. What cannot work is refused: more processes than GPUs or rows, a command under torchrun, no loopback interface.
7. From the first process to the last, nothing listens beyond the loopback interface, whatever the user's environment says of interfaces,
   and nothing is unpickled: who could reach a listening socket of torchrun's could run code.
8. Five seconds after `kill -9` of the command, or of one of its processes, none of them is alive.

Processes are real ones, over gloo.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from hiper.algos.gae import GAEConfig
from hiper.algos.hae import HAEConfig, SwitchCredit
from hiper.algos.registry import make_estimator
from hiper.algos.types import ForwardOutputs
from hiper.cli.main import main
from hiper.composition.compose import compose, override
from hiper.config import (
    Constrain,
    Context,
    ModelConfig,
    RolloutConfig,
    RunConfig,
    TrainerConfig,
    ValueFit,
)
from hiper.errors import ConfigError
from hiper.model.actor import Actor, load_actor, load_tokenizer
from hiper.pipeline.stages import STAGES
from hiper.pipeline.state import task_index
from hiper.rollout.batch import make_batch
from hiper.rollout.episode import Episode
from hiper.runs import checkpoint as ckpt
from hiper.runs.fingerprint import stage_fingerprint
from hiper.runs.run_dir import begin_run, load_config
from hiper.runtime.distributed import ALONE, World, check_processes, joined, loopback_interface
from hiper.train.credit import assign_credit
from hiper.train.forward import forward
from hiper.train.keep import keep_values
from hiper.train.learner import Learner
from hiper.train.stream import TaskStream
from hiper.train.trainer import bit_sum
from tests.sockets import Listener, Watch, beyond_loopback, survivors, tree

TEMPERATURE = 1.1
PROCESSES = 2

ALGOS = {
    "hae": HAEConfig(kl_coef=0.1, entropy_coef=0.1, switch_entropy_coef=0.1),
    "fitted": HAEConfig(kl_coef=0.1),
    "option_value": HAEConfig(kl_coef=0.0, switch_credit=SwitchCredit.option_value, switch_rate_target=0.3),
    "gae": GAEConfig(kl_coef=0.0),
}
ROWS = {"hae": 4, "fitted": 2, "option_value": 5, "gae": 3}
"""Trajectories a step, of five: some steps have a single one."""


@dataclass
class Work:
    """What each process is given."""

    speaker: Path
    actor: Actor
    episodes: list[Episode]
    out: Path


def settings(name: str, processes: int) -> RunConfig:
    fit = ValueFit.least_squares if name == "fitted" else ValueFit.gradient
    return RunConfig(
        threads=1,
        device="cpu",
        rollout=RolloutConfig(temperature=TEMPERATURE),
        algo=ALGOS[name],
        trainer=TrainerConfig(lr_actor=1e-3, lr_critic=1e-2, minibatch=ROWS[name], epochs=2, value_fit=fit, processes=processes),
    )


def update(work: Work, name: str, world: World) -> tuple[ForwardOutputs, dict[str, float], dict[str, torch.Tensor]]:
    """Score and learn from the episodes: the scores, the metrics, the weights."""
    cfg, actor = settings(name, world.size), copy.deepcopy(work.actor)
    reference = copy.deepcopy(actor)
    with torch.no_grad():
        reference.lm.get_output_embeddings().weight.mul_(0.9)
    batch = make_batch(work.episodes, torch.device("cpu"))
    learner = Learner.create(actor, cfg, torch.Generator().manual_seed(0), world)
    scores = forward(
        actor,
        reference,
        batch,
        budget=400,
        temperature=TEMPERATURE,
        with_states=name == "fitted",
        with_token_values=name == "gae",
        world=world,
    )
    if name == "option_value":
        tokenizer = load_tokenizer(work.speaker)

        def encode(text: str) -> list[int]:
            return tokenizer.encode(text, add_special_tokens=False)

        kept = keep_values(actor, batch, work.episodes, scores.values, encode, cfg.protocol.dialect, budget=400, world=world)
        scores = scores._replace(keep_values=kept)
    metrics = learner.update(batch, scores, assign_credit(make_estimator(cfg.algo), batch, scores), critic_only=False)
    return scores, metrics, actor.state_dict()


def be_one_of_two(rank: int, work: Work) -> None:
    """A process."""
    torch.set_num_threads(1)
    unpickled: list[str] = []
    sys.addaudithook(lambda event, arguments: unpickled.append(str(arguments)) if event == "pickle.find_class" else None)
    os.environ["GLOO_SOCKET_IFNAME"] = outer_interface()
    with joined(World(rank, PROCESSES), work.out / "meeting", cuda=False) as world:
        dealt = {count: world.gather(world.shard(list(range(count))), int) for count in range(6)}
        whole = torch.arange(7)
        mine = torch.zeros_like(whole)
        mine[rank::PROCESSES] = world.shard(whole)
        world.all_reduce([mine])
        found: dict[str, Any] = {name: update(work, name, world) for name in ALGOS}
        played = world.gather(world.shard(work.episodes), Episode)
        found |= {
            "dealt": dealt,
            "played": played,
            "unpickled": list(unpickled),
            "summed": mine,
            "agreed": world.broadcast_object(rank + 5, int),
            "total": world.total({str(rank): 1.0, "both": 2.0}),
        }
    torch.save(found, work.out / f"{rank}.pt")


def outer_interface() -> str:
    """A network interface that other machines may reach; the loopback one where there is no other."""
    names = [name for _, name in socket.if_nameindex()]
    return next((name for name in names if name != loopback_interface()), loopback_interface())


@dataclass
class Pair:
    """Two processes."""

    work: Work
    found: list[Any]
    """What each has found."""
    listeners: set[Listener]
    """What they listened on."""


@pytest.fixture(scope="module")
def two(speaker: Path, play: dict[tuple[Context, Constrain], list[Episode]], tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Both have done the work."""
    actor = load_actor(speaker, ModelConfig()).eval().double()
    with torch.no_grad():
        actor.heads.weight.normal_(0.0, 0.3, generator=torch.Generator().manual_seed(1))
    work = Work(speaker, actor, play[Context.append, Constrain.admissible], tmp_path_factory.mktemp("two"))
    with Watch(os.getpid()) as watch:
        torch.multiprocessing.spawn(be_one_of_two, (work,), nprocs=PROCESSES)
    found = [torch.load(work.out / f"{rank}.pt", weights_only=False) for rank in range(PROCESSES)]
    return Pair(work, found, watch.listeners)


@pytest.mark.parametrize("name", ALGOS)
def test_two_processes_learn_what_one_does(two: Pair, name: str) -> None:
    work, found = two.work, two.found
    scores, metrics, weights = update(work, name, ALONE)
    for ours in found:
        for field, whole in scores._asdict().items():
            part = getattr(ours[name][0], field)
            assert (part is None) == (whole is None), field
            if whole is not None:
                torch.testing.assert_close(part, whole, atol=1e-5, rtol=1e-5, msg=field)
        # Adam does not mind the scale of a gradient, its norm and the losses do.
        assert list(ours[name][1]) == list(metrics)
        assert ours[name][1] == pytest.approx(metrics, rel=1e-4, abs=1e-6)
        for key, value in weights.items():
            torch.testing.assert_close(ours[name][2][key], value, atol=2e-6, rtol=1e-5, msg=key)
    before = work.actor.state_dict()
    moved = max(float((value - before[key]).abs().max()) for key, value in weights.items() if key.startswith("lm."))
    assert moved > 5e-4, "so that the tolerance means something"
    assert all(torch.equal(found[0][name][2][key], found[1][name][2][key]) for key in weights)
    assert found[0][name][1] == found[1][name][1]


def test_shares_come_together(two: Pair) -> None:
    for ours in two.found:
        assert ours["dealt"] == {count: list(range(count)) for count in range(6)}
        assert ours["summed"].tolist() == list(range(7))
        assert ours["agreed"] == 5
        assert ours["total"] == {"0": 1.0, "1": 1.0, "both": 4.0}
        assert ours["played"] == two.work.episodes
    assert (World(1, 3).shard(list("abcdefg")), World(2, 3).main) == (["b", "e"], False)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_a_bit_that_differs_is_seen(two: Pair, kind: torch.dtype) -> None:
    actor = copy.deepcopy(two.work.actor).to(kind)
    before = bit_sum(actor)
    weights = actor.heads.weight.data
    weights[1, 2] = torch.nextafter(weights[1, 2], torch.tensor(torch.inf, dtype=kind))
    assert bit_sum(actor) != before


def test_nothing_listens_beyond_loopback_and_nothing_is_unpickled(two: Pair) -> None:
    assert {listener.protocol for listener in two.listeners} >= {"tcp"}, "gloo listens, so the watch saw what there was"
    assert beyond_loopback(two.listeners) == set()
    assert [ours["unpickled"] for ours in two.found] == [[], []]


def test_the_number_of_processes_makes_another_training() -> None:
    one, two = (compose(["experiment=smoke", f"trainer.processes={count}"]) for count in (1, 2))
    assert stage_fingerprint(one, "train") != stage_fingerprint(two, "train")
    assert stage_fingerprint(one, "sft") == stage_fingerprint(two, "sft")


def test_what_cannot_work_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for change, rule in {
        "trainer.processes=0": "at least 1",
        "trainer.processes=5": "at most trainer.minibatch=4",
        "rollout.trajectories=1": "at most rollout.trajectories=1",
    }.items():
        with pytest.raises(ConfigError, match=rule):
            compose(["experiment=smoke", "trainer.processes=2", change])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match=r"trainer\.processes=2, but there are 1 GPUs here"):
        check_processes("trainer.processes", 2, cuda=True)
    check_processes("trainer.processes", 2, cuda=False)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "one")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["train", "experiment=smoke"]) == 2
    assert "without torchrun, with trainer.processes=2" in capsys.readouterr().err
    monkeypatch.setattr(socket, "if_nameindex", list)
    with pytest.raises(ConfigError, match=r"no network interface has an address in 127\.0\.0\.0/8"):
        loopback_interface()


# The command

CHANGES = [
    "rollout=grammar",
    "alfworld.max_receptacles=6",
    "alfworld.max_objects=10",
    "sft.max_steps=8",
    "rollout.trajectories=5",
    "algo.shaping.keep_mode=fixed",  # so that there is something to learn
    "env.max_turns=4",
    "trainer.iterations=4",
    "trainer.eval_every=2",
    "trainer.eval_tasks=3",
    "trainer.keep_last=2",
    f"trainer.processes={PROCESSES}",
]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
GONE = 5.0
"""Seconds after which no process of a killed command may be alive."""
PATIENCE = 240.0
"""Seconds something may take before it counts as hanging; a few, on an idle machine."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, small_settings: list[str]) -> Path:
    """A run whose games, demonstrations and warm start are done, to be trained by two processes."""
    cfg = compose([*small_settings, *CHANGES, f"paths.run={tmp_path_factory.mktemp('base') / 'run'}"])
    run = begin_run(cfg)
    for name in ("tasks", "demos", "sft"):
        STAGES[name](cfg)
    return run


@pytest.fixture(scope="module")
def watched(base: Path) -> tuple[Path, Watch]:
    """Trained undisturbed, and watched."""
    run = shutil.copytree(base, base.with_name("whole"))
    process = training(run)
    with Watch(process.pid) as watch:
        code, said = finish(process)
    assert code == 0, said
    return run, watch


@pytest.fixture(scope="module")
def whole(watched: tuple[Path, Watch]) -> Path:
    """Trained undisturbed."""
    return watched[0]


def training(run: Path, *overrides: str) -> subprocess.Popen[str]:
    """`hiper train` on a run."""
    command = [sys.executable, "-m", "hiper", "train", "--config", str(run), f"paths.run={run}", *overrides]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and what was said; both ends of the pipe are closed, so whatever it started has ended, too."""
    try:
        _, said = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    return process.returncode, said


def worker(pid: int, rank: int) -> int | None:
    """The process of that rank; None: it has not been started yet."""
    for child in tree(pid):
        words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
        if b"hiper.train.ranks" in words and words[-3] == str(rank).encode():
            return child
    return None


def after_start(process: subprocess.Popen[str]) -> None:
    """Wait until the last of the processes has been started; it has not even loaded torch yet."""
    begun = time.monotonic()
    while worker(process.pid, PROCESSES - 1) is None:
        assert process.poll() is None, finish(process)
        assert time.monotonic() - begun < PATIENCE
        time.sleep(0.01)


def after_iterations(count: int, run: Path, process: subprocess.Popen[str]) -> None:
    """Wait until training has logged so many."""
    metrics = run / "train.partial" / "metrics.jsonl"
    begun = time.monotonic()
    while not metrics.exists() or metrics.read_bytes().count(b"\n") < count:
        assert process.poll() is None, finish(process)
        assert time.monotonic() - begun < PATIENCE
        time.sleep(0.05)


def files(run: Path) -> dict[str, bytes]:
    """Whatever training left but times and places."""
    folder = run / "train"
    left = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    of_the_day = ("config.yaml", "times.json", "stage.json", "manifest.json", "seen.json", "timings.jsonl")
    return {name: data for name, data in left.items() if name not in of_the_day}


@pytest.mark.slow
def test_the_command_leaves_what_one_process_leaves(whole: Path, base: Path) -> None:
    rows = [json.loads(line) for line in (whole / "train" / "metrics.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in rows] == [1, 2, 3, 4]
    assert ["eval/success_rate" in row for row in rows] == [False, True, False, True]
    assert all(row["optim/grad_norm"] > 0 and row["rollout/logprob_gap"] < 1e-3 for row in rows)
    samples = [json.loads(line)["iteration"] for line in (whole / "train" / "samples.jsonl").read_text().splitlines()]
    assert samples == [1, 1, 2, 2, 3, 3, 4, 4]
    left = {path.name for path in (whole / "train").iterdir()}
    files_of_one = {"metrics.jsonl", "timings.jsonl", "samples.jsonl", "alarms.json", "checkpoints", "model", "best"}
    assert left == files_of_one | {"config.yaml", "stage.json", "times.json", "manifest.json", "seen.json"}
    trained = (whole / "train/model/model.safetensors").read_bytes()
    assert trained != (base / "sft/model/model.safetensors").read_bytes()
    checkpoint = ckpt.latest_checkpoint(whole / "train" / "checkpoints")
    assert checkpoint is not None and checkpoint.name == "iteration-000004"


@pytest.mark.slow
def test_killed_and_resumed_it_ends_with_the_same_bits(whole: Path, base: Path, tmp_path: Path) -> None:
    run = shutil.copytree(base, tmp_path / "run")
    process = training(run)
    after_iterations(1, run, process)
    watch = Watch(process.pid)
    watch.look()
    victim = worker(process.pid, 1)
    assert victim is not None
    os.kill(victim, signal.SIGKILL)
    assert survivors(watch.processes, GONE) == set()
    code, said = finish(process)
    assert code == 2, said
    assert said.splitlines()[-1].startswith("hiper: process 1 of the training's 2 ended with signal SIGKILL"), said
    process = training(run)
    after_iterations(3, run, process)
    process.kill()
    finish(process)  # returns when its processes have let go of the pipe, too
    code, said = finish(training(run))
    assert code == 0, said
    assert "resumed from" in said
    ours, theirs = files(run), files(whole)
    assert [name for name in sorted({*ours, *theirs}) if ours.get(name) != theirs.get(name)] == []
    assert len(ours) > 10


@pytest.mark.slow
def test_the_command_listens_on_nothing_but_loopback(watched: tuple[Path, Watch]) -> None:
    watch = watched[1]
    assert watch.looks > 20
    assert len({listener.pid for listener in watch.listeners}) == PROCESSES, "gloo listens in each"
    assert beyond_loopback(watch.listeners) == set()


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["start", "middle"])
def test_a_killed_command_leaves_no_process(base: Path, tmp_path: Path, moment: str) -> None:
    run = shutil.copytree(base, tmp_path / "run")
    process = training(run)
    if moment == "start":
        after_start(process)
    else:
        after_iterations(1, run, process)
    watch = Watch(process.pid)
    watch.look()
    assert len(watch.processes) >= 1 + PROCESSES, "the command, those that train, and a guard of each"
    process.kill()
    assert survivors(watch.processes, GONE) == set()
    finish(process)


@pytest.mark.slow
def test_an_error_of_one_process_is_told_and_ends_all(base: Path, tmp_path: Path) -> None:
    run = shutil.copytree(base, tmp_path / "run")
    cfg = override(load_config(run), [f"paths.run={run}"])
    index = task_index(cfg)
    damaged = index.resolve(TaskStream(index.split("train"), cfg.seed).draw(5)[1])  # the second process's first game
    damaged.write_text("{")
    code, said = finish(training(run))
    assert code == 2, said
    assert str(damaged) in said.splitlines()[-1] and said.splitlines()[-1].startswith("hiper: "), said


@pytest.mark.slow
def test_all_processes_roll_back_and_stop_together(base: Path, tmp_path: Path) -> None:
    run = shutil.copytree(base, tmp_path / "run")
    limits = ["alarms.collapse=rollback", "alarms.patience=1", "alarms.switch_rate_min=0.998", "alarms.switch_rate_max=0.999"]
    code, said = finish(training(run, *limits, "alarms.rollbacks=1"))
    assert code == 3, said
    assert "It came back 1 times." in said.splitlines()[-1], said
    events = json.loads((run / "train.partial" / "alarms.json").read_text())
    assert [event["iteration"] for event in events] == [1, 1]
    kept = [path.name for path in ckpt.list_checkpoints(run / "train.partial" / "checkpoints")]
    assert kept == ["iteration-000000"]

"""A finished run made of plausible numbers, written with the same functions that write a real one."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from hiper.config import RunConfig
from hiper.evaluation import write_evaluation
from hiper.rollout.trajectory import Levels, StopReason, Trajectory, Turn, write_trajectories
from hiper.runs.run_dir import environment, save_config
from hiper.runs.stage_folder import ENVIRONMENT, Begun, stage_folder
from hiper.suites import splits_of
from hiper.suites.alfworld.settings import TASK_TYPES
from hiper.tracking import MetricsFile

ITERATIONS = 60
PLAN = [
    ("find a mug", ["go to cabinet 1", "open cabinet 1", "go to countertop 1", "take mug 1 from countertop 1"]),
    ("heat the mug", ["go to microwave 1", "heat mug 1 with microwave 1"]),
    ("put the mug in the coffee machine", ["go to coffeemachine 1", "move mug 1 to coffeemachine 1"]),
]
INTRO = (
    "-= Welcome to TextWorld, ALFRED! =-\n\nYou are in the middle of a room. Looking quickly around you, you see a cabinet 4, a cabinet 3, "
    "a cabinet 2, a cabinet 1, a coffeemachine 1, a countertop 2, a countertop 1, a drawer 3, a drawer 2, a drawer 1, a fridge 1, "
    "a garbagecan 1, a microwave 1, a sinkbasin 1, a stoveburner 2, a stoveburner 1, and a toaster 1.\n\n"
    "Your task is to: put a hot mug in coffeemachine."
)


def episode(rng: random.Random, won: bool, split: str, task_type: str, number: int, iteration: int | None = None) -> Trajectory:
    """A won episode follows the plan; a lost one searches until its turns run out."""
    script = [(subgoal, action, index == 0) for subgoal, actions in PLAN for index, action in enumerate(actions)]
    if not won:
        script = [("find a mug", f"go to cabinet {1 + t % 4}", t % 7 == 0) for t in range(20)]
    turns = []
    for t, (subgoal, action, starts) in enumerate(script):
        faulty = not won and t % 9 == 5
        last = won and t == len(script) - 1
        progress = t / len(script)
        turns.append(
            Turn(
                observation=INTRO
                if t == 0
                else f"You arrive at {action.split()[-2]} {1 + t % 3}. On it, you see a bowl 2, and a mug {1 + t % 2}.",
                reply="<switch>KEEP</switch> <action>"
                if faulty
                else f"<switch>..</switch> <subgoal>{subgoal}</subgoal> <action>{action}</action>",
                switch=starts,
                subgoal=subgoal,
                action="" if faulty else action,
                faults=["unclosed_block", "missing_action"] if faulty else [],
                admissible=not faulty,
                reward=float(last),
                shaped=float(last) - 0.1 * faulty - 0.02 * (not starts),
                tokens=24,
                values=Levels(0.4 + 0.4 * progress * won, 0.45 + 0.35 * progress * won, 0.4 + 0.3 * progress * won),
                advantages=Levels(
                    rng.gauss(0.35 if won else -0.4, 0.3), rng.gauss(0.5 if won else -0.5, 0.3) if starts else 0.0, rng.gauss(0.1, 0.2)
                ),
            )
        )
        if iteration is None:
            turns[-1].values = turns[-1].advantages = None
    stop = StopReason.terminated if won else StopReason.turn_limit
    return Trajectory(
        task_id=f"{split}/{task_type}-Mug-None-CoffeeMachine-{10 + number % 5}/trial_T2019{number:04d}/game.tw-pddl",
        split=split,
        task_type=task_type,
        task="put a hot mug in coffeemachine.",
        won=won,
        stop=stop,
        turns=turns,
        final_observation="You move the mug 1 to the coffeemachine 1." if won else "Nothing happens.",
        iteration=iteration,
    )


def metrics(rng: random.Random, iteration: int) -> dict[str, float]:
    """Numbers as a run that learns would log them."""
    done = iteration / ITERATIONS
    learned = 1 / (1 + math.exp(-9 * (done - 0.4)))
    success = min(1.0, max(0.0, 0.3 + 0.58 * learned + rng.gauss(0, 0.035)))
    record = {
        "rollout/success_rate": round(success * 128) / 128,
        "rollout/turns": 34 - 18 * learned + rng.gauss(0, 0.8),
        "rollout/turns_won": 17 - 4 * learned + rng.gauss(0, 0.6),
        "rollout/return": 1.4 * success - 0.5 + rng.gauss(0, 0.03),
        "rollout/valid_rate": 1 - 0.06 * math.exp(-5 * done),
        "rollout/inadmissible_rate": 0.14 * math.exp(-3 * done) + 0.01 * rng.random(),
        "switch/rate": 0.38 - 0.1 * learned + rng.gauss(0, 0.012),
        "switch/segment_length": 2.4 + 0.8 * learned + rng.gauss(0, 0.06),
        "switch/entropy": 0.45 - 0.2 * done + rng.gauss(0, 0.01),
        "hae/mask_coverage": 0.985 + 0.012 * done,
        "optim/kl_ref": 0.09 * learned + 0.004 * rng.random(),
        "optim/approx_kl": 0.003 + 0.002 * rng.random(),
        "optim/clip_fraction": 0.03 + 0.02 * rng.random(),
        "optim/entropy": 0.32 - 0.17 * done + rng.gauss(0, 0.006),
        "env/turns": iteration * 3200,
    }
    for level, top in (("low", 0.8), ("high", 0.72), ("switch", 0.6)):
        record[f"value/explained_variance_{level}"] = top * (1 - math.exp(-6 * done)) - 0.4 * math.exp(-20 * done) + rng.gauss(0, 0.03)
        record[f"hae/adv_{level}_std"] = 0.5 - 0.2 * done + rng.gauss(0, 0.02)
    if iteration % 5 == 0:
        record["eval/success_rate"] = round(min(1.0, success + rng.gauss(0.04, 0.03)) * 64) / 64
    return record


def evaluation(run: Path, name: str, share: float, config: RunConfig, rng: random.Random) -> None:
    """An evaluation with the given share of won games."""
    trajectories = [
        episode(rng, rng.random() < share + 0.12 * math.cos(number), split, TASK_TYPES[number % 6], number)
        for split in splits_of(config)
        for number in range(120)
    ]
    meta = {
        "model": f"{name}/model",
        "splits": {split: {"tasks": 120, "available": 120, "sha256": "0" * 64} for split in splits_of(config)},
        "limit": None,
        "source": "generated",
        "temperature": 0.0,
        "seed": 0,
        "constrain": "admissible",
        "engine": "native",
        "max_turns": 50,
        "max_tokens": 4096,
        "context": "append",
        "dialect": "compact",
        "style": "terse",
    }
    write_evaluation(run / "evaluate", name, trajectories, meta)


def make_run(run: Path) -> Path:
    """Everything the report reads."""
    rng = random.Random(7)
    config = RunConfig(name="quickstart", seed=1)
    config.paths.run = str(run)
    for stage in ("tasks", "demos", "sft", "train", "evaluate"):
        with stage_folder(run, stage, Begun("f" * 16, "f" * 16)) as folder:
            if stage == "train":
                _train(folder.path, rng)
    save_config(config, run / "config.yaml")
    (run / ENVIRONMENT).write_text(json.dumps(environment() | {"command": ["hiper", "run", "experiment=quickstart", "seed=1"]}))
    evaluation(run, "sft", 0.3, config, rng)
    evaluation(run, "trained", 0.86, config, rng)
    return run


def _train(folder: Path, rng: random.Random) -> None:
    numbers, timings = MetricsFile(folder / "metrics.jsonl"), MetricsFile(folder / "timings.jsonl")
    samples = []
    for iteration in range(1, ITERATIONS + 1):
        numbers.append(iteration, metrics(rng, iteration))
        timings.append(iteration, {"time/rollout": 3.1 + 0.2 * rng.random(), "time/score": 0.8, "time/update": 2.2 + 0.1 * rng.random()})
        samples += [episode(rng, number % 4 != 3, "train", TASK_TYPES[number % 6], number, iteration) for number in range(4)]
    numbers.close()
    timings.close()
    write_trajectories(folder / "samples.jsonl", samples)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with nothing missing; not to be changed."""
    return make_run(tmp_path_factory.mktemp("runs") / "quickstart" / "seed-1")


@pytest.fixture(scope="session")
def make_episode() -> Callable[..., Trajectory]:
    """The function `episode` above."""
    return episode

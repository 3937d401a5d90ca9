"""What a stage is: one table, from which everything that must know the stages derives.

The command line, runs and fingerprints, the Prefect flows, `dvc.yaml`, comparisons, preflight and the report read it; nothing else lists
the stages. Here are facts alone: `hiper.pipeline.stages` makes of each a stage that can be done.

    tasks -> demos -> sft -> train -> evaluate -> report
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

INDEX_FILE = "index.json"
DEMOS_FILE = "demos.jsonl"
MODEL_FOLDER = "model"
BASE_FOLDER = "base"
"""The base model in the folder of the training that starts from it, of a suite without an expert."""
METRICS_FILE = "metrics.json"
"""Success by model and split, and the number of tasks, for tools that compare runs."""
REPORT_FILE = "report.html"


@dataclass(frozen=True)
class Plot:
    """A chart that DVC draws of a stage's files."""

    title: str
    x: str
    """Column of the horizontal axis."""
    y: Mapping[str, str]
    """File of the stage -> its column."""
    template: str | None = None
    """DVC's; unset: a line."""


@dataclass(frozen=True)
class Stage:
    """A stage: its files lie in RUN/<name> and depend on nothing but its settings, those of the stages it reads, and the version."""

    name: str
    """Of its folder, too."""
    summary: str
    """What it does, in a line: the help of its command."""
    upstream: tuple[str, ...] = ()
    """The stages whose files it reads."""
    optional: bool = False
    """Whether it makes do without what they have not finished."""
    settings: tuple[str, ...] = ()
    """The settings, or groups of them, that its files depend on. Device, threads, tracking and paths change no result that is meant to be
    one. Nor do alarms, so that a run which one has stopped can be resumed under others."""
    suite: tuple[str, ...] = ()
    """Which of the suite's own settings its files depend on: `tasks`, and fields of `hiper.suites.suite.OwnSettings`."""
    own_seed: str | None = None
    """A setting that stands for `seed` where it is set."""
    neutral: tuple[str, ...] = ()
    """Settings within `settings` that change how often work is saved, or how many processes share it, and no result."""
    extendable: tuple[str, ...] = ()
    """Settings that say how long it goes on: more of them continues its work, finished or not."""
    without_upstream: tuple[str, ...] = ()
    """Settings that its files depend on, too, where a stage that it reads is left out, whose settings they are else."""
    expert: bool = False
    """Whether it needs an expert: with a suite that has none, it is left out."""
    added: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """Settings that came after such stages had been done, and the value under which one from before is not another one."""
    gpu: bool = False
    """Whether it computes with a model: on a GPU where there is one, under `threads`."""
    shared: bool = False
    """Whether `paths.base` takes it from another run."""
    resumable: bool = False
    """Whether unfinished work is kept and continued."""
    downloads: bool = False
    """Whether it may fetch data, and so may be worth trying again."""
    dated: bool = False
    """Whether its files say when, how long and on what machine, unless told `--no-timestamps`."""
    metrics: tuple[str, ...] = ()
    """Files of it that DVC reads as metrics."""
    plots: tuple[Plot, ...] = ()
    """Charts that DVC draws of it."""

    @property
    def command(self) -> str:
        """Its name on the command line and in Prefect."""
        return self.name.replace("_", "-")

    @property
    def plays(self) -> bool:
        """Whether a model acts in the environment."""
        return self.gpu and "text" in self.suite


FLOAT32: Mapping[str, Any] = MappingProxyType({"model.compute_dtype": "float32"})
"""For `Stage.added`: what models computed in before they could compute in something else."""

STAGES: Mapping[str, Stage] = MappingProxyType(
    {
        stage.name: stage
        for stage in (
            Stage(
                "tasks",
                "generate the tasks, or find and index the official ones",
                settings=("tasks",),
                suite=("tasks",),
                shared=True,
                downloads=True,
            ),
            Stage(
                "demos",
                "let the expert write plan-execute demonstrations",
                upstream=("tasks",),
                settings=("demos", "env", "protocol"),
                suite=("demos", "text"),
                added=MappingProxyType({"demos.processes": 1}),
                expert=True,
                shared=True,
            ),
            Stage(
                "sft",
                "fine-tune the base model on the demonstrations",
                upstream=("demos",),
                settings=("sft", "model", "protocol", "rollout.constrain", "seed"),
                own_seed="sft.seed",
                neutral=("sft.save_every",),
                added=MappingProxyType({"sft.processes": 1, **FLOAT32}),
                expert=True,
                gpu=True,
                shared=True,
                resumable=True,
            ),
            Stage(
                "train",
                "train the model by reinforcement learning, with the estimator that algo names",
                upstream=("tasks", "sft"),
                settings=("algo", "trainer", "rollout", "env", "protocol", "model", "seed"),
                suite=("text", "reward"),
                neutral=("trainer.save_every", "trainer.keep_last"),
                extendable=("trainer.iterations", "trainer.env_turns"),
                without_upstream=("sft.seed",),
                added=MappingProxyType({"trainer.processes": 1, "trainer.recompute_logprobs": True, "algo.lam_end": 0.0, **FLOAT32}),
                gpu=True,
                resumable=True,
            ),
            Stage(
                "evaluate",
                "play full splits with the trained model, and with the model it came from",
                upstream=("tasks", "sft", "train"),
                settings=("evaluate", "rollout", "env", "protocol", "model"),
                suite=("text",),
                neutral=("evaluate.processes",),
                added=FLOAT32,
                gpu=True,
                resumable=True,
                metrics=(METRICS_FILE,),
            ),
            Stage(
                "report",
                "write the run's HTML page",
                upstream=("train", "evaluate"),
                optional=True,
                settings=("name", "seed"),
                dated=True,
                plots=(
                    Plot(
                        "Success in training, sampled episodes and evaluations",
                        "iteration",
                        {"curves.csv": "success", "evaluations.csv": "success"},
                    ),
                    Plot("switch rate", "iteration", {"curves.csv": "switch_rate"}),
                    Plot("success by task type", "trained", {"tasks.csv": "tasks"}, "bar_horizontal"),
                ),
            ),
        )
    }
)
"""The stages in their order: one comes after all that it reads."""


def before(name: str) -> tuple[str, ...]:
    """The stages that come before one."""
    names = tuple(STAGES)
    return names[: names.index(name)]


def split_at_gpu(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Stages in their order, as those before the first that computes with a model, and the rest."""
    first = next((place for place, name in enumerate(names) if STAGES[name].gpu), len(names))
    return list(names[:first]), list(names[first:])

"""The schema of an experiment: every setting that all suites share, its default, its unit and its range.

YAML under `conf/` only chooses and changes values; no default lives anywhere else. Hydra composes into these classes,
`OmegaConf.to_object` builds them, `__post_init__` checks ranges, and past that door nothing sees a `DictConfig`. What holds for every
setting of a type (floats are finite, whole numbers and seeds have bounds) is said once, in `hiper.config.checks`. Settings of algorithms:
what all share is in `hiper.config.algo`, what one reads lies with it in `hiper/algos/`. A suite's own settings lie with it in
`hiper/suites/`.
"Paper" below is HiPER, arXiv:2602.16165; "log" is one of its authors' committed training logs.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from enum import StrEnum
from typing import Any, TypeVar

from hiper.config.algo import AlgoConfig
from hiper.config.checks import TEMPERATURES, require, require_folder, require_sane
from hiper.config.policy import (
    ComputeDtype,
    Constrain,
    Context,
    Critic,
    Dialect,
    Init,
    ModelConfig,
    ProtocolConfig,
    RolloutConfig,
    SFTConfig,
    Style,
    TinyConfig,
)
from hiper.config.tasks import DemosConfig, EnvConfig, Source, TasksConfig
from hiper.config.training import AlarmsConfig, OnAlarm, Trainable, TrainerConfig, ValueFit
from hiper.errors import ConfigError

__all__ = [
    "AlarmsConfig",
    "AlgoConfig",
    "ComputeDtype",
    "Constrain",
    "Context",
    "Critic",
    "DEFAULT_ALGO",
    "DemosConfig",
    "Dialect",
    "EnvConfig",
    "EvaluateConfig",
    "Init",
    "ModelConfig",
    "OnAlarm",
    "PathsConfig",
    "ProtocolConfig",
    "RolloutConfig",
    "RunConfig",
    "SFTConfig",
    "SharedConfig",
    "Source",
    "Style",
    "TasksConfig",
    "TinyConfig",
    "TrackingConfig",
    "Trainable",
    "TrainerConfig",
    "ValueFit",
    "WandbMode",
]

S = TypeVar("S")

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}")


class WandbMode(StrEnum):
    """Whether metrics also go to Weights & Biases."""

    off = "off"
    offline = "offline"
    online = "online"


DEFAULT_ALGO = "hae"
"""The estimator of a config that names none."""


@dataclass
class EvaluateConfig:
    """Evaluation over full splits."""

    splits: list[str] | None = None
    """Splits that are evaluated; the first is watched in training. Unset: all of the suite but `train`."""
    temperature: float = 0.0
    """0: greedy (paper: 0.4)."""
    limit: int | None = None
    """Tasks per split; unset: all of them. A limited evaluation says so in its result."""
    chunk: int = 256
    """Tasks that are played, and kept, together: an evaluation that is interrupted goes on with the chunks left. It changes the draws."""
    processes: int = 1
    """Processes that share the chunks, of both models of a run, on CPUs alone. It changes no result."""
    seed: int = 0
    baseline: bool = True
    """Evaluate the warm-started model too, so that the report can say what RL added."""

    def __post_init__(self) -> None:
        for name in ("chunk", "processes"):
            require(getattr(self, name) >= 1, f"evaluate.{name}", getattr(self, name), "at least 1")
        least, most = TEMPERATURES
        require(
            self.temperature == 0 or least <= self.temperature <= most,
            "evaluate.temperature",
            self.temperature,
            f"0, or between {least:g} and {most:g}",
        )
        require(self.limit is None or self.limit >= 1, "evaluate.limit", self.limit, "at least 1, or null for all")
        require(self.splits != [], "evaluate.splits", self.splits, "at least one split, or null for all but train")


@dataclass
class TrackingConfig:
    """Where metrics go besides `metrics.jsonl`."""

    wandb: WandbMode = WandbMode.off
    project: str = "hiper"


@dataclass
class PathsConfig:
    """Where a run lives; every stage writes one folder in it."""

    run: str = "runs/${name}/seed-${seed}"
    """The directory of the run; `paths.run=DIR` names another."""
    base: str | None = None
    """Another run, whose tasks, demonstrations and warm start are used (with `sft.seed` set to that run's seed); unset: its own."""

    def __post_init__(self) -> None:
        require_folder("paths.run", self.run)
        if self.base is not None:
            require_folder("paths.base", self.base)


def _default_algo() -> AlgoConfig:
    # An estimator's settings lie with the estimator, above this package; a config without a choice has to begin with one all the same.
    from hiper.algos.registry import settings_of

    return settings_of(DEFAULT_ALGO)()


@dataclass
class SharedConfig:
    """What every experiment has, whatever its suite."""

    name: str = "default"
    """Names the run's folder: letters, digits, `_`, `-` and `.`, which does not come first."""
    seed: int = 0
    device: str = "auto"
    """auto, cpu or cuda."""
    threads: int = 0
    """CPU threads of torch in each process; 0: one for a small network from `model.tiny`, which more slow down, otherwise all cores."""
    tasks: TasksConfig = field(default_factory=TasksConfig)
    env: EnvConfig = field(default_factory=EnvConfig)
    demos: DemosConfig = field(default_factory=DemosConfig)
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    sft: SFTConfig = field(default_factory=SFTConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    algo: AlgoConfig = field(default_factory=_default_algo)
    """Settings of the chosen estimator: a subclass of `AlgoConfig`, see `hiper.algos`."""
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    alarms: AlarmsConfig = field(default_factory=AlarmsConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    paths: PathsConfig = field(default_factory=PathsConfig)

    @property
    def sft_seed(self) -> int:
        """Seed of the fine-tuning."""
        return self.seed if self.sft.seed is None else self.sft.seed

    def __post_init__(self) -> None:
        require_sane(self, but=("suite",))
        require(_NAME.fullmatch(self.name) is not None, "name", self.name, "letters, digits, _, - and ., which does not come first")
        require(self.device in ("auto", "cpu", "cuda"), "device", self.device, "auto, cpu or cuda")
        require(self.threads >= 0, "threads", self.threads, "at least 0")
        require(
            self.rollout.trajectories % self.algo.group_size == 0,
            "algo.group_size",
            self.algo.group_size,
            f"a divisor of rollout.trajectories={self.rollout.trajectories}",
        )
        require(
            self.trainer.processes <= max(1, self.rollout.trajectories),
            "trainer.processes",
            self.trainer.processes,
            f"at most rollout.trajectories={self.rollout.trajectories}",
        )
        require(
            self.trainer.recompute_logprobs or (self.protocol.context is Context.append and self.model.critic is Critic.shared),
            "trainer.recompute_logprobs",
            self.trainer.recompute_logprobs,
            f"true with protocol.context={self.protocol.context.value} and model.critic={self.model.critic.value}: "
            "only a conversation that grows, and a critic on the policy's trunk, read what the rollout has computed",
        )


@dataclass
class RunConfig(SharedConfig):
    """One experiment."""

    suite: Any = None
    """The settings that only the chosen suite reads, as its own class; None: the defaults, or it has none. As a file and on the command
    line they are a section named after the suite: `webshop.products`."""

    def __post_init__(self) -> None:
        kind = _suite_settings(self.env.name)
        if self.suite is None and kind is not None:
            self.suite = kind()
        elif self.suite is not None and type(self.suite) is not kind:
            reads = "none of its own" if kind is None else kind.__name__
            raise ConfigError(f"suite={self.suite!r}: env.name={self.env.name} has {reads} for settings. Give it those, or leave them out.")
        super().__post_init__()
        if self.suite is not None:
            require_sane(self.suite, f"{self.env.name}.")

    def own(self, kind: type[S]) -> S:
        """The suite's own settings, as the class they are of.

        Raises:
            ConfigError: they are another suite's.
        """
        if not isinstance(self.suite, kind):
            raise ConfigError(f"env.name={self.env.name} has no settings of {kind.__name__}: another suite reads those.")
        return self.suite

    def sections(self) -> dict[str, Any]:
        """Every setting, nested as files have them: the suite's own are a section named after it, behind `env`."""
        found: dict[str, Any] = {}
        for item in fields(SharedConfig):
            value = getattr(self, item.name)
            found[item.name] = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
            if item.name == "env" and self.suite is not None:
                found[self.env.name] = asdict(self.suite)
        return found


def _suite_settings(name: str) -> type[Any] | None:
    # A suite's settings lie with the suite, above this package; a config without them has to begin with its defaults all the same.
    from hiper.suites.registry import settings_of_suite

    return settings_of_suite(name)

"""Settings of the optimisation loop and of what it is watched for.

"Paper" is HiPER, arXiv:2602.16165; "log" is one of its authors' committed training logs.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from hiper.config.checks import require


class ValueFit(StrEnum):
    """How value heads learn: by gradient steps beside the policy's, or by least squares on the iterations so far.

    Fitted heads take no gradient: `algo.value_coef` and `trainer.lr_critic` are then not read, and a separate trunk stays as it is.
    """

    gradient = "gradient"
    least_squares = "least_squares"


class Trainable(StrEnum):
    """Which of the policy's weights learn: all, or its norms and biases alone, a few thousand instead of a million."""

    all = "all"
    norms_and_biases = "norms_and_biases"


class OnAlarm(StrEnum):
    """What an alarm does: nothing; a warning; the end of the run, resumable; or a return to before the trouble, with smaller steps."""

    off = "off"
    warn = "warn"
    stop = "stop"
    rollback = "rollback"


@dataclass
class TrainerConfig:
    """The optimisation loop."""

    iterations: int = 150
    env_turns: int | None = None
    """Turns to play in training; the iteration that reaches them is the last. Unset: `iterations` alone decides."""
    epochs: int = 1
    """Passes over an iteration's trajectories."""
    minibatch: int = 32
    """Trajectories an optimiser step."""
    processes: int = 1
    """Processes that share an iteration's trajectories, each with a GPU of its own where there are GPUs. Their number changes which random
    numbers are drawn."""
    microbatch_tokens: int = 16384
    """Tokens (padding included) a forward pass holds at most."""
    recompute_logprobs: bool = True
    """Run the policy over an iteration's episodes once more, for its log-probabilities and values before the step. False: they are read
    from the hidden states of the rollout's own passes, the same up to rounding; for `protocol.context=append` and `model.critic=shared`."""
    lr_actor: float = 1e-6
    lr_critic: float = 1e-5
    max_grad_norm: float = 1.0
    anneal: bool = False
    """Lower the learning rates linearly with the iterations, or with the turns where `env_turns` is set: late steps average noise out."""
    critic_warmup: int = 0
    """First iterations in which only the value heads learn."""
    value_fit: ValueFit = ValueFit.gradient
    value_ridge: float = 100.0
    """`least_squares`: weight of the penalty, in turns."""
    value_forgetting: float = 0.7
    """`least_squares`: what an iteration's turns keep of their weight with each iteration after it."""
    trainable: Trainable = Trainable.all
    save_every: int = 10
    """Iterations between checkpoints; one is written at the end in any case."""
    keep_last: int = 2
    """Newest checkpoints that are kept, besides the one with the best evaluation in between."""
    eval_every: int = 5
    """Iterations between evaluations on `eval_tasks` of the first of `evaluate.splits`; 0: never."""
    eval_tasks: int = 64
    samples: int = 8
    """Trajectories with their credit written each iteration, for the report and the viewer."""

    def __post_init__(self) -> None:
        for name in ("iterations", "epochs", "minibatch", "processes", "microbatch_tokens", "save_every", "keep_last", "eval_tasks"):
            require(getattr(self, name) >= 1, f"trainer.{name}", getattr(self, name), "at least 1")
        shared = f"at most trainer.minibatch={self.minibatch}: each process needs a trajectory of every step"
        require(self.processes <= max(1, self.minibatch), "trainer.processes", self.processes, shared)
        require(self.env_turns is None or self.env_turns >= 1, "trainer.env_turns", self.env_turns, "at least 1, or null")
        require(0.0 <= self.value_forgetting < 1.0, "trainer.value_forgetting", self.value_forgetting, "at least 0 and below 1")
        for name in ("lr_actor", "lr_critic", "max_grad_norm", "value_ridge"):
            require(getattr(self, name) > 0, f"trainer.{name}", getattr(self, name), "above 0")
        for name in ("critic_warmup", "eval_every", "samples"):
            require(getattr(self, name) >= 0, f"trainer.{name}", getattr(self, name), "at least 0")


@dataclass
class AlarmsConfig:
    """What training is watched for; see `hiper.train.alarms`. Alarms that only warn or stop change no result."""

    collapse: OnAlarm = OnAlarm.warn
    """The hierarchy has collapsed: `switch/rate` is outside its limits."""
    switch_rate_min: float = 0.02
    """Least of `switch/rate`, in [0, 1]."""
    switch_rate_max: float = 0.95
    """Most of it."""
    mask_coverage: OnAlarm = OnAlarm.warn
    """Replies lack the blocks that credit is laid on."""
    mask_coverage_min: float = 0.5
    """Least of `hae/mask_coverage`, share of turns in [0, 1]."""
    kl: OnAlarm = OnAlarm.warn
    """The policy runs away, from the reference or within an iteration."""
    kl_max: float = 0.5
    """Most of `optim/kl_ref`, nats a token by `algo.kl_estimator`."""
    step_kl_max: float = 0.1
    """Most of `optim/approx_kl`, nats a token."""
    entropy: OnAlarm = OnAlarm.warn
    """The policy has stopped exploring."""
    entropy_min: float = 0.005
    """Least of `optim/entropy`, nats a token."""
    switch_entropy_min: float = 0.002
    """Least of `switch/entropy`, nats a turn."""
    nan: OnAlarm = OnAlarm.stop
    """A metric is not a finite number; goes off at once."""
    patience: int = 3
    """Iterations in a row outside the limits before an alarm goes off."""
    rollbacks: int = 3
    """Returns before a `rollback` alarm stops the run."""
    rollback_lr_scale: float = 0.5
    """Learning rates are multiplied by this with each return."""

    def __post_init__(self) -> None:
        for name in ("switch_rate_min", "switch_rate_max", "mask_coverage_min"):
            require(0.0 <= getattr(self, name) <= 1.0, f"alarms.{name}", getattr(self, name), "between 0 and 1")
        require(
            self.switch_rate_min < self.switch_rate_max,
            "alarms.switch_rate_min",
            self.switch_rate_min,
            f"below switch_rate_max={self.switch_rate_max}",
        )
        for name in ("kl_max", "step_kl_max"):
            require(getattr(self, name) > 0, f"alarms.{name}", getattr(self, name), "above 0")
        for name in ("entropy_min", "switch_entropy_min", "rollbacks"):
            require(getattr(self, name) >= 0, f"alarms.{name}", getattr(self, name), "at least 0")
        require(self.patience >= 1, "alarms.patience", self.patience, "at least 1")
        require(0.0 < self.rollback_lr_scale <= 1.0, "alarms.rollback_lr_scale", self.rollback_lr_scale, "above 0, at most 1")

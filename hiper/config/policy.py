"""Settings of the policy: what it reads and writes, its network, fine-tuning and sampling.

"Paper" is HiPER, arXiv:2602.16165; "log" is one of its authors' committed training logs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from hiper.config.checks import TEMPERATURES, require


class Context(StrEnum):
    """What the model reads: the growing conversation, or the paper's prompt of the last turns."""

    append = "append"
    window = "window"


class Dialect(StrEnum):
    """How a reply is written: the subgoal on every turn, or only on SWITCH."""

    full = "full"
    compact = "compact"


class Style(StrEnum):
    """How a prompt is worded: for a model that knows the task, or one that must be told."""

    terse = "terse"
    instructed = "instructed"


class Constrain(StrEnum):
    """Which tokens may be sampled: any, in the action block only those that spell an admissible command, or only replies of the
    protocol's form with an admissible command."""

    free = "free"
    admissible = "admissible"
    grammar = "grammar"


class Critic(StrEnum):
    """Where the value heads sit: on the actor's trunk, or on a trunk of their own."""

    shared = "shared"
    separate = "separate"


class Init(StrEnum):
    """How a from-scratch model starts: transformers' own initialisation, or one whose attention already copies."""

    default = "default"
    copying = "copying"


@dataclass
class ProtocolConfig:
    """The plan-execute grammar and the prompt."""

    context: Context = Context.append
    dialect: Dialect = Dialect.full
    style: Style = Style.instructed
    remind: bool = False
    """`append`: close each later message with the task and the subgoal in force, as the paper's prompt does every turn."""
    history: int = 2
    """Turns shown in the `window` prompt (paper: 2)."""

    def __post_init__(self) -> None:
        require(self.history >= 0, "protocol.history", self.history, "at least 0")


@dataclass
class TinyConfig:
    """A Qwen2-architecture model (`hiper.model.tiny`) built from scratch; its vocabulary comes from the demonstrations."""

    hidden: int = 128
    layers: int = 3
    heads: int = 4
    kv_heads: int = 4
    intermediate: int = 384
    max_positions: int = 4096
    rope_theta: float = 1_000_000.0
    """Base of the rotary frequencies (Qwen2.5: 1e6)."""
    init: Init = Init.copying

    def __post_init__(self) -> None:
        for name in ("hidden", "layers", "heads", "kv_heads", "intermediate", "max_positions"):
            require(getattr(self, name) >= 1, f"model.tiny.{name}", getattr(self, name), "at least 1")
        require(self.heads < 1 or self.hidden % self.heads == 0, "model.tiny.heads", self.heads, f"a divisor of hidden={self.hidden}")
        require(
            self.kv_heads < 1 or self.heads % self.kv_heads == 0, "model.tiny.kv_heads", self.kv_heads, f"a divisor of heads={self.heads}"
        )
        whole = self.heads < 1 or self.hidden % self.heads != 0
        require(whole or self.hidden // self.heads % 2 == 0, "model.tiny.hidden", self.hidden, f"2 * heads={self.heads}, or a multiple")
        require(self.rope_theta > 0, "model.tiny.rope_theta", self.rope_theta, "above 0")
        require(
            self.init is not Init.copying or (self.layers >= 2 and self.heads == self.kv_heads),
            "model.tiny.init",
            str(self.init),
            f"default with layers={self.layers}, heads={self.heads}, kv_heads={self.kv_heads}: "
            "copying needs at least 2 layers and kv_heads == heads",
        )


class ComputeDtype(StrEnum):
    """What forward passes compute in."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    auto = "auto"


@dataclass
class ModelConfig:
    """The language model and its critic."""

    path: str | None = None
    """A hub id or directory for `AutoModelForCausalLM`, with a chat template and weights in safetensors, and without code of its own;
    unset: build `tiny` from scratch."""
    tiny: TinyConfig = field(default_factory=TinyConfig)
    critic: Critic = Critic.shared
    value_heads: int = 3
    """Outputs of the critic: 3, one for each of V_low, V_high, V_switch; 2, the last two share one; 1, all share one."""
    dtype: str = "float32"
    """Weights' type: float32 or bfloat16."""
    compute_dtype: ComputeDtype = ComputeDtype.float32
    """`bfloat16`: forward passes run under `torch.autocast`; weights, their gradients and the optimiser stay in `dtype`. `auto`: where the
    device multiplies bfloat16 itself, several times as fast there. Results then differ between such machines and others."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, more time."""

    def __post_init__(self) -> None:
        require(self.value_heads in (1, 2, 3), "model.value_heads", self.value_heads, "1, 2 or 3")
        require(self.dtype in ("float32", "bfloat16"), "model.dtype", self.dtype, "float32 or bfloat16")


@dataclass
class SFTConfig:
    """Supervised fine-tuning on the demonstrations with TRL's SFTTrainer."""

    epochs: float = 3.0
    max_steps: int = -1
    """Optimiser steps; -1: as many as `epochs` needs."""
    batch_size: int = 16
    """Conversations a step."""
    processes: int = 1
    """Processes that share a step's conversations and add up their gradients, on CPUs alone. Another number of them changes the last bits
    of sums, and what dropout draws."""
    lr: float = 1e-5
    warmup_ratio: float = 0.05
    weight_decay: float = 0.0
    beta2: float = 0.999
    """Adam's second decay; lower forgets early gradients sooner, which helps short runs from scratch."""
    max_length: int = 4096
    """Tokens; longer demonstrations are refused, never cut."""
    seed: int | None = None
    """Seed of the fine-tuning; unset: the run's."""
    save_every: int = 100
    """Optimiser steps between checkpoints; 0: none. It changes no result."""

    def __post_init__(self) -> None:
        require(0.0 < self.epochs <= 1e6, "sft.epochs", self.epochs, "above 0, at most 1e6")
        require(self.max_steps == -1 or self.max_steps >= 1, "sft.max_steps", self.max_steps, "at least 1, or -1")
        require(1 <= self.processes <= self.batch_size, "sft.processes", self.processes, f"1 to sft.batch_size={self.batch_size}")
        for name in ("batch_size", "max_length"):
            require(getattr(self, name) >= 1, f"sft.{name}", getattr(self, name), "at least 1")
        require(self.lr > 0, "sft.lr", self.lr, "above 0")
        require(0.0 <= self.warmup_ratio < 1.0, "sft.warmup_ratio", self.warmup_ratio, "at least 0 and below 1")
        require(self.weight_decay >= 0, "sft.weight_decay", self.weight_decay, "at least 0")
        require(0.0 <= self.beta2 < 1.0, "sft.beta2", self.beta2, "at least 0 and below 1")
        require(self.save_every >= 0, "sft.save_every", self.save_every, "at least 0")


@dataclass
class RolloutConfig:
    """How trajectories are sampled."""

    trajectories: int = 128
    """Trajectories an iteration (paper: 128)."""
    slots: int = 128
    """Tasks played at once; a finished task's slot goes to the next."""
    temperature: float = 1.0
    max_reply_tokens: int = 512
    """Tokens a reply may have (paper: 512)."""
    max_tokens: int = 4096
    """Tokens an appended conversation may have before the episode is truncated."""
    max_turns: int | None = None
    """Turns of a training episode; unset: `env.max_turns`, which evaluations always use."""
    constrain: Constrain = Constrain.free
    """`admissible` limits the action block to admissible commands, `grammar` also the rest of the reply to the protocol's form; the
    published way is `free`."""

    def __post_init__(self) -> None:
        for name in ("trajectories", "slots", "max_reply_tokens", "max_tokens"):
            require(getattr(self, name) >= 1, f"rollout.{name}", getattr(self, name), "at least 1")
        require(self.max_turns is None or self.max_turns >= 1, "rollout.max_turns", self.max_turns, "at least 1, or null for env.max_turns")
        least, most = TEMPERATURES
        require(
            least <= self.temperature <= most,
            "rollout.temperature",
            self.temperature,
            f"between {least:g} and {most:g}; greedy is evaluate.temperature=0",
        )

"""The schema of an experiment: every setting, its default, its unit and its range.

YAML under `conf/` only chooses and changes values; no default lives anywhere else. Hydra composes into these classes,
`OmegaConf.to_object` builds them, `__post_init__` checks ranges, and past that door nothing sees a `DictConfig`. What holds for every
setting of a type (floats are finite, whole numbers and seeds have bounds) is said once, in `hiper.config.checks`. Settings of algorithms:
what all share is in `hiper.config.algo`, what one reads lies with it in `hiper/algos/`.
"Paper" below is HiPER, arXiv:2602.16165; "log" is one of its authors' committed training logs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum

from hiper.config.algo import AlgoConfig
from hiper.config.checks import TEMPERATURES, require, require_folder, require_sane

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}")


class Source(StrEnum):
    """Where games come from."""

    generated = "generated"
    official = "official"


class Engine(StrEnum):
    """Which program plays a game file."""

    native = "native"
    textworld = "textworld"


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


class CriticFit(StrEnum):
    """How value heads learn: by gradient steps beside the policy's, or by least squares on the iterations so far.

    Fitted heads take no gradient: `algo.value_coef` and `trainer.lr_critic` are then not read, and a separate trunk stays as it is.
    """

    gradient = "gradient"
    least_squares = "least_squares"


class Tune(StrEnum):
    """Which of the policy's weights learn: all, or its gains alone (norms and biases), a few thousand instead of a million."""

    all = "all"
    gains = "gains"


class Init(StrEnum):
    """How a from-scratch model starts: transformers' own initialisation, or one whose attention already copies."""

    default = "default"
    copying = "copying"


class Pay(StrEnum):
    """What an episode of WebShop pays: 1 for a score of exactly 1 and nothing for less (published), or its score."""

    success = "success"
    score = "score"


class OnAlarm(StrEnum):
    """What an alarm does: nothing; a warning; the end of the run, resumable; or a return to before the trouble, with smaller steps."""

    off = "off"
    warn = "warn"
    stop = "stop"
    rollback = "rollback"


class WandbMode(StrEnum):
    """Whether metrics also go to Weights & Biases."""

    off = "off"
    offline = "offline"
    online = "online"


TASK_TYPES = (
    "pick_and_place_simple",
    "look_at_obj_in_light",
    "pick_clean_then_place_in_recep",
    "pick_heat_then_place_in_recep",
    "pick_cool_then_place_in_recep",
    "pick_two_obj_and_place",
)
"""ALFWorld's six task types, in the order of their ALFRED numbers (`pick_two` is 6; `movable`, 5, is left out)."""

SPLITS = ("train", "valid_seen", "valid_unseen")

SUITE_SETTINGS = (
    "env.engine",
    *(f"games.{name}" for name in ("train", "valid_seen", "valid_unseen", "max_receptacles", "max_objects", "task_types")),
    *(f"demos.{name}" for name in ("fresh", "renumber", "scatter", "detours")),
    "webshop",
)
"""Settings, and sections, that are not for every suite; which of them one reads, it says itself (`hiper.suites.suite.Suite.reads`)."""

DEFAULT_ALGO = "hae"
"""The estimator of a config that names none."""


@dataclass
class GamesConfig:
    """The game index and, for `generated`, the games themselves."""

    source: Source = Source.generated
    """`generated`: from the floor plans `alfworld` ships; `official`: the released games."""
    data: str | None = None
    """Official data directory; unset: $ALFWORLD_DATA, fetched with `alfworld-download` when missing."""
    seed: int = 0
    """Seed of the generator; apart from the run's seed so that seeds of a study share their games."""
    train: int = 1000
    """Generated training games (train scenes)."""
    valid_seen: int = 120
    """Generated games in train scenes with layouts never trained on."""
    valid_unseen: int = 120
    """Generated games in scenes never trained on."""
    max_receptacles: int = 40
    """Most receptacles a generated scene keeps; real floor plans have up to about 40."""
    max_objects: int = 60
    """Most objects the generator places in a scene."""
    task_types: list[str] = field(default_factory=lambda: list(TASK_TYPES))
    """Which of the six task types to keep."""
    limit: int | None = None
    """Keep at most this many games per split; unset: all."""

    def __post_init__(self) -> None:
        for name in ("train", "valid_seen", "valid_unseen"):
            require(getattr(self, name) >= 1, f"games.{name}", getattr(self, name), "at least 1")
        require(self.max_receptacles >= 6, "games.max_receptacles", self.max_receptacles, "at least 6")
        require(self.max_objects >= 10, "games.max_objects", self.max_objects, "at least 10")
        require(self.limit is None or self.limit >= 1, "games.limit", self.limit, "at least 1, or null for all")
        unknown = [name for name in self.task_types if name not in TASK_TYPES]
        require(not unknown and bool(self.task_types), "games.task_types", unknown or self.task_types, f"some of {', '.join(TASK_TYPES)}")


@dataclass
class EnvConfig:
    """The environment an agent acts in."""

    name: str = "alfworld"
    """The suite of tasks, see `hiper.suites.registry`."""
    engine: Engine = Engine.native
    """ALFWorld, `native`: ours; `textworld`: the original `alfworld` package, hundreds of times slower."""
    max_turns: int = 50
    """Turns before an episode is truncated (paper, ALFWorld: 50; WebShop, by its log: 15)."""

    def __post_init__(self) -> None:
        require(self.max_turns >= 1, "env.max_turns", self.max_turns, "at least 1")


@dataclass
class WebShopConfig:
    """What only WebShop has; the catalogue is that of `games.source`, `games.data` and `games.seed`."""

    products: int = 240
    """Generated products."""
    goal_seed: int = 233
    """Seed of true prices, price caps and the order of the goals (the original shuffles with 233)."""
    human: bool = False
    """Goals that people wrote (`items_human_ins.json`) instead of synthetic ones (published: synthetic)."""
    test: int = 500
    """Goals held out, from the start of the list (published: 500)."""
    valid: int = 100
    """Goals after those, kept out of training, too, to watch it by (published: none; Princeton's scripts keep 1,000)."""
    pay: Pay = Pay.success
    labels: bool = False
    """Agents read and write products with their place on the page and options with their name: `click[1: b09...]`, `click[color: red]`
    (published: without). A small model can say what stands out from the rest long before it can copy from afar."""
    mended: bool = False
    """Leave out a next page beyond the last (published: it is there)."""

    def __post_init__(self) -> None:
        for name in ("products", "test", "valid"):
            require(getattr(self, name) >= 1, f"webshop.{name}", getattr(self, name), "at least 1")


@dataclass
class DemosConfig:
    """Plan-execute demonstrations for the warm start, always from the training split."""

    count: int = 1000
    """Demonstrations written; games are cycled through with fresh names when there are fewer games."""
    seed: int = 0
    fresh: bool = False
    """Generate a new training game in memory for every demonstration (games.source=generated): variety beats epochs."""
    renumber: bool = True
    """Give the objects and receptacles of a scene new numbers in each demonstration."""
    scatter: float = 0.0
    """Share of demonstrations before which the things in a training game are laid out anew, unless that wins it; rooms and tasks stay."""
    detours: float = 0.0
    """Probability a search turn visits a random place instead of the likeliest one; shows recovery from dead ends."""
    slips: float = 0.0
    """Probability that a turn is an error made on purpose, shown but not learned: what follows teaches the way back."""
    rounds: float = 0.0
    """Probability that a turn begins a walk of 2 to 6 turns round places seen already, shown but not learned: what follows ends it."""
    lapses: float = 0.0
    """Share of demonstrations in which a thing is taken to its appliance or lamp and only examined there: reward must teach their use."""

    def __post_init__(self) -> None:
        require(self.count >= 1, "demos.count", self.count, "at least 1")
        require(0.0 <= self.detours <= 1.0, "demos.detours", self.detours, "between 0 and 1")
        require(0.0 <= self.slips < 1.0, "demos.slips", self.slips, "at least 0 and below 1")
        require(0.0 <= self.rounds < 1.0, "demos.rounds", self.rounds, "at least 0 and below 1")
        require(0.0 <= self.scatter <= 1.0, "demos.scatter", self.scatter, "between 0 and 1")
        require(0.0 <= self.lapses <= 1.0, "demos.lapses", self.lapses, "between 0 and 1")


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
    """A Qwen2-architecture model built from scratch; its vocabulary comes from the demonstrations."""

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
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        require(self.value_heads in (1, 2, 3), "model.value_heads", self.value_heads, "1, 2 or 3")
        require(self.dtype in ("float32", "bfloat16"), "model.dtype", self.dtype, "float32 or bfloat16")


@dataclass
class WarmStartConfig:
    """Supervised fine-tuning on the demonstrations with TRL's SFTTrainer."""

    epochs: float = 3.0
    max_steps: int = -1
    """Optimiser steps; -1: as many as `epochs` needs."""
    batch_size: int = 16
    """Conversations a step."""
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
        require(0.0 < self.epochs <= 1e6, "warm_start.epochs", self.epochs, "above 0, at most 1e6")
        require(self.max_steps == -1 or self.max_steps >= 1, "warm_start.max_steps", self.max_steps, "at least 1, or -1")
        for name in ("batch_size", "max_length"):
            require(getattr(self, name) >= 1, f"warm_start.{name}", getattr(self, name), "at least 1")
        require(self.lr > 0, "warm_start.lr", self.lr, "above 0")
        require(0.0 <= self.warmup_ratio < 1.0, "warm_start.warmup_ratio", self.warmup_ratio, "at least 0 and below 1")
        require(self.weight_decay >= 0, "warm_start.weight_decay", self.weight_decay, "at least 0")
        require(0.0 <= self.beta2 < 1.0, "warm_start.beta2", self.beta2, "at least 0 and below 1")
        require(self.save_every >= 0, "warm_start.save_every", self.save_every, "at least 0")


@dataclass
class RolloutConfig:
    """How trajectories are sampled."""

    trajectories: int = 128
    """Trajectories an iteration (paper: 128)."""
    slots: int = 128
    """Games played at once; a finished game's slot goes to the next."""
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
    lr_actor: float = 1e-6
    lr_critic: float = 1e-5
    max_grad_norm: float = 1.0
    anneal: bool = False
    """Lower the learning rates linearly with the iterations, or with the turns where `env_turns` is set: late steps average noise out."""
    critic_warmup: int = 0
    """First iterations in which only the value heads learn."""
    critic_fit: CriticFit = CriticFit.gradient
    critic_ridge: float = 100.0
    """`least_squares`: weight of the penalty, in turns."""
    critic_memory: float = 0.7
    """`least_squares`: what an iteration's turns keep of their weight with each iteration after it."""
    tune: Tune = Tune.all
    save_every: int = 10
    """Iterations between checkpoints; one is written at the end in any case."""
    keep_last: int = 2
    """Newest checkpoints that are kept, besides the one with the best evaluation in between."""
    eval_every: int = 5
    """Iterations between evaluations on `eval_games` of the first of `evaluate.splits`; 0: never."""
    eval_games: int = 64
    samples: int = 8
    """Trajectories with their credit written each iteration, for the report and the viewer."""

    def __post_init__(self) -> None:
        for name in ("iterations", "epochs", "minibatch", "processes", "microbatch_tokens", "save_every", "keep_last", "eval_games"):
            require(getattr(self, name) >= 1, f"trainer.{name}", getattr(self, name), "at least 1")
        shared = f"at most trainer.minibatch={self.minibatch}: each process needs a trajectory of every step"
        require(self.processes <= max(1, self.minibatch), "trainer.processes", self.processes, shared)
        require(self.env_turns is None or self.env_turns >= 1, "trainer.env_turns", self.env_turns, "at least 1, or null")
        require(0.0 <= self.critic_memory < 1.0, "trainer.critic_memory", self.critic_memory, "at least 0 and below 1")
        for name in ("lr_actor", "lr_critic", "max_grad_norm", "critic_ridge"):
            require(getattr(self, name) > 0, f"trainer.{name}", getattr(self, name), "above 0")
        for name in ("critic_warmup", "eval_every", "samples"):
            require(getattr(self, name) >= 0, f"trainer.{name}", getattr(self, name), "at least 0")


@dataclass
class AlarmsConfig:
    """What training is watched for; see `hiper.train.alarms`. Alarms that only warn or stop change no result."""

    collapse: OnAlarm = OnAlarm.warn
    """The hierarchy has collapsed: `switch/rate` is outside its limits."""
    switch_rate_min: float = 0.02
    switch_rate_max: float = 0.95
    mask_coverage: OnAlarm = OnAlarm.warn
    """Replies lack the blocks that credit is laid on."""
    mask_coverage_min: float = 0.5
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
    rollback_pace: float = 0.5
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
        require(0.0 < self.rollback_pace <= 1.0, "alarms.rollback_pace", self.rollback_pace, "above 0, at most 1")


@dataclass
class EvaluateConfig:
    """Evaluation over full splits."""

    splits: list[str] = field(default_factory=lambda: ["valid_seen", "valid_unseen"])
    temperature: float = 0.0
    """0: greedy (paper: 0.4)."""
    limit: int | None = None
    """Games per split; unset: all of them. A limited evaluation says so in its result."""
    chunk: int = 256
    """Games that are played, and kept, together: an evaluation that is interrupted goes on with the chunks left. It changes the draws."""
    seed: int = 0
    baseline: bool = True
    """Evaluate the warm-started model too, so that the report can say what RL added."""

    def __post_init__(self) -> None:
        require(self.chunk >= 1, "evaluate.chunk", self.chunk, "at least 1")
        least, most = TEMPERATURES
        require(
            self.temperature == 0 or least <= self.temperature <= most,
            "evaluate.temperature",
            self.temperature,
            f"0, or between {least:g} and {most:g}",
        )
        require(self.limit is None or self.limit >= 1, "evaluate.limit", self.limit, "at least 1, or null for all")
        require(bool(self.splits), "evaluate.splits", self.splits, "at least one split")


@dataclass
class TrackingConfig:
    """Where metrics go besides `metrics.jsonl`."""

    wandb: WandbMode = WandbMode.off
    project: str = "hiper"


@dataclass
class PathsConfig:
    """Where a run lives; every stage writes one folder in it."""

    run: str = "runs/${name}/seed-${seed}"
    base: str | None = None
    """Another run, whose games, demonstrations and warm start are used (with `warm_start.seed` set to that run's seed); unset: its own."""

    def __post_init__(self) -> None:
        require_folder("paths.run", self.run)
        if self.base is not None:
            require_folder("paths.base", self.base)


def _default_algo() -> AlgoConfig:
    # An estimator's settings lie with the estimator, above this package; a config without a choice has to begin with one all the same.
    from hiper.algos.registry import settings_of

    return settings_of(DEFAULT_ALGO)()


@dataclass
class RunConfig:
    """One experiment."""

    name: str = "default"
    """Names the run's folder: letters, digits, `_`, `-` and `.`, which does not come first."""
    seed: int = 0
    device: str = "auto"
    """auto, cpu or cuda."""
    threads: int = 0
    """CPU threads torch uses; 0: all cores."""
    games: GamesConfig = field(default_factory=GamesConfig)
    env: EnvConfig = field(default_factory=EnvConfig)
    webshop: WebShopConfig = field(default_factory=WebShopConfig)
    demos: DemosConfig = field(default_factory=DemosConfig)
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    warm_start: WarmStartConfig = field(default_factory=WarmStartConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    algo: AlgoConfig = field(default_factory=_default_algo)
    """Settings of the chosen estimator: a subclass of `AlgoConfig`, see `hiper.algos`."""
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    alarms: AlarmsConfig = field(default_factory=AlarmsConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    paths: PathsConfig = field(default_factory=PathsConfig)

    @property
    def warm_start_seed(self) -> int:
        """Seed of the fine-tuning."""
        return self.seed if self.warm_start.seed is None else self.warm_start.seed

    def __post_init__(self) -> None:
        require_sane(self)
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

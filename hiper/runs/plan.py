"""Which stages of the table a run has: a suite without an expert has no demonstrations, and so nothing to fine-tune on."""

from __future__ import annotations

from hiper.config import RunConfig
from hiper.errors import ConfigError
from hiper.runs.stage import BASE_FOLDER, STAGES, before
from hiper.suites.registry import suite_named, suite_of

STARTS = ("sft", BASE_FOLDER)
"""Where training starts from: the warm start, or the base model."""


def stages_of_suite(name: str) -> list[str]:
    """The stages of runs with a suite, in their order."""
    expert = suite_named(name).has_expert
    return [stage for stage, facts in STAGES.items() if expert or not facts.expert]


def stages_of(cfg: RunConfig) -> list[str]:
    """The stages of a run, in their order."""
    return stages_of_suite(cfg.env.name)


def upstream_of(cfg: RunConfig, stage: str) -> list[str]:
    """The stages whose files one reads in this run."""
    there = stages_of(cfg)
    return [name for name in STAGES[stage].upstream if name in there]


def has_sft(cfg: RunConfig) -> bool:
    """Whether training starts from a fine-tuned model; without, from the base model."""
    return suite_of(cfg).has_expert


def start_of(cfg: RunConfig) -> str:
    """Name of the model that training starts from, as evaluations and the report call it: `sft`, or `base`."""
    return STARTS[0] if has_sft(cfg) else STARTS[1]


def check_stage(cfg: RunConfig, stage: str) -> None:
    """See that a run has a stage.

    Raises:
        ConfigError: its suite has no use for it.
    """
    if stage not in stages_of(cfg):
        raise ConfigError(f"{left_out(cfg)} There is nothing for `hiper {STAGES[stage].command}` to do.")


def left_out(cfg: RunConfig) -> str | None:
    """What to say of the stages that a run has not; None: it has all."""
    missing = [stage for stage in before("report") if stage not in stages_of(cfg)]
    if not missing:
        return None
    names = " and ".join(missing)
    return f"env.name={cfg.env.name} has no expert: {names} are left out, and training starts from the base model."

"""HiPER: hierarchical plan-execute reinforcement learning of language-model agents.

What a program that uses this package needs is here, and nothing of it is imported before it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from hiper.algos import register_algorithm
    from hiper.api import evaluate, load_episodes, make_env, run
    from hiper.composition.compose import compose
    from hiper.config import RunConfig
    from hiper.errors import (
        CheckpointError,
        CollapseError,
        ConfigError,
        DataError,
        DriftError,
        HiperError,
        MissingDependencyError,
        ModelError,
        TaskError,
        WorkflowError,
    )
    from hiper.rl.gae import turn_advantages
    from hiper.rl.gigpo import gigpo_advantages
    from hiper.rl.grpo import grpo_advantages
    from hiper.rl.hae import hierarchical_advantages
    from hiper.rl.reinforce_pp import reinforce_pp_advantages
    from hiper.rl.returns import returns_to_go
    from hiper.rl.rloo import rloo_advantages
    from hiper.rl.shaping import shape_rewards
    from hiper.rl.token_gae import token_advantages
    from hiper.suites import register_suite

__all__ = [
    "CheckpointError",
    "CollapseError",
    "ConfigError",
    "DataError",
    "DriftError",
    "HiperError",
    "MissingDependencyError",
    "ModelError",
    "RunConfig",
    "TaskError",
    "WorkflowError",
    "compose",
    "evaluate",
    "gigpo_advantages",
    "grpo_advantages",
    "hierarchical_advantages",
    "load_episodes",
    "make_env",
    "register_algorithm",
    "register_suite",
    "reinforce_pp_advantages",
    "returns_to_go",
    "rloo_advantages",
    "run",
    "shape_rewards",
    "token_advantages",
    "turn_advantages",
]

_HOMES = {
    "CheckpointError": "hiper.errors",
    "CollapseError": "hiper.errors",
    "ConfigError": "hiper.errors",
    "DataError": "hiper.errors",
    "DriftError": "hiper.errors",
    "HiperError": "hiper.errors",
    "MissingDependencyError": "hiper.errors",
    "ModelError": "hiper.errors",
    "TaskError": "hiper.errors",
    "WorkflowError": "hiper.errors",
    "RunConfig": "hiper.config",
    "compose": "hiper.composition.compose",
    "evaluate": "hiper.api",
    "gigpo_advantages": "hiper.rl.gigpo",
    "grpo_advantages": "hiper.rl.grpo",
    "hierarchical_advantages": "hiper.rl.hae",
    "load_episodes": "hiper.api",
    "make_env": "hiper.api",
    "register_algorithm": "hiper.algos",
    "register_suite": "hiper.suites",
    "reinforce_pp_advantages": "hiper.rl.reinforce_pp",
    "returns_to_go": "hiper.rl.returns",
    "rloo_advantages": "hiper.rl.rloo",
    "run": "hiper.api",
    "shape_rewards": "hiper.rl.shaping",
    "token_advantages": "hiper.rl.token_gae",
    "turn_advantages": "hiper.rl.gae",
}
"""Where each is defined."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hiper' has no attribute {name!r}; it offers {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

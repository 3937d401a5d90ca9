"""Estimators: from rewards and values to the advantage of every reply token, and to what the value heads learn.

One file an estimator: its settings, what it needs, and its few lines onto `hiper.rl`. All read the same episodes and answer the same
question, so that two runs differ in nothing else. Nothing here knows how training goes on.
"""

from hiper.algos.gae import GAE, GAEConfig
from hiper.algos.gigpo import GiGPO, GiGPOConfig
from hiper.algos.grpo import GRPO, GRPOConfig
from hiper.algos.hae import HAE, HAEConfig
from hiper.algos.registry import register_algorithm
from hiper.algos.reinforce_pp import ReinforcePP, ReinforcePPConfig
from hiper.algos.rloo import RLOO, RLOOConfig
from hiper.algos.turn_gae import TurnGAE, TurnGAEConfig

__all__ = ["register_algorithm"]

register_algorithm("hae", HAEConfig, HAE)
register_algorithm("turn_gae", TurnGAEConfig, TurnGAE)
register_algorithm("gae", GAEConfig, GAE)
register_algorithm("grpo", GRPOConfig, GRPO)
register_algorithm("rloo", RLOOConfig, RLOO)
register_algorithm("reinforce_pp", ReinforcePPConfig, ReinforcePP)
register_algorithm("gigpo", GiGPOConfig, GiGPO)

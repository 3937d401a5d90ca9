"""Settings that only WebShop reads: the section `webshop`. Published values: HiPER, arXiv:2602.16165, and WebShop, arXiv:2207.01206."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from hiper.config.checks import require


class Pay(StrEnum):
    """What an episode pays: 1 for a score of exactly 1 and nothing for less (published), or its score."""

    success = "success"
    score = "score"


@dataclass
class WebShopConfig:
    """What only WebShop has; the catalogue is that of `tasks.source`, `tasks.data` and `tasks.seed`."""

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
    """What an episode pays: `success`, 1 for a score of exactly 1 and nothing for less (published); `score`, its score."""
    labels: bool = False
    """Agents read and write products with their place on the page and options with their name: `click[1: b09...]`, `click[color: red]`
    (published: without). A small model can say what stands out from the rest long before it can copy from afar."""
    mended: bool = False
    """Leave out a next page beyond the last (published: it is there)."""

    def __post_init__(self) -> None:
        for name in ("products", "test", "valid"):
            require(getattr(self, name) >= 1, f"webshop.{name}", getattr(self, name), "at least 1")

"""The suite's own settings: the section `vault` of every config, `vault.boxes=6` on the command line."""

from __future__ import annotations

from dataclasses import dataclass

from vault import COLOURS

from hiper.config.checks import require


@dataclass
class VaultConfig:
    """What only the vault has."""

    boxes: int = 4
    """Boxes in a vault, one of them with the key."""

    def __post_init__(self) -> None:
        require(2 <= self.boxes <= len(COLOURS), "vault.boxes", self.boxes, f"between 2 and {len(COLOURS)}")

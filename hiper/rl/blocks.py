"""The blocks of a reply, which the protocol finds and to which credit is given."""

from __future__ import annotations

from enum import IntEnum


class Block(IntEnum):
    """What a token belongs to; a block includes its tags."""

    none = 0
    """Prompts, padding, and reply tokens outside every block."""
    switch = 1
    subgoal = 2
    action = 3

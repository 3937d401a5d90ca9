"""The plan-execute grammar: the one parser that environment, learner and viewer share.

A reply is `<switch>KEEP or SWITCH</switch> <subgoal>..</subgoal> <action>..</action>` (HiPER, arXiv:2602.16165). In the `compact`
dialect a KEEP reply has no subgoal block, so a kept subgoal cannot drift. Words outside the blocks are allowed and ignored.

A reply is data: any string parses, and what is wrong with it is listed in `Reply.faults`. One rule says what faults mean:
a faulty reply is an invalid turn (penalty), the environment sees no command, and a missing or unknown switch is KEEP.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from hiper.config import Dialect

_OPEN = re.compile(r"<(switch|subgoal|action)>")


class Switch(StrEnum):
    """The decision that opens a reply."""

    KEEP = "KEEP"
    SWITCH = "SWITCH"


class Block(StrEnum):
    """The three blocks, in the order the grammar wants them."""

    switch = "switch"
    subgoal = "subgoal"
    action = "action"


class Fault(StrEnum):
    """What can be wrong with a reply."""

    missing_switch = "missing_switch"
    unknown_switch = "unknown_switch"
    missing_subgoal = "missing_subgoal"
    missing_action = "missing_action"
    unclosed_block = "unclosed_block"
    repeated_block = "repeated_block"
    out_of_order = "out_of_order"
    nested_tag = "nested_tag"


@dataclass(frozen=True, slots=True)
class Span:
    """Half-open range of characters in the reply; a block's span includes its tags."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Reply:
    """A parsed reply."""

    text: str
    switch: Switch
    subgoal: str
    """Text of the subgoal block; empty when there is none."""
    action: str
    """Text of the action block; empty when there is none."""
    faults: tuple[Fault, ...]
    spans: dict[Block, Span]
    """Where each block that was found stands."""

    @property
    def valid(self) -> bool:
        """Whether the reply follows the grammar."""
        return not self.faults


@dataclass(frozen=True, slots=True)
class Decision:
    """What a reply means on its turn, given the subgoal that was in force before it."""

    start: bool
    """A new segment begins: the episode's first turn, or a SWITCH that names a subgoal."""
    subgoal: str
    """The subgoal in force while the action is played."""
    command: str
    """What the environment is told; empty for a faulty reply."""
    keep: bool
    """The turn counts for the KEEP penalty: a KEEP after the first turn, whose start is forced."""
    mismatch: bool
    """A KEEP that spelled a subgoal other than the one in force."""


def parse(text: str, dialect: Dialect = Dialect.full) -> Reply:
    """Parse any string into a reply.

    Args:
        text: the model's words, special tokens already removed.
        dialect: `compact` does not expect a subgoal block on KEEP.

    Returns:
        The reply. Where a block is repeated the first one counts.
    """
    found: dict[Block, tuple[Span, str]] = {}
    faults: list[Fault] = []
    unclosed: set[str] = set()
    position = 0
    while match := _OPEN.search(text, position):
        name = match.group(1)
        closing = f"</{name}>"
        end = -1 if name in unclosed else text.find(closing, match.end())
        if end < 0:
            unclosed.add(name)
            faults.append(Fault.unclosed_block)
            position = match.end()
            continue
        position = end + len(closing)
        block, inner = Block(name), text[match.end() : end]
        if _OPEN.search(inner):
            faults.append(Fault.nested_tag)
        if block in found:
            faults.append(Fault.repeated_block)
        else:
            found[block] = (Span(match.start(), position), " ".join(inner.split()))

    order = list(found)
    if order != sorted(order, key=list(Block).index):
        faults.append(Fault.out_of_order)
    word = found[Block.switch][1].upper() if Block.switch in found else None
    if word is None:
        faults.append(Fault.missing_switch)
    elif word not in (Switch.KEEP, Switch.SWITCH):
        faults.append(Fault.unknown_switch)
    switch = Switch.SWITCH if word == Switch.SWITCH else Switch.KEEP
    subgoal = found[Block.subgoal][1] if Block.subgoal in found else ""
    action = found[Block.action][1] if Block.action in found else ""
    if not subgoal and (dialect is Dialect.full or switch is Switch.SWITCH):
        faults.append(Fault.missing_subgoal)
    if not action:
        faults.append(Fault.missing_action)
    spans = {block: span for block, (span, _) in found.items()}
    return Reply(text, switch, subgoal, action, tuple(dict.fromkeys(faults)), spans)


def planned(text: str, dialect: Dialect = Dialect.full) -> bool:
    """Whether the beginning of a reply holds all that a planner has to say: the switch, and the subgoal where one belongs."""
    if f"</{Block.subgoal}>" in text:
        return True
    return dialect is Dialect.compact and f"</{Block.switch}>" in text and parse(text, dialect).switch is Switch.KEEP


def decide(reply: Reply, previous: str | None) -> Decision:
    """What a reply means on its turn.

    Args:
        reply: the parsed reply.
        previous: the subgoal in force before this turn; None on the episode's first turn.
    """
    first = previous is None
    start = first or (reply.switch is Switch.SWITCH and bool(reply.subgoal))
    keep = not first and reply.switch is Switch.KEEP
    return Decision(
        start=start,
        subgoal=reply.subgoal if start else (previous or ""),
        command=reply.action if reply.valid else "",
        keep=keep,
        mismatch=keep and bool(reply.subgoal) and reply.subgoal != previous,
    )


def render(switch: Switch, subgoal: str, action: str, dialect: Dialect = Dialect.full) -> str:
    """The canonical reply for a decision; `parse` is its inverse."""
    blocks = [f"<switch>{switch.value}</switch>"]
    if dialect is Dialect.full or switch is Switch.SWITCH:
        blocks.append(f"<subgoal>{subgoal}</subgoal>")
    blocks.append(f"<action>{action}</action>")
    return " ".join(blocks)

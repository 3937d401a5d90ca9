"""Constrained decoding: which tokens may come next in a reply.

`rollout.constrain=admissible`: from `<action>` on, only tokens that continue some admissible command may be sampled. `grammar`: the whole
reply follows the protocol's grammar, so that what is left to the model are its decisions: KEEP or SWITCH, the subgoal's words, the command.
Probabilities are renormalised over what is allowed. The allowed tokens travel with the sampled ones, so that the update computes the same
probabilities. A token without an alternative is no decision: it is written without asking the network.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from transformers import PreTrainedTokenizerBase

from hiper.config import Dialect
from hiper.protocol import Switch, render
from hiper.rollout.episode import AllowedTokens
from hiper.rollout.remember import MOST, Remember, size_of
from hiper.suites.base import WORDS

_TAG = "<action>"
_TEXT = "\x00"  # stands where a reply's free text goes; no tokenizer's text holds it
_SUBGOAL_TOKENS = 16  # a longer subgoal is closed; the expert's have at most six words
_QUERY_TOKENS = 32  # likewise the words of the agent's own in a command

Node = dict[int, "Node"]
_FREE = -1  # instead of a token: free text, up to the token that goes on


@dataclass(frozen=True, slots=True)
class GrammarTurn:
    """What the grammar needs to know of a turn."""

    dialect: Dialect
    subgoal: str | None
    """The one in force, which KEEP repeats; None on the first turn, which can only open with SWITCH."""


class Constraint(Protocol):
    """Follows one reply as it is written and says what may come next."""

    @property
    def allowed(self) -> AllowedTokens | None:
        """What may come next; None: any token."""

    def push(self, token: int) -> None:
        """Record a token of the reply."""


class CommandTries:
    """A tokenizer's view of the protocol: token tries over commands, and the pieces of a reply, with the encodings remembered."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, end: int, most: int = MOST) -> None:
        """Remember nothing yet.

        Args:
            tokenizer: of the model that writes.
            end: the token that ends a reply.
            most: bytes that each of its memories may take.
        """
        self._tokenizer = tokenizer
        self._end = end
        self._encoded: Remember[str, tuple[int, ...]] = Remember(_text_size, most)
        self._spelled: Remember[str, tuple[int, ...] | None] = Remember(_text_size, most)
        self._plans: Remember[GrammarTurn, Node] = Remember(_plan_size, most)
        self._built: Remember[tuple[str, ...], Node | None] = Remember(_trie_size, most)
        self._only: Remember[tuple[int, ...], AllowedTokens] = Remember(lambda ids, _: size_of(numbers=len(ids), objects=3), most)
        self._pieces: dict[int, str] = {}  # no more than the vocabulary
        self._overshoot: AllowedTokens | None = None
        self._text: Remember[tuple[int, str], tuple[AllowedTokens, AllowedTokens]] = Remember(
            lambda _, pair: size_of(numbers=2 * len(pair[1].ids)), most
        )

    @property
    def bytes(self) -> int:
        """What is remembered, roughly; the vocabulary's own texts aside."""
        return self._encoded.bytes + self._spelled.bytes + self._plans.bytes + self._built.bytes + self._only.bytes + self._text.bytes

    def build(self, commands: Sequence[str]) -> Node | None:
        """Trie of `command</action>` and the end token, for what follows `<action>`.

        Commands with a word the tokenizer does not know are left out: chosen, they would read as something else. None: there are no others.
        """
        return self._built(tuple(commands), self._build)  # what is admissible often stays as it is from turn to turn

    def _build(self, commands: tuple[str, ...]) -> Node | None:
        spelled = [self._spelled(command, self._spell) for command in commands]
        return trie(tokens for tokens in spelled if tokens is not None) or None

    def _spell(self, command: str) -> tuple[int, ...] | None:
        """Ids of what follows `<action>`, the end token included; None: the tokenizer does not know a word of the command."""
        head, words, tail = f"{command}</action>".partition(WORDS)
        tokens = (*self._after_tag(head), _FREE, *self.encode(tail)) if words else self._after_tag(head)
        return None if self._tokenizer.unk_token_id in tokens else (*tokens, self._end)

    def plan(self, turn: GrammarTurn) -> Node:
        """Trie of a reply up to its command: the two openings, with the subgoal of a SWITCH as free text."""
        return self._plans(turn, self._plan)

    def _plan(self, turn: GrammarTurn) -> Node:
        opening, closing = render(Switch.SWITCH, _TEXT, _TEXT, turn.dialect).split(_TEXT)[:2]
        plans = [[*self.encode(opening), _FREE, *self.encode(closing.strip())]]
        if turn.subgoal is not None:
            plans.append([*self.encode(render(Switch.KEEP, turn.subgoal, _TEXT, turn.dialect).split(_TEXT)[0])])
        return trie(plans)

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of a fixed piece of a reply."""
        return self._encoded(text, self._encode)

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer.encode(text, add_special_tokens=False))

    def _after_tag(self, text: str) -> tuple[int, ...]:
        """Ids of what follows `<action>`, read behind it where the tag stays a piece of its own."""
        tag, whole = self.encode(_TAG), self.encode(_TAG + text)
        return whole[len(tag) :] if whole[: len(tag)] == tag else self.encode(text)

    def only(self, ids: tuple[int, ...]) -> AllowedTokens:
        """These tokens and no others; the same object for the same ones, as messages write each object once."""
        return self._only(ids, _only)

    def piece(self, token: int) -> str:
        """A token's own text as the reply will show it; tags are ASCII, so they can be recognised piece by piece."""
        text = self._pieces.get(token)
        if text is None:
            text = self._pieces[token] = self._tokenizer.decode([token], skip_special_tokens=True)
        return text

    def overshoots(self) -> AllowedTokens | None:
        """Forbids tokens that close a tag and go on (`>x`): they would smuggle the action's first letters past the trie."""
        if self._overshoot is None:
            size = len(self._tokenizer)
            ids = [i for i in range(size) if any(_TAG.endswith(head) for head in _proper_heads(self.piece(i)))]
            self._overshoot = AllowedTokens(ids, all_but=True)
        return self._overshoot if self._overshoot.ids else None

    def text(self, closing: int, marks: str, *, empty: bool) -> AllowedTokens:
        """Forbids what free text does not hold: special tokens, `marks`, and, while it is `empty`, the token that closes it."""
        return self._text((closing, marks), self._bar)[empty]

    def _bar(self, key: tuple[int, str]) -> tuple[AllowedTokens, AllowedTokens]:
        closing, marks = key
        pieces = ((i, self.piece(i).strip()) for i in range(len(self._tokenizer)))
        all_but = [i for i, piece in pieces if i != closing and (not piece or any(mark in piece for mark in marks))]
        return AllowedTokens(all_but, all_but=True), AllowedTokens([*all_but, closing], all_but=True)


def _only(ids: tuple[int, ...]) -> AllowedTokens:
    return AllowedTokens(list(ids))


def _plan_size(turn: GrammarTurn, _: Node) -> int:
    return size_of(turn.subgoal, objects=40)  # a dictionary for each of its some thirty tokens


def _trie_size(commands: tuple[str, ...], _: Node | None) -> int:
    return 100 * (1 + sum(map(len, commands)))  # a token has some three letters, and its dictionary some 300 bytes


def _text_size(text: str, tokens: tuple[int, ...] | None) -> int:
    return size_of(text, len(tokens or ()), objects=3)


class Walk:
    """Goes along a trie, token by token, through free text where it has that."""

    def __init__(self, tries: CommandTries, node: Node, marks: str, most: int) -> None:
        """Start at the root.

        Args:
            tries: what tokens are.
            node: the root.
            marks: characters that free text does not hold.
            most: tokens after which free text is closed.
        """
        self._tries, self._marks, self._most = tries, marks, most
        self._node: Node | None = node
        self._written = 0  # of free text

    @property
    def allowed(self) -> AllowedTokens | None:
        """What may come next; None: any token, off the trie."""
        if self._node is None:
            return None
        after = self._node.get(_FREE)
        if after is None:
            return self._tries.only(tuple(self._node))
        (closing,) = after
        return AllowedTokens([closing]) if self._written >= self._most else self._tries.text(closing, self._marks, empty=self._written == 0)

    @property
    def ended(self) -> bool:
        """At a leaf."""
        return self._node == {}

    def push(self, token: int) -> None:
        """Take a step."""
        if self._node is None:
            return
        after = self._node.get(_FREE)
        if after is not None and token not in after:
            self._written += 1
        else:
            self._node, self._written = (after or self._node).get(token), 0


class ActionConstraint:
    """Constrains the action block, however its tag came about; the rest of the reply is free."""

    def __init__(self, tries: CommandTries, commands: Sequence[str]) -> None:
        self._tries = tries
        self._commands = commands
        self._walk: Walk | None = None
        self._tail = ""

    @property
    def allowed(self) -> AllowedTokens | None:
        """What may come next; None: any token."""
        if self._walk is not None:
            return self._walk.allowed
        return self._tries.overshoots() if self._half_open() else None

    def push(self, token: int) -> None:
        """Record the sampled token."""
        if self._walk is not None:
            self._walk.push(token)
            return
        self._tail = (self._tail + self._tries.piece(token))[-len(_TAG) :]
        if self._tail == _TAG:
            self._walk = _commands(self._tries, self._commands)

    def _half_open(self) -> bool:
        return any(self._tail.endswith(_TAG[:cut]) for cut in range(2, len(_TAG)))


class GrammarConstraint:
    """Constrains a whole reply to the protocol's grammar.

    A reply is fixed pieces around decisions: the switch is one of two openings, the subgoal of a SWITCH is free text up to its closing
    tag, the action is an admissible command.
    """

    def __init__(self, tries: CommandTries, grammar_turn: GrammarTurn, commands: Sequence[str]) -> None:
        self._tries, self._commands = tries, commands
        self._walk: Walk | None = Walk(tries, tries.plan(grammar_turn), "<> ", _SUBGOAL_TOKENS)
        self._planning = True

    @property
    def allowed(self) -> AllowedTokens | None:
        """What may come next; None: any token, where no admissible command can be spelled."""
        return None if self._walk is None else self._walk.allowed

    def push(self, token: int) -> None:
        """Record a token of the reply."""
        if self._walk is None:
            return
        self._walk.push(token)
        if self._planning and self._walk.ended:
            self._planning = False
            self._walk = _commands(self._tries, self._commands)


def _commands(tries: CommandTries, commands: Sequence[str]) -> Walk | None:
    node = tries.build(commands)
    return None if node is None else Walk(tries, node, "<> []", _QUERY_TOKENS)


def trie(sequences: Iterable[Sequence[int]]) -> Node:
    """A trie of token sequences."""
    root: Node = {}
    for tokens in sequences:
        node = root
        for token in tokens:
            node = node.setdefault(token, {})
    return root


def _proper_heads(piece: str) -> list[str]:
    return [piece[:cut] for cut in range(1, len(piece)) if piece[:cut].endswith(">")]

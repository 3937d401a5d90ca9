"""Limiting what a reply may say, token by token.

`rollout.constrain=admissible`: from `<action>` on, only tokens that continue some admissible command may be sampled. `grammar`: the whole
reply also has the protocol's form, so that what is left to the model are its decisions: KEEP or SWITCH, the subgoal's words, the command.
Probabilities are renormalised over what is allowed. The limits travel with the sampled tokens, so that the update computes the same
probabilities. A token without an alternative is no decision: it is written without asking the network.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from transformers import PreTrainedTokenizerBase

from hiper.config import Dialect
from hiper.protocol import Switch, render
from hiper.rollout.episode import Limit

_TAG = "<action>"
_TEXT = "\x00"  # stands where a reply's free text goes; no tokenizer's text holds it
_SUBGOAL_TOKENS = 16  # a longer subgoal is closed; the expert's have at most six words

Node = dict[int, "Node"]


@dataclass(frozen=True, slots=True)
class Form:
    """What the grammar needs to know of a turn."""

    dialect: Dialect
    subgoal: str | None
    """The one in force, which KEEP repeats; None on the first turn, which can only open with SWITCH."""


class Guard(Protocol):
    """Follows one reply as it is written and says what may come next."""

    @property
    def allowed(self) -> Limit | None:
        """What may come next; None: any token."""

    def push(self, token: int) -> None:
        """Record a token of the reply."""


class CommandTries:
    """A tokenizer's view of the protocol: token tries over commands, and the pieces of a reply, with the encodings cached."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, end: int) -> None:
        self._tokenizer = tokenizer
        self._end = end
        self._encoded: dict[str, tuple[int, ...]] = {}
        self._pieces: dict[int, str] = {}
        self._overshoot: Limit | None = None
        self._text: tuple[Limit, Limit] | None = None

    def build(self, commands: Sequence[str]) -> Node | None:
        """Trie of `command</action>` and the end token, for what follows `<action>`.

        Commands with a word the tokenizer does not know are left out: chosen, they would read as something else. None: there are no others.
        """
        spelled = [self._after_tag(f"{command}</action>") for command in commands]
        return _trie([*tokens, self._end] for tokens in spelled if self._tokenizer.unk_token_id not in tokens) or None

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of a fixed piece of a reply."""
        tokens = self._encoded.get(text)
        if tokens is None:
            tokens = self._encoded[text] = tuple(self._tokenizer.encode(text, add_special_tokens=False))
        return tokens

    def _after_tag(self, text: str) -> tuple[int, ...]:
        """Ids of what follows `<action>`, read behind it where the tag stays a piece of its own."""
        tag, whole = self.encode(_TAG), self.encode(_TAG + text)
        return whole[len(tag) :] if whole[: len(tag)] == tag else self.encode(text)

    def piece(self, token: int) -> str:
        """A token's own text as the reply will show it; tags are ASCII, so they can be recognised piece by piece."""
        text = self._pieces.get(token)
        if text is None:
            text = self._pieces[token] = self._tokenizer.decode([token], skip_special_tokens=True)
        return text

    def overshoots(self) -> Limit | None:
        """Bars tokens that close a tag and go on (`>x`): they would smuggle the action's first letters past the trie."""
        if self._overshoot is None:
            size = len(self._tokenizer)
            ids = [i for i in range(size) if any(_TAG.endswith(head) for head in _proper_heads(self.piece(i)))]
            self._overshoot = Limit(ids, barred=True)
        return self._overshoot if self._overshoot.ids else None

    def text(self, closing: int, *, empty: bool) -> Limit:
        """Bars what no subgoal's text holds: tags, special tokens, blanks, commands; and, while it is `empty`, the token that closes it."""
        if self._text is None:
            pieces = ((i, self.piece(i).strip()) for i in range(len(self._tokenizer)))
            barred = [i for i, piece in pieces if i != closing and (not piece or any(mark in piece for mark in "<> "))]
            self._text = Limit(barred, barred=True), Limit([*barred, closing], barred=True)
        return self._text[empty]


class ActionGuard:
    """Limits the action block, however its tag came about; the rest of the reply is free."""

    def __init__(self, tries: CommandTries, commands: Sequence[str]) -> None:
        self._tries = tries
        self._commands = commands
        self._node: Node | None = None
        self._tail = ""

    @property
    def allowed(self) -> Limit | None:
        """What may come next; None: any token."""
        if self._node is not None:
            return Limit(list(self._node))
        return self._tries.overshoots() if self._half_open() else None

    def push(self, token: int) -> None:
        """Record the sampled token."""
        if self._node is not None:
            self._node = self._node.get(token)
            return
        self._tail = (self._tail + self._tries.piece(token))[-len(_TAG) :]
        if self._tail == _TAG:
            self._node = self._tries.build(self._commands)

    def _half_open(self) -> bool:
        return any(self._tail.endswith(_TAG[:cut]) for cut in range(2, len(_TAG)))


class GrammarGuard:
    """Holds a whole reply to the protocol's form.

    A reply is fixed pieces around decisions: the switch is one of two openings, the subgoal of a SWITCH is free text up to its closing
    tag, the action is an admissible command.
    """

    def __init__(self, tries: CommandTries, form: Form, commands: Sequence[str]) -> None:
        self._tries, self._commands = tries, commands
        opening, closing = render(Switch.SWITCH, _TEXT, _TEXT, form.dialect).split(_TEXT)[:2]
        self._switching, self._closing = tries.encode(opening), tries.encode(closing.strip())
        openings = [self._switching]
        if form.subgoal is not None:
            openings.append(tries.encode(render(Switch.KEEP, form.subgoal, _TEXT, form.dialect).split(_TEXT)[0]))
        self._node: Node | None = _trie(openings)
        self._opening: list[int] | None = []
        self._words: int | None = None  # tokens of the subgoal so far, while it is being written

    @property
    def allowed(self) -> Limit | None:
        """What may come next; None: any token, where no admissible command can be spelled."""
        if self._words is not None:
            first = self._closing[0]
            return Limit([first]) if self._words >= _SUBGOAL_TOKENS else self._tries.text(first, empty=self._words == 0)
        return None if self._node is None else Limit(list(self._node))

    def push(self, token: int) -> None:
        """Record a token of the reply."""
        if self._words is not None:
            if token != self._closing[0]:
                self._words += 1
                return
            self._words, self._node = None, _trie([self._closing])
        if self._node is None:
            return
        self._node = self._node[token]
        if self._opening is not None:
            self._opening.append(token)
        if self._node:
            return
        if self._opening is not None and tuple(self._opening) == self._switching:
            self._words, self._opening = 0, None
        else:
            self._opening = None
            self._node = self._tries.build(self._commands)


def _trie(sequences: Iterable[Sequence[int]]) -> Node:
    root: Node = {}
    for tokens in sequences:
        node = root
        for token in tokens:
            node = node.setdefault(token, {})
    return root


def _proper_heads(piece: str) -> list[str]:
    return [piece[:cut] for cut in range(1, len(piece)) if piece[:cut].endswith(">")]

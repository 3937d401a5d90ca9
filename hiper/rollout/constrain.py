"""Limiting the action block to admissible commands, token by token.

`rollout.constrain=admissible`: from `<action>` on, only tokens that continue some admissible command may be sampled, and probabilities are
renormalised over them. The limits travel with the sampled tokens, so that the update computes the same probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from hiper.rollout.episode import Limit

_TAG = "<action>"

Node = dict[int, "Node"]


class CommandTries:
    """Token tries over sets of commands, with the encodings cached."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, end: int) -> None:
        self._tokenizer = tokenizer
        self._end = end
        self._encoded: dict[str, tuple[int, ...]] = {}
        self._pieces: dict[int, str] = {}
        self._overshoot: Limit | None = None

    def build(self, commands: Sequence[str]) -> Node | None:
        """Trie of `command</action>` and the end token, for what follows `<action>`.

        Commands with a word the tokenizer does not know are left out: chosen, they would read as something else. None: there are no others.
        """
        root: Node = {}
        for command in commands:
            if self._tokenizer.unk_token_id in self._encode(command):
                continue
            node = root
            for token in self._encode(command):
                node = node.setdefault(token, {})
        return root or None

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

    def _encode(self, command: str) -> tuple[int, ...]:
        tokens = self._encoded.get(command)
        if tokens is None:
            tokens = (*self._tokenizer.encode(f"{command}</action>", add_special_tokens=False), self._end)
            self._encoded[command] = tokens
        return tokens


class ActionGuard:
    """Follows one reply as it is written and says what may come next."""

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


def _proper_heads(piece: str) -> list[str]:
    return [piece[:cut] for cut in range(1, len(piece)) if piece[:cut].endswith(">")]

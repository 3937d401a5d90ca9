"""From messages to token ids, one message at a time.

Any chat template that only ever appends can be written piecewise: what opens a conversation, and what lies between the end of one reply
and the start of the next. A conversation is thus encoded once, as it grows.
"""

from __future__ import annotations

from transformers import GenerationConfig, PreTrainedTokenizerBase

from hiper.errors import ModelError
from hiper.rollout.remember import Remember, size_of

_ASK, _ANSWER, _NEXT = "QUESTION ONE", "ANSWER ONE", "QUESTION TWO"


class ChatCodec:
    """A tokenizer's chat template, cut at the borders of replies."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Find the borders.

        Raises:
            ModelError: the template fails, rewrites earlier messages or marks no end of a reply, so a conversation cannot be appended to.
        """
        self.tokenizer = tokenizer
        self._later: Remember[str, tuple[int, ...]] = Remember(lambda text, ids: size_of(text, len(ids), objects=3))
        opened = self._render([("user", _ASK)])
        whole = self._render([("user", _ASK), ("assistant", _ANSWER), ("user", _NEXT)])
        if not whole.startswith(opened + _ANSWER) or whole.count(_NEXT) != 1:
            raise ModelError(
                f"the chat template of {tokenizer.name_or_path} rewrites earlier messages, so a conversation cannot grow token by token. "
                "Set protocol.context=window or use a template that only appends."
            )
        between, after = whole[len(opened + _ANSWER) :].split(_NEXT)
        border = self._encode(between)
        closing = tokenizer.decode(border[:1])
        if not border or border[0] not in tokenizer.all_special_ids or closing not in between:
            raise ModelError(
                f"the chat template of {tokenizer.name_or_path} ends a reply with {between[:20]!r}, which is no special token; "
                "the end cannot be recognised."
            )
        self.end: int = border[0]
        """The token that ends a reply; the model writes it itself."""
        self._before, self._after = between[between.index(closing) + len(closing) :], after
        self.pad: int = tokenizer.pad_token_id if isinstance(tokenizer.pad_token_id, int) else self.end

    def first(self, text: str) -> list[int]:
        """Ids from the start of a conversation to the first reply token."""
        return self._encode(self._render([("user", text)]))

    def later(self, text: str) -> list[int]:
        """Ids between a reply's end token and the next reply's first token."""
        return list(self._later(text, lambda text: tuple(self._encode(self._before + text + self._after))))

    def generation(self, max_reply_tokens: int) -> GenerationConfig:
        """What makes transformers' `generate` write a reply as the greedy policy does: one that stops where ours stops, and draws nothing.

        Args:
            max_reply_tokens: a reply is cut here.
        """
        return GenerationConfig(do_sample=False, max_new_tokens=max_reply_tokens, eos_token_id=self.end, pad_token_id=self.pad)

    def _render(self, messages: list[tuple[str, str]]) -> str:
        try:
            rendered = self.tokenizer.apply_chat_template(
                [{"role": role, "content": content} for role, content in messages], tokenize=False, add_generation_prompt=True
            )
        except Exception as error:  # a template is a program, and may raise anything
            raise ModelError(
                f"the chat template of {self.tokenizer.name_or_path} cannot be used ({type(error).__name__}: "
                f"{' '.join(str(error).split())[:200]}). Restore chat_template.jinja, or the model's directory."
            ) from error
        assert isinstance(rendered, str)
        return rendered

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))

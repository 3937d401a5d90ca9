"""Rules of the chat codec.

1. A conversation encoded message by message has the ids of the whole conversation under the tokenizer's own template.
2. The end of a reply is the special token the template closes it with.
3. A template that rewrites earlier messages, or closes a reply with ordinary text, is refused.
"""

from __future__ import annotations

import copy

import pytest
from transformers import PreTrainedTokenizerBase

from hiper.errors import ModelError
from hiper.rollout.chat import ChatCodec

TALK = [
    ("You are in a room. You see a shelf 1.\n\nYour task is to: find a mug.", "<switch>SWITCH</switch> <action>go to shelf 1</action>"),
    ("On the shelf 1, you see a mug 1.", "<switch>KEEP</switch> <action>take mug 1 from shelf 1</action>"),
    ("\nYou pick up the mug 1.\n", "<switch>KEEP</switch> <action>look</action>"),
]


@pytest.mark.parametrize("name", ["words", "qwen"])
def test_piece_by_piece_is_the_whole(name: str, request: pytest.FixtureRequest) -> None:
    tokenizer: PreTrainedTokenizerBase = request.getfixturevalue(name)
    codec = ChatCodec(tokenizer)
    ids: list[int] = []
    messages: list[dict[str, str]] = []
    for asked, answered in TALK:
        ids += codec.later(asked) if ids else codec.first(asked)
        messages.append({"role": "user", "content": asked})
        assert tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False) == ids
        ids += [*tokenizer.encode(answered, add_special_tokens=False), codec.end]
        messages.append({"role": "assistant", "content": answered})
    assert tokenizer.convert_ids_to_tokens(codec.end) == {"words": "<|end|>", "qwen": "<|im_end|>"}[name]
    assert codec.pad == tokenizer.pad_token_id


def test_special_tokens_in_an_observation_are_not_ours_to_hide(words: PreTrainedTokenizerBase) -> None:
    """A reply's end must be recognised by its id alone: the same text in the reply encodes to the same id, no more and no less."""
    codec = ChatCodec(words)
    assert codec.end == words.eos_token_id
    assert codec.later("mug")[0] == words.convert_tokens_to_ids("<|user|>")
    assert codec.later("mug")[-1] == words.convert_tokens_to_ids("<|assistant|>")


ROLE = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}"
END = "{% if m['role'] == 'assistant' %}<|end|>{% endif %}"
ASK = "{% endfor %}<|assistant|>"
REFUSED = {
    "only the last message": ("{% for m in messages[-1:] %}<|user|>{{ m['content'] }}" + ASK, "rewrites earlier messages"),
    "earlier replies shortened": (
        "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] if m['role'] == 'user' else m['content'][:3] }}" + END + ASK,
        "rewrites earlier messages",
    ),
    "questions repeated": (ROLE + END + "{% endfor %}{{ messages[-1]['content'] }}<|assistant|>", "rewrites earlier messages"),
    "the last message repeated": (
        "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{{ m['content'] if m['content'][-3:] == 'TWO' }}" + ASK,
        "rewrites earlier messages",
    ),
    "a word ends a reply": (ROLE + " look {% endfor %}<|assistant|>", "no special token"),
    "a word it does not know ends a reply": (ROLE + " over {% endfor %}<|assistant|>", "no special token"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_templates_that_cannot_be_appended_to_are_refused(words: PreTrainedTokenizerBase, name: str) -> None:
    template, message = REFUSED[name]
    tokenizer = copy.deepcopy(words)
    tokenizer.chat_template = template
    with pytest.raises(ModelError, match=message):
        ChatCodec(tokenizer)

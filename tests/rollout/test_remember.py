"""Rules of what is remembered.

1. Memory is bounded by bytes; what has not been asked for longest goes first; values are the same whether remembered or not.
2. Replies are read, and commands spelled, the same with any bound.
"""

from __future__ import annotations

import random

import pytest
from transformers import PreTrainedTokenizerBase

from hiper.config import Dialect
from hiper.rollout.chat import ChatCodec
from hiper.rollout.collect import ReplyReader
from hiper.rollout.constrain import CommandTries
from hiper.rollout.remember import Remember
from hiper.suites.base import WORDS

COMMANDS = [f"{verb} {thing} {number}" for verb in ("go to", "open", "examine") for thing in ("shelf", "mug") for number in range(1, 40)]


def test_the_bound_holds_and_the_oldest_goes() -> None:
    made: list[int] = []

    def make(key: int) -> str:
        made.append(key)
        return "x" * key

    memory: Remember[int, str] = Remember(lambda _, value: len(value), most=10)
    for key in (3, 4, 3, 5):  # 4 was not asked for longest, and makes room for 5
        assert memory(key, make) == "x" * key and memory.bytes <= 10
    assert memory(3, make) == "xxx" and made == [3, 4, 5]
    assert memory(4, make) == "xxxx" and made == [3, 4, 5, 4]
    assert memory(11, make) == "x" * 11 and memory.bytes <= 10, "what is larger than all is made and not kept"


@pytest.mark.parametrize("name", ["words", "qwen"])
def test_the_same_is_read_and_spelled_under_any_bound(name: str, request: pytest.FixtureRequest) -> None:
    tokenizer: PreTrainedTokenizerBase = request.getfixturevalue(name)
    end, rng = ChatCodec(tokenizer).end, random.Random(0)
    most = 20_000
    free, bound = CommandTries(tokenizer, end, most=2**40), CommandTries(tokenizer, end, most)
    all_read, some_read = ReplyReader(tokenizer, Dialect.compact, most=2**40), ReplyReader(tokenizer, Dialect.compact, most)
    for _ in range(300):
        commands = [*rng.sample(COMMANDS, 3), f"search[{WORDS}]"]
        assert bound.build(commands) == free.build(commands)
        ids = tokenizer.encode(f"<switch>KEEP</switch> <action>{commands[0]}</action>", add_special_tokens=False)
        assert some_read.read(ids) == all_read.read(ids)
        assert some_read.bytes <= most and bound.bytes <= 3 * most
    assert all_read.bytes > most and free.bytes > 2 * most, "there was more than the bound to remember"

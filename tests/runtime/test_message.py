"""Rules of messages between processes.

1. What is sent arrives: to the bit (NaN payloads, infinities, -0.0), int as int, text with any code point, lists that are empty.
2. A tuple that is referred to often is sent once, and is one object again.
3. What is not a message of the declared type is refused with a `DataError` that says where: pickles, other JSON, cut off, changed.
4. What messages cannot hold is refused when it is sent; what is not of the declared type, when it is read; ranks read what they send, too.
"""

from __future__ import annotations

import dataclasses
import os
import pickle
import struct
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiper.errors import DataError
from hiper.rollout.episode import AllowedTokens, Episode, TokenSequence, TokenTurn
from hiper.rollout.trajectory import Levels, StopReason, Trajectory, Turn
from hiper.runtime.message import decode, encode
from hiper.suites.tasks import Task, TaskIndex

text = st.text(st.characters(codec=None) | st.sampled_from(["\ud83d", "\ude00", "\x00", "\\", '"', "\u2028"]), max_size=6)
number = st.floats(width=64) | st.integers(0, 2**64 - 1).map(lambda bits: struct.unpack(">d", struct.pack(">Q", bits))[0]) | st.just(-0.0)
whole = st.integers(-(2**70), 2**70)


def few(items: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(items, max_size=3)


levels = st.none() | st.builds(Levels, number, number, number)
turns = st.builds(
    Turn,
    observation=text,
    reply=text,
    switch=st.booleans(),
    subgoal=text,
    action=text,
    faults=few(text),
    admissible=st.booleans(),
    reward=number | whole,
    shaped=number,
    tokens=whole,
    values=levels,
    advantages=levels,
)
trajectories = st.builds(
    Trajectory,
    task_id=text,
    split=text,
    task_type=text,
    task=text,
    won=st.booleans(),
    stop=st.sampled_from(StopReason),
    turns=few(turns),
    final_observation=text,
    score=st.none() | number,
    iteration=st.none() | whole,
    extra=st.dictionaries(text, text, max_size=3),
)
limits = st.none() | st.builds(AllowedTokens, few(whole), st.booleans())
replies = st.builds(TokenTurn, whole, whole, few(whole), whole, few(number), few(limits))
sequences = st.builds(TokenSequence, few(whole), few(replies), st.none() | whole)
episodes = st.builds(Episode, trajectories, few(sequences), few(st.booleans()), few(st.booleans()))
indices = st.builds(TaskIndex, st.just(Path("a/b")), st.tuples(st.builds(Task, text, text, text, whole)), st.dictionaries(text, whole))


def bits(value: Any) -> Any:
    """A value taken apart so far that what is equal is the same to the bit."""
    if dataclasses.is_dataclass(value):
        return type(value), [bits(getattr(value, field.name)) for field in dataclasses.fields(value)]
    if isinstance(value, (list, tuple)):
        return type(value), [bits(item) for item in value]
    if isinstance(value, dict):
        return [(key, bits(item)) for key, item in value.items()]
    return type(value), struct.pack(">d", value) if isinstance(value, float) else value


@given(few(episodes))
@settings(deadline=None)
def test_episodes_arrive_to_the_bit(sent: list[Episode]) -> None:
    assert bits(decode(encode(sent), list[Episode], "it")) == bits(sent)


@given(indices, st.dictionaries(text, number | whole), st.none() | text.map(lambda name: Path("a") / name.replace("/", "")))
@settings(deadline=None)
def test_other_things_arrive_to_the_bit(index: TaskIndex, metrics: dict[str, float], path: Path | None) -> None:
    for value, kind in ((index, TaskIndex), (metrics, dict[str, float]), (path, Path | None)):
        assert bits(decode(encode(value), kind, "it")) == bits(value)


def test_a_tuple_is_sent_once() -> None:
    """A tokenizer's bars have thousands of tokens, and stand at every token of free text."""
    bars, other = AllowedTokens(list(range(50_000)), all_but=True), AllowedTokens([1])
    turn = TokenTurn(0, 0, [0] * 1000, 0, [0.0] * 1000, [bars, None, other, bars] * 250)
    data = encode([turn, turn])
    assert len(data) < 400_000
    first, second = decode(data, list[TokenTurn], "it")
    assert first == turn and second == turn
    assert len({id(limit) for limit in first.allowed + second.allowed if limit is not None}) == 2


class Inner(NamedTuple):
    ids: list[int]


class Outer(NamedTuple):
    inner: Inner
    label: str


class Color(Enum):
    red = 1


@dataclasses.dataclass
class Holder:
    outers: list[Outer]
    color: Color


def test_tuples_within_tuples() -> None:
    inner = Inner([1, 2])
    sent = Holder([Outer(inner, "a"), Outer(inner, "b")], Color.red)
    got = decode(encode(sent), Holder, "it")
    assert got == sent
    assert got.outers[0].inner is got.outers[1].inner


class Hostile:
    """Unpickled, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def test_a_pickle_is_refused_not_run(tmp_path: Path) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(DataError, match="it is not a message"):
            decode(pickle.dumps(Hostile(tmp_path / "made"), protocol), list[Episode], "it")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("data", "kind", "said"),
    [
        (b"", int, "is not a message"),
        (b"\xff", int, "is not a message"),
        (b"3", int, "list of two"),
        (b"[[],3,4]", int, "list of two"),
        (b"[{},3]", int, "list of two"),
        (b"[" * 200_000, int, "is not a message"),
        (b"[[]," + b"[" * 2000 + b"]" * 2000 + b"]", list[int], r"\[0\] must be a whole number|recursion"),
        (b'[[],"3"]', int, "it must be a whole number"),
        (b"[[],true]", int, "it must be a whole number"),
        (b"[[],3.0]", int, "it must be a whole number"),
        (b"[[],1" + b"0" * 10_000 + b"]", int, "is not a message"),
        (b"[[],1]", bool, "it must be true or false"),
        (b"[[],null]", str, "it must be text"),
        (b"[[],3]", Path, "it must be text"),
        (b"[[],null]", float, "it must be a number"),
        (b"[[],false]", float, "it must be a number"),
        (b"[[],NaN]", float, "NaN is not a number"),
        (b"[[],1e999]", float, "it must be a number"),
        (b'[[],"7ff8000000000000"]', float, "it must be a number"),
        (b'[[],{"float":"3ff0000000000000"}]', float, "it must be a number"),
        (b'[[],{"float":"7ff0"}]', float, "it must be a number"),
        (b'[[],{"float":"hello"}]', float, "it must be a number"),
        (b'[[],{"float":3}]', float, "it must be a number"),
        (b'[[],{"float":"7ff8000000000000","more":1}]', float, "it must be a number"),
        (b'[[],[1,2,"x"]]', list[int], r"\[2\] must be a whole number"),
        (b'[[],{"a":[1,null]}]', dict[str, list[int]], r"a\[1\] must be a whole number"),
        (b"[[],{}]", list[int], "it must be a list"),
        (b"[[],{}]", tuple[int, ...], "it must be a list"),
        (b"[[],[]]", dict[str, int], "it must be an object"),
        (b'[[],{"low":1,"high":2}]', Levels, "switch must be there"),
        (b'[[],{"low":1,"high":2,"switch":3,"__class__":4}]', Levels, "__class__ must be nothing this version knows"),
        (b'[[],{"low":1,"high":2,"switch":[]}]', Levels, "switch must be a number"),
        (b'[[],"won"]', StopReason, "it must be one of"),
        (b'[[],"__class__"]', StopReason, "it must be one of"),
        (b'[[],{"tuple":0}]', AllowedTokens, "index of an earlier AllowedTokens"),
        (b'[[[[1],false]],{"tuple":1}]', AllowedTokens, "index of an earlier AllowedTokens"),
        (b'[[[[1],false]],{"tuple":-1}]', AllowedTokens, "index of an earlier AllowedTokens"),
        (b'[[[[1],false]],{"tuple":true}]', AllowedTokens, "index of an earlier AllowedTokens"),
        (b"[[[[1],false]],0]", AllowedTokens, "index of an earlier AllowedTokens"),
        (b'[[[[1]]],{"tuple":0}]', AllowedTokens, "the fields of AllowedTokens"),
        (b'[[[{"tuple":0},"itself"]],{"tuple":0}]', Outer, "index of an earlier Inner"),
        (b'[[[{"tuple":1},"round"],[{"tuple":0},"in a circle"]],{"tuple":1}]', Outer, "the fields of Inner|must be a list"),
    ],
)
def test_what_is_no_message_is_refused(data: bytes, kind: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        decode(data, kind, "it")


@given(episodes, st.data())
@settings(deadline=None, max_examples=200)
def test_a_damaged_message_is_refused_or_read(sent: Episode, data: st.DataObject) -> None:
    """Never another error."""
    message = bytearray(encode(sent))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(message) - 1))
        message[at : at + data.draw(st.integers(0, 3))] = data.draw(
            st.binary(max_size=3) | st.sampled_from([b"[", b"{", b'"', b",", b"null"])
        )
        if not message:
            break
    try:
        got = decode(bytes(message), Episode, "it")
    except DataError:
        return
    assert isinstance(got, Episode)


@pytest.mark.parametrize(
    ("value", "kind", "said"),
    [
        ("3", int, "it must be a whole number"),
        (True, int, "it must be a whole number"),
        (True, float, "it must be a number"),
        ([1, None], list[int], r"\[1\] must be a whole number"),
        (0, AllowedTokens, "the index of an earlier AllowedTokens"),
        ("7ff8000000000000", float, "it must be a number"),
        (Levels(1, 2, 3), AllowedTokens, "the index of an earlier AllowedTokens"),
    ],
)
def test_what_is_of_another_type_is_refused(value: Any, kind: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        decode(encode(value), kind, "it")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({1: 2}, r"cannot hold \{1: 2\} of type dict"),
        (3j, "cannot hold 3j of type complex"),
        ([{2}], r"cannot hold \{2\} of type set"),
        (lambda: None, "of type function"),
        (Levels, "of type type"),
    ],
)
def test_what_cannot_be_sent_is_refused(value: Any, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        encode(value)


@pytest.mark.parametrize("kind", [complex, dict[int, int], set[int], int | complex, list[complex]])
def test_what_cannot_be_read_is_refused(kind: Any) -> None:
    with pytest.raises(TypeError, match=r"nothing of type .* can be read from JSON"):
        decode(b"[[],3]", kind, "it")

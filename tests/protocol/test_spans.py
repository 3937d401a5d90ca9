"""Rules of token spans.

1. A token belongs to the block that holds its last character, so a block's tokens are the block's text, give or take what a merged token
   shares with its neighbour; no merge empties a mask.
2. Offsets are those of the decoded reply: they never decrease and end with the text, characters of several bytes included.
3. A reply without a usable action is the action's, every token of it.
4. V_low is read at the first token after `</subgoal>`, else after `</switch>`, else at the first token.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from hiper.protocol import Block, BlockId, Reply, ReplySpans, Switch, locate, parse, render, reply_text, token_ends

GOOD = render(Switch.SWITCH, "find a mug", "go to shelf 1")
MERGES = {
    "as rendered": GOOD,
    "no spaces": GOOD.replace("> <", "><"),
    "lines": GOOD.replace("> <", ">\n<"),
    "blank lines": GOOD.replace("> <", ">\n\n<") + "\n\n",
    "punctuation": "Well...<switch>SWITCH</switch>. <subgoal>(find) a mug!</subgoal>, <action>look?</action>!!",
    "brackets": "(<switch>KEEP</switch>)[<subgoal>[a]</subgoal>]{<action>{b}</action>}",
    "angle brackets": "<<switch>KEEP</switch>><<subgoal>>a<</subgoal>>><action>-></action>>>",
    "emoji": "🙂<switch>KEEP</switch>🙂<subgoal>🧽🍳 clean</subgoal>🙂<action>🙂</action>🙂",
    "other scripts": "é<switch>KEEP</switch>ß<subgoal>找到杯子</subgoal>は<action>смотреть</action>ñ",
    "tabs": "\t<switch>\tKEEP\t</switch>\t<subgoal>\ta\t</subgoal>\t<action>\tlook\t</action>\t",
}


def read(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[list[int], Reply, list[int], ReplySpans]:
    ids = tokenizer.encode(text, add_special_tokens=False)
    reply, ends = parse(reply_text(tokenizer, ids)), token_ends(tokenizer, ids)
    return ids, reply, ends, locate(reply, ends)


def of_block(spans: ReplySpans, block: Block) -> list[int]:
    return [index for index, found in enumerate(spans.blocks) if found == BlockId[block.value]]


def check_blocks(reply: Reply, ends: list[int], spans: ReplySpans) -> None:
    """Each block's tokens are consecutive and cover its text, but for a bracket at either end that a neighbour shares."""
    assert ends == sorted(ends)
    assert ends[-1] == len(reply.text)
    for block, span in reply.spans.items():
        mine = of_block(spans, block)
        assert mine, f"no tokens for {block} in {reply.text!r}"
        assert mine == list(range(mine[0], mine[-1] + 1))
        start, end = ([0, *ends])[mine[0]], ends[mine[-1]]
        assert start <= span.start + 1
        assert span.end - 1 <= end <= span.end
        covered = reply.text[start:end]
        assert reply.text[span.start + 1 : span.end - 1] in covered


def test_a_word_tokens_block_is_its_text(words: PreTrainedTokenizerBase) -> None:
    ids, reply, ends, spans = read(words, GOOD)
    assert reply.valid
    assert ends[-1] == len(reply.text)
    for block, span in reply.spans.items():
        assert words.decode([ids[index] for index in of_block(spans, block)]) == reply.text[span.start : span.end]
    assert BlockId.none not in spans.blocks
    assert ids[spans.low] == words.convert_tokens_to_ids("<action>")


def test_words_outside_and_the_end_token_belong_to_nothing(words: PreTrainedTokenizerBase) -> None:
    end = words.eos_token_id
    ids = words.encode("look " + GOOD + " look", add_special_tokens=False) + [end]
    reply = parse(reply_text(words, ids))
    spans = locate(reply, token_ends(words, ids))
    assert reply.valid
    assert [spans.blocks[0], *spans.blocks[-2:]] == [BlockId.none] * 3
    assert set(spans.blocks[1:-2]) == {BlockId.switch, BlockId.subgoal, BlockId.action}


@pytest.mark.parametrize("name", MERGES)
def test_merges_leave_every_block_its_tokens(qwen: PreTrainedTokenizerBase, name: str) -> None:
    ids, reply, ends, spans = read(qwen, MERGES[name])
    assert reply.text == MERGES[name]
    assert set(reply.spans) == set(Block)
    check_blocks(reply, ends, spans)
    if name == "as rendered":
        for block, span in reply.spans.items():
            found = qwen.decode([ids[index] for index in of_block(spans, block)])
            assert found.strip() == reply.text[span.start : span.end]


def test_the_merges_are_real(qwen: PreTrainedTokenizerBase) -> None:
    """Guard of the table above: tokens do straddle block borders, which id-subsequence matching would miss."""
    for name in ("no spaces", "lines", "blank lines", "punctuation", "angle brackets"):
        _, reply, ends, _ = read(qwen, MERGES[name])
        borders = {border for span in reply.spans.values() for border in (span.start, span.end)}
        assert not borders <= {0, *ends}, name


GLUE = st.text(st.sampled_from(list("<>/.,!?()[] \n\t\"'-=aZ1é🙂找")), max_size=4)


@settings(max_examples=60, deadline=None)
@given(glue=st.lists(GLUE, min_size=7, max_size=7))
def test_no_text_around_tags_empties_a_mask(qwen: PreTrainedTokenizerBase, glue: list[str]) -> None:
    a, b, c, d, e, f, g = glue
    text = f"{a}<switch>{b}</switch>{c}<subgoal>{d}</subgoal>{e}<action>{f}x</action>{g}"
    _, reply, ends, spans = read(qwen, text)
    if Block.action in reply.spans and reply.text == text:
        check_blocks(reply, ends, spans)


@settings(max_examples=40, deadline=None)
@given(ids=st.lists(st.integers(0, 151_645), min_size=1, max_size=25))
def test_offsets_of_any_ids_are_in_order(qwen: PreTrainedTokenizerBase, ids: list[int]) -> None:
    """What a model samples need not be what a tokenizer would write: broken characters, special tokens, odd splits."""
    ends, text = token_ends(qwen, ids), reply_text(qwen, ids)
    assert len(ends) == len(ids)
    assert ends == sorted(ends)
    assert ends[-1] <= len(text)
    assert set(text[ends[-1] :]) <= {"\ufffd"}
    spans = locate(parse(text), ends)
    assert len(spans.blocks) == len(ids)
    assert 0 <= spans.low < len(ids)


def test_a_character_of_several_tokens_ends_with_its_last(qwen: PreTrainedTokenizerBase) -> None:
    ids = qwen.encode("a🧽b", add_special_tokens=False)
    assert len(ids) > 3, "the sponge must be split for this test to say anything"
    assert token_ends(qwen, ids) == [1] * (len(ids) - 2) + [2, 3]


@pytest.mark.parametrize(
    "text",
    [
        "look look",
        "<switch>SWITCH</switch> <subgoal>find a mug</subgoal>",
        "<switch>KEEP</switch> <action>look",
        GOOD.replace("go to shelf 1", ""),
    ],
    ids=["no tags", "no action", "unclosed action", "empty action"],
)
def test_a_reply_without_usable_action_is_all_action(words: PreTrainedTokenizerBase, text: str) -> None:
    ids, reply, _, spans = read(words, text)
    assert reply.action == ""
    assert spans == ReplySpans([BlockId.action] * len(ids), 0)


@pytest.mark.parametrize(
    ("text", "before"),
    [
        (GOOD, ["<switch>", "SWITCH", "</switch>", "<subgoal>", "find", "mug", "</subgoal>"]),
        ("<switch> KEEP </switch> look <action> look </action>", ["<switch>", "KEEP", "</switch>"]),
        ("<action> look </action>", []),
        ("look <action> look </action>", []),
        ("<action> look </action> <subgoal> find a mug </subgoal>", []),
    ],
    ids=["after subgoal", "after switch", "nothing decided", "words first", "nothing follows"],
)
def test_where_v_low_is_read(words: PreTrainedTokenizerBase, text: str, before: list[str]) -> None:
    ids, _, _, spans = read(words, text)
    assert words.convert_ids_to_tokens(ids[: spans.low]) == before


def test_v_low_is_read_at_the_token_that_leaves_the_subgoal(qwen: PreTrainedTokenizerBase) -> None:
    """A merged `><` belongs to the next block but also ends the subgoal: its predicting state has not read the closing bracket."""
    for text in MERGES.values():
        _, reply, ends, spans = read(qwen, text)
        end = reply.spans[Block.subgoal].end
        assert ends[spans.low] > end >= ends[spans.low - 1]

"""Rules of the grammar.

1. Any string parses; nothing raises; spans are disjoint, lie within the text and begin and end with their tags.
2. What is wrong with a reply is listed; the first of repeated blocks counts; words outside blocks and stray closing tags are ignored.
3. A faulty reply gives the environment no command, and a missing or unknown switch is KEEP.
4. A segment starts on the first turn, or where SWITCH names a subgoal; a kept subgoal stays what it was.
5. `parse` undoes `render`, in both dialects.
6. Parsing takes time in proportion to the length, whatever the text.
7. Environment and learner read one object, so the four replies on which the reference's parsers disagree have one meaning each.
"""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiper.config import Dialect
from hiper.protocol import Block, Decision, Fault, Switch, decide, parse, render

KEEP, SWITCH = Switch.KEEP, Switch.SWITCH
GOAL = "<subgoal>find a mug</subgoal>"
LOOK = "<action>look</action>"


def test_a_good_reply_parses_into_its_parts() -> None:
    text = f"<switch>SWITCH</switch> {GOAL} {LOOK}"
    reply = parse(text)
    assert (reply.switch, reply.subgoal, reply.action, reply.faults) == (SWITCH, "find a mug", "look", ())
    assert reply.valid
    assert reply.text == text
    cut = {block: text[span.start : span.end] for block, span in reply.spans.items()}
    assert cut == {Block.switch: "<switch>SWITCH</switch>", Block.subgoal: GOAL, Block.action: LOOK}


@pytest.mark.parametrize(
    "text",
    [
        f"Thinking aloud: <switch>KEEP</switch> so {GOAL}, therefore {LOOK} Done.",
        f"<switch>KEEP</switch>{GOAL}{LOOK}",
        f"<switch>keep</switch> {GOAL} {LOOK}",
        "<switch>\n Keep \t</switch> <subgoal>  find\n a   mug </subgoal> <action>\tlook </action>",
        f"</switch> <switch>KEEP</switch> </subgoal> {GOAL} {LOOK} </action>",
    ],
    ids=["words outside", "no spaces", "lower case", "white space", "stray closing tags"],
)
def test_harmless_deviations_are_no_faults(text: str) -> None:
    reply = parse(text)
    assert (reply.switch, reply.subgoal, reply.action, reply.faults) == (KEEP, "find a mug", "look", ())


F = Fault
MALFORMED = {
    "nothing": ("", KEEP, "", "", {F.missing_switch, F.missing_subgoal, F.missing_action}),
    "no tags": ("go to shelf 1", KEEP, "", "", {F.missing_switch, F.missing_subgoal, F.missing_action}),
    "switch unclosed": (f"<switch>SWITCH {GOAL} {LOOK}", KEEP, "find a mug", "look", {F.unclosed_block, F.missing_switch}),
    "subgoal unclosed": (f"<switch>SWITCH</switch> <subgoal>find {LOOK}", SWITCH, "", "look", {F.unclosed_block, F.missing_subgoal}),
    "action unclosed": (f"<switch>SWITCH</switch> {GOAL} <action>look", SWITCH, "find a mug", "", {F.unclosed_block, F.missing_action}),
    "opened twice, closed once": (
        f"<switch>KEEP</switch> {GOAL} <action><action>look</action>",
        KEEP,
        "find a mug",
        "<action>look",
        {F.nested_tag},
    ),
    "repeated switch": (f"<switch>KEEP</switch> <switch>SWITCH</switch> {GOAL} {LOOK}", KEEP, "find a mug", "look", {F.repeated_block}),
    "repeated action": (f"<switch>KEEP</switch> {GOAL} {LOOK} <action>open</action>", KEEP, "find a mug", "look", {F.repeated_block}),
    "repeated, then unclosed": (
        f"<switch>KEEP</switch> {GOAL} {LOOK} {LOOK} <action>",
        KEEP,
        "find a mug",
        "look",
        {F.repeated_block, F.unclosed_block},
    ),
    "action first": (f"{LOOK} <switch>SWITCH</switch> {GOAL}", SWITCH, "find a mug", "look", {F.out_of_order}),
    "subgoal last": (f"<switch>SWITCH</switch> {LOOK} {GOAL}", SWITCH, "find a mug", "look", {F.out_of_order}),
    "unknown word": (f"<switch>continue</switch> {GOAL} {LOOK}", KEEP, "find a mug", "look", {F.unknown_switch}),
    "two words": (f"<switch>KEEP or SWITCH</switch> {GOAL} {LOOK}", KEEP, "find a mug", "look", {F.unknown_switch}),
    "empty switch": (f"<switch></switch> {GOAL} {LOOK}", KEEP, "find a mug", "look", {F.unknown_switch}),
    "empty subgoal": (f"<switch>SWITCH</switch> <subgoal> </subgoal> {LOOK}", SWITCH, "", "look", {F.missing_subgoal}),
    "empty action": (f"<switch>SWITCH</switch> {GOAL} <action></action>", SWITCH, "find a mug", "", {F.missing_action}),
    "no switch": (f"{GOAL} {LOOK}", KEEP, "find a mug", "look", {F.missing_switch}),
    "no subgoal": (f"<switch>KEEP</switch> {LOOK}", KEEP, "", "look", {F.missing_subgoal}),
    "no action": (f"<switch>SWITCH</switch> {GOAL}", SWITCH, "find a mug", "", {F.missing_action}),
    "capital tag": (f"<Switch>KEEP</Switch> {GOAL} {LOOK}", KEEP, "find a mug", "look", {F.missing_switch}),
    "nested block": (
        f"<switch>KEEP</switch> <subgoal>a {LOOK} b</subgoal> <action>open</action>",
        KEEP,
        f"a {LOOK} b",
        "open",
        {F.nested_tag},
    ),
    "all inside switch": (
        f"<switch>SWITCH {GOAL} {LOOK}</switch>",
        KEEP,
        "",
        "",
        {F.nested_tag, F.unknown_switch, F.missing_subgoal, F.missing_action},
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_replies(name: str) -> None:
    text, switch, subgoal, action, faults = MALFORMED[name]
    reply = parse(text)
    assert (reply.switch, reply.subgoal, reply.action) == (switch, subgoal, action)
    assert set(reply.faults) == faults
    assert len(reply.faults) == len(faults), "a fault is named once"
    assert not reply.valid
    for previous in (None, "clean the mug"):
        assert decide(reply, previous).command == "", "a faulty reply never acts"


def test_every_fault_is_met_in_the_table() -> None:
    assert set().union(*(case[-1] for case in MALFORMED.values())) == set(Fault)


@pytest.mark.parametrize(
    ("text", "faults", "subgoal"),
    [
        (f"<switch>KEEP</switch> {LOOK}", (), ""),
        (f"<switch>KEEP</switch> {GOAL} {LOOK}", (), "find a mug"),
        (f"<switch>SWITCH</switch> {GOAL} {LOOK}", (), "find a mug"),
        (f"<switch>SWITCH</switch> {LOOK}", (Fault.missing_subgoal,), ""),
        ("<switch>KEEP</switch>", (Fault.missing_action,), ""),
        (LOOK, (Fault.missing_switch,), ""),
    ],
)
def test_the_compact_dialect_wants_a_subgoal_only_on_switch(text: str, faults: tuple[Fault, ...], subgoal: str) -> None:
    reply = parse(text, Dialect.compact)
    assert reply.faults == faults
    assert reply.subgoal == subgoal


@pytest.mark.parametrize(
    ("text", "previous", "expected"),
    [
        (f"<switch>SWITCH</switch> {GOAL} {LOOK}", None, Decision(True, "find a mug", "look", False, False)),
        (f"<switch>KEEP</switch> {GOAL} {LOOK}", None, Decision(True, "find a mug", "look", False, False)),
        ("nonsense", None, Decision(True, "", "", False, False)),
        (f"<switch>SWITCH</switch> {GOAL} {LOOK}", "heat it", Decision(True, "find a mug", "look", False, False)),
        (f"<switch>SWITCH</switch> {GOAL} {LOOK}", "find a mug", Decision(True, "find a mug", "look", False, False)),
        (f"<switch>KEEP</switch> {GOAL} {LOOK}", "find a mug", Decision(False, "find a mug", "look", True, False)),
        (f"<switch>KEEP</switch> {GOAL} {LOOK}", "heat it", Decision(False, "heat it", "look", True, True)),
        (f"<switch>KEEP</switch> {LOOK}", "heat it", Decision(False, "heat it", "", True, False)),
        (f"<switch>SWITCH</switch> {LOOK}", "heat it", Decision(False, "heat it", "", False, False)),
        ("nonsense", "heat it", Decision(False, "heat it", "", True, False)),
        (f"<switch>KEEP</switch> {GOAL} {LOOK}", "", Decision(False, "", "look", True, True)),
    ],
    ids=[
        "first turn",
        "first turn starts even on KEEP, unfined",
        "first turn starts even on nonsense",
        "switch",
        "switch to the same words",
        "keep",
        "keep with other words",
        "keep without words",
        "switch to nothing starts nothing",
        "nonsense counts as keep",
        "an empty subgoal in force is not the first turn",
    ],
)
def test_what_a_reply_means(text: str, previous: str | None, expected: Decision) -> None:
    assert decide(parse(text), previous) == expected


def test_reference_case_1_an_unknown_switch_word_keeps() -> None:
    """Reference: a new segment for the learner, no switch for ALFWorld, KEEP for WebShop. Ours: an invalid KEEP for everybody."""
    reply = parse(f"<switch>continue</switch> {GOAL} {LOOK}")
    assert reply.faults == (Fault.unknown_switch,)
    assert decide(reply, "heat it") == Decision(False, "heat it", "", True, True)


def test_reference_case_2_a_switch_without_action_still_takes_its_subgoal() -> None:
    """Reference: a new segment for the learner, while both environments lose its subgoal. Ours: both are recorded."""
    reply = parse(f"<switch>SWITCH</switch> {GOAL}")
    assert reply.faults == (Fault.missing_action,)
    assert decide(reply, "heat it") == Decision(True, "find a mug", "", False, False)
    bare = parse("<switch>SWITCH</switch>")
    assert decide(bare, "heat it") == Decision(False, "heat it", "", False, False), "without a subgoal there is no segment to start"


def test_reference_case_3_a_stray_closing_tag_is_ignored() -> None:
    """Reference: a new segment for the learner, an invalid reply for both environments. Ours: a valid SWITCH."""
    reply = parse(f"</switch> <switch>SWITCH</switch> {GOAL} {LOOK}")
    assert reply.valid
    assert decide(reply, "heat it") == Decision(True, "find a mug", "look", False, False)


def test_reference_case_4_without_switch_the_subgoal_stays() -> None:
    """Reference: the subgoal becomes the action's text in ALFWorld and "None" in WebShop. Ours: an invalid KEEP of the subgoal in force."""
    reply = parse(LOOK)
    assert set(reply.faults) == {Fault.missing_switch, Fault.missing_subgoal}
    assert decide(reply, "heat it") == Decision(False, "heat it", "", True, False)


PIECES = [f"<{slash}{block}>" for block in Block for slash in ("", "/")] + [
    "KEEP",
    "SWITCH",
    " ",
    "\n",
    "<",
    ">",
    "</",
    "find a mug",
    "look",
]
REPLIES = st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=30).map("".join)


@given(REPLIES, st.sampled_from(Dialect), st.none() | st.text(max_size=5))
def test_any_string_is_a_reply(text: str, dialect: Dialect, previous: str | None) -> None:
    reply = parse(text, dialect)
    taken = sorted((span.start, span.end) for span in reply.spans.values())
    for block, span in reply.spans.items():
        inside = text[span.start : span.end]
        assert inside.startswith(f"<{block}>")
        assert inside.endswith(f"</{block}>")
        assert 0 <= span.start < span.end <= len(text)
    for (_, end), (start, _) in zip(taken, taken[1:], strict=False):
        assert end <= start
    assert bool(reply.action) <= (Block.action in reply.spans)
    assert (Fault.missing_action in reply.faults) == (reply.action == "")
    decision = decide(reply, previous)
    assert (decision.command != "") == reply.valid
    assert not (decision.start and decision.keep)
    assert decision.start or decision.subgoal == previous
    assert decision.mismatch <= decision.keep


WORDS = (
    st.text(st.characters(exclude_characters="<>", exclude_categories=["Cs"]), min_size=1).map(lambda t: " ".join(t.split())).filter(bool)
)


@given(st.sampled_from(Switch), WORDS, WORDS, st.sampled_from(Dialect))
def test_parsing_undoes_rendering(switch: Switch, subgoal: str, action: str, dialect: Dialect) -> None:
    reply = parse(render(switch, subgoal, action, dialect), dialect)
    spelled = dialect is Dialect.full or switch is SWITCH
    assert (reply.switch, reply.subgoal, reply.action, reply.faults) == (switch, subgoal if spelled else "", action, ())


@pytest.mark.parametrize(
    "text",
    [
        "<switch>" * 25_000,
        "<switch>" * 25_000 + "</switch>",
        "<switch><subgoal><action>" * 8_000,
        "<switch><subgoal><action>" * 8_000 + "</action></subgoal></switch>",
        "<switch></switch>" * 12_000,
        "<subgoal>" * 12_000 + "</switch>" * 12_000,
        "<" * 200_000,
        "</action>" * 22_000,
        "<action>" + " a" * 100_000,
    ],
    ids=lambda text: text[:26],
)
def test_long_replies_parse_in_no_time(text: str) -> None:
    begun = time.process_time()
    parse(text)
    assert time.process_time() - begun < 0.5

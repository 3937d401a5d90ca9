"""Rules of `rollout.constrain=admissible` and `grammar`.

1. What follows `<action>` is one of the commands, its closing tag and the end, whatever the tokenizer merges, however the tag came about.
2. Before `<action>` nothing is limited but tokens that would slip past the tag.
3. `grammar`: the reply has the protocol's form; a token without an alternative is written without asking the network.
4. Where a command takes words of the agent's own, they are free up to what closes them.
5. Log-probabilities are those of the renormalised distribution, and the learner computes the same ones; so it does without limits.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from hiper.config import Critic, Dialect, Init, TinyConfig
from hiper.model.actor import Actor
from hiper.model.tiny import build_tiny
from hiper.model.tokenizer import build_tokenizer
from hiper.protocol import Switch, decide, parse, reply_text
from hiper.rollout.batch import make_batch
from hiper.rollout.chat import ChatCodec
from hiper.rollout.constrain import ActionConstraint, CommandTries, Constraint, GrammarConstraint, GrammarTurn
from hiper.rollout.episode import AllowedTokens
from hiper.rollout.samplers.transformers import TransformersSampler, mask_logits
from hiper.suites.base import WORDS
from hiper.suites.webshop.env import Commands
from hiper.train.microbatch import microbatches

COMMANDS = ["go to shelf 1", "go to shelf 12", "go to shelf 2", "look", "take mug 1 from shelf 1", "take mug 2 from shelf 12"]


FOLLOWS = {
    "words": {
        "": ["<action>", "<switch>", "look"],
        "<switch>": ["SWITCH", "<action>"],
        "<action>": ["mug", "go to shelf", "take mug"],
        "SWITCH": ["</switch>", "<|pad|>"],
    },
    "qwen": {
        "": ["<", "look"],
        "<": ["action", "act"],
        "act": ["ion", "<|endoftext|>"],
        "<|endoftext|>": ["ion"],
        "ion": [">", "><", ">("],
        "action": [">", "><", ">\n", "<|im_start|>"],
        "<|im_start|>": [">", ">\n"],
        ">": ["Ġmug"],
    },
}
"""Which pieces a model of pairs likes to write after which; "" is any other. Tags come about in many ways, and half of them do not."""


def pairs(tokenizer: PreTrainedTokenizerBase, follows: dict[str, list[str]]) -> Actor:
    """An actor whose next token depends on the last one alone, set by hand: its layers add nothing to the embeddings."""
    shape = TinyConfig(hidden=16, layers=1, heads=2, kv_heads=2, intermediate=16, init=Init.default)
    lm = build_tiny(shape, tokenizer, seed=0)
    spoken = list(follows)
    with torch.no_grad():
        lm.model.layers[0].self_attn.o_proj.weight.zero_()
        lm.model.layers[0].mlp.down_proj.weight.zero_()
        lm.lm_head.weight = torch.nn.Parameter(torch.randn(len(tokenizer), 16, generator=torch.Generator().manual_seed(0)) * 0.1)
        embeddings = lm.model.embed_tokens.weight
        embeddings.zero_()[:, 0] = 1.0
        for place, piece in enumerate(spoken):
            if piece:
                embeddings[tokenizer.convert_tokens_to_ids(piece)] = torch.eye(16)[place]
            for follower in follows[piece]:
                lm.lm_head.weight[tokenizer.convert_tokens_to_ids(follower), place] += 3.3  # the final norm makes it a logit of 13
    return Actor(lm, Critic.shared).eval()


class Played(NamedTuple):
    """Conversations of an actor that was limited to `COMMANDS`, or was not."""

    codec: ChatCodec
    actor: Actor
    limited: list[Any]
    free: list[Any]


@pytest.fixture(params=list(FOLLOWS))
def played(request: pytest.FixtureRequest, converse: Callable) -> Played:
    if request.param not in _PLAYED:
        tokenizer = request.getfixturevalue(request.param)
        codec, actor = ChatCodec(tokenizer), pairs(tokenizer, FOLLOWS[request.param])

        def lead(commands: list[str] | None) -> list[Any]:
            sampler = TransformersSampler(actor, codec, slots=8, max_reply_tokens=20)
            sampler.begin(0.9, torch.Generator().manual_seed(0))
            return converse(sampler, codec, [["You see a mug 1 .", "Look around you ."]] * 8, 8, commands)

        _PLAYED[request.param] = Played(codec, actor, lead(COMMANDS), lead(None))
    return _PLAYED[request.param]


_PLAYED: dict[str, Played] = {}


def test_only_admissible_commands_come_out(played: Played) -> None:
    chosen = []
    for _, sampled in [reply for talk in played.limited for reply in talk.replies]:
        text = reply_text(played.codec.tokenizer, sampled.ids)
        _, tag, after = text.partition("<action>")
        if not tag:
            continue
        if sampled.ids[-1] == played.codec.end:
            assert after.endswith("</action>")
            chosen.append(after.removesuffix("</action>").strip())
        else:  # cut at the limit
            assert any(f"{command}</action>".startswith(after.replace(" </action>", "</action>").lstrip()) for command in COMMANDS)
    assert set(chosen) <= set(COMMANDS)
    assert len(chosen) > 7, "the model must write actions for this to say anything"
    assert len(set(chosen)) > 2


def test_without_limits_it_writes_what_it_likes(played: Played) -> None:
    texts = [reply_text(played.codec.tokenizer, sampled.ids) for talk in played.free for _, sampled in talk.replies]
    after = [text.partition("<action>")[2].strip() for text in texts if "<action>" in text]
    assert after
    assert not any(parse(f"<action>{text}").action in COMMANDS for text in after)


@pytest.mark.parametrize("limited", [True, False])
def test_the_learner_computes_the_same_probabilities(played: Played, limited: bool) -> None:
    """A fixed bug: tokens barred inside `<action` were left out when sampling, but not when learning."""
    talks = played.limited if limited else played.free
    batch = make_batch([talk.episode() for talk in talks], torch.device("cpu"))
    assert any(limit is not None for limit in batch.allowed) == limited
    if limited and "Ġ" in str(played.codec.tokenizer.convert_ids_to_tokens(batch.token_id.tolist())):
        assert any(limit is not None and limit.all_but for limit in batch.allowed)
    with torch.no_grad():
        for part in microbatches(played.actor, batch, torch.arange(len(talks)), budget=300, temperature=0.9):
            torch.testing.assert_close(part.logprobs, batch.sampled_logprobs[part.tokens], atol=1e-4, rtol=0)


def test_a_forced_token_is_certain(played: Played) -> None:
    forced = [
        logprob
        for talk in played.limited
        for _, sampled in talk.replies
        for logprob, limit in zip(sampled.logprobs, sampled.allowed, strict=True)
        if limit is not None and len(limit.ids) == 1
    ]
    assert len(forced) > 7
    assert max(map(abs, forced)) < 1e-6


def test_limits_leave_what_they_say() -> None:
    logits = torch.zeros(4, 5)
    limited = mask_logits(logits, [None, AllowedTokens([1, 3]), AllowedTokens([1, 3], all_but=True), None])
    assert (limited == -torch.inf).nonzero().tolist() == [[1, 0], [1, 2], [1, 4], [2, 1], [2, 3]]
    assert mask_logits(logits, [AllowedTokens([2], all_but=True)] * 4).isinf().sum() == 4
    assert not logits.any(), "the logits given are left as they were"
    assert mask_logits(logits, [None] * 4) is logits


@pytest.mark.parametrize("name", ["words", "qwen"])
def test_a_guard_lets_every_command_through_and_nothing_else(name: str, request: pytest.FixtureRequest) -> None:
    tokenizer: PreTrainedTokenizerBase = request.getfixturevalue(name)
    codec = ChatCodec(tokenizer)
    tries = CommandTries(tokenizer, codec.end)
    opening = tokenizer.encode("<switch>KEEP</switch> <subgoal>find a mug</subgoal> <action>", add_special_tokens=False)
    rng = random.Random(0)
    seen = set()
    for _ in range(80):
        constraint, written = ActionConstraint(tries, COMMANDS), []
        for token in opening:
            assert constraint.allowed is None or constraint.allowed.all_but
            constraint.push(token)
        while not written or written[-1] != codec.end:
            written.append(rng.choice(constraint.allowed.ids))
            constraint.push(written[-1])
        assert len(written) < 20
        seen.add(reply_text(tokenizer, written).replace(" </action>", "</action>"))
    assert seen == {f"{command}</action>" for command in COMMANDS}


def test_commands_that_cannot_be_spelled_are_left_out(words: PreTrainedTokenizerBase) -> None:
    """A fixed bug: a name the vocabulary lacks was written as an unknown word, which reads as another command."""
    tries = CommandTries(words, ChatCodec(words).end)
    opening, look = words.convert_tokens_to_ids(["<action>", "look"])
    constraint = ActionConstraint(tries, ["take gramophone 1 from shelf 1", "look"])
    constraint.push(opening)
    assert constraint.allowed == AllowedTokens([look])
    constraint = ActionConstraint(tries, ["take gramophone 1 from shelf 1"])
    constraint.push(opening)
    assert constraint.allowed is None, "with nothing to spell there is nothing to limit"


def test_merged_tokens_cannot_slip_past_the_tag(qwen: PreTrainedTokenizerBase) -> None:
    """`>` merged with what follows would put the action's first letters outside the limits; after `<action` such tokens are barred."""
    constraint = ActionConstraint(CommandTries(qwen, ChatCodec(qwen).end), COMMANDS)
    assert constraint.allowed is None
    for token in qwen.encode("<action", add_special_tokens=False):
        constraint.push(token)
    assert constraint.allowed is not None
    assert constraint.allowed.all_but
    all_but = {qwen.decode([token]) for token in constraint.allowed.ids}
    assert {">\n", "><", "></", ">("} <= all_but
    assert ">" not in all_but
    constraint.push(qwen.convert_tokens_to_ids(">"))
    assert not constraint.allowed.all_but


def test_a_special_token_inside_the_tag_hides_nothing(qwen: PreTrainedTokenizerBase) -> None:
    """A fixed bug: special tokens are left out of the reply's text, so `<act` + special + `ion>` is a tag and must be seen as one."""
    codec = ChatCodec(qwen)
    constraint = ActionConstraint(CommandTries(qwen, codec.end), COMMANDS)
    for piece in ("<", "act", "<|endoftext|>", "ion", "<|im_start|>", ">"):
        constraint.push(qwen.convert_tokens_to_ids(piece))
    assert constraint.allowed is not None
    assert not constraint.allowed.all_but


@pytest.mark.parametrize("dialect", list(Dialect))
@pytest.mark.parametrize("name", ["words", "qwen"])
@pytest.mark.parametrize("subgoal", [None, "find mug"])
def test_under_the_grammar_every_reply_has_the_form(
    name: str, dialect: Dialect, subgoal: str | None, request: pytest.FixtureRequest
) -> None:
    """Whatever is drawn, it parses without a fault, KEEP keeps the subgoal, the first turn switches, and the command is admissible."""
    tokenizer: PreTrainedTokenizerBase = request.getfixturevalue(name)
    codec = ChatCodec(tokenizer)
    tries = CommandTries(tokenizer, codec.end)
    rng = random.Random(1)
    switches, actions = set(), set()
    for _ in range(60):
        constraint, written = GrammarConstraint(tries, GrammarTurn(dialect, subgoal), COMMANDS), []
        while not written or written[-1] != codec.end:
            limit = constraint.allowed
            assert limit is not None
            closing = tokenizer.encode("</subgoal>", add_special_tokens=False)[0]
            choices = limit.ids
            if limit.all_but:  # words, and now and then the tag that ends them
                shut = set(limit.ids)
                choices = [i for i in (*rng.sample(range(len(tokenizer)), 20), *[closing] * 6) if i not in shut]
            written.append(rng.choice(choices))
            constraint.push(written[-1])
        reply = parse(reply_text(tokenizer, written), dialect)
        assert reply.faults == ()
        assert not decide(reply, subgoal).mismatch
        switches.add(reply.switch)
        actions.add(reply.action)
    assert switches == ({Switch.SWITCH} if subgoal is None else {Switch.KEEP, Switch.SWITCH})
    assert actions == set(COMMANDS)


SHOP = [f"search[{WORDS}]", "click[buy now]", "click[< prev]"]


@pytest.fixture(scope="module")
def shop() -> PreTrainedTokenizerBase:
    """A word tokenizer that knows brackets."""
    return build_tokenizer(["search [ red shoes ] click [ buy now ] click [ < prev ] find mug SWITCH KEEP"])


@pytest.mark.parametrize("grammar", [True, False])
@pytest.mark.parametrize("name", ["shop", "qwen"])
def test_a_command_may_hold_words_of_ones_own(name: str, grammar: bool, request: pytest.FixtureRequest) -> None:
    """At least one word and none with a bracket or a tag, up to the bracket that closes them."""
    tokenizer: PreTrainedTokenizerBase = request.getfixturevalue(name)
    codec = ChatCodec(tokenizer)
    tries = CommandTries(tokenizer, codec.end)
    closing = tokenizer.encode("]</action>", add_special_tokens=False)[0]
    rng = random.Random(2)
    admissible, said = Commands([("", "buy now"), ("", "< prev")], searches=True), set()
    for _ in range(60):
        constraint: Constraint = (
            GrammarConstraint(tries, GrammarTurn(Dialect.full, "find mug"), SHOP) if grammar else ActionConstraint(tries, SHOP)
        )
        written: list[int] = []
        opening = "<switch>KEEP</switch> <subgoal>find mug</subgoal> <action>"
        for token in tokenizer.encode(opening, add_special_tokens=False):
            written.append(token)
            constraint.push(token)
        while written[-1] != codec.end:
            limit = constraint.allowed
            assert limit is not None
            choices = limit.ids
            if limit.all_but:
                choices = [i for i in (*rng.sample(range(len(tokenizer)), 20), *[closing] * 3) if i not in set(limit.ids)]
            written.append(rng.choice(choices))
            constraint.push(written[-1])
        reply = parse(reply_text(tokenizer, written))
        assert reply.faults == ()
        assert reply.action in admissible, reply.action
        said.add(reply.action.split("[")[0].strip())
    assert said == {"search", "click"}


def test_endless_words_are_closed(shop: PreTrainedTokenizerBase) -> None:
    constraint = ActionConstraint(CommandTries(shop, ChatCodec(shop).end), SHOP)
    for token in shop.encode("<action> search ["):
        constraint.push(token)
    for _ in range(32):
        assert constraint.allowed is not None and constraint.allowed.all_but
        constraint.push(shop.convert_tokens_to_ids("shoes"))
    assert constraint.allowed == AllowedTokens([shop.convert_tokens_to_ids("]")])


def test_an_endless_subgoal_is_closed(words: PreTrainedTokenizerBase) -> None:
    constraint = GrammarConstraint(CommandTries(words, ChatCodec(words).end), GrammarTurn(Dialect.full, None), COMMANDS)
    for token in words.encode("<switch>SWITCH</switch> <subgoal>"):
        assert constraint.allowed == AllowedTokens([token])
        constraint.push(token)
    for _ in range(16):
        assert constraint.allowed is not None and constraint.allowed.all_but
        constraint.push(words.convert_tokens_to_ids("mug"))
    assert constraint.allowed == AllowedTokens(words.encode("</subgoal>"))


def test_what_is_certain_is_written_without_asking(words: PreTrainedTokenizerBase, converse: Callable) -> None:
    """The network is run for decisions only, and the conversation is still the one that a plain pass over it scores."""
    codec, actor = ChatCodec(words), pairs(words, FOLLOWS["words"])
    sampler = TransformersSampler(actor, codec, slots=4, max_reply_tokens=40)
    sampler.begin(0.9, torch.Generator().manual_seed(0))
    talks = converse(
        sampler, codec, [["You see a mug 1 .", "Look around you ."]] * 4, 4, COMMANDS, grammar_turn=GrammarTurn(Dialect.full, "find mug")
    )
    batch = make_batch([talk.episode() for talk in talks], torch.device("cpu"))
    assert float(batch.forced.float().mean()) > 0.2
    assert not batch.sampled_logprobs[batch.forced].any()
    with torch.no_grad():
        for part in microbatches(actor, batch, torch.arange(len(talks)), budget=300, temperature=0.9):
            torch.testing.assert_close(part.logprobs, batch.sampled_logprobs[part.tokens], atol=1e-4, rtol=0)

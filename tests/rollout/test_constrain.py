"""Rules of `rollout.constrain=admissible`.

1. What follows `<action>` is one of the commands, its closing tag and the end, whatever the tokenizer merges and however the tag came about.
2. Before `<action>` nothing is limited but tokens that would slip past the tag.
3. Log-probabilities are those of the renormalised distribution, and the learner computes the same ones; so it does without limits.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
from transformers import PreTrainedTokenizerBase, Qwen2ForCausalLM

from hiper.config import Critic, Init, TinyConfig
from hiper.model.actor import Actor
from hiper.model.tiny import build_tiny
from hiper.protocol import parse, reply_text
from hiper.rollout.chat import ChatCodec
from hiper.rollout.constrain import ActionGuard, CommandTries
from hiper.rollout.policy import TransformersPolicy
from hiper.train.batch import make_batch, passes

COMMANDS = ["go to shelf 1", "go to shelf 12", "go to shelf 2", "look", "take mug 1 from shelf 1", "examine mug 1"]


class Biased(Actor):
    """An untrained actor with a liking for some tokens, so that it writes tags by chance."""

    def __init__(self, lm: Qwen2ForCausalLM, liked: list[int], strength: float) -> None:
        super().__init__(lm, Critic.shared)
        bias = torch.zeros(lm.config.vocab_size)
        bias[liked] = strength
        self.register_buffer("bias", bias)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return super().logits(hidden) + self.bias


def biased(tokenizer: PreTrainedTokenizerBase, pieces: list[str], strength: float) -> Biased:
    shape = TinyConfig(hidden=16, layers=1, heads=2, kv_heads=2, intermediate=16, init=Init.default)
    liked = [token for piece in pieces for token in tokenizer.encode(piece, add_special_tokens=False)]
    return Biased(build_tiny(shape, tokenizer, seed=0), liked, strength).eval()


@pytest.fixture(scope="module")
def word_actor(words: PreTrainedTokenizerBase) -> Biased:
    return biased(words, ["<switch> SWITCH </switch> <subgoal> </subgoal> <action> </action> <action>"], 3.0)


@pytest.fixture(scope="module")
def qwen_actor(qwen: PreTrainedTokenizerBase) -> Biased:
    pieces = ["<", "action", ">", "><", ">\n", "></", ">(", "<action", " go", "look", "act", "ion", "<a", "ction", "<|im_start|>", "<|endoftext|>"]
    return biased(qwen, pieces, 11.0)


def play(actor: Actor, tokenizer: PreTrainedTokenizerBase, converse: Callable, commands: list[str] | None, limit: int = 60) -> tuple:
    codec = ChatCodec(tokenizer)
    policy = TransformersPolicy(
        actor, codec, slots=12, temperature=0.9, max_reply_tokens=limit, generator=torch.Generator().manual_seed(0)
    )
    return codec, converse(policy, codec, [["You see a mug 1 .", "Look around you ."]] * 16, 12, commands)


@pytest.mark.parametrize("name", ["word", "qwen"])
def test_only_admissible_commands_come_out(name: str, converse: Callable, request: pytest.FixtureRequest) -> None:
    tokenizer = request.getfixturevalue({"word": "words", "qwen": "qwen"}[name])
    codec, talks = play(request.getfixturevalue(f"{name}_actor"), tokenizer, converse, COMMANDS)
    chosen = []
    for _, sampled in [reply for talk in talks for reply in talk.replies]:
        text = reply_text(tokenizer, sampled.ids)
        before, tag, after = text.partition("<action>")
        if not tag:
            continue
        written = after.removesuffix("</action>").strip()
        if sampled.ids[-1] == codec.end:
            assert after.endswith("</action>")
            assert written in COMMANDS
            chosen.append(written)
        else:  # cut at the limit
            assert any(f"{command}</action>".replace(" ", "").startswith(after.replace(" ", "")) for command in COMMANDS)
        if parse(text).action and "<action>" not in before:
            assert parse(text).action in COMMANDS
    assert len(chosen) > 8, "the model must write actions for this to say anything"
    assert len(set(chosen)) > 2


@pytest.mark.parametrize("limited", [True, False])
@pytest.mark.parametrize("name", ["word", "qwen"])
def test_the_learner_computes_the_same_probabilities(
    name: str, limited: bool, converse: Callable, request: pytest.FixtureRequest
) -> None:
    tokenizer = request.getfixturevalue({"word": "words", "qwen": "qwen"}[name])
    network: Actor = request.getfixturevalue(f"{name}_actor")
    _, talks = play(network, tokenizer, converse, COMMANDS if limited else None, limit=60 if name == "word" else 30)
    batch = make_batch([talk.episode() for talk in talks], torch.device("cpu"))
    assert any(ids is not None for ids in batch.allowed) == limited
    with torch.no_grad():
        for part in passes(network, batch, torch.arange(len(talks)), budget=1000, temperature=0.9):
            torch.testing.assert_close(part.logprobs, batch.sampled_logprobs[part.tokens], atol=1e-4, rtol=0)


def test_a_forced_token_is_certain(words: PreTrainedTokenizerBase, word_actor: Biased, converse: Callable) -> None:
    _, talks = play(word_actor, words, converse, ["look"])
    forced = [
        (logprob, allowed)
        for talk in talks
        for _, sampled in talk.replies
        for logprob, allowed in zip(sampled.logprobs, sampled.allowed, strict=True)
        if allowed is not None
    ]
    assert forced
    assert all(len(allowed) == 1 and logprob == pytest.approx(0.0, abs=1e-6) for logprob, allowed in forced)


@pytest.mark.parametrize("name", ["words", "qwen"])
def test_a_guard_lets_every_command_through_and_nothing_else(name: str, request: pytest.FixtureRequest) -> None:
    tokenizer: PreTrainedTokenizerBase = request.getfixturevalue(name)
    codec = ChatCodec(tokenizer)
    tries = CommandTries(tokenizer, codec.end)
    opening = tokenizer.encode("<switch>KEEP</switch> <subgoal>find a mug</subgoal> <action>", add_special_tokens=False)
    rng = random.Random(0)
    seen = set()
    for _ in range(80):
        guard, written = ActionGuard(tries, COMMANDS), []
        for token in opening:
            assert guard.allowed is None
            guard.push(token)
        while not written or written[-1] != codec.end:
            written.append(rng.choice(guard.allowed or []))
            guard.push(written[-1])
        assert len(written) < 20
        seen.add(reply_text(tokenizer, written).replace(" </action>", "</action>"))
    assert seen == {f"{command}</action>" for command in COMMANDS}


def test_merged_tokens_cannot_slip_past_the_tag(qwen: PreTrainedTokenizerBase) -> None:
    """`>` merged with what follows would put the action's first letters outside the limits; after `<action` such tokens are barred."""
    guard = ActionGuard(CommandTries(qwen, ChatCodec(qwen).end), COMMANDS)
    assert guard.forbidden is None
    for token in qwen.encode("<action", add_special_tokens=False):
        guard.push(token)
    barred = {qwen.decode([token]) for token in guard.forbidden or []}
    assert {">\n", "><", "></", ">("} <= barred
    assert ">" not in barred
    guard.push(qwen.convert_tokens_to_ids(">"))
    assert guard.allowed is not None


def test_a_special_token_inside_the_tag_hides_nothing(qwen: PreTrainedTokenizerBase) -> None:
    """A fixed bug: special tokens are left out of the reply's text, so `<act` + special + `ion>` is a tag and must be seen as one."""
    codec = ChatCodec(qwen)
    guard = ActionGuard(CommandTries(qwen, codec.end), COMMANDS)
    for piece in ("<", "act", "<|endoftext|>", "ion", "<|im_start|>", ">"):
        guard.push(qwen.convert_tokens_to_ids(piece))
    assert guard.allowed is not None

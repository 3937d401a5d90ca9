"""Rules of the sampling policy and its cache.

1. Whatever happened on the way - ragged lengths, rows that finish early, rows moved on release, slots used again, conversations left
   waiting, replies cut, buffers grown - log-probabilities and greedy tokens are those of one plain pass over the finished conversation.
2. A generator's seed fixes every draw; temperature 0 draws nothing; temperature divides the logits.
3. A reply ends with the end token or at the limit.
4. The actor's mode is left as it was.
5. One sampler serves many batches: it answers as a new one does, with new weights as one started from them; weights of another model are
   refused and change nothing. When the last conversation is over the cache's memory is given back.
"""

from __future__ import annotations

import copy
import gc
import random
from collections.abc import Callable

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from hiper.config import Critic, Init, TinyConfig
from hiper.errors import ModelError
from hiper.model.actor import Actor
from hiper.model.tiny import build_tiny
from hiper.rollout.chat import ChatCodec
from hiper.rollout.samplers.transformers import TransformersSampler
from hiper.rollout.samplers.types import Request

LIMIT = 18


def policy(
    actor: Actor, codec: ChatCodec, slots: int = 4, temperature: float = 1.0, seed: int = 0, limit: int = LIMIT
) -> TransformersSampler:
    sampler = TransformersSampler(actor, codec, slots=slots, max_reply_tokens=limit)
    sampler.begin(temperature, torch.Generator().manual_seed(seed))
    return sampler


def plans(words: PreTrainedTokenizerBase, seed: int) -> list[list[str]]:
    """Eleven conversations of one to six turns, told 1 to 70 random words at a time."""
    rng = random.Random(seed)
    known = sorted(word for word in words.get_vocab() if word.isalpha())
    return [[" ".join(rng.choices(known, k=rng.randint(1, 70))) for _ in range(1 + n % 6)] for n in range(11)]


@torch.no_grad()
def plain(actor: Actor, ids: list[int], temperature: float) -> torch.Tensor:
    """(L, V) log-probabilities of the token after each position, by one pass without a cache."""
    logits = actor.logits(actor(torch.tensor([ids]), with_values=False).hidden[0])
    return (logits / (temperature or 1.0)).log_softmax(-1)


@pytest.fixture(scope="module")
def grouped(words: PreTrainedTokenizerBase) -> Actor:
    """Untrained, with grouped key-value heads and weights large enough for attention to be sharp."""
    lm = build_tiny(TinyConfig(hidden=32, layers=2, heads=4, kv_heads=2, intermediate=48, init=Init.default), words, seed=3)
    with torch.no_grad():
        for parameter in lm.parameters():
            parameter.mul_(8.0) if parameter.dim() == 2 else None
    return Actor(lm, Critic.shared).eval()


@pytest.mark.parametrize("temperature", [0.0, 1.5])
@pytest.mark.parametrize("name", ["actor", "grouped"])
def test_the_cache_changes_nothing(
    name: str, temperature: float, codec: ChatCodec, words: PreTrainedTokenizerBase, converse: Callable, request: pytest.FixtureRequest
) -> None:
    network: Actor = copy.deepcopy(request.getfixturevalue(name)).double()  # exact enough to tell a wrong key from rounding
    talks = converse(policy(network, codec, temperature=temperature), codec, plans(words, 1), 4, pause=3)
    lengths = set()
    for talk in talks:
        expected = plain(network, talk.ids, temperature)
        for start, sampled in talk.replies:
            lengths.add(len(sampled.ids))
            ours = torch.tensor(sampled.logprobs)
            rows = expected[start - 1 : start - 1 + len(sampled.ids)]
            theirs = rows.gather(1, torch.tensor(sampled.ids)[:, None]).squeeze(1)
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
            if temperature == 0:
                assert bool((theirs > rows.max(-1).values - 1e-4).all())
            assert sampled.allowed == [None] * len(sampled.ids)
            assert codec.end not in sampled.ids[:-1]
            assert sampled.ids[-1] == codec.end or len(sampled.ids) == LIMIT
    assert max(len(talk.ids) for talk in talks) > 256, "the buffers must have grown for this to say anything"
    if name == "actor":
        assert LIMIT in lengths or temperature == 0
        assert len(lengths) > 2, "replies must end at different lengths"


def test_the_comparison_can_fail(actor: Actor, codec: ChatCodec, words: PreTrainedTokenizerBase, converse: Callable) -> None:
    """Rule 1 would be empty if the model ignored its context: one word less at the start is far beyond the tolerance."""
    (talk,) = converse(policy(actor, codec), codec, [plans(words, 1)[5][:3]], 1)
    start, sampled = talk.replies[-1]
    where = torch.arange(start - 1, start - 1 + len(sampled.ids))
    whole, shorter = plain(actor, talk.ids, 1.0)[where], plain(actor, talk.ids[1:], 1.0)[where - 1]
    assert float((whole - shorter).abs().max()) > 1e-2


def test_a_prompt_rebuilt_every_turn_forgets_the_last(actor: Actor, codec: ChatCodec, words: PreTrainedTokenizerBase) -> None:
    """The `window` context: every request is fresh, in slots that hold longer conversations already."""
    actor = copy.deepcopy(actor).double()
    sampler = policy(actor, codec, slots=2)
    for asked in plans(words, 2)[5]:
        prompts = [codec.first(asked), codec.first(asked[: len(asked) // 2])]
        for prompt, sampled in zip(prompts, sampler.reply([Request(s, p, True, None) for s, p in enumerate(prompts)]), strict=True):
            rows = plain(actor, prompt + sampled.ids, 1.0)[len(prompt) - 1 : -1]
            theirs = rows.gather(1, torch.tensor(sampled.ids)[:, None]).squeeze(1)
            torch.testing.assert_close(torch.tensor(sampled.logprobs), theirs, atol=1e-5, rtol=0)


def test_a_seed_fixes_every_draw(actor: Actor, codec: ChatCodec, words: PreTrainedTokenizerBase, converse: Callable) -> None:
    def drawn(seed: int, temperature: float) -> list[list[int]]:
        return [talk.ids for talk in converse(policy(actor, codec, temperature=temperature, seed=seed), codec, plans(words, 3)[:5], 3)]

    assert drawn(0, 1.5) == drawn(0, 1.5)
    assert drawn(0, 1.5) != drawn(1, 1.5)
    assert drawn(0, 0.0) == drawn(1, 0.0)


def test_greedy_replies_leave_the_generator_alone(actor: Actor, codec: ChatCodec) -> None:
    generator = torch.Generator().manual_seed(5)
    before = generator.get_state()
    sampler = TransformersSampler(actor, codec, slots=1, max_reply_tokens=6)
    sampler.begin(0.0, generator)
    sampler.reply([Request(0, codec.first("look"), True, None)])
    assert torch.equal(before, generator.get_state())


@pytest.mark.parametrize("temperature", [0.7, 2.0])
def test_tokens_are_drawn_as_often_as_their_probability_says(actor: Actor, codec: ChatCodec, temperature: float) -> None:
    count = 600
    prompt = codec.first("You are in the middle of a room . You see a mug 1 .") + codec.tokenizer.encode(
        "<switch> SWITCH </switch> <subgoal> find"
    )
    sampler = policy(actor, codec, slots=count, temperature=temperature, limit=1)
    drawn = torch.tensor([s.ids[0] for s in sampler.reply([Request(slot, prompt, True, None) for slot in range(count)])])
    expected = plain(actor, prompt, temperature)[-1].exp()
    found = torch.bincount(drawn, minlength=len(expected)) / count
    deviation = (expected * (1 - expected) / count).sqrt()
    likely = expected > 0.02
    assert bool(((found - expected).abs()[likely] < 5 * deviation[likely]).all())


@pytest.mark.parametrize("training", [True, False])
def test_the_actors_mode_is_left_as_it_was(actor: Actor, codec: ChatCodec, training: bool) -> None:
    was = actor.training
    actor.train(training)
    policy(actor, codec, limit=2).reply([Request(0, codec.first("look"), True, None)])
    assert actor.training is training
    actor.train(was)


def test_what_a_policy_held_goes_with_it(actor: Actor, codec: ChatCodec, words: PreTrainedTokenizerBase, converse: Callable) -> None:
    """A fixed leak: cache and layers referred to each other, so that each evaluation left its buffers to a collection that seldom comes."""
    gc.collect()
    gc.disable()
    try:
        before = sum(isinstance(one, torch.Tensor) for one in gc.get_objects())
        made = policy(actor, codec, slots=4)
        converse(made, codec, plans(words, 0), 4, ["look", "take mug 1"])
        during = sum(isinstance(one, torch.Tensor) for one in gc.get_objects())
        del made
        after = sum(isinstance(one, torch.Tensor) for one in gc.get_objects())
    finally:
        gc.enable()
    assert after <= before < during


def test_new_weights_answer_as_a_sampler_started_from_them(
    actor: Actor, codec: ChatCodec, words: PreTrainedTokenizerBase, converse: Callable
) -> None:
    other = copy.deepcopy(actor)
    with torch.no_grad():
        for parameter in other.lm.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))

    def said(sampler: TransformersSampler) -> list[list[int]]:
        sampler.begin(1.0, torch.Generator().manual_seed(0))
        return [talk.ids for talk in converse(sampler, codec, plans(words, 3)[:5], 3)]

    before, after = said(policy(copy.deepcopy(actor), codec)), said(policy(other, codec))
    assert before != after
    lasting = policy(copy.deepcopy(actor), codec)
    assert said(lasting) == before
    lasting.load_weights(other.lm.state_dict())
    assert said(lasting) == said(lasting) == after
    odd = {name: tensor[:-1] if name.endswith("norm.weight") else tensor for name, tensor in actor.lm.state_dict().items()}
    with pytest.raises(ModelError, match="has shape"):
        lasting.load_weights(odd)
    with pytest.raises(ModelError, match="of another model"):
        lasting.load_weights({name.removeprefix("model."): tensor for name, tensor in odd.items()})
    assert said(lasting) == after, "a refusal changes nothing"


def test_the_caches_memory_is_given_back(actor: Actor, codec: ChatCodec) -> None:
    """An update that follows needs it. Held are the buffers of running conversations only."""
    sampler = policy(actor, codec)

    def held() -> int:
        gc.collect()
        return sum(1 for one in gc.get_objects() if isinstance(one, torch.Tensor) and one.dim() == 4 and one.shape[0] == 4)

    before = held()
    sampler.reply([Request(slot, codec.first("look"), True, None) for slot in range(2)])
    running = held()
    sampler.release(0)
    assert held() == running > before
    sampler.release(1)
    assert held() == before

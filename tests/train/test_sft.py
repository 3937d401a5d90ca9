"""Rules of the warm start.

1. Only replies and their end tokens carry labels; what a conversation looks like to the loss is what it looks like to a rollout
   (`tests/rollout/test_collect.py` compares them). A conversation that is too long is refused, never cut.
2. It writes a model directory that plays, with its loss going down, and reports what it did; a seed fixes the weights.
3. A configured model is the one that is trained.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from hiper.config import Constrain, Critic, Dialect, ModelConfig, RolloutConfig, RunConfig, TinyConfig, WarmStartConfig
from hiper.errors import DataError
from hiper.model.actor import load_actor, load_tokenizer
from hiper.rollout.chat import ChatCodec
from hiper.rollout.demos import Conversation, read_demos
from hiper.train.sft import IGNORED, encode, warm_start

SMALL = TinyConfig(hidden=32, layers=2, heads=2, kv_heads=2, intermediate=48)


@pytest.mark.parametrize("name", ["words", "qwen"])
def test_only_replies_and_their_ends_are_learned(name: str, demos: Path, request: pytest.FixtureRequest) -> None:
    tokenizer: PreTrainedTokenizerBase = request.getfixturevalue(name)
    codec = ChatCodec(tokenizer)
    conversations = read_demos(demos)[:5]
    for example, conversation in zip(encode(conversations, codec, 4096), conversations, strict=True):
        messages = conversation.messages
        ids, labels = example["input_ids"], example["labels"]
        assert len(ids) == len(labels)
        assert all(label in (IGNORED, token) for token, label in zip(ids, labels, strict=True))
        replies: list[list[int]] = []
        for before, label in zip([IGNORED, *labels], labels, strict=False):
            if label != IGNORED:
                replies = [*replies, []] if before == IGNORED else replies
                replies[-1].append(label)
        assert [reply[-1] for reply in replies] == [codec.end] * (len(messages) // 2)
        texts = [tokenizer.decode(reply, skip_special_tokens=True) for reply in replies]
        assert texts == [tokenizer.decode(tokenizer.encode(message["content"])) for message in messages[1::2]]
        assert ids[: len(codec.first(messages[0]["content"]))] == codec.first(messages[0]["content"])
        assert tokenizer.apply_chat_template(messages, return_dict=False)[: len(ids)] == ids


def test_a_demonstration_that_is_too_long_is_refused(demos: Path, words: PreTrainedTokenizerBase) -> None:
    conversations, codec = read_demos(demos), ChatCodec(words)
    longest = max(len(example["input_ids"]) for example in encode(conversations, codec, 4096))
    assert len(encode(conversations, codec, longest)) == len(conversations)
    with pytest.raises(
        DataError, match=rf"demonstration \d+ has {longest} tokens, more than warm_start.max_length={longest - 1}. Raise it"
    ):
        encode([c for c in conversations if len(encode([c], codec, 4096)[0]["input_ids"]) == longest], codec, longest - 1)


def test_under_the_grammar_only_decisions_are_learned(demos: Path, words: PreTrainedTokenizerBase) -> None:
    codec, conversations = ChatCodec(words), read_demos(demos)[:5]
    for example, plain in zip(encode(conversations, codec, 4096, Dialect.full), encode(conversations, codec, 4096), strict=True):
        assert example["input_ids"] == plain["input_ids"]
        learned = [label for label in example["labels"] if label != IGNORED]
        assert len(learned) == len(example["limits"]) < sum(label != IGNORED for label in plain["labels"]) / 2
        for label, limit in zip(learned, example["limits"], strict=True):
            assert limit is not None
            assert not limit.forced
            assert (label in limit.ids) is not limit.barred


def test_a_slip_is_shown_and_not_learned(demos: Path, words: PreTrainedTokenizerBase) -> None:
    codec, (conversation, *_) = ChatCodec(words), read_demos(demos)
    slipped = [{**m, "weight": 0} if number == 3 else m for number, m in enumerate(conversation.messages)]
    (before,), (after,) = (
        encode([Conversation(messages, conversation.admissible)], codec, 4096, Dialect.full)
        for messages in (conversation.messages, slipped)
    )
    assert before["input_ids"] == after["input_ids"]
    dropped = [number for number, (a, b) in enumerate(zip(before["labels"], after["labels"], strict=True)) if a != b]
    assert dropped
    assert all(after["labels"][number] == IGNORED for number in dropped)
    assert len(after["limits"]) == len(before["limits"]) - len(dropped)


def test_the_grammar_needs_to_know_what_was_admissible(demos: Path, words: PreTrainedTokenizerBase) -> None:
    (conversation, *_) = read_demos(demos)
    with pytest.raises(DataError, match="demonstration 1 does not say which commands were admissible"):
        encode([Conversation(conversation.messages, None)], ChatCodec(words), 4096, Dialect.full)


@pytest.mark.slow
def test_a_warm_start_under_the_grammar_learns(demos: Path, tmp_path: Path) -> None:
    cfg = RunConfig(
        threads=1,
        device="cpu",
        model=ModelConfig(tiny=SMALL),
        warm_start=WarmStartConfig(max_steps=16, batch_size=6, lr=1e-2, warmup_ratio=0.1),
        rollout=RolloutConfig(constrain=Constrain.grammar),
    )
    summary = warm_start(cfg, demos, tmp_path / "model")
    cfg.warm_start.max_steps = 1
    assert summary.loss < warm_start(cfg, demos, tmp_path / "again").loss / 2


@pytest.mark.slow
def test_a_warm_start_learns_and_writes_a_model(demos: Path, words: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    cfg = RunConfig(
        threads=1,
        device="cpu",
        model=ModelConfig(tiny=SMALL, critic=Critic.separate),
        warm_start=WarmStartConfig(max_steps=8, batch_size=6, lr=1e-2, warmup_ratio=0.1),
    )
    steps: list[tuple[int, int]] = []
    summary = warm_start(cfg, demos, tmp_path / "model", lambda done, total: steps.append((done, total)))
    assert steps == [(n, 8) for n in range(1, 9)]
    assert (summary.steps, summary.demonstrations, summary.model) == (8, 24, str(tmp_path / "model"))
    tokenizer = load_tokenizer(tmp_path / "model")
    assert tokenizer.get_vocab() == words.get_vocab()
    examples = encode(read_demos(demos), ChatCodec(tokenizer), 4096)
    assert summary.tokens == sum(len(example["input_ids"]) for example in examples)
    actor = load_actor(tmp_path / "model", cfg.model)
    assert actor.critic is not None
    assert summary.parameters == actor.lm.num_parameters()
    assert not actor.heads.weight.any()
    ids, labels = (torch.tensor([examples[0][key]]) for key in ("input_ids", "labels"))
    with torch.no_grad():
        after = float(actor.lm(input_ids=ids, labels=labels).loss)
    assert after < 4.0 < torch.tensor(float(len(tokenizer))).log(), "below chance"
    assert summary.loss < 4.5
    assert [path.name for path in tmp_path.iterdir()] == ["model"], "nothing is left of the trainer's working directory"

    warm_start(cfg, demos, tmp_path / "again")
    first, second = (load_actor(tmp_path / name, cfg.model).state_dict() for name in ("model", "again"))
    assert all(torch.equal(first[key], second[key]) for key in first)

    cfg.model.path, cfg.warm_start.max_steps, cfg.warm_start.lr = str(tmp_path / "model"), 1, 1e-9
    warm_start(cfg, demos, tmp_path / "further")
    further = load_actor(tmp_path / "further", cfg.model).state_dict()
    assert all(torch.allclose(first[key], further[key], atol=1e-6) for key in first)

"""Rules of the warm start.

1. Only replies and their end tokens carry labels; what a conversation looks like to the loss is what it looks like to a rollout
   (`tests/rollout/test_collect.py` compares them). A conversation that is too long is refused, never cut.
2. It writes a model directory that plays, with its loss going down, and reports what it did; a seed fixes the weights.
3. A configured model is the one that is trained.
4. A loss, gradient or weight that is not finite stops it, and no model is written.
5. One that was stopped anywhere goes on and ends with the bits of one that was not: within an epoch, at its end, with dropout, under the
   grammar. A checkpoint of other settings, demonstrations or a vocabulary is refused by name.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from hiper.config import Constrain, Critic, Dialect, ModelConfig, RolloutConfig, RunConfig, SFTConfig, TinyConfig
from hiper.errors import CheckpointError, CollapseError, DataError, ModelError
from hiper.model.actor import Actor, load_actor, load_tokenizer, save_actor
from hiper.model.tiny import build_tiny
from hiper.model.tokenizer import build_tokenizer
from hiper.rollout.chat import ChatCodec
from hiper.runs.checkpoint import list_checkpoints, load_checkpoint
from hiper.runs.fingerprint import stage_fingerprint
from hiper.sft.demos import Conversation, read_demos
from hiper.sft.encode import encode
from hiper.sft.fine_tune import CHECKPOINTS, IGNORED, fine_tune
from tests.train.running import Killed, killer

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
    with pytest.raises(DataError, match=rf"demonstration \d+ has {longest} tokens, more than sft.max_length={longest - 1}. Raise it"):
        encode([c for c in conversations if len(encode([c], codec, 4096)[0]["input_ids"]) == longest], codec, longest - 1)


def test_under_the_grammar_only_decisions_are_learned(demos: Path, words: PreTrainedTokenizerBase) -> None:
    codec, conversations = ChatCodec(words), read_demos(demos)[:5]
    for example, plain in zip(encode(conversations, codec, 4096, Dialect.full), encode(conversations, codec, 4096), strict=True):
        assert example["input_ids"] == plain["input_ids"]
        learned = [label for label in example["labels"] if label != IGNORED]
        assert len(learned) == len(example["allowed_tokens"]) < sum(label != IGNORED for label in plain["labels"]) / 2
        for label, limit in zip(learned, example["allowed_tokens"], strict=True):
            assert limit is not None
            assert not limit.forced
            assert (label in limit.ids) is not limit.all_but


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
    assert len(after["allowed_tokens"]) == len(before["allowed_tokens"]) - len(dropped)


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
        sft=SFTConfig(max_steps=16, batch_size=6, lr=1e-2, warmup_ratio=0.1),
        rollout=RolloutConfig(constrain=Constrain.grammar),
    )
    summary = fine_tune(cfg, demos, tmp_path / "model")
    cfg.sft.max_steps = 1
    assert summary.loss < fine_tune(cfg, demos, tmp_path / "again").loss / 2


@pytest.mark.slow
def test_a_warm_start_learns_and_writes_a_model(demos: Path, words: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    cfg = RunConfig(
        threads=1,
        device="cpu",
        model=ModelConfig(tiny=SMALL, critic=Critic.separate),
        sft=SFTConfig(max_steps=8, batch_size=6, lr=1e-2, warmup_ratio=0.1),
    )
    steps: list[tuple[int, int]] = []
    summary = fine_tune(cfg, demos, tmp_path / "model", lambda done, total: steps.append((done, total)))
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

    fine_tune(cfg, demos, tmp_path / "again")
    first, second = (load_actor(tmp_path / name, cfg.model).state_dict() for name in ("model", "again"))
    assert all(torch.equal(first[key], second[key]) for key in first)

    cfg.model.path, cfg.sft.max_steps, cfg.sft.lr = str(tmp_path / "model"), 1, 1e-9
    fine_tune(cfg, demos, tmp_path / "further")
    further = load_actor(tmp_path / "further", cfg.model).state_dict()
    assert all(torch.allclose(first[key], further[key], atol=1e-6) for key in first)


def config(constrain: Constrain = Constrain.free, **changes: int | float) -> RunConfig:
    """Four steps an epoch, three epochs, a checkpoint after every second step."""
    settings = {"epochs": 3, "batch_size": 6, "lr": 3e-3, "warmup_ratio": 0.1, "save_every": 2} | changes
    return RunConfig(
        threads=1,
        device="cpu",
        model=ModelConfig(tiny=SMALL),
        sft=SFTConfig(**settings),  # type: ignore[arg-type]  # whole numbers are whole
        rollout=RolloutConfig(constrain=constrain),
    )


def with_dropout(words: PreTrainedTokenizerBase, folder: Path) -> ModelConfig:
    lm = build_tiny(SMALL, words, seed=0)
    lm.config.attention_dropout = 0.2
    save_actor(Actor(lm, Critic.shared), words, folder, ChatCodec(words).generation(40))
    return ModelConfig(path=str(folder))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("kind", ["dropout", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("free", "grammar"))])
def test_a_killed_warm_start_ends_with_the_same_bits(kind: str, demos: Path, words: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    cfg = config(Constrain.grammar if kind == "grammar" else Constrain.free)
    if kind == "dropout":
        cfg = replace(cfg, model=with_dropout(words, tmp_path / "base"))
    undisturbed = fine_tune(replace(cfg, sft=replace(cfg.sft, save_every=0)), demos, tmp_path / "undisturbed" / "model")
    out = tmp_path / "killed" / "model"
    # Stopped before the first checkpoint; in the middle of epochs; on the last step of one, before its checkpoint; after that; at the end.
    for step, saved in ((1, []), (3, [2]), (5, [2, 4]), (8, [4, 6]), (9, [6, 8]), (12, [8, 10])):
        with pytest.raises(Killed):
            fine_tune(cfg, demos, out, killer(step), resume=True)
        assert [path.name for path in list_checkpoints(out.with_name(CHECKPOINTS))] == [f"step-{number:06d}" for number in saved]
        torch.randn(7)  # another process finds its generators elsewhere
    steps: list[int] = []
    summary = fine_tune(cfg, demos, out, lambda done, total: steps.append(done), resume=True)
    assert steps == [11, 12]
    assert asdict(summary) | {"model": ""} == asdict(undisturbed) | {"model": ""}
    ours, theirs = files(out), files(tmp_path / "undisturbed" / "model")
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []
    assert sorted(path.name for path in out.parent.iterdir()) == ["model"], "no checkpoint, no working directory"


def test_a_checkpoint_holds_no_pickle_and_a_damaged_one_is_passed_over(demos: Path, tmp_path: Path) -> None:
    cfg, out = config(), tmp_path / "model"
    with pytest.raises(Killed):
        fine_tune(cfg, demos, out, killer(5))
    folder = out.with_name(CHECKPOINTS)
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} == {".json", ".safetensors"}
    first, second = list_checkpoints(folder)
    (second / "tensors.safetensors").write_bytes(b"x" * 100)
    steps: list[int] = []
    fine_tune(cfg, demos, out, lambda done, total: steps.append(done), resume=True)
    assert steps[0] == 3

    with pytest.raises(Killed):
        fine_tune(cfg, demos, out, killer(3), resume=True)
    for path in list_checkpoints(folder):
        (path / "state.json").unlink()
    with pytest.raises(CheckpointError, match="No checkpoint in .* can be used"):
        fine_tune(cfg, demos, out, resume=True)
    fine_tune(cfg, demos, out, lambda done, total: steps.append(done))
    assert steps[-12] == 1, "without resume it starts anew, whatever is there"


def test_a_checkpoint_of_something_else_is_refused_by_name(demos: Path, tmp_path: Path) -> None:
    cfg, out = config(), tmp_path / "model"
    with pytest.raises(Killed):
        fine_tune(cfg, demos, out, killer(3))
    refused = (
        (replace(cfg, seed=1), "seed was 0 and is 1"),
        (config(lr=1e-3), "sft.lr was 0.003 and is 0.001"),
        (config(Constrain.admissible), 'rollout.constrain was "free" and is "admissible"'),
        (replace(cfg, model=ModelConfig(tiny=replace(SMALL, intermediate=64))), "model.tiny.intermediate was 48 and is 64"),
    )
    for other, said in refused:
        with pytest.raises(CheckpointError, match=f"belongs to another warm start: .*{said}.* Change that back"):
            fine_tune(other, demos, out, resume=True)
    fewer = tmp_path / "fewer.jsonl"
    fewer.write_text("".join(demos.read_text(encoding="utf-8").splitlines(keepends=True)[:-1]), encoding="utf-8")
    with pytest.raises(CheckpointError, match="demonstrations was 24 and is 23"):
        fine_tune(cfg, fewer, out, resume=True)
    (folder,) = list_checkpoints(out.with_name(CHECKPOINTS))
    assert load_checkpoint(folder)[1]["belongs"]["sft.lr"] == 3e-3, "refusing changes nothing"

    # What changes no result may change. A seed of its own that is the run's is the same seed.
    other = config(save_every=0)
    other = replace(other, threads=0, sft=replace(other.sft, seed=0), seed=5)
    assert fine_tune(other, demos, out, resume=True).steps == 12


@pytest.mark.parametrize(
    ("lr", "said"), [(1e37, "(loss|gradient) is (nan|inf) at step [23] of 12"), (1e30, "(loss|gradient) is|holds NaN")]
)
def test_a_loss_that_is_no_number_stops_it(lr: float, said: str, demos: Path, tmp_path: Path) -> None:
    with pytest.raises(CollapseError, match=rf"the warm start has failed: .*{said}.*No model was written. Lower sft.lr="):
        fine_tune(config(lr=lr, warmup_ratio=0.0), demos, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_weights_that_overflow_in_the_last_step_are_not_written(demos: Path, tmp_path: Path) -> None:
    with pytest.raises(CollapseError, match="holds NaN or infinity after the last step"):
        fine_tune(config(lr=1e39, warmup_ratio=0.0, max_steps=1), demos, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_model_of_another_vocabulary_is_refused(demos: Path, words: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    small = build_tokenizer(["take mug 1 from shelf 2"])
    save_actor(Actor(build_tiny(SMALL, small, seed=0), Critic.shared), words, tmp_path / "base", ChatCodec(words).generation(40))
    with pytest.raises(ModelError, match=rf"has {len(words)} tokens, its model knows {len(small)}"):
        fine_tune(replace(config(), model=ModelConfig(path=str(tmp_path / "base"))), demos, tmp_path / "model")


def test_how_often_it_saves_makes_no_other_warm_start() -> None:
    assert stage_fingerprint(config(save_every=7), "sft") == stage_fingerprint(config(), "sft")
    assert stage_fingerprint(config(lr=1e-3), "sft") != stage_fingerprint(config(), "sft")

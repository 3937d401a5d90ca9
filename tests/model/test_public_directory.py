"""Rules of a model directory in the hands of others, who have transformers and nothing of ours.

1. `AutoTokenizer` encodes, decodes and writes conversations as our loader does, without code of the directory's own; a client may send
   decoded replies back, and they have the ids that were sampled.
2. `AutoModelForCausalLM` gives our logits to the bit, and finds no tensor missing or too many.
3. `generate` and `pipeline` answer as the policy does at temperature 0: one turn, a growing conversation, replies that are cut.
4. What a base model says of sampling is not handed on. An index keeps value heads from who reads every safetensors file.
5. Directories written before load as before.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerBase,
    Qwen2Config,
    Qwen2ForCausalLM,
    pipeline,
)

from hiper.config import Critic, ModelConfig, TinyConfig
from hiper.model.actor import Actor, load_actor, load_tokenizer, save_actor
from hiper.model.tiny import build_tiny
from hiper.rollout.chat import ChatCodec
from hiper.rollout.samplers.transformers import TransformersSampler
from hiper.rollout.samplers.types import Request
from hiper.sft.demos import read_demos

Message = dict[str, str]
SHAPE = TinyConfig(hidden=32, layers=2, heads=2, kv_heads=2, intermediate=48)
LIMIT = 40
TEXTS = [
    "You are in a room. You see a shelf 1, and the mug 2.\n\nYour task is to: put a clean mug in a cabinet.",
    "<switch>SWITCH</switch> <subgoal>find a mug</subgoal> <action>take mug 2 from shelf 1</action>",
    "<action> take mug 2 from shelf 1 </action>",
    "Émigré, 12 × 7 = 84? <|end|> naïve\n\n\ttabs <|im_end|> <|unknown|>",
    "",
]


@pytest.fixture(scope="session")
def qwen_model(qwen: PreTrainedTokenizerBase, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small untrained model of Qwen2's architecture with Qwen's tokenizer and its habits of sampling, as our own saves it."""
    config = Qwen2Config(
        vocab_size=len(qwen),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    lm = Qwen2ForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in lm.parameters():  # otherwise the token that was read is the one that is written
            parameter.normal_(0.0, 0.3)
    lm.generation_config = GenerationConfig(
        do_sample=True, temperature=0.7, top_k=20, top_p=0.8, repetition_penalty=5.0, eos_token_id=[qwen.eos_token_id, 17]
    )
    folder = tmp_path_factory.mktemp("qwen_model") / "model"
    save_actor(Actor(lm, Critic.shared), qwen, folder, ChatCodec(qwen).generation(LIMIT))
    return folder


@pytest.fixture(params=["speaker", "qwen_model"])
def folder(request: pytest.FixtureRequest) -> Path:
    """The trained word model, then the one of Qwen's."""
    found: Path = request.getfixturevalue(request.param)
    return found


def dialogues(demos: Path, turns: int, count: int) -> list[list[str]]:
    """What the environment says in demonstrations of at least so many turns."""
    said = [[m["content"] for m in conversation.messages if m["role"] == "user"] for conversation in read_demos(demos)]
    return [lines[:turns] for lines in said if len(lines) >= turns][:count]


def greedy(folder: Path, said: list[list[str]], limit: int = LIMIT) -> list[list[list[int]]]:
    """Ids of the replies of our policy at temperature 0, by conversation and turn."""
    tokenizer, actor = load_tokenizer(folder), load_actor(folder, ModelConfig()).eval()
    codec = ChatCodec(tokenizer)
    sampler = TransformersSampler(actor, codec, slots=len(said), max_reply_tokens=limit)
    sampler.begin(0.0, torch.Generator().manual_seed(0))
    replies: list[list[list[int]]] = [[] for _ in said]
    for turn in range(len(said[0])):
        write = codec.later if turn else codec.first
        requests = [Request(slot, write(lines[turn]), turn == 0, None) for slot, lines in enumerate(said)]
        for own, sampled in zip(replies, sampler.reply(requests), strict=True):
            own.append(sampled.ids)
    return replies


def generated(model: Any, tokenizer: Any, messages: list[Message]) -> list[int]:
    """What `generate` adds to the prompt, told nothing but the prompt."""
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    with torch.no_grad():
        ids: list[int] = model.generate(**prompt)[0, prompt["input_ids"].shape[1] :].tolist()
    return ids


def talk(lines: list[str], answer: Callable[[list[Message]], str]) -> list[Message]:
    """A conversation as a chat client leads it: it keeps text, and sends all of it again each turn."""
    messages: list[Message] = []
    for line in lines:
        messages.append({"role": "user", "content": line})
        messages.append({"role": "assistant", "content": answer(messages)})
    return messages


def test_the_tokenizer_is_ours(folder: Path, demos: Path) -> None:
    """A fixed bug: the words' came back as Qwen2's and encoded everything to nothing."""
    ours, theirs = load_tokenizer(folder), AutoTokenizer.from_pretrained(folder)
    texts = TEXTS + [m["content"] for conversation in read_demos(demos)[:6] for m in conversation.messages]
    for text in texts:
        ids = ours.encode(text)
        assert theirs.encode(text) == ids
        assert theirs.decode(ids) == ours.decode(ids)
        assert theirs.decode(ids, skip_special_tokens=True) == ours.decode(ids, skip_special_tokens=True)
    assert len(ours.encode(TEXTS[0])) > 10
    for name in ("pad_token_id", "eos_token_id", "unk_token_id", "all_special_ids", "model_max_length", "chat_template"):
        assert getattr(theirs, name) == getattr(ours, name), name
    assert theirs.get_vocab() == ours.get_vocab()
    assert type(theirs) is type(ours)


def test_no_code_is_asked_for(folder: Path) -> None:
    for name in ("config.json", "tokenizer_config.json"):
        assert "auto_map" not in (folder / name).read_text(encoding="utf-8")


def test_the_template_gives_the_ids_of_the_codec(folder: Path, demos: Path) -> None:
    codec, theirs = ChatCodec(load_tokenizer(folder)), AutoTokenizer.from_pretrained(folder)
    for conversation in read_demos(demos)[:4]:
        ids: list[int] = []
        for place, message in enumerate(conversation.messages):
            if message["role"] == "assistant":
                ids += [*codec.tokenizer.encode(message["content"], add_special_tokens=False), codec.end]
                continue
            ids += codec.later(message["content"]) if ids else codec.first(message["content"])
            asked = [{key: m[key] for key in ("role", "content")} for m in conversation.messages[: place + 1]]
            assert theirs.apply_chat_template(asked, add_generation_prompt=True, return_dict=False) == ids


def test_decoded_replies_come_back_as_they_were_sampled(words: PreTrainedTokenizerBase, demos: Path) -> None:
    """Decoding puts a space behind <action>, behind which the token of several words is not seen."""
    several = 0
    for conversation in read_demos(demos)[:6]:
        for message in conversation.messages:
            if message["role"] == "assistant":
                ids = words.encode(message["content"])
                chat = [{"role": "assistant", "content": words.decode(ids)}]
                assert words.apply_chat_template(chat, return_dict=False)[1:-1] == ids
                several += words.encode(words.decode(ids)) != ids
    assert several > 0, "the template is needed for it"


def test_logits_are_ours_to_the_bit(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    theirs, found = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    said = capfd.readouterr().err
    assert not any(found[f"{what}_keys"] for what in ("missing", "unexpected", "mismatched"))
    assert not any(word in said.lower() for word in ("missing", "unexpected", "newly initialized", "not used")), said
    actor = load_actor(folder, ModelConfig()).eval()
    ids = torch.randint(5, 100, (3, 17), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = actor.logits(actor(ids, with_values=False).hidden)
        assert torch.equal(theirs(input_ids=ids).logits, ours)


def test_generate_answers_as_the_greedy_policy(folder: Path, demos: Path) -> None:
    said = dialogues(demos, 1, 6)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    for lines, (reply,) in zip(said, greedy(folder, said), strict=True):
        assert generated(model, tokenizer, [{"role": "user", "content": lines[0]}]) == reply


def test_a_growing_conversation_answers_as_the_greedy_policy(speaker: Path, demos: Path) -> None:
    said = dialogues(demos, 4, 6)
    chat = pipeline("text-generation", model=str(speaker))

    def answer(messages: list[Message]) -> str:
        ids.append(generated(chat.model, chat.tokenizer, messages))
        text: str = chat(messages)[0]["generated_text"][-1]["content"]
        assert text == chat.tokenizer.decode(ids[-1], skip_special_tokens=True)
        return text

    ended = actions = 0
    for lines, replies in zip(said, greedy(speaker, said), strict=True):
        ids: list[list[int]] = []
        talk(lines, answer)
        assert ids == replies
        ended += sum(reply[-1] == chat.tokenizer.eos_token_id for reply in replies)
        actions += sum("<action>" in chat.tokenizer.decode(reply) for reply in replies)
    assert len(said) == 6
    assert ended > 12, "most replies end by themselves"
    assert actions > 12


def test_replies_are_cut_where_ours_are(speaker: Path, demos: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(speaker)
    save_actor(load_actor(speaker, ModelConfig()), tokenizer, tmp_path, ChatCodec(tokenizer).generation(5))
    said = dialogues(demos, 3, 3)
    chat = pipeline("text-generation", model=str(tmp_path))
    for lines, replies in zip(said, greedy(tmp_path, said, limit=5), strict=True):
        messages = talk(lines, lambda messages: chat(messages)[0]["generated_text"][-1]["content"])
        assert [m["content"] for m in messages[1::2]] == [tokenizer.decode(ids, skip_special_tokens=True) for ids in replies]
        assert {len(ids) for ids in replies} == {5}


def test_conversations_at_once_answer_as_one_by_one(speaker: Path, demos: Path) -> None:
    """Padding goes to the left, under the mask."""
    chat = pipeline("text-generation", model=str(speaker))
    prompts = [[{"role": "user", "content": lines[0]}] for lines in dialogues(demos, 1, 4)]
    assert chat(prompts, batch_size=4) == [chat(prompt) for prompt in prompts]


def test_sampling_settings_of_a_base_model_are_not_handed_on(qwen_model: Path, qwen: PreTrainedTokenizerBase) -> None:
    written = json.loads((qwen_model / "generation_config.json").read_text(encoding="utf-8"))
    written.pop("transformers_version")
    end = qwen.convert_tokens_to_ids("<|im_end|>")
    assert written == {"do_sample": False, "max_new_tokens": LIMIT, "eos_token_id": end, "pad_token_id": qwen.pad_token_id}


def test_the_index_names_the_language_models_tensors_alone(words: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    save_actor(Actor(build_tiny(SHAPE, words, seed=0), Critic.separate), words, tmp_path, ChatCodec(words).generation(LIMIT))
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text(encoding="utf-8"))
    assert index["weight_map"] == dict.fromkeys(load_file(tmp_path / "model.safetensors"), "model.safetensors")
    assert {file.name for file in tmp_path.glob("*.safetensors")} == {
        *("model.safetensors", "value_heads.safetensors", "critic.safetensors"),
    }


def test_weights_in_several_files_keep_their_index(words: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = build_tiny(SHAPE, words, seed=0)
    save = lm.save_pretrained
    monkeypatch.setattr(lm, "save_pretrained", lambda path: save(path, max_shard_size="40KB"))
    save_actor(Actor(lm, Critic.shared), words, tmp_path, ChatCodec(words).generation(LIMIT))
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text(encoding="utf-8"))
    assert len(set(index["weight_map"].values())) > 1
    assert "model.safetensors" not in index["weight_map"].values()
    ids = torch.arange(5, 12)[None]
    assert torch.equal(AutoModelForCausalLM.from_pretrained(tmp_path)(input_ids=ids).logits, lm(input_ids=ids).logits)


def test_what_a_run_writes(finished_run: Path, demos: Path) -> None:
    """`train/model` cuts replies where the rollouts did, `sft/model` where no demonstrated reply comes near."""
    said = dialogues(demos, 1, 6)
    for stage, limit in (("train", 40), ("sft", None)):
        folder = finished_run / stage / "model"
        chat = pipeline("text-generation", model=str(folder))
        most = chat.model.generation_config.max_new_tokens
        assert most == limit or (limit is None and 40 < most < 200)
        assert chat.model.config.use_cache is True, "a fixed bug: as the trainer of the warm start had set it"
        for (line,), (reply,) in zip(said, greedy(folder, said, limit=most), strict=True):
            assert generated(chat.model, chat.tokenizer, [{"role": "user", "content": line}]) == reply


def as_before(speaker: Path, folder: Path) -> None:
    """The directory as it was written when word models were saved as Qwen2's."""
    shutil.copytree(speaker, folder)
    (folder / "model.safetensors.index.json").unlink()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for key in ("head_dim", "attention_bias", "attention_out_bias", "residual_dropout", "mlp_bias", "pretraining_tp"):
        del config[key]
    config |= {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "layer_types": ["full_attention"] * 2, "use_cache": False}
    config |= {"use_sliding_window": False, "sliding_window": None, "max_window_layers": 28}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "generation_config.json").write_text('{"eos_token_id": 4, "pad_token_id": 0}', encoding="utf-8")


def test_directories_written_before_load_and_answer(speaker: Path, demos: Path, tmp_path: Path) -> None:
    as_before(speaker, tmp_path / "model")
    ours, before = load_tokenizer(speaker), load_tokenizer(tmp_path / "model")
    assert [before.encode(text) for text in TEXTS] == [ours.encode(text) for text in TEXTS]
    loaded, actor = load_actor(tmp_path / "model", ModelConfig()), load_actor(speaker, ModelConfig())
    assert isinstance(loaded.lm, Qwen2ForCausalLM)
    ids = torch.randint(5, 100, (2, 9), generator=torch.Generator().manual_seed(0))
    assert all(torch.equal(a, b) for a, b in zip(loaded(ids), actor(ids), strict=True))
    said = dialogues(demos, 2, 3)
    assert greedy(tmp_path / "model", said) == greedy(speaker, said)


def test_a_process_without_hiper_greets_it(speaker: Path, demos: Path, tmp_path: Path) -> None:
    code = """
import json, sys
sys.modules["hiper"] = None  # importing it fails, installed or not
from transformers import pipeline
folder, line = sys.argv[1:]
answer = pipeline("text-generation", model=folder)([{"role": "user", "content": line}])
assert not [name for name in sys.modules if name.startswith("hiper.")]
print(json.dumps(answer[0]["generated_text"][-1]))
"""
    ((line,),) = dialogues(demos, 1, 1)
    ran = subprocess.run(
        [sys.executable, "-I", "-W", "error::UserWarning", "-c", code, str(speaker), line],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        cwd=tmp_path,
        env={**os.environ, "HF_HUB_DISABLE_PROGRESS_BARS": "1"},
    )
    assert ran.returncode == 0, ran.stderr
    ids = greedy(speaker, [[line]])[0][0]
    assert json.loads(ran.stdout) == {"role": "assistant", "content": load_tokenizer(speaker).decode(ids, skip_special_tokens=True)}
    said = [part for part in ran.stderr.splitlines() if part and "Loading weights" not in part]
    assert said == [], "nothing to warn of"

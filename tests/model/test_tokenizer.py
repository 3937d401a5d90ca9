"""Rules of the word tokenizer.

1. Every word, number and tag is one token; spaces are none; decoding joins with one space, which is how commands are spelled.
2. The same words give the same ids, whatever order they came in; numbers and tags exist whether seen or not.
3. Saved and loaded through `load_tokenizer` it gives the same ids and words, also beside a config of Qwen2's, as older directories have it.
4. Its chat template marks the agent's words for the loss and adds one token a role.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from hiper.errors import ModelError
from hiper.model.actor import load_tokenizer
from hiper.model.tokenizer import TAGS, build_tokenizer
from hiper.sft.demos import read_demos

REPLY = "<switch>KEEP</switch> <subgoal>find a mug</subgoal> <action>take mug 2 from shelf 1</action>"


@pytest.fixture
def small() -> PreTrainedTokenizerBase:
    return build_tokenizer(["take the mug 2 from shelf 1", "find a mug.", REPLY])


def test_words_numbers_and_tags_are_single_tokens(small: PreTrainedTokenizerBase) -> None:
    before, after = REPLY.replace("a mug", "mug").replace(">", "> ").replace("</", " </").split("take mug")
    assert small.tokenize(REPLY) == [*before.split(), "take mug", *after.split()], "what is done to which thing is one token"
    assert small.decode(small.encode("take mug 2 from shelf 1")) == "take mug 2 from shelf 1"
    assert small.tokenize("a mug 2, and a shelf 1. find a mug") == ["mug", "2", "shelf", "1", "find", "mug"]
    assert "take shelf" in small.get_vocab(), "what can be done to one thing can be said of every thing"
    # Stops, commas and articles are no tokens.
    assert small.tokenize("from mug.  A\nmug , shelf1") == ["from", "mug", "<|unknown|>", "mug", "<|unknown|>"]


def test_every_number_and_tag_exists(small: PreTrainedTokenizerBase) -> None:
    known = small.get_vocab()
    assert {*TAGS, "KEEP", "SWITCH", *map(str, range(100))} <= set(known)
    assert small.unk_token_id not in small.encode("go to shelf 99")[2:]


def test_the_order_of_texts_does_not_matter() -> None:
    texts = ["a mug on a shelf 1", "heat the egg 7", "<action>look</action>"]
    assert build_tokenizer(texts).get_vocab() == build_tokenizer(texts[::-1]).get_vocab()
    assert "spatula" in build_tokenizer(texts, words=["spatula"]).get_vocab()


def test_no_text_is_refused() -> None:
    with pytest.raises(ModelError, match="the demonstrations are empty"):
        build_tokenizer(["", "  "])


def test_saving_and_loading_changes_nothing(words: PreTrainedTokenizerBase, demos: Path, tmp_path: Path) -> None:
    """A fixed bug: AutoTokenizer took the class from the model type and rebuilt the vocabulary's splitting as Qwen2's."""
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    words.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.get_vocab() == words.get_vocab()
    for message in [m for conversation in read_demos(demos)[:6] for m in conversation.messages]:
        ids = words.encode(message["content"])
        assert loaded.encode(message["content"]) == ids
        assert loaded.decode(ids) == words.decode(ids)
        assert words.unk_token_id not in ids
    chat = [{"role": "user", "content": "You see a mug 1."}, {"role": "assistant", "content": REPLY}]
    assert loaded.apply_chat_template(chat, tokenize=False) == words.apply_chat_template(chat, tokenize=False)
    assert (loaded.pad_token_id, loaded.eos_token_id, loaded.unk_token_id) == (0, 4, 1)


def test_the_template_marks_the_agents_words(words: PreTrainedTokenizerBase) -> None:
    chat = [
        {"role": "user", "content": "You see a mug 1."},
        {"role": "assistant", "content": "<action>look</action>"},
        {"role": "user", "content": "Nothing happens."},
        {"role": "assistant", "content": "<action>find a mug</action>"},
    ]
    encoded = words.apply_chat_template(chat, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    marked = [token for token, mine in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True) if mine]
    assert words.convert_ids_to_tokens(marked) == [
        *("<action>", "look", "</action>", "<|end|>"),
        *("<action>", "find", "mug", "</action>", "<|end|>"),
    ]
    assert words.convert_ids_to_tokens(encoded["input_ids"])[0] == "<|user|>"


def test_a_directory_without_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no tokenizer .*Copy it beside the weights"):
        load_tokenizer(tmp_path)


def test_a_tokenizer_without_template_is_refused(small: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    small.chat_template = None
    small.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="no chat template"):
        load_tokenizer(tmp_path)


def test_a_damaged_tokenizer_is_refused(small: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    small.save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(ModelError, match="tokenizer_config.json is not JSON"):
        load_tokenizer(tmp_path)

"""The tokenizer of a from-scratch model: whole words and whole numbers, learned from the demonstrations.

Commands name things by word and number ("take mug 2 from shelf 1"). With each word and each number one token,
copying a name is copying two tokens, and a reply is a dozen tokens long. Spaces are not tokens: `decode` joins words with one
space, which is how commands are spelled. Nor are full stops, commas and articles, a third of what the environment says. No command
has any, and to copy is to repeat what followed a word before: "in cabinet" of the task is "in cabinet" in the subgoal only without them.

What an action does to which kind of thing is one token ("take mug"), so that it is one decision: under admissible commands it can be
taken only where there is a mug, and the network need not find out for itself. The command's text stays the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from hiper.errors import ModelError

PAD, UNKNOWN, USER, ASSISTANT, END = "<|pad|>", "<|unknown|>", "<|user|>", "<|assistant|>", "<|end|>"
TAGS = ("<switch>", "</switch>", "<subgoal>", "</subgoal>", "<action>", "</action>")
# First alternative: a command up to its first number, at the start of an action block.
_WORDS = Regex(r"(?<=<action>)(?:[a-z]+ ){1,2}[a-z]+(?= [0-9])|</?(?:switch|subgoal|action)>|[^\s.,:;!?\[\]()\"<>]+|[\[\]()\"<>]")
_ARTICLES = Regex(r"\b(?:and )?(?:an?|the) (?=[a-z])")
_THING = re.compile(r"\b([a-z]+) [0-9]")
_NUMBERS = 100  # every number a scene can use exists, seen in a demonstration or not
# Decoding writes a space behind every token. Behind <action> it would hide the token of several words from `_WORDS`, so the template takes
# it out: a reply that was decoded and is sent back, as chat clients do, has the ids that were sampled.
_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}"
    + ASSISTANT
    + "{% generation %}{{ message['content'] | replace('<action> ', '<action>') }}"
    + END
    + "{% endgeneration %}{% else %}"
    + USER
    + "{{ message['content'] }}{% endif %}{% endfor %}{% if add_generation_prompt %}"
    + ASSISTANT
    + "{% endif %}"
)


def build_tokenizer(texts: Iterable[str], words: Iterable[str] = ()) -> PreTrainedTokenizerFast:
    """A word tokenizer for these texts, with a chat template of one token per role.

    Args:
        texts: demonstrations, or anything that shows the words in use.
        words: further words to know, e.g. object names that the demonstrations may lack.

    Raises:
        ModelError: there is no text.
    """
    splitter = pre_tokenizers.Split(_WORDS, behavior="removed", invert=True)
    plain = normalizers.Replace(_ARTICLES, "")
    things: set[str] = set()
    pieces: set[str] = set()
    for text in set(texts):  # replies and observations repeat
        text = plain.normalize_str(text)
        pieces.update(piece for piece, _ in splitter.pre_tokenize_str(text))
        things.update(_THING.findall(text))
    if not pieces:
        raise ModelError("cannot build a tokenizer from no text: the demonstrations are empty. Run the demos stage first.")
    special = [PAD, UNKNOWN, USER, ASSISTANT, END]
    fixed = [*special, *TAGS, "KEEP", "SWITCH", *(str(number) for number in range(_NUMBERS))]
    # Sorted, so that the same words give the same ids whatever order they came in.
    parts = {word for piece in pieces for word in piece.split()}
    # Whatever can be done to one thing can be said of every thing, seen in a demonstration or not.
    doings = {piece.rsplit(" ", 1)[0] for piece in pieces if " " in piece}
    commands = {f"{doing} {thing}" for doing in doings for thing in things | set(words)}
    learned = sorted((pieces | parts | commands | set(words)) - set(fixed))
    vocabulary = {word: index for index, word in enumerate([*fixed, *learned])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = plain
    tokenizer.pre_tokenizer = splitter
    tokenizer.add_special_tokens(special)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=END,
        chat_template=_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=1_000_000,
    )

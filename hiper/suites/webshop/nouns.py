"""The nouns of a title, by which the reward tells whether two products are of a kind.

The original asks spaCy's `en_core_web_lg`. `find_tagger` takes the best English spaCy model that is installed; without one, a rule: a word
(a run of letters) is a noun unless it belongs to a closed class, that is an article, pronoun, preposition, conjunction, auxiliary or one
of a few adverbs. Adjectives and verbs then count as nouns, so unrelated titles come out a little more alike than under a tagger.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache

_MODELS = ("en_core_web_lg", "en_core_web_md", "en_core_web_sm")
_TOKEN = re.compile(r"\w+|[^\w\s]")
_KEPT = 20_000
"""Titles remembered; the same few products are compared again and again."""
_CLOSED = """
a an the this that these those each every either neither some any no all both half such what which whose who whom
i you he she it we they me him her us them my your his its our their mine yours hers ours theirs myself yourself itself
about above across after against along among around as at before behind below beneath beside besides between beyond by despite down
during except for from in inside into like near of off on onto out outside over past per plus since than through throughout till to
toward towards under until up upon via vs with within without
and but or nor so yet if because although though unless while when where whether how why
am is are was were be been being do does did doing have has had having can could may might must shall should will would
not very too also just only even more most less least much many few again further then once here there now ever never always
"""
CLOSED_CLASSES = frozenset(_CLOSED.split())
"""Words that are never nouns."""


@dataclass(frozen=True)
class Tagger:
    """Finds nouns; `name` says how, and belongs in every result."""

    name: str
    nouns: Callable[[str], tuple[str, ...]]
    """The nouns of a title, lower-cased, in order, repeats included."""


@cache
def find_tagger() -> Tagger:
    """spaCy with the best English model installed here, else the rule."""
    for model in _MODELS:
        if importlib.util.find_spec(model) is not None and importlib.util.find_spec("spacy") is not None:
            return _spacy(model)
    return closed_class()


def closed_class() -> Tagger:
    """The rule: every word that is not of a closed class."""
    return Tagger("closed-class rule", lru_cache(_KEPT)(lambda title: tuple(word for word in _words(title) if word not in CLOSED_CLASSES)))


def all_words() -> Tagger:
    """Every run of letters: what the recordings of the original had in place of spaCy."""
    return Tagger("all words", lru_cache(_KEPT)(lambda title: tuple(_words(title))))


def _words(title: str) -> list[str]:
    return [token.lower() for token in _TOKEN.findall(title) if token.isalpha()]


def _spacy(model: str) -> Tagger:
    import spacy  # most of a second, and more for the model

    parse = spacy.load(model, exclude=["ner", "lemmatizer"])
    return Tagger(
        f"spacy {model} {parse.meta['version']}",
        lru_cache(_KEPT)(lambda title: tuple(token.text.lower() for token in parse(title) if token.pos_ in ("NOUN", "PROPN"))),
    )

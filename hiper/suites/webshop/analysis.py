"""Text to search terms, as the original's Lucene analyser does: words, lower case, no stop words, Porter stems.

Sources: Anserini's default English analyser (StandardTokenizer, EnglishPossessiveFilter, LowerCaseFilter, StopFilter, PorterStemFilter);
word breaks, Unicode Standard Annex 29.
"""

from __future__ import annotations

from functools import lru_cache

import regex

from hiper.suites.webshop.stem import stem

_STOP_WORDS = """
a an and are as at be but by for if in into is it no not of on or such that the their then there these they this to was will with
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())
"""Lucene's classic English list."""

MAX_TOKEN = 255
"""Characters; a longer word is cut into pieces of this length."""

_MARKS = r"[\p{WB=Extend}\p{WB=Format}\p{WB=ZWJ}]*+"
_LETTER, _DIGIT, _JOINER = r"[\p{WB=ALetter}\p{WB=Hebrew_Letter}]", r"\p{WB=Numeric}", r"\p{WB=ExtendNumLet}"
_IN_WORD, _IN_NUMBER = (rf"[\p{{WB=MidNumLet}}\p{{WB=Single_Quote}}\p{{WB={kind}}}]" for kind in ("MidLetter", "MidNum"))
# A letter takes in a mark such as an apostrophe if another letter follows it, a digit one such as a comma.
_SIGN = "|".join(
    (
        rf"{_LETTER}{_MARKS}(?:{_IN_WORD}{_MARKS}(?={_LETTER}))?",
        rf"{_DIGIT}{_MARKS}(?:{_IN_NUMBER}{_MARKS}(?={_DIGIT}))?",
        rf"\p{{WB=Katakana}}{_MARKS}",
    )
)
# Lucene 9.5 goes by the pictographs of Unicode 12; later versions took these back.
_EMOJI = r"[[\p{Extended_Pictographic}--\p{ASCII}]\u2600-\u2605\u2607-\u2612\u2614-\u2685\u2690-\u2705\u2708-\u2712\u2763-\u2767]"
# Possessive throughout: no text is read twice, however odd.
_WORD = regex.compile(
    rf"""
    [a-z0-9]++ (?= [\ \-/()] | \Z )  # most words, sooner
    | (?: (?<!{_JOINER}{_MARKS[:-1]}) (?:{_JOINER}{_MARKS})++ )?+ (?: {_SIGN} ) (?: {_SIGN} | {_JOINER}{_MARKS} )*+
    | [\p{{Han}}\p{{Hiragana}}]{_MARKS}
    | \p{{Line_Break=Complex_Context}}++
    | \p{{RI}}{_MARKS}\p{{RI}}{_MARKS}
    | {_EMOJI}{_MARKS} (?: (?<=\u200d) {_EMOJI}{_MARKS} )*+
    """,
    regex.VERSION1 | regex.VERBOSE,
)
_POSSESSIVE = ("'s", "’s", "＇s")


def terms(text: str) -> list[str]:
    """The terms of a text or query, in order, repeats included."""
    return [term for word in words(text) if (term := term_of(word)) is not None]


def words(text: str) -> list[str]:
    """The words of a text, lower-cased, long ones cut."""
    found: list[str] = _WORD.findall(text.lower())
    if max(map(len, found), default=0) > MAX_TOKEN:
        return [word[start : start + MAX_TOKEN] for word in found for start in range(0, len(word), MAX_TOKEN)]
    return found


@lru_cache(maxsize=100_000)
def term_of(word: str) -> str | None:
    """What a word is looked up by; None for a stop word."""
    if word.endswith(_POSSESSIVE):
        word = word[:-2]
    return None if word in STOP_WORDS else stem(word)

"""Porter's stemmer as Lucene has it: the article's rules with the two departures (`bli`, `logi`) of Porter's own program.

Stemmers in packages keep to the article (Snowball's `porter` leaves `trekk` of "trekking"), or take most of a second to import (nltk).

Source: M. F. Porter, "An algorithm for suffix stripping", Program 14(3), 1980; the departures are named in his published program.
"""

from __future__ import annotations

_STEP_2 = """
ational:ate tional:tion enci:ence anci:ance izer:ize bli:ble alli:al entli:ent eli:e ousli:ous ization:ize ation:ate ator:ate alism:al
iveness:ive fulness:ful ousness:ous aliti:al iviti:ive biliti:ble logi:log
"""
_STEP_3 = "icate:ic ative: alize:al iciti:ic ical:ic ful: ness:"
_STEP_4 = "al: ance: ence: er: ic: able: ible: ant: ement: ment: ent: sion: tion: ou: ism: ate: iti: ous: ive: ize:"
_RULES = [dict(rule.split(":") for rule in step.split()) for step in (_STEP_2, _STEP_3, _STEP_4)]


def stem(word: str) -> str:
    """The stem of a lower-case word; words of up to two letters stay as they are."""
    if len(word) <= 2:
        return word
    word = _inflection(_plural(word))
    if word.endswith("y") and "v" in _shape(word[:-1]):
        word = word[:-1] + "i"
    for rules, least in zip(_RULES, (0, 0, 1), strict=True):
        word = _replace(word, rules, least)
    return _final(word)


def _plural(word: str) -> str:
    if word.endswith(("sses", "ies")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def _inflection(word: str) -> str:
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    for ending in ("ed", "ing"):
        if word.endswith(ending):
            start = word[: -len(ending)]
            return _mended(start) if "v" in _shape(start) else word
    return word


def _mended(word: str) -> str:
    """What `-ed` or `-ing` was taken off."""
    if word.endswith(("at", "bl", "iz")):
        return word + "e"
    if _double(word):
        return word if word[-1] in "lsz" else word[:-1]
    return word + "e" if _measure(word) == 1 and _short(word) else word


def _replace(word: str, rules: dict[str, str], least: int) -> str:
    """Apply the rule with the longest ending, if more than `least` measures are left before it."""
    for length in range(7, 1, -1):
        ending = word[-length:]
        if ending in rules:
            start = word[:-length] + (ending[0] if ending in ("sion", "tion") else "")
            return start + rules[ending] if _measure(start) > least else word
    return word


def _final(word: str) -> str:
    measure = _measure(word)
    if word.endswith("e") and (measure > 1 or (measure == 1 and not _short(word[:-1]))):
        word = word[:-1]
    return word[:-1] if word.endswith("ll") and measure > 1 else word


def _shape(word: str) -> str:
    """`c` for a consonant and `v` for a vowel, letter by letter; y is a vowel behind a consonant."""
    shape = ""
    for letter in word:
        vowel = letter in "aeiou" or (letter == "y" and shape.endswith("c"))
        shape += "v" if vowel else "c"
    return shape


def _measure(word: str) -> int:
    """How often a vowel is followed by a consonant."""
    return _shape(word).count("vc")


def _double(word: str) -> bool:
    return len(word) > 1 and word[-1] == word[-2] and _shape(word)[-1] == "c"


def _short(word: str) -> bool:
    """Ends consonant, vowel, consonant, the last not w, x or y."""
    return _shape(word)[-3:] == "cvc" and word[-1] not in "wxy"

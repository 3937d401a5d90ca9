"""Text that is shown. What comes from files, models and the environment is untrusted: nothing of it acts on the terminal or the page."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable

_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def visible(text: str) -> str:
    """Text in which every character shows itself: controls, format characters and surrogates become ‹U+202E›; lines and tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character if character in "\n\t" or unicodedata.category(character) not in _HIDDEN else f"\u2039U+{ord(character):04X}\u203a"
        for character in text
    )


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that a mistyped one was probably meant to be."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return close[0] if close else None

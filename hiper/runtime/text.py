"""Text from files, models and the environment is untrusted: nothing of it acts on the terminal or the page that shows it."""

from __future__ import annotations

import unicodedata

_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def visible(text: str) -> str:
    """Text in which every character shows itself: controls, format characters and surrogates become ‹U+202E›; lines and tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character if character in "\n\t" or unicodedata.category(character) not in _HIDDEN else f"\u2039U+{ord(character):04X}\u203a"
        for character in text
    )

"""Rules pinned: words break where Lucene breaks them; stop words go; stems are Porter's with his two departures; no text is slow."""

from __future__ import annotations

import pytest

from hiper.suites.webshop.analysis import terms, words
from hiper.suites.webshop.stem import stem


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Rock'n'roll T-Shirt, 3.5.6 foo.bar", ["rock'n'rol", "t", "shirt", "3.5.6", "foo.bar"]),
        ("women's men’s", ["women", "men"]),
        ("10_000 1/2 a_b", ["10_000", "1", "2", "a_b"]),
        ("of the and not", []),
        ("新装 📱 phone ™ ★ ☆ ½", ["新", "装", "📱", "phone", "™", "★"]),
        ("as us is", ["us"]),
        ("_ __ ' . -", []),
        ("e\u0301te\u0301", ["e\u0301te\u0301"]),
    ],
)
def test_terms(text: str, expected: list[str]) -> None:
    assert terms(text) == expected


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("caresses", "caress"),
        ("ponies", "poni"),
        ("agreed", "agre"),
        ("plastered", "plaster"),
        ("hopping", "hop"),
        ("trekking", "trek"),
        ("falling", "fall"),
        ("filing", "file"),
        ("happy", "happi"),
        ("sky", "sky"),
        ("relational", "relat"),
        ("generalization", "gener"),
        ("oscillators", "oscil"),
        ("probably", "probabl"),
        ("technologies", "technolog"),
        ("biology", "biologi"),
        ("adoption", "adopt"),
        ("opinion", "opinion"),
        ("controll", "control"),
        ("as", "as"),
    ],
)
def test_stems(word: str, expected: str) -> None:
    """The article's own examples, and words on which its followers differ."""
    assert stem(word) == expected


def test_long_words_are_cut_and_odd_text_is_read_through() -> None:
    assert [len(word) for word in words("a" * 600)] == [255, 255, 90]
    for text in (
        "_" * 10_000,
        "[" * 10_000,
        "a'" * 5_000,
        "e" + "\u0301" * 10_000 + "'x",
        "1." * 5_000,
        "\x00\x07 red\tshoes \u202e" * 900,
    ):
        terms(text)
    assert terms("\x00red\x07 shoes") == ["red", "shoe"]

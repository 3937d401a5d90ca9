"""Rules pinned: a ranking is Lucene's, worked out here the slow way; leaving candidates out early changes nothing; ties go by rank."""

from __future__ import annotations

import math
import random
from collections import Counter

import numpy as np
import pytest

from hiper.suites.webshop import index as module
from hiper.suites.webshop.index import Index, IndexBuilder, coded_length

WORDS = [f"{first}{second}" for first in "bdgklmprt" for second in ("ako", "evu", "iro", "onu", "uma")]


def documents(rng: random.Random, count: int) -> list[str]:
    """Texts of few words and many lengths, so that there are ties; some hold nothing to be found."""
    weights = [1 / (place + 1) for place in range(len(WORDS))]
    return [" ".join(rng.choices(WORDS, weights, k=rng.choice([0, 1, 3, 20, 60, 200]))) for _ in range(count)]


def build(texts: list[str], ranks: list[int]) -> Index:
    builder = IndexBuilder()
    for text in texts:
        builder.add(text)
    return Index(builder.finish(), np.array(ranks, np.int32))


def oracle(texts: list[str], ranks: list[int], query: str, most: int) -> list[int]:
    """BM25 by its formula, one document after another, in double precision."""
    bags = [Counter(text.split()) for text in texts]
    lengths = [sum(bag.values()) for bag in bags]
    filled = sum(length > 0 for length in lengths)
    mean = sum(lengths) / filled

    def coded(length: int) -> int:
        if length < 24:
            return length
        rest = length - 24
        shift = max(0, rest.bit_length() - 4)
        return 24 + (rest >> shift << shift)

    def worth(bag: Counter[str], length: int) -> float:
        total = 0.0
        for word, times in Counter(query.split()).items():
            df = sum(word in other for other in bags)
            if bag[word]:
                idf = math.log(1 + (filled - df + 0.5) / (df + 0.5))
                total += times * idf * (1 - 1 / (1 + bag[word] / (0.9 * (0.6 + 0.4 * coded(length) / mean))))
        return total

    found = [(worth(bag, length), number) for number, (bag, length) in enumerate(zip(bags, lengths, strict=True))]
    best = sorted((-round(total, 5), ranks[number], number) for total, number in found if total > 0)
    return [number for _, _, number in best][:most]


@pytest.mark.parametrize(("few", "leaders", "sparse"), [(20_000, 500, 16), (40, 12, 2), (0, 500, 16), (0, 11, 0)])
def test_rankings_are_those_of_the_formula(monkeypatch: pytest.MonkeyPatch, few: int, leaders: int, sparse: int) -> None:
    for name, value in (("_FEW", few), ("_LEADERS", leaders), ("_SPARSE", sparse)):
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(module, "_BATCH", 500)
    rng = random.Random(1)
    for _ in range(4):
        texts = documents(rng, 120)
        ranks = rng.sample(range(len(texts)), len(texts))
        index = build(texts, ranks)
        for _ in range(15):
            query = " ".join(rng.choices([*WORDS, "unknown"], k=rng.randint(1, 6)))
            assert index.search(query, 10) == oracle(texts, ranks, query, 10), query


def test_lengths_keep_four_bits() -> None:
    lengths = np.array([0, 23, 24, 39, 40, 41, 42, 55, 56, 107, 1000])
    # beyond 24, sixteen values are exact; then every second, every fourth, ...
    assert coded_length(lengths).tolist() == [0, 23, 24, 39, 40, 40, 42, 54, 56, 104, 984]


def test_nothing_is_found_where_there_is_nothing() -> None:
    index = build(["red shoe", ""], [0, 1])
    assert index.search("") == index.search("the of") == index.search("blue") == index.search("\ud800") == []
    assert index.search("Shoes") == [0]
    assert build(["", ""], [0, 1]).search("red") == []

"""BM25 over a catalogue, ranked as Lucene ranks: its formula, its one-byte length code, its rounding, its order among equals.

    idf(q)      = ln(1 + (N - df + 0.5) / (df + 0.5))
    score(q, d) = idf - idf / (1 + tf / (k1 * (1 - b + b * len / mean)))          repeated words of a query count as often as they stand

`len` is kept in one byte: exact below 40, from there 24 plus the rest cut down to its four leading bits. Each posting's score is worked
out once, when the index is built; a query adds up postings. Sources: Robertson & Zaragoza 2009; Lucene's BM25Similarity and SmallFloat.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hiper.suites.webshop.analysis import term_of, words

K1, B = np.float32(0.9), np.float32(0.4)
HITS = 50
"""Most documents a search returns."""

_BATCH = 1 << 20
"""Tokens gathered before they are sorted."""
_FEW = 20_000
"""Postings that are added up faster than candidates are narrowed down."""
_LEADERS = 500
"""Documents of a term that are looked at to tell how good the best are."""
_SPARSE = 16
"""Postings a candidate from where looking it up is faster than adding all up."""

Arrays = dict[str, NDArray[np.generic]]


class IndexBuilder:
    """Takes documents in, one after another, and hands out the arrays of an `Index`."""

    def __init__(self) -> None:
        self._term_ids: dict[str, int] = {}
        self._word_ids: dict[str, int] = {}  # -1: a stop word
        self._lengths = array("q")
        self._tokens: list[int] = []
        self._owners: list[int] = []  # documents of `_tokens`
        self._batches: list[tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.uint16]]] = []

    def add(self, text: str) -> None:
        """The next document's text."""
        known = self._word_ids
        tokens = []
        for word in words(text):
            number = known.get(word)
            if number is None:
                term = term_of(word)
                number = known[word] = -1 if term is None else self._term_ids.setdefault(term, len(self._term_ids))
            if number >= 0:
                tokens.append(number)
        self._owners += [len(self._lengths)] * len(tokens)
        self._tokens += tokens
        self._lengths.append(len(tokens))
        if len(self._tokens) >= _BATCH:
            self._sort_batch()

    def _sort_batch(self) -> None:
        keys = np.array(self._tokens, np.int64) << 32 | np.array(self._owners, np.int64)
        pairs, counts = np.unique(keys, return_counts=True)
        self._batches.append(
            ((pairs >> 32).astype(np.int32), (pairs & 0xFFFFFFFF).astype(np.int32), counts.clip(max=0xFFFF).astype(np.uint16))
        )
        self._tokens, self._owners = [], []

    def finish(self) -> Arrays:
        """The arrays of the index; the builder is used up."""
        self._sort_batch()
        self._word_ids.clear()
        names = sorted(term.encode() for term in self._term_ids)
        order = np.array([self._term_ids[name.decode()] for name in names], np.int64)
        self._term_ids.clear()
        frequency = np.zeros(len(names), np.int64)
        for numbers, _, _ in self._batches:
            frequency += np.bincount(numbers, minlength=len(names))
        rank = np.empty_like(order)
        rank[order] = np.arange(len(names))
        frequency = frequency[order]
        starts = np.concatenate(([0], np.cumsum(frequency)))

        lengths = np.array(self._lengths, np.int64)
        filled = int((lengths > 0).sum())
        mean = np.float32(lengths.sum() / max(1, filled))
        idf = np.log(1 + (filled - frequency + 0.5) / (frequency + 0.5)).astype(np.float32)
        with np.errstate(divide="ignore", invalid="ignore"):  # where no document has a word
            norm = 1 / (K1 * ((1 - B) + B * coded_length(lengths).astype(np.float32) / mean))

        documents = np.empty(starts[-1], np.int32)
        scores = np.empty(starts[-1], np.float32)
        ends = starts[:-1].copy()
        while self._batches:
            numbers, owners, counts = self._batches.pop(0)
            terms = rank[numbers]
            by_term = np.argsort(terms, kind="stable")
            terms, owners, counts = terms[by_term], owners[by_term], counts[by_term]
            present, first, several = np.unique(terms, return_index=True, return_counts=True)
            places = ends[terms] + np.arange(len(terms)) - np.repeat(first, several)
            documents[places] = owners
            scores[places] = idf[terms] - idf[terms] / (1 + counts.astype(np.float32) * norm[owners])
            ends[present] += several
        best = np.maximum.reduceat(scores, starts[:-1]) if len(names) else np.empty(0, np.float32)
        return {
            "term_text": np.frombuffer(b"".join(names), np.uint8),
            "term_ends": np.cumsum([0, *map(len, names)]),
            "starts": starts,
            "documents": documents,
            "scores": scores,
            "best": best,
            "size": np.array(len(lengths)),
        }


def coded_length(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """What Lucene's one-byte code leaves of document lengths."""
    rest = np.maximum(lengths - 24, 0)
    bits = np.frexp(rest.astype(np.float64))[1]  # of its binary form
    shift = np.maximum(bits - 4, 0)
    return np.where(lengths < 24, lengths, 24 + ((rest >> shift) << shift))


class Index:
    """Finds documents; its arrays may be memory-mapped and shared."""

    NAMES = ("term_text", "term_ends", "starts", "documents", "scores", "best", "size")

    def __init__(self, arrays: Mapping[str, NDArray[np.generic]], ranks: NDArray[np.int32]) -> None:
        """Take the arrays in.

        Args:
            arrays: as `IndexBuilder.finish` made them.
            ranks: (documents,) int, the order among documents with equal scores.
        """
        names = ("term_text", "term_ends", "starts", "documents", "scores", "best")
        self._text, self._ends, self._starts, self._documents, self._scores, self._best = (np.asarray(arrays[name]) for name in names)
        self._ranks = ranks
        self.size = int(arrays["size"])

    def __len__(self) -> int:
        """Number of terms."""
        return len(self._ends) - 1

    def search(self, query: str, most: int = HITS) -> list[int]:
        """The best documents for a text, best first; documents without any of its words are never among them."""
        return [document for document, _ in self.ranked(query, most)]

    def ranked(self, query: str, most: int = HITS) -> list[tuple[int, float]]:
        """The best documents with their scores."""
        counted = Counter(term for word in words(query) if (term := term_of(word)) is not None)
        wanted = [(number, np.float32(count)) for term, count in counted.items() if (number := self._find(term)) is not None]
        wanted.sort(key=lambda pair: -float(self._best[pair[0]] * pair[1]))
        left = np.cumsum([0.0, *(float(self._best[number] * count) for number, count in reversed(wanted))])[::-1]
        total = np.zeros(self.size)
        summed = 0
        # Once the terms left cannot lift a document among the best that has none of the others, only those met can be found; and of them,
        # fewer with each term. Whether it is so is seen on the leaders, the best few among each term's documents.
        leaders = np.empty(0, np.int32)
        candidates: NDArray[np.int32] | None = None
        for place, (number, count) in enumerate(wanted, start=1):
            chosen = slice(self._starts[number], self._starts[number + 1])
            documents, scores = self._documents[chosen], self._scores[chosen]
            if candidates is not None and _SPARSE * len(candidates) < len(documents):
                at = np.searchsorted(documents, candidates)
                at[at == len(documents)] = 0
                there = documents[at] == candidates
                total[candidates[there]] += scores[at[there]] * count
            else:
                total[documents] += scores * count
                summed += len(documents)
            if candidates is None and summed > _FEW:
                best = np.argpartition(total[documents], -_LEADERS)[-_LEADERS:] if len(documents) > _LEADERS else slice(None)
                leaders = np.union1d(leaders, documents[best])
                if left[place] < _least(total[leaders], most):
                    candidates = np.flatnonzero(total).astype(np.int32)
            if candidates is not None:
                totals = total[candidates]
                candidates = candidates[totals + left[place] >= _least(totals, most)]
        found = np.flatnonzero(total) if candidates is None else candidates
        totals = total[found].astype(np.float32)
        kept = totals >= _least(totals, most)
        found, totals = found[kept], totals[kept]
        order = np.lexsort((self._ranks[found], -totals))[:most]
        return list(zip(found[order].tolist(), totals[order].tolist(), strict=True))

    def _find(self, term: str) -> int | None:
        """A term's number, by binary search in the sorted text of all terms."""
        wanted = term.encode("utf-8", "replace")
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            found = self._text[self._ends[middle] : self._ends[middle + 1]].tobytes()
            if found == wanted:
                return middle
            low, high = (middle + 1, high) if found < wanted else (low, middle)
        return None


def _least(totals: NDArray[np.floating], most: int) -> float:
    """What a document must have to be among the `most` best of these, with some room for rounding; 0 if there are fewer."""
    return 0.0 if len(totals) <= most else float(np.partition(totals, len(totals) - most)[len(totals) - most]) * (1 - 1e-6)

"""A catalogue on disk: products read in place where the official file has them, the rest built once and memory-mapped.

CACHE/webshop/DIGEST/      one per content of the two files and version of this format
    spans.npy                  (n, 4) int64: where a product's record starts and ends in its file, its attributes in theirs (-1: none)
    asins.npy, sorted.npy      (n,) bytes; (n,) int32, the products in the order of their ASINs
    prices.npy                 (n, 2) float64 dollars: the ends of a range; one price and NaN
    category.npy, query.npy    (n,) int32 into labels.json
    goals.npy                  (n,) int64: option combinations of a product with an instruction, -1 without
    weights.npy                (n,) float64: weight of each of its goals
    index_*.npy                see `hiper.suites.webshop.index`
"""

from __future__ import annotations

import json
import logging
import math
import mmap
import os
import shutil
import sys
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiper.errors import DataError
from hiper.runtime.progress import Progress
from hiper.runtime.reading import open_file, read_json_object
from hiper.suites.webshop.index import Index, IndexBuilder
from hiper.suites.webshop.intact import intact, note
from hiper.suites.webshop.product import Product, make_product
from hiper.suites.webshop.source import Files, digest, elements

logger = logging.getLogger(__name__)

VERSION = 2
"""Of the files in the cache; a change of any of them, or of what goes into the index, counts it up."""
MOST_GOALS = 2**24
"""Combinations of options a product may have; in the official files none has a thousandth of it."""
LONGEST_ASIN = 10
"""Products with a longer one are dropped, as the original drops them."""

_COLUMNS = ("spans", "asins", "sorted", "prices", "category", "query", "goals", "weights")
_NOTES = "notes.json"
_KEPT = 4096
"""Products kept in memory, for all environments together."""


class Catalogue:
    """Products by number, their order in the file."""

    def __init__(self, files: Files, folder: Path) -> None:
        """Open what `load_catalogue` built.

        Args:
            files: the catalogue's sources.
            folder: of the cache.
        """
        self.files, self.folder = files, folder
        column = {name: load_array(folder / f"{name}.npy") for name in _COLUMNS}
        self.prices: NDArray[np.float64] = column["prices"]
        self.goals: NDArray[np.int64] = column["goals"]
        self.weights: NDArray[np.float64] = column["weights"]
        self._spans, self._asins, self._sorted = (column[name] for name in ("spans", "asins", "sorted"))
        self._codes = {name: column[name] for name in ("category", "query")}
        labels: dict[str, list[str]] = read_json_object(folder / "labels.json")
        self._numbers = {name: {label: code for code, label in enumerate(known)} for name, known in labels.items()}
        ranks = np.empty(len(self._sorted), np.int32)
        ranks[self._sorted] = np.arange(len(ranks), dtype=np.int32)
        self.index = Index({name: load_array(folder / f"index_{name}.npy") for name in Index.NAMES}, ranks)
        self._records, self._attributes = _map(files.products), _map(files.attributes)
        self.product = lru_cache(maxsize=_KEPT)(self._product)

    def __len__(self) -> int:
        return len(self._spans)

    def _product(self, number: int) -> Product:
        """A product by its number."""
        start, end, first, last = self._spans[number].tolist()
        facts = None
        try:
            record = json.loads(self._records[start:end])
            facts = json.loads(self._attributes[first:last]) if first >= 0 else None
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{self.files.products}: product {number} is not where {self.folder} has it ({error}). Delete that folder."
            ) from error
        return make_product(record, facts)

    def asin(self, number: int) -> str:
        """A product's ASIN, without reading its record."""
        return bytes(self._asins[number]).decode()

    def find(self, asin: str) -> int | None:
        """The number of a product; None: there is none of that ASIN."""
        wanted = asin.encode("utf-8", "replace")
        place = int(np.searchsorted(self._asins, wanted, sorter=self._sorted)) if len(wanted) <= self._asins.dtype.itemsize else len(self)
        if place == len(self) or bytes(self._asins[self._sorted[place]]) != wanted:
            return None
        return int(self._sorted[place])

    def where(self, column: str, label: str) -> list[int]:
        """The numbers of all products of a `category` or `query`."""
        code = self._numbers[column].get(label)
        return [] if code is None else np.flatnonzero(self._codes[column] == code).tolist()


def load_catalogue(files: Files, cache: Path | None = None, progress: Progress | None = None) -> Catalogue:
    """Open a catalogue, built first where this content has not been seen before.

    Args:
        files: its sources.
        cache: where built catalogues are kept; None: `cache_folder()`.
        progress: called with (products read, 0) while building.

    Raises:
        DataError: a file is damaged, or the cache cannot be written.
    """
    place = (cache_folder() if cache is None else cache) / "webshop"
    marks = [digest(path, place / "digests") for path in (files.products, files.attributes)]
    folder = place / f"{VERSION}-{marks[0][:24]}-{marks[1][:24]}"
    if not intact(folder, _NOTES):
        if folder.exists():
            logger.warning("%s is damaged or incomplete; it is built again", folder)
        try:
            _build(files, folder, progress)
        except OSError as error:
            raise DataError(f"the index cannot be written under {place}: {error.strerror}. Make room, or set HIPER_CACHE.") from error
    return Catalogue(files, folder)


def cache_folder() -> Path:
    """$HIPER_CACHE, or `hiper` in the user's cache directory."""
    chosen = os.environ.get("HIPER_CACHE")
    return Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hiper"


def _build(files: Files, folder: Path, progress: Progress | None) -> None:
    """Read both files once and write the cache."""
    logger.info("building the index of %s, once", files.products)
    facts = {element.key: (element.start, element.end) for element in elements(files.attributes) if element.key is not None}
    attributes = _map(files.attributes)
    spans, prices, goals = array("q"), array("d"), array("q")
    asins: dict[str, None] = {}
    labels: dict[str, dict[str, int]] = {"category": {}, "query": {}}
    codes = {name: array("i") for name in labels}
    wanted: list[tuple[str, ...]] = []
    index = IndexBuilder()
    for count, element in enumerate(elements(files.products)):
        asin = element.value.get("asin") if isinstance(element.value, dict) else None
        if not isinstance(asin, str):
            raise DataError(f"{files.products}, near byte {element.start}: element {count} is no product, it has no asin.")
        if asin in asins or asin == "nan" or len(asin) > LONGEST_ASIN:
            continue
        asins[asin] = None
        span = facts.get(asin)
        try:
            product = make_product(element.value, json.loads(attributes[slice(*span)]) if span else None)
        except (ValueError, RecursionError) as error:  # DataError is one
            raise DataError(f"{files.products}, near byte {element.start}: {error}") from error
        count_of_goals = -1 if product.instruction is None else math.prod(len(values) for values in product.options.values())
        if count_of_goals > MOST_GOALS:
            raise DataError(f"{files.products}, near byte {element.start}: product {asin} has {count_of_goals} combinations of options")
        index.add(product.search_text)
        spans.extend((element.start, element.end, *(span or (-1, -1))))
        prices.extend((*product.pricing, math.nan)[:2])
        goals.append(count_of_goals)
        wanted.append(tuple(map(sys.intern, product.instruction_attributes)))
        for name, label in (("category", product.category), ("query", product.query)):
            codes[name].append(labels[name].setdefault(label, len(labels[name])))
        if progress is not None and count % 1000 == 0:
            progress(count, 0)
    if not asins:
        raise DataError(f"{files.products} holds no products.")
    names = np.array([asin.encode("utf-8", "replace") for asin in asins])
    columns: dict[str, NDArray[Any]] = {
        "spans": np.array(spans).reshape(-1, 4),
        "prices": np.array(prices).reshape(-1, 2),
        "goals": np.array(goals),
        "weights": _weights(wanted, goals),
        "asins": names,
        "sorted": np.argsort(names, kind="stable").astype(np.int32),
        **{name: np.array(values) for name, values in codes.items()},
        **{f"index_{name}": values for name, values in index.finish().items()},
    }
    _write(folder, columns, labels)


def _write(folder: Path, columns: Mapping[str, NDArray[Any]], labels: Mapping[str, Mapping[str, int]]) -> None:
    """Write the cache; of several builders the first to finish wins."""
    temporary = folder.with_name(f"{folder.name}.{os.getpid()}")
    temporary.mkdir(parents=True, exist_ok=True)
    try:
        for name, values in columns.items():
            np.save(temporary / f"{name}.npy", values)
        (temporary / "labels.json").write_text(json.dumps({name: list(known) for name, known in labels.items()}), encoding="utf-8")
        note(temporary, [path.name for path in temporary.iterdir()], _NOTES)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    except OSError:
        if not intact(folder, _NOTES):
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _weights(wanted: Sequence[tuple[str, ...]], goals: Sequence[int]) -> NDArray[np.float64]:
    """Weight of each of a product's goals: the mean over its attributes of 1 / the number of goals that carry the attribute."""
    carried: Counter[str] = Counter()
    for names, count in zip(wanted, goals, strict=True):
        for name in names:
            carried[name] += count
    return np.array(
        [sum(1.0 / carried[name] for name in names) / len(names) if count > 0 else 0.0 for names, count in zip(wanted, goals, strict=True)]
    )


def load_array(path: Path) -> NDArray[Any]:
    """An array of the cache, memory-mapped.

    Raises:
        DataError: it is missing or damaged.
    """
    try:
        open_file(path).close()  # numpy would wait for a pipe
        found: NDArray[Any] = np.load(path, mmap_mode="r")
        return found
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} cannot be read: {error}. Delete {path.parent}; it is built again.") from error


def _map(path: Path) -> mmap.mmap:
    with open_file(path) as file:
        try:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:  # an empty file cannot be mapped
            raise DataError(f"{path} cannot be read: {error}. Download or generate it again.") from error

"""Our shop against recordings of the original: every page, action, reward, goal, price and ranking compared, and the clock."""

from __future__ import annotations

import hashlib
import json
import lzma
import resource
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

from hiper.errors import DataError
from hiper.runtime.reading import JSON_BYTES, parse_json, read_bytes
from hiper.suites.webshop.analysis import terms
from hiper.suites.webshop.goals import NO_CAP, Goal, Goals
from hiper.suites.webshop.nouns import all_words
from hiper.suites.webshop.pages import BUY, DESCRIPTION, FEATURES, PREV, Mode
from hiper.suites.webshop.reward import Score, score
from hiper.suites.webshop.shop import SEED, Episode, Shop

EXAMPLES = 5
"""Mismatches shown in full."""
WALKS = 300
"""Episodes the clock is on."""
ENVIRONMENTS = 64
"""Episodes at once whose memory is measured."""

Record = dict[str, Any]
Difference = tuple[str, Any, Any]
"""What was compared, as recorded, and as it is here."""


def bench(catalogue: Path, recordings: Sequence[Path] = (), *, walks: int = WALKS) -> dict[str, Any]:
    """Compare a catalogue's shop with recordings of the original, and time it.

    Args:
        catalogue: the official files, see `Shop.load`.
        recordings: JSON lines, plain or xz, of goals, prices, searches, analyses, rewards or episodes, or JSON of seeds; what a record is
            shows in its fields.
        walks: episodes to time: a search, a look at three products, a purchase.

    Returns:
        compared and mismatches (counts by kind), not_compared (records of no known kind), examples; searches_per_second and
        clicks_per_second (of processor time on one core, page and available actions read at each step); ready_seconds, with the index built
        and with it cached; environments_mb (memory that 64 episodes in progress add).

    Raises:
        DataError: the catalogue or a recording is damaged.
    """
    with tempfile.TemporaryDirectory(prefix="hiper-webshop-") as folder:
        begun = perf_counter()
        Shop.load(catalogue, cache=Path(folder))
        built = perf_counter()
        Shop.load(catalogue, cache=Path(folder))
        cached = perf_counter()
    shop = Shop.load(catalogue)
    compared, different, examples = _compare(catalogue, recordings)
    begun_memory = _peak_mb()
    episodes = [_begun(shop, number) for number in range(ENVIRONMENTS)]
    memory = _peak_mb() - begun_memory
    return {
        "catalogue": str(catalogue),
        "products": len(shop.catalogue),
        "terms": len(shop.catalogue.index),
        "goals": len(shop.goals),
        "type_matching": shop.tagger.name,
        "type_matching_compared": all_words().name,
        "compared": {kind: count for kind, count in compared.items() if kind != _UNKNOWN},
        "not_compared": compared[_UNKNOWN],
        "mismatches": {kind: different[kind] for kind in compared if kind != _UNKNOWN},
        "examples": examples,
        **_speed(shop, walks),
        "ready_seconds": {"index built": round(built - begun, 3), "index cached": round(cached - built, 3)},
        "environments": len(episodes),
        "environments_mb": round(memory, 1),
    }


_UNKNOWN = "unknown"


def _compare(catalogue: Path, recordings: Sequence[Path]) -> tuple[Counter[str], Counter[str], list[Record]]:
    """Counts of what was compared and of what differed, by kind, and a few differences."""
    compared: Counter[str] = Counter()
    different: Counter[str] = Counter()
    examples: list[Record] = []
    shops: dict[int, Shop] = {}

    def shop_of(seed: int) -> Shop:
        # the recordings had a stand-in for the tagger; so that the reward's own rules are compared, so has this shop
        if seed not in shops:
            shops[seed] = Shop.load(catalogue, seed=seed, tagger=all_words())
        return shops[seed]

    for path in recordings:
        for number, record in enumerate(_records(path), start=1):
            try:
                shop = shop_of(record.get("seed", SEED))
                for kind, recorded, ours in _differences(shop, record):
                    compared[kind] += 1
                    if recorded != ours:
                        different[kind] += 1
                        if len(examples) < EXAMPLES:
                            examples.append(
                                {
                                    "file": path.name,
                                    "record": number,
                                    "kind": kind,
                                    "recorded": str(recorded)[:600],
                                    "ours": str(ours)[:600],
                                }
                            )
            except (LookupError, TypeError, AttributeError, ArithmeticError) as error:
                raise DataError(f"{path}:{number}: a recording of another form ({error!r}).") from error
    return compared, different, examples


def _records(path: Path) -> Iterator[Record]:
    try:
        data = read_bytes(path)
        if path.suffix == ".xz":
            data = lzma.LZMADecompressor().decompress(data, JSON_BYTES)
        for number, part in enumerate(data.rstrip(b"\n").split(b"\n") if ".jsonl" in path.suffixes else [data], start=1):
            record = parse_json(part, f"{path}:{number}")
            if not isinstance(record, dict):
                raise ValueError(f"expected an object, found {record!r:.40}")
            yield record
    except (ValueError, lzma.LZMAError) as error:
        raise DataError(f"{path} cannot be read as a recording: {error}") from error


def _differences(shop: Shop, record: Record) -> Iterable[Difference]:
    """What a record can be compared in; its fields tell what it is."""
    if "obs0" in record:
        return _episode(shop, record)
    if "hits" in record:
        return _search(shop, record)
    if "info" in record:
        return _reward(shop, record)
    if "instruction_text" in record:
        return [("goals", record, _as_recorded(shop.goals[record["i"]], record))]
    if "pricing" in record:
        return [("prices", record, _price(shop, record["i"]))]
    if "k" in record:
        return [("analyses", record["k"], terms(record["t"]))]
    if "seeds" in record:
        return _seeds(shop, record)
    return [(_UNKNOWN, None, None)]


def _episode(shop: Shop, record: Record) -> Iterator[Difference]:
    episode = shop.episode(record["i"], Mode(record["mode"]))
    yield "pages", record["obs0"], episode.reset()
    yield "available actions", record["avail0"], _available(episode)
    for step in record["steps"]:
        result = episode.step(step["a"])
        yield "pages", step["obs"], result.observation
        yield "available actions", step["avail"], _available(episode)
        yield "rewards", step["score"], result.reward
        yield "ends", [step["done"], step["won"]], [result.terminated, episode.reward == 1.0]


def _available(episode: Episode) -> list[Any]:
    available = episode.available_actions
    return [available.has_search_bar, available.clickables]


def _search(shop: Shop, record: Record) -> Iterator[Difference]:
    edge = record["kind"] == "edge"
    yield "analyses", record["tokens"], terms(record["q"])
    hits = [shop.catalogue.asin(number) for number in shop.catalogue.index.search(record["q"])]
    yield "searches, edge cases" if edge else "searches", [asin for asin, *_ in record["hits"]], hits


def _reward(shop: Shop, record: Record) -> Iterator[Difference]:
    goal = shop.goals[record["i"]]
    number = shop.catalogue.find(record["asin"])
    if number is None:
        yield "rewards", record["asin"], None
        return
    bought, wanted = shop.catalogue.product(number), shop.catalogue.product(goal.product)
    ours = score(bought, wanted, goal, float(shop.goals.prices[number]), record["options"], shop.tagger)
    yield "rewards", record["reward"], ours.total
    yield "rewards in parts", record["info"], _parts(ours, goal)


def _parts(ours: Score, goal: Goal) -> Record:
    whole = len(goal.attributes) + len(goal.options) + 1
    parts: Record = {
        "r_type": ours.kind,
        "r_att": ours.attributes,
        "w_att": len(goal.attributes) / whole,
        "query_match": ours.query_match,
        "category_match": ours.category_match,
        "title_score": ours.title_score,
        "r_price": ours.price,
        "w_price": 1 / whole,
    }
    return parts if ours.options is None else {**parts, "r_option": ours.options, "w_option": len(goal.options) / whole}


def _as_recorded(goal: Goal, record: Record) -> Record:
    ours: Record = {
        "i": goal.index,
        "asin": goal.asin,
        "instruction_text": goal.instruction,
        "attributes": list(goal.attributes),
        "goal_options": goal.options,
        "price_upper": goal.cap,
        "weight": goal.weight,
        "query": goal.query,
        "name": goal.title,
        "category": goal.category,
        "product_category": goal.product_category,
    }
    return {name: ours.get(name) for name in record}


def _price(shop: Shop, number: int) -> Record:
    product = shop.catalogue.product(number)
    return {
        "i": number,
        "asin": product.asin,
        "pricing": list(product.pricing),
        "Price": product.price_tag,
        "price": float(shop.goals.prices[number]),
        "sampled": len(product.pricing) > 1,
    }


def _seeds(shop: Shop, record: Record) -> Iterator[Difference]:
    """Digests of all goals and prices under several seeds."""
    for seed, recorded in record["seeds"].items():
        goals = Goals(shop.catalogue, int(seed))
        listed = [[goal.asin, goal.instruction, goal.cap if goal.cap < NO_CAP else int(NO_CAP), goal.options] for goal in goals]
        yield "goals of a seed", recorded["goals_sha256"], _sha256(listed)
        prices = {shop.catalogue.asin(number): price for number, price in enumerate(goals.prices.tolist())}
        yield "prices of a seed", recorded["prices_sha256"], _sha256(prices)


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _speed(shop: Shop, walks: int) -> dict[str, float]:
    """Searches and clicks a second: each walk looks for another goal and buys the last of the first three products it has looked at."""
    seconds = {"search": 0.0, "click": 0.0}
    steps: Counter[str] = Counter()

    def do(episode: Episode, action: str) -> list[str]:
        verb = action.split("[")[0]
        begun = process_time()
        episode.step(action)
        listed = episode.available_actions.clickables
        seconds[verb] += process_time() - begun
        steps[verb] += 1
        return listed

    for number in range(walks):
        episode = shop.episode(number * len(shop.goals) // walks)
        listed = do(episode, f"search[{episode.goal.instruction}]")
        for product in listed[2:5]:  # behind the buttons
            options = do(episode, f"click[{product}]")[6:]
            script = [*options[:2], DESCRIPTION, PREV, FEATURES, PREV, BUY if product == listed[2:5][-1] else PREV]
            for name in script:
                do(episode, f"click[{name}]")
    return {
        "searches_per_second": round(steps["search"] / seconds["search"], 1),
        "clicks_per_second": round(steps["click"] / seconds["click"], 1),
    }


def _begun(shop: Shop, number: int) -> Episode:
    """An episode on a page of its own."""
    episode = shop.episode(number * len(shop.goals) // ENVIRONMENTS)
    episode.step(f"search[{episode.goal.query}]")
    episode.step(f"click[{episode.available_actions.clickables[-1]}]")
    return episode


def _peak_mb() -> float:
    """The most memory this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)

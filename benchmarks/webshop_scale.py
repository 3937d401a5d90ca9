"""A shop of the full catalogue's size: `python benchmarks/webshop_scale.py [PRODUCTS] [--keep DIR]` prints JSON.

Products are the generator's, with descriptions made as long as the published full set's (3 kB a product) by words drawn as in natural text
(Zipf's law). The index is built in one process and opened in another, so that each has its own memory and its own first time.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
from itertools import accumulate
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

from hiper.suites.webshop.generate import make_product
from hiper.suites.webshop.shop import Shop

PRODUCTS = 1_180_000
"""Of the published full set."""
WORDS, VOCABULARY = 350, 200_000
SEARCHES = 200


def write_catalogue(out: Path, products: int, seed: int = 0) -> None:
    """The two official files, product by product: a list of a million would not fit beside anything else."""
    rng = random.Random(seed)
    words = [f"w{number:x}" for number in range(VOCABULARY)]
    weights = list(accumulate(1 / rank for rank in range(1, VOCABULARY + 1)))
    with (out / "items_shuffle.json").open("w") as records, (out / "items_ins_v2.json").open("w") as facts:
        records.write("[")
        facts.write("{")
        for number in range(products):
            record, about = make_product(number, seed)
            record["full_description"] += " " + " ".join(rng.choices(words, cum_weights=weights, k=WORDS))
            comma = "," if number else ""
            records.write(comma + json.dumps(record))
            facts.write(f"{comma}{json.dumps(record['asin'])}:{json.dumps(about)}")
        records.write("]")
        facts.write("}")
    (out / "items_human_ins.json").write_text("{}")


def load(catalogue: Path, cache: Path) -> dict[str, Any]:
    """Open a catalogue, and search for what its goals ask for: seconds, and the peak memory of this process."""
    begun = perf_counter()
    shop = Shop.load(catalogue, cache=cache)
    seconds = perf_counter() - begun
    rng = random.Random(0)
    instructions = [shop.goals[number].instruction for number in rng.sample(range(len(shop.goals)), SEARCHES)]
    short, whole = ([_milliseconds(shop, words) for words in queries] for queries in (map(_first_words, instructions), instructions))
    return {
        "seconds": round(seconds, 3),
        "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3),
        "products": len(shop.catalogue),
        "goals": len(shop.goals),
        "search_milliseconds_median": round(statistics.median(short), 2),
        "search_milliseconds_median_whole_instruction": round(statistics.median(whole), 2),
    }


def _first_words(instruction: str) -> str:
    return " ".join(instruction.split()[2:7])


def _milliseconds(shop: Shop, words: str) -> float:
    """Of processor time."""
    begun = process_time()
    shop.search(words.split(), random.Random(0))
    return (process_time() - begun) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("products", type=int, nargs="?", default=PRODUCTS)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where catalogue and index are left; one that is there is used")
    parser.add_argument("--load", type=Path, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load:
        print(json.dumps(load(*options.load)))
        return
    with tempfile.TemporaryDirectory(prefix="hiper-webshop-scale-") as temporary:
        folder = options.keep or Path(temporary)
        catalogue, cache = folder / "catalogue", folder / "cache"
        begun = perf_counter()
        if not (catalogue / "items_human_ins.json").exists():
            catalogue.mkdir(parents=True, exist_ok=True)
            write_catalogue(catalogue, options.products)
        written = perf_counter() - begun
        command = [sys.executable, __file__, "--load", str(catalogue), str(cache)]
        first, second = (json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout) for _ in range(2))
        size = sum(path.stat().st_size for path in catalogue.iterdir()) / 1e9
        result = {"catalogue_gb": round(size, 3), "written_seconds": round(written, 1), "index_built": first, "index_cached": second}
        print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()

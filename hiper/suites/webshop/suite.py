"""WebShop as a suite, see `hiper.suites.suite`: a task is a goal, named `synthetic/SEED/INDEX` or `human/SEED/INDEX`."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from hiper.config import RunConfig, Source
from hiper.errors import DataError
from hiper.runtime.progress import Progress
from hiper.suites.base import TextEnv
from hiper.suites.suite import OwnSettings, Suite, Wording
from hiper.suites.tasks import Task, TaskIndex
from hiper.suites.webshop.env import ShopEnv
from hiper.suites.webshop.expert import Expert
from hiper.suites.webshop.nouns import find_tagger
from hiper.suites.webshop.settings import WebShopConfig
from hiper.suites.webshop.shop import Episode, Shop

TRAIN, VALID, TEST = "train", "valid", "test"
VARIABLE = "WEBSHOP_DATA"
_KINDS = {False: "synthetic", True: "human"}


class WebShop(Suite):
    """Goals in a shop. What is held out is the start of the goals' list, as published; its products are also sold in training."""

    wording = Wording("goal", "goals", lapses="the choice of options")
    splits: tuple[str, ...] = (TRAIN, VALID, TEST)
    own: OwnSettings = OwnSettings(text=("labels", "mended"), reward=("pay",))
    scene = (
        "You shop in an online store, in text: search[words] looks for products where there is a search bar, click[text] follows what the "
        "page names. Find what the task asks for, choose its options, and buy it."
    )

    def source(self, cfg: RunConfig) -> Mapping[str, Any]:
        """Where the official catalogue lies."""
        return {} if cfg.tasks.source is not Source.official else {"data": cfg.tasks.data or os.environ.get(VARIABLE)}

    def judged_by(self, cfg: RunConfig) -> Mapping[str, str]:
        """Who told the nouns, and how pages were worded."""
        return {"type_matching": find_tagger().name, "labels": str(cfg.own(WebShopConfig).labels).lower()}

    def data(self, folder: Path, cfg: RunConfig, progress: Progress | None = None) -> Path:
        """A generated catalogue, or the one in `tasks.data` or $WEBSHOP_DATA."""
        if cfg.tasks.source is Source.generated:
            from hiper.suites.webshop.generate import generate_catalogue

            return generate_catalogue(folder, cfg.own(WebShopConfig).products, cfg.tasks.seed)
        named = cfg.tasks.data or os.environ.get(VARIABLE)
        if named is None:
            raise DataError(
                f"tasks.source=official needs tasks.data or ${VARIABLE}: the folder with items_shuffle*.json and items_ins_v2*.json, which "
                "princeton-nlp/WebShop's setup.sh fetches. tasks.source=generated needs no download."
            )
        return Path(named).expanduser()

    def index(self, root: Path, cfg: RunConfig, splits: Sequence[str] | None = None) -> TaskIndex:
        """The goals of a catalogue: first those of `test`, then of `valid`, and `train` is the rest; `tasks.limit` spreads over each."""
        own = cfg.own(WebShopConfig)
        shop = _shop(root, own.goal_seed, own.human, own.mended)
        test, held_out, total = own.test, own.test + own.valid, len(shop.goals)
        if held_out >= total:
            asked = f"webshop.test={test} and webshop.valid={own.valid}"
            raise DataError(f"{asked} leave none of the {total} goals in {root} for training. Lower them.")
        parts = {TRAIN: range(held_out, total), VALID: range(test, held_out), TEST: range(test)}
        unknown = [split for split in splits or () if split not in parts]
        if unknown:
            raise DataError(f"WebShop has no split {', '.join(unknown)}; it has {', '.join(parts)}.")
        entries: list[Task] = []
        left_out = 0
        for split in parts if splits is None else splits:
            numbers = parts[split]
            count = min(len(numbers), cfg.tasks.limit or len(numbers))
            left_out += len(numbers) - count
            for place in range(count):
                goal = shop.goals[numbers[place * len(numbers) // count]]
                name = f"{_KINDS[own.human]}/{own.goal_seed}/{goal.index:07d}"
                entries.append(Task(name, split, goal.category))
        return TaskIndex(root, tuple(entries), {"beyond tasks.limit": left_out} if left_out else {})

    def digest(self, cfg: RunConfig, path: Path) -> str:
        """Of the goal and the product that it was made from."""
        episode = _episode(cfg, path)
        goal, product = episode.goal, episode.shop.catalogue.product(episode.goal.product)
        asked = [goal.instruction, goal.attributes, goal.options, goal.cap]
        return hashlib.sha256(json.dumps([asked, asdict(product)], sort_keys=True).encode()).hexdigest()

    def make_env(self, cfg: RunConfig, path: Path, rng: random.Random | None = None) -> TextEnv:
        """An episode of one goal. Things keep their names: they are the catalogue's."""
        own = cfg.own(WebShopConfig)
        return ShopEnv(_episode(cfg, path), own.pay, labels=own.labels)

    def expert(self, index: TaskIndex, cfg: RunConfig, rng: random.Random) -> Expert:
        """One that knows how to shop, and no catalogue."""
        return Expert(labels=cfg.own(WebShopConfig).labels)


def _episode(cfg: RunConfig, path: Path) -> Episode:
    try:
        kind, seed, index = path.parts[-3:]
        human = {name: flag for flag, name in _KINDS.items()}[kind]
        shop, goal = _shop(path.parents[2], int(seed), human, cfg.own(WebShopConfig).mended), int(index)
    except (ValueError, KeyError, IndexError) as error:
        raise DataError(f"{path} names no goal; expected CATALOGUE/synthetic/SEED/INDEX or CATALOGUE/human/SEED/INDEX.") from error
    return shop.episode(goal)


@lru_cache(maxsize=4)
def _shop(root: Path, seed: int, human: bool, mended: bool) -> Shop:
    """One shop for all episodes of a process."""
    return Shop.load(root, seed=seed, human=human, mended=mended)

"""What a suite is to the stages: tasks, their environments, an expert, and words for what they are."""

from __future__ import annotations

import hashlib
import logging
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from hiper.config import RunConfig, TasksConfig
from hiper.errors import ConfigError
from hiper.runtime.progress import Progress
from hiper.runtime.reading import read_bytes
from hiper.suites.base import TextEnv
from hiper.suites.expert import Expert
from hiper.suites.tasks import Task, TaskIndex

logger = logging.getLogger(__name__)

MakeEnv = Callable[[random.Random], TextEnv]
"""Makes a task's environment, with what it draws coming from the generator given."""


@dataclass(frozen=True)
class Wording:
    """What a suite calls its things, in reports and messages."""

    task: str = "task"
    """One of them, as the suite says."""
    tasks: str = "tasks"
    """Several."""
    lapses: str = "steps that reward must teach"
    """What demonstrations with a lapse leave out; see `demos.lapses`."""


@dataclass(frozen=True)
class OwnSettings:
    """What the settings that no other suite reads decide, by their names; those that are not named here decide which tasks there are."""

    demos: tuple[str, ...] = ()
    """How demonstrations are made."""
    text: tuple[str, ...] = ()
    """What an agent reads and writes."""
    reward: tuple[str, ...] = ()
    """What an episode pays."""


class Suite(ABC):
    """One package under `hiper/suites`, or somebody else's: see `hiper.suites.registry`."""

    scene: str
    """Where the agent acts, for prompts that have to explain; one sentence or two."""
    wording: Wording = Wording()
    splits: tuple[str, ...] = ("train", "valid", "test")
    """Names of its splits; `train` is among them."""
    task_types: tuple[str, ...] = ()
    """Kinds of tasks in the order in which they are shown; others come after them by name."""
    own: OwnSettings = OwnSettings()
    """What its own settings decide; the class of them is named where the suite is registered."""

    def source(self, cfg: RunConfig) -> Mapping[str, Any]:
        """What decides the tasks beside settings, such as where official ones lie when the config leaves that to the machine: nothing."""
        return {}

    def judged_by(self, cfg: RunConfig) -> Mapping[str, str]:
        """What an evaluation has to say of how success was told and what agents saw, beside what all suites share."""
        return {}

    def packages(self, cfg: RunConfig, stages: Sequence[str]) -> Iterator[tuple[Sequence[str], str, str]]:
        """What has to be installed for stages to be done here, beside what all suites need: modules, what wants them, and what to do."""
        yield from ()

    def check(self, cfg: RunConfig) -> None:  # noqa: B027  nothing is what most have to check
        """See that its settings go together.

        Raises:
            ConfigError: they do not; the message says which.
        """

    @abstractmethod
    def data(self, folder: Path, cfg: RunConfig, progress: Progress | None = None) -> Path:
        """The tasks: generated into `folder`, or where the official ones are, fetched when missing and possible.

        Raises:
            DataError: there are none.
        """

    @abstractmethod
    def index(self, root: Path, cfg: RunConfig, splits: Sequence[str] | None = None) -> TaskIndex:
        """Find the tasks of a directory laid out as `data` leaves it.

        Args:
            root: the directory.
            cfg: which tasks to keep.
            splits: which to index; None: all that are there.

        Raises:
            DataError: there is no such directory or split, or a task is damaged.
        """

    def digest(self, cfg: RunConfig, path: Path) -> str:
        """SHA-256 of a task's content, as hexadecimal digits: of its file's bytes, or of its name where it has no file.

        A suite whose tasks are made of something else, or whose files differ in what is no content, says so here.

        Raises:
            DataError: the task cannot be read.
        """
        content = read_bytes(path) if path.is_file() else f"{path.parent.name}/{path.name}".encode()
        return hashlib.sha256(content).hexdigest()

    def index_with_digests(self, root: Path, cfg: RunConfig, splits: Sequence[str] | None = None) -> TaskIndex:
        """As `index`, with the digest of each task's content. A warning counts held-out tasks that are trained on, too."""
        index = self.index(root, cfg, splits)
        entries = tuple(replace(entry, digest=self.digest(cfg, index.resolve(entry))) for entry in index.entries)
        found = replace(index, entries=entries)
        for split, count in found.repeated().items():
            logger.warning(
                "%d of the %d tasks of %s are in train, too, with the same content: success on them says little of new ones",
                count,
                len(found.split(split)),
                split,
            )
        return found

    @abstractmethod
    def make_env(self, cfg: RunConfig, path: Path, rng: random.Random | None = None) -> TextEnv:
        """An environment for the task at a path of the index; `rng` gives its things other names, where that can be done."""

    def expert(self, index: TaskIndex, cfg: RunConfig, rng: random.Random) -> Expert:
        """An expert that has seen the training split; `rng` is its own. A suite that does not say one has none.

        Raises:
            ConfigError: it has none.
        """
        raise ConfigError(f"env.name={cfg.env.name} has no expert: nobody shows how its tasks are done.")

    @property
    def has_expert(self) -> bool:
        """Whether it has an expert; without one, nothing is demonstrated or fine-tuned, and training starts from the base model."""
        return type(self).expert is not Suite.expert

    def training_tasks(self, index: TaskIndex, cfg: RunConfig, rng: random.Random) -> Iterator[tuple[Task, MakeEnv]]:
        """Tasks to demonstrate, in random order and without end: those of the training split, again and again.

        Each comes with what makes its environment, for processes that share the tasks: one that leaves a task to another does not make it.
        The order is drawn from `rng` and hangs on nothing else, so that all of them have the same.
        """
        entries = index.split("train")
        while True:
            for entry in rng.sample(entries, len(entries)):
                yield entry, partial(self._make, cfg, index.resolve(entry))

    def _make(self, cfg: RunConfig, path: Path, rng: random.Random) -> TextEnv:
        return self.make_env(cfg, path)

    def whole(self, cfg: RunConfig) -> RunConfig:
        """The settings under which `index` leaves no task of a directory out."""
        return replace(cfg, tasks=TasksConfig())

    def small(self, cfg: RunConfig, train: int, held_out: int) -> RunConfig:
        """The settings with no more generated tasks than these, for a look at one or two; as they are, where that costs nothing."""
        return cfg

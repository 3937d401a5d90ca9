"""Writing demonstrations: the expert's play, worded in the agent's own protocol.

The file is JSONL in the conversational format TRL reads (`messages` of roles `user` and `assistant`). In the `append` context a line is an
episode; in the `window` context a line is a turn. Beside the messages stands what was admissible at each reply; a reply of `weight` 0 is an
error made on purpose, which the warm start shows and does not teach.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from hiper.config import RunConfig
from hiper.errors import ConfigError, DataError
from hiper.protocol import Prompter, Switch, render
from hiper.protocol.prompts import Past
from hiper.runtime.files import replacing
from hiper.runtime.progress import Progress
from hiper.runtime.reading import read_json_lines
from hiper.runtime.records import read_value
from hiper.suites import suite_of
from hiper.suites.expert import Demonstration, demonstrate
from hiper.suites.tasks import TaskIndex

TRAIN = "train"

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Conversation:
    """One line of a demonstration file."""

    messages: list[Message]
    """Of keys `role`, `content`, and for a reply that is not to be learned `weight`: 0."""
    admissible: list[list[str]] | None
    """Commands that did something at each reply; None in files of other origin."""


@dataclass(frozen=True)
class DemosSummary:
    """What a demonstration file holds."""

    path: str
    demonstrations: int
    tasks: int
    mean_turns: float
    switch_rate: float
    """Share of turns after the first that say SWITCH."""
    won: float
    """Share of the demonstrations that solve their task: all, unless `demos.lapses` spoils some."""
    failed: int
    """Tasks the expert did not get through within the turn limit; they are not written."""


@dataclass(frozen=True)
class Share:
    """What one process has written of a demonstration file."""

    demonstrations: int
    won: int
    turns: int
    switches: int
    """Turns after an episode's first that say SWITCH."""
    failed: int
    tasks: list[str]
    """Paths of the tasks that were played to their end, each once."""


def write_demos(index: TaskIndex, cfg: RunConfig, out: Path, progress: Progress | None = None) -> DemosSummary:
    """Play training tasks with the expert and write what it did.

    Tasks are taken in a seeded order, see `Suite.training_tasks`.

    Args:
        index: tasks; only the training split is read.
        cfg: demos, protocol and environment settings.
        out: the JSONL file, replaced in one move.
        progress: called with (written, wanted).

    Raises:
        ConfigError: `demos` asks for what the benchmark cannot do, such as fresh tasks of an official set, or for several processes.
        DataError: no training tasks, or the expert fails on all of them.
    """
    if cfg.demos.processes != 1:
        raise ConfigError(
            f"demos.processes={cfg.demos.processes}, but this is one process. `hiper demos` starts the others, and so does "
            "hiper.sft.demo_ranks.write_demos_in_processes."
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as temporary:
        share = write_share(index, cfg, temporary, progress=progress)
    return summarise(out, [share])


def write_share(index: TaskIndex, cfg: RunConfig, out: Path, rank: int = 0, size: int = 1, progress: Progress | None = None) -> Share:
    """One process's share of the demonstrations: of every `size` tasks one, from the `rank`th on. All have the same order of tasks, and
    each draws all else from a generator of its own.

    Args:
        index: as of `write_demos`, and so are `cfg` and the errors.
        cfg: everything.
        out: the JSONL file of this share.
        rank: from 0.
        size: processes.
        progress: called with (written, wanted), for all processes: they are taken to be as far as this one.
    """
    suite = suite_of(cfg)
    entries = index.split(TRAIN)
    seed = f"demos-{cfg.demos.seed}"
    order = random.Random(seed)
    rng = order if size == 1 else random.Random(f"{seed}-{rank}-of-{size}")
    expert = suite.expert(index, cfg, rng)
    tasks = islice(suite.training_tasks(index, cfg, order), rank, None, size)
    prompter = Prompter(cfg.protocol, suite.scene)
    count = len(range(rank, cfg.demos.count, size))
    written = won = turns = switches = failed = 0
    used: set[str] = set()
    with out.open("w", encoding="utf-8") as file:
        for entry, make in tasks:
            if written == count:
                break
            if failed >= max(10, len(entries)) and not written:
                raise DataError(f"the expert solved none of {failed} training tasks under {index.root} within {cfg.env.max_turns} turns.")
            task = make(rng)
            lapse = cfg.demos.lapses > 0 and rng.random() < cfg.demos.lapses
            demo = demonstrate(task, expert, cfg.env.max_turns, cfg.demos.slips, rng, lapse=lapse, rounds=cfg.demos.rounds)
            if not demo.complete:
                failed += 1
                continue
            used.add(entry.path)
            for messages, admissible in conversations_of(demo, prompter, cfg):
                line = {"task_id": entry.path, "task_type": entry.task_type, "messages": messages, "admissible": admissible}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
            written += 1
            won += demo.won
            turns += len(demo.turns)
            switches += sum(step.switch for _, step in demo.turns[1:])
            if progress is not None:
                progress(written * cfg.demos.count // count, cfg.demos.count)
    return Share(written, won, turns, switches, failed, sorted(used))


def summarise(out: Path, shares: Sequence[Share]) -> DemosSummary:
    """What a file holds that is made up of these shares."""
    written, turns = sum(share.demonstrations for share in shares), sum(share.turns for share in shares)
    return DemosSummary(
        path=str(out),
        demonstrations=written,
        tasks=len({task for share in shares for task in share.tasks}),
        mean_turns=turns / written,
        switch_rate=sum(share.switches for share in shares) / max(1, turns - written),
        won=sum(share.won for share in shares) / written,
        failed=sum(share.failed for share in shares),
    )


def read_demos(path: Path) -> list[Conversation]:
    """The conversations of a demonstration file.

    Raises:
        DataError: the file is missing, empty, or a line is no conversation.
    """
    if not path.exists():
        raise DataError(f"there are no demonstrations at {path}. Write them with `hiper demos`.")
    conversations = [_conversation(record, where) for where, record in read_json_lines(path)]
    if not conversations:
        raise DataError(f"{path} holds no demonstrations. Write them with `hiper demos`.")
    return conversations


@dataclass(frozen=True, slots=True)
class _Said:
    """A message as the file has it."""

    role: str
    content: str
    weight: int = 1


def _conversation(record: Any, where: str) -> Conversation:
    """One line, its types and its form checked."""
    if not isinstance(record, dict) or "messages" not in record:
        raise DataError(f'{where}: not a demonstration. Expected {{"messages": [{{"role", "content"}}, ...]}}.')
    said = read_value(list[_Said], record["messages"], f"{where}: not a demonstration: messages")
    messages: list[Message] = [{"role": one.role, "content": one.content, "weight": one.weight} for one in said]
    found = record.get("admissible")
    admissible = None if found is None else read_value(list[list[str]], found, f"{where}: not a demonstration: admissible")
    if [m["role"] for m in messages] != ["user", "assistant"] * (len(messages) // 2) or not messages:
        raise DataError(f"{where}: the messages do not alternate user, assistant, ..., assistant.")
    if admissible is not None and len(admissible) != len(messages) // 2:
        raise DataError(
            f"{where}: {len(admissible)} lists of admissible commands for {len(messages) // 2} replies; there must be one a reply."
        )
    if admissible is not None:  # the same few hundred commands, millions of times
        admissible = [[sys.intern(command) for command in commands] for commands in admissible]
    return Conversation(messages, admissible)


def conversations_of(demo: Demonstration, prompter: Prompter, cfg: RunConfig) -> Iterator[tuple[list[Message], list[list[str]]]]:
    """An episode as its lines: the messages, and what was admissible at each reply."""
    replies: list[Message] = []
    for _, step in demo.turns:
        text = render(Switch.SWITCH if step.switch else Switch.KEEP, step.subgoal, step.action, cfg.protocol.dialect)
        replies.append({"role": "assistant", "content": text, **({"weight": 0} if step.slip else {})})
    observations = [observation for observation, _ in demo.turns]
    if prompter.appends:
        later = zip(observations[1:], demo.turns, strict=False)
        asked = [prompter.first(observations[0]), *(prompter.later(text, demo.task, before.subgoal) for text, (_, before) in later)]
        yield [m for text, reply in zip(asked, replies, strict=True) for m in ({"role": "user", "content": text}, reply)], demo.admissible
        return
    past: list[Past] = []
    subgoal: str | None = None
    for (observation, step), reply, admissible in zip(demo.turns, replies, demo.admissible, strict=True):
        if not step.slip:
            asked_now = prompter.window(demo.task, past, observation, subgoal, admissible)
            yield [{"role": "user", "content": asked_now}, reply], [admissible]
        past.append(Past(observation, step.action))
        subgoal = step.subgoal

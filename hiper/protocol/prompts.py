"""What the model reads.

`append`: the task and the first observation open a conversation, each later message is just the next observation, and nothing
is ever encoded twice. `window`: the paper's prompt, rebuilt every turn from the task, the last turns, the current subgoal and
the admissible actions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hiper.config import Context, Dialect, ProtocolConfig, Style

_BANNER = "-= Welcome to TextWorld, ALFRED! =-"


@dataclass(frozen=True, slots=True)
class Past:
    """A turn as the `window` prompt recalls it."""

    observation: str
    action: str


def describe(observation: str) -> str:
    """An observation as prompts show it: the program's own banner says nothing about the task."""
    return observation.replace(_BANNER, "").strip()


def instructions(dialect: Dialect, scene: str) -> str:
    """How to answer, for a model that has to be told; `scene` says where it acts."""
    kept = (
        "On KEEP repeat the current subgoal word for word."
        if dialect is Dialect.full
        else "On KEEP leave the subgoal block out: the current subgoal stays."
    )
    return (
        f"{scene} Work towards the task through subgoals: short goals that take one or more actions.\n"
        "Each turn, first decide whether the current subgoal still stands, then act. Answer in exactly this form:\n"
        "<switch>KEEP or SWITCH</switch> <subgoal>the subgoal</subgoal> <action>one action</action>\n"
        "SWITCH when there is no subgoal yet, when it is reached, or when it leads nowhere; then write the new one. " + kept
    )


class Prompter:
    """Words the messages of one experiment."""

    def __init__(self, cfg: ProtocolConfig, scene: str) -> None:
        self.context = cfg.context
        self._cfg = cfg
        self._instructions = instructions(cfg.dialect, scene)

    def first(self, observation: str) -> str:
        """`append`: the message that opens the conversation. The environment's first observation states the task."""
        text = describe(observation)
        return text if self._cfg.style is Style.terse else f"{self._instructions}\n\n{text}"

    def later(self, observation: str, task: str, subgoal: str) -> str:
        """`append`: each message after the first. A small model need not look far back when it is reminded of task and subgoal."""
        text = describe(observation)
        return f"{text}\nTask: {task}\nSubgoal: {subgoal or 'none'}" if self._cfg.remind else text

    def window(self, task: str, past: Sequence[Past], observation: str, subgoal: str | None, admissible: Sequence[str]) -> str:
        """`window`: the whole prompt of one turn.

        Args:
            task: the goal sentence.
            past: all turns so far; the last `history` of them are shown.
            observation: what the environment said last.
            subgoal: the subgoal in force; None before the first.
            admissible: commands the environment admits now.
        """
        shown = past[-self._cfg.history :] if self._cfg.history else []
        parts = [] if self._cfg.style is Style.terse else [self._instructions]
        parts.append(f"Your task is to: {task}")
        if shown:
            first = len(past) - len(shown) + 1
            lines = [f"{first + i}. {describe(turn.observation)} You did: {turn.action}" for i, turn in enumerate(shown)]
            parts.append(f"You have taken {len(past)} turns. The last ones:\n" + "\n".join(lines))
        parts.append(f"Current observation: {describe(observation)}")
        parts.append(f"Current subgoal: {subgoal or 'none'}")
        parts.append("Admissible actions: " + ", ".join(admissible))
        return "\n".join(parts)

    @property
    def appends(self) -> bool:
        """Whether the conversation grows instead of being rebuilt."""
        return self.context is Context.append

"""ALFWorld's goal sentences, read: the only place that knows their wording."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from hiper.errors import DataError


class Treatment(StrEnum):
    """What must be done to an object before it is put away; the value is the command's verb."""

    clean = "clean"
    heat = "heat"
    cool = "cool"

    @property
    def appliance(self) -> str:
        """The receptacle type that does it."""
        return {"clean": "sinkbasin", "heat": "microwave", "cool": "fridge"}[self.value]


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """What a goal sentence asks for, in the game's own lower-case type names."""

    task_type: str
    object: str
    receptacle: str | None
    """Where to put it; None when it is to be looked at."""
    lamp: str | None
    """Lamp to look at it under, else None."""
    treatment: Treatment | None
    count: int
    """Objects to put away, all in one receptacle."""


_STATES = {"clean": Treatment.clean, "hot": Treatment.heat, "cool": Treatment.cool}
_FORMS = (
    r"put (?:a|an|some) (?P<state>clean|hot|cool) (?P<object>\w+) (?:in|on) (?P<receptacle>\w+)",
    r"(?P<verb>clean|heat|cool) (?:a|an|some) (?P<object>\w+) and put it (?:in|on) (?P<receptacle>\w+)",
    r"put (?P<two>two) (?P<object>\w+) (?:in|on) (?P<receptacle>\w+)",
    r"find (?P<two>two) (?P<object>\w+) and put them (?:in|on) (?P<receptacle>\w+)",
    r"put (?:a|an|some) (?P<object>\w+) (?:in|on) (?P<receptacle>\w+)",
    r"look at (?:an? |the |some )?(?P<object>\w+) under the (?P<lamp>\w+)",
    r"examine (?:an? |the |some )?(?P<object>\w+) with the (?P<lamp>\w+)",
)
_SENTENCES = [re.compile(form) for form in _FORMS]


def parse_task(sentence: str) -> TaskSpec:
    """The task a goal sentence states, such as `put a hot mug in cabinet.`

    Args:
        sentence: with or without the lead-in `Your task is to:` and the full stop.

    Raises:
        DataError: not one of the official wordings of the six task types.
    """
    text = sentence.rsplit("Your task is to:", 1)[-1].strip().rstrip(".").strip().lower()
    for form in _SENTENCES:
        match = form.fullmatch(text)
        if match is None:
            continue
        found = match.groupdict()
        lamp, two = found.get("lamp"), found.get("two")
        treatment = _STATES.get(found.get("state") or "") or (Treatment(found["verb"]) if found.get("verb") else None)
        if lamp:
            task_type = "look_at_obj_in_light"
        elif two:
            task_type = "pick_two_obj_and_place"
        else:
            task_type = f"pick_{treatment}_then_place_in_recep" if treatment else "pick_and_place_simple"
        return TaskSpec(task_type, found["object"], found.get("receptacle"), lamp, treatment, 2 if two else 1)
    raise DataError(
        f"the task {text!r} is in none of the official wordings, such as 'put a hot mug in cabinet' or 'look at book under the desklamp'."
    )

"""An expert that plays by what it sees: the task, observations and admissible commands, and where things usually lie.

It names a subgoal for every turn, from a small vocabulary: `find a mug` (search until one is in hand), `clean | heat | cool the
mug`, `put the mug in the cabinet`; for two objects `find another mug`; for lamps `find a desklamp` and `look at the mug under the
desklamp`. A new subgoal is a SWITCH; staying with one is a KEEP.

Whatever it finds itself holding or doing, it goes on from there: a wrong thing is put down, a wrong subgoal replaced. In a lapse it takes a
thing to the appliance or lamp and does not work that, so that it is left to reward to teach what they are for.
"""

from __future__ import annotations

import random
import re

from hiper.suites.alfworld.prior import LocationPrior
from hiper.suites.alfworld.tasks import TaskSpec, Treatment, parse_task
from hiper.suites.expert import PlanStep

_LISTED = re.compile(r", you see ([^.]*)\.")
_NAME = re.compile(r"\ban? ([a-z]+ \d+)")
_VISITED = re.compile(r"On the ([a-z]+ \d+), you see|The ([a-z]+ \d+) is (open|closed)\.")
_TAKEN = re.compile(r"You pick up the ([a-z]+ \d+) from")
_PUT = re.compile(r"You (?:put|move) the ([a-z]+ \d+) (?:in/on|to|in|on) the ([a-z]+ \d+)")
_TREATED = re.compile(r"You (clean|heat|cool) the ([a-z]+ \d+) using")
# Demonstrations with a lapse go on this long, under the subgoal that a new try begins with. Else an agent whose lapse went unrewarded says
# what always follows on putting something down, `find another`, takes the same thing up again, is rewarded for getting it right the
# second time, and forgets that of two things the first is to be left where it is.
_IDLE_TURNS = 4


def indefinite(noun: str) -> str:
    """`a mug`, `an apple`."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def kind(name: str) -> str:
    """`cabinet 12` -> `cabinet`."""
    return name.rsplit(" ", 1)[0]


class Expert:
    """Searches likely places first, then treats and places what it found.

    Args:
        prior: where things usually lie; learn it from training games only.
        detours: probability that a search turn which picks a place picks a random one not yet visited.
        rng: needed for detours; owned by the expert.
    """

    def __init__(self, prior: LocationPrior, detours: float = 0.0, rng: random.Random | None = None) -> None:
        self._prior = prior
        self._detours = detours
        self._rng = rng if rng is not None else random.Random(0)
        self._task: TaskSpec | None = None

    def start(self, task: str, observation: str, lapse: bool = False) -> None:
        """Begin an episode.

        Args:
            task: the goal sentence.
            observation: the first one, which lists the furniture.
            lapse: examine a thing wherever it is to be cleaned, heated, cooled or lit, go on as if that were done, and when all is, name
                the subgoal of a new try and only look around.

        Raises:
            DataError: the sentence is in none of the official wordings.
        """
        room = observation.split("Your task is to:", 1)[0]
        self._furniture: list[str] = sorted(_NAME.findall(room), key=lambda name: (kind(name), int(name.rsplit(" ", 1)[1])))
        self._unseen: list[str] = list(self._furniture)
        self._contents: dict[str, list[str]] = {}
        self._place: str | None = None
        self._before: str | None = None
        self._held: str | None = None
        self._treated: set[str] = set()
        self._done: set[str] = set()
        self._goal: str | None = None
        self._subgoal: str | None = None
        self._over: str | None = None
        self._last: PlanStep | None = None
        self._lapse = lapse
        self._idle = 0
        self._task = parse_task(task)

    @property
    def through(self) -> bool:
        """It takes itself to be done, after a lapse."""
        return self._idle > 0

    @property
    def stops(self) -> bool:
        """It has looked around long enough since."""
        return self._idle == _IDLE_TURNS

    def act(self, observation: str, admissible: list[str]) -> PlanStep:
        """The next decision.

        Args:
            observation: what the environment said last; at the first turn, the one given to `start`.
            admissible: commands that do something now.
        """
        if self._lapse and self._over is None and self._through(observation):
            self._over = self._subgoal if self._spec.lamp is not None else f"find {indefinite(self._spec.object)}"
        self._read(observation)
        if self._over is not None:
            self._idle += 1
            subgoal, action = self._over, "look"
        else:
            subgoal, action = self._decide(self._spec, admissible)
        switch, self._subgoal = subgoal != self._subgoal, subgoal
        self._went(action)
        self._last = PlanStep(switch, subgoal, action)
        return self._last

    def _through(self, observation: str) -> bool:
        """Whether the last command completed what it meant to do, a lapse included, by what the environment said to it."""
        if self._last is None or self._last.slip:
            return False
        if self._spec.lamp is not None:
            return self._last.action.startswith("examine") and self._last.subgoal.startswith("look")
        put = _PUT.search(observation)
        return put is not None and self._serves(put[1], put[2]) and len(self._done | {put[1]}) == self._spec.count

    def slip(self, step: PlanStep, admissible: list[str], rng: random.Random) -> PlanStep:
        """An error instead of the decision just taken: any command, and half the time a subgoal out of place; play it, then `act` again.

        Args:
            step: what `act` returned.
            admissible: commands that do something now.
            rng: advanced.
        """
        verbs = sorted({command.split()[0] for command in admissible})
        searching = step.subgoal.startswith("find") and not step.action.startswith("take")
        # What an agent that searches gets wrong most often is to take what it does not look for.
        verb = "take" if searching and "take" in verbs and rng.random() < 0.5 else rng.choice(verbs)
        action = rng.choice([command for command in admissible if command.split()[0] == verb])
        switch, subgoal = step.switch, step.subgoal
        if rng.random() < 0.5:
            switch, subgoal = True, rng.choice([other for other in self._subgoals(self._spec) if other != step.subgoal])
        self._subgoal = subgoal
        if step.action.startswith("go to "):
            self._place = self._before
        self._went(action)
        self._last = PlanStep(switch, subgoal, action, slip=True)
        return self._last

    def stray(self, step: PlanStep, admissible: list[str], rng: random.Random) -> PlanStep | None:
        """An error instead of the decision just taken: back to a place it has seen already, under the same subgoal; None: there is none.

        Args:
            step: what `act` returned.
            admissible: commands that do something now.
            rng: advanced.
        """
        goal = step.action.removeprefix("go to ")
        seen = [place for place in self._contents if place not in (self._before, goal) and f"go to {place}" in admissible]
        if goal == step.action or not seen:
            return None
        self._place = self._before
        action = f"go to {rng.choice(seen[-3:])}"
        self._went(action)
        self._last = PlanStep(step.switch, step.subgoal, action, slip=True)
        return self._last

    @property
    def _spec(self) -> TaskSpec:
        """What it takes the task to be."""
        assert self._task is not None, "call start first"
        return self._task

    def _went(self, action: str) -> None:
        self._before = self._place
        if action.startswith("go to "):
            self._place = action.removeprefix("go to ")

    def _subgoals(self, task: TaskSpec) -> list[str]:
        """Every subgoal that a turn of the task may call for, and looking for something else."""
        thing = task.object
        others = {kind(name) for things in self._contents.values() for name in things} - {thing}
        subgoals = [f"find {indefinite(thing)}", f"find another {thing}", *(f"find {indefinite(other)}" for other in sorted(others)[:2])]
        if task.lamp is not None:
            subgoals += [f"find {indefinite(task.lamp)}", f"look at the {thing} under the {task.lamp}"]
        if task.receptacle is not None:
            subgoals.append(f"put the {thing} in the {task.receptacle}")
        if task.treatment is not None:
            subgoals.append(f"{task.treatment} the {thing}")
        return subgoals

    def _read(self, observation: str) -> None:
        if self._subgoal is None:
            return  # the first observation lists furniture, not contents
        for visit in _VISITED.finditer(observation):
            place = visit[1] or visit[2]
            if visit[3] == "closed":
                continue
            listed = _LISTED.search(observation, visit.start())
            self._contents[place] = _NAME.findall(listed[1]) if listed else []
            if place in self._unseen:
                self._unseen.remove(place)
        if taken := _TAKEN.search(observation):
            self._held = taken[1]
            self._done.discard(taken[1])
            for things in self._contents.values():
                if taken[1] in things:
                    things.remove(taken[1])
        if put := _PUT.search(observation):
            self._held = None
            if self._serves(put[1], put[2]):
                self._done.add(put[1])
                self._goal = put[2]
            else:
                self._contents.setdefault(put[2], []).append(put[1])
        if treated := _TREATED.search(observation):
            if self._spec.treatment is not None and treated[1] == self._spec.treatment.value:
                self._treated.add(treated[2])
            elif treated[1] != Treatment.clean:  # heat undoes cold, and cold heat
                self._treated.discard(treated[2])

    def _serves(self, thing: str, place: str) -> bool:
        """Whether putting this there is what the task asks for."""
        task = self._spec
        ready = task.treatment is None or thing in self._treated
        return kind(thing) == task.object and kind(place) == task.receptacle and ready

    def _decide(self, task: TaskSpec, admissible: list[str]) -> tuple[str, str]:
        thing = task.object
        if self._held is None or kind(self._held) != thing:
            return f"find {'another ' + thing if self._done else indefinite(thing)}", self._find(thing, admissible)
        if task.lamp is not None:
            return self._look(task.lamp, thing, admissible)
        if task.treatment is not None and self._held not in self._treated:
            return f"{task.treatment} the {thing}", self._treat(task.treatment.value, task.treatment.appliance, admissible)
        return f"put the {thing} in the {task.receptacle}", self._put(task.receptacle or "", admissible)

    def _find(self, thing: str, admissible: list[str]) -> str:
        if self._held is not None:
            return self._drop(admissible)
        for command in admissible:
            match = re.fullmatch(rf"take ({thing} \d+) from (.+)", command)
            if match and not (match[1] in self._done and match[2] == self._goal):
                return command
        for place, things in self._contents.items():
            shut = f"open {place}" in admissible
            if place != self._goal and (place != self._place or shut) and any(kind(name) == thing for name in things):
                return self._reach(place, admissible)
        return self._search(thing, admissible)

    def _drop(self, admissible: list[str]) -> str:
        """Put down a wrong thing: here if that can be, else at the nearest place."""
        here = [command for command in admissible if re.match(rf"(?:put|move) {self._held} ", command)]
        if here:
            return here[0]
        if self._place is not None and f"open {self._place}" in admissible:
            return f"open {self._place}"
        return self._reach(next(place for place in self._furniture if place != self._place), admissible)

    def _search(self, thing: str, admissible: list[str]) -> str:
        if self._place in self._unseen and f"open {self._place}" in admissible:
            return f"open {self._place}"
        if not self._unseen:  # all seen and not found: look everywhere else once more
            self._unseen = [place for place in self._furniture if place != self._place] or list(self._furniture)
        if self._detours and self._rng.random() < self._detours:
            return self._reach(self._rng.choice(self._unseen), admissible)
        return self._reach(max(self._unseen, key=lambda place: self._worth(thing, kind(place))), admissible)

    def _worth(self, thing: str, receptacle: str) -> float:
        """Objects to expect for a turn spent: the best order of search, when receptacles are independent."""
        if self._spec.task_type == "pick_and_place_simple" and receptacle == self._spec.receptacle:
            return -1.0  # were one there, the task would be solved
        return self._prior.score(thing, receptacle) / (1.0 + self._prior.openable.get(receptacle, 0.0))

    def _look(self, lamp: str, thing: str, admissible: list[str]) -> tuple[str, str]:
        use = [command for command in admissible if re.fullmatch(rf"use {lamp} \d+", command)]
        place = next((place for place, things in self._contents.items() if any(kind(name) == lamp for name in things)), None)
        if use or place is not None:
            look = f"examine {self._held}" if self._lapse else use[0] if use else ""
            return f"look at the {thing} under the {lamp}", look if use else self._reach(place or "", admissible)
        return f"find {indefinite(lamp)}", self._search(lamp, admissible)

    def _treat(self, verb: str, appliance: str, admissible: list[str]) -> str:
        command = next((command for command in admissible if re.fullmatch(rf"{verb} {self._held} with {appliance} \d+", command)), None)
        if command and self._lapse and self._held is not None:
            self._treated.add(self._held)
            return f"examine {self._held}"
        return command or self._reach(self._nearest(appliance), admissible)

    def _put(self, receptacle: str, admissible: list[str]) -> str:
        goal = self._goal if self._goal is not None and kind(self._goal) == receptacle else self._nearest(receptacle)
        command = next(
            (command for command in admissible if re.fullmatch(rf"(?:put|move) {self._held} (?:in/on|to) {goal}", command)), None
        )
        return command or self._reach(goal, admissible)

    def _nearest(self, receptacle: str) -> str:
        """The receptacle of a type to use: where the agent stands, else one known to be open, else the first."""
        choices = [name for name in self._furniture if kind(name) == receptacle]
        if self._place in choices:
            return str(self._place)
        return next((name for name in choices if name in self._contents), choices[0] if choices else f"{receptacle} 1")

    def _reach(self, place: str, admissible: list[str]) -> str:
        """Go there, or open it when the agent is there already."""
        if place != self._place and f"go to {place}" in admissible:
            return f"go to {place}"
        if f"open {place}" in admissible:
            self._place = place
            return f"open {place}"
        return f"examine {place}" if f"examine {place}" in admissible else "look"

"""What the arms of a comparison say of the same decisions: whether their credit tells the right ones from the wrong ones.

Where a thing is to be cleaned, heated, cooled or lit, a warm start from demonstrations with lapses (`demos.lapses`) chooses between the
command that does it and `examine`, which looks as if it did. One of the two leads to success, and reward is to tell which. The comparison's
warm start plays the same episodes for all arms; each arm's critic is fitted to them as its training would, while the policy stays; then
each arm's credit for the action is compared between the two choices.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hiper.algos.registry import make_estimator
from hiper.algos.types import Estimator
from hiper.composition.compose import compose
from hiper.config import ValueFit
from hiper.config.algo import Level
from hiper.errors import ConfigError, DataError
from hiper.experiments.comparison.spec import Comparison
from hiper.model.actor import Actor, load_actor, load_tokenizer
from hiper.pipeline.state import check_upstream, task_index
from hiper.rollout.chat import ChatCodec
from hiper.rollout.episode import Episode
from hiper.rollout.trajectory import Trajectory
from hiper.runs.stage import MODEL_FOLDER
from hiper.runtime.device import pick_device
from hiper.runtime.progress import Progress
from hiper.train.iteration import Encode, assess
from hiper.train.learner import Learner
from hiper.train.sample import Player
from hiper.train.stream import TaskStream

DOES, LOOKS = ("clean ", "heat ", "cool ", "use "), "examine "
PLANS = ("clean ", "heat ", "cool ", "look at ")
"""Commands that do it or only look as if, and subgoals under which they are chosen."""
GROUP = 8
"""Episodes of a task, which estimators without a critic compare."""

Decision = tuple[int, bool]
"""A turn, and whether what was chosen there was right."""


def first_use(trajectory: Trajectory) -> Decision | None:
    """The first time an episode uses an appliance or lamp under the subgoal to do so, or examines instead; None: it never comes to that."""
    for number, turn in enumerate(trajectory.turns):
        if turn.subgoal.startswith(PLANS) and turn.action.startswith((*DOES, LOOKS)):
            return number, turn.action.startswith(DOES)
    return None


def compare_credit(
    comparison: Comparison,
    rounds: int = 3,
    fitted: int = 2,
    decision: Callable[[Trajectory], Decision | None] = first_use,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure how far apart each arm's credit holds right and wrong decisions.

    Args:
        comparison: its base must have been made (`hiper compare FILE --only base`).
        rounds: iterations' worth of episodes whose credit is compared.
        fitted: such rounds before them that critics alone see.
        decision: an episode's decision that is looked at.
        progress: called with (rounds done, all).

    Returns:
        dict: `comparison`, `episodes`, `rounds_for_critics`, `right` and `wrong` (decisions of either kind), and by arm, over all of them:
        `mean_right` and `mean_wrong`, credit for the action in the estimator's units; `gap`, their difference in standard deviations of the
        credit of all turns, which is what a standardised update feels; `clarity`, the same in standard deviations within the two kinds
        (d'), which says how surely one decision's credit is on the right side; `clarity_error`, its standard error where both are alike.

    Raises:
        ConfigError: the comparison has no warm start of its own, it has not been made, or an arm's critic learns by gradient.
        DataError: fewer than two decisions of a kind.
    """
    if not comparison.one_start:
        raise ConfigError(f"the runs of comparison {comparison.name!r} start from a model of their own each: there are no common episodes.")
    base = comparison.base_cfg
    check_upstream(base, "train")
    if base.threads:
        torch.set_num_threads(base.threads)
    model, device = Path(base.paths.run) / "sft" / MODEL_FOLDER, pick_device(base)
    actor, index = load_actor(model, base.model).to(device).eval(), task_index(base)
    play = replace(base, algo=replace(base.algo, group_size=GROUP))
    sampler = torch.Generator(device).manual_seed(base.seed)
    tokenizer = load_tokenizer(model)
    player = Player(play, actor, ChatCodec(tokenizer), index, TaskStream(index.split("train"), base.seed), sampler)
    learners = {arm: _learner(comparison, arm, actor) for arm in comparison.arms}
    estimators = {arm: make_estimator(learner.cfg.algo) for arm, learner in learners.items()}
    found: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {arm: [] for arm in learners}
    judged = 0
    for number in range(fitted + rounds):
        episodes, _ = player.sample()
        decisions = [decision(episode.trajectory) for episode in episodes]
        for arm, learner in learners.items():
            credit, mask = _credit(learner, estimators[arm], episodes, lambda text: tokenizer.encode(text, add_special_tokens=False))
            if number >= fitted:
                right, wrong = (_of(credit, decisions, kind) for kind in (True, False))
                found[arm].append((right, wrong, credit[mask]))
        judged += len(episodes) if number >= fitted else 0
        if progress is not None:
            progress(number + 1, fitted + rounds)
    whole = {arm: [torch.cat(column).double() for column in zip(*parts, strict=True)] for arm, parts in found.items()}
    right, wrong, _ = next(iter(whole.values()))
    if min(len(right), len(wrong)) < 2:
        raise DataError(
            f"{judged} episodes hold {len(right)} right and {len(wrong)} wrong decisions; two of each are the "
            "least. Play more rounds, or a warm start that does both: demos.lapses above 0."
        )
    return {
        "comparison": comparison.name,
        "episodes": judged,
        "rounds_for_critics": fitted,
        "right": len(right),
        "wrong": len(wrong),
        "arms": {arm: contrast(*parts) for arm, parts in whole.items()},
    }


def contrast(right: Tensor, wrong: Tensor, everywhere: Tensor) -> dict[str, float | None]:
    """Figures of `compare_credit` from the credit of right and of wrong decisions and of all turns, each (M,) float.

    A ratio is None where nothing differs, as where no episode was rewarded.
    """
    difference = float(right.mean() - wrong.mean())
    squares = (right - right.mean()).square().sum() + (wrong - wrong.mean()).square().sum()
    within = float(squares / (len(right) + len(wrong) - 2)) ** 0.5
    around = float(everywhere.std(correction=0))
    return {
        "mean_right": round(float(right.mean()), 4),
        "mean_wrong": round(float(wrong.mean()), 4),
        "gap": round(difference / around, 4) if around > 0 else None,
        "clarity": round(difference / within, 4) if within > 0 else None,
        "clarity_error": round((1 / len(right) + 1 / len(wrong)) ** 0.5, 4),
    }


def _learner(comparison: Comparison, arm: str, actor: Actor) -> Learner:
    cfg = compose([*comparison.base, *comparison.arms[arm]])
    if cfg.algo.needs.critic and cfg.trainer.value_fit is not ValueFit.least_squares:
        raise ConfigError(f"arm {arm!r}: with trainer.value_fit={cfg.trainer.value_fit} no critic learns while the policy stays.")
    return Learner.create(copy.deepcopy(actor), cfg, torch.Generator().manual_seed(cfg.seed))


def _credit(learner: Learner, estimator: Estimator[Any], episodes: Sequence[Episode], encode: Encode) -> tuple[Tensor, Tensor]:
    """(B, T) an arm's credit for each turn's action, and the mask of turns; its critic has seen the episodes afterwards."""
    batch, outputs, credit = assess(learner, estimator, None, episodes, encode)
    if learner.critic is not None:
        learner.fit(learner.critic, batch, outputs, credit)
    return credit.levels[Level.low], batch.mask


def _of(credit: Tensor, decisions: Sequence[Decision | None], kind: bool) -> Tensor:
    """(M,) credit of the decisions of a kind."""
    where = [(row, one[0]) for row, one in enumerate(decisions) if one is not None and one[1] is kind]
    rows, turns = torch.tensor(where, dtype=torch.long, device=credit.device).reshape(-1, 2).unbind(1)
    return credit[rows, turns]

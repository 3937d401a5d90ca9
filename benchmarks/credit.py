"""What estimators say of the same decisions: `python benchmarks/credit.py STUDY [OVERRIDE ...]` prints JSON; some minutes on one core.

Where a thing is to be cleaned, heated, cooled or lit, the warm starts of these studies choose by chance between the command that does it
and `examine`, which their demonstrations with lapses showed. One of the two leads to success, and reward is to tell which. The study's
warm start plays the same episodes for all its arms; each arm's critic is fitted to them, round after round, as its training would, while
the policy stays; then each arm's credit for the action is compared between the two choices:

    gap      mean credit of the right ones less that of the wrong ones, in standard deviations of the credit of all turns
    clarity  the same difference in standard deviations within the two groups (d'): how sure one decision's credit is of its sign

The first such decision of an episode counts. The study's base must have been made: `hiper study STUDY --only base`.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from hiper.compose import compose
from hiper.config import Estimator, RunConfig
from hiper.device import pick_device
from hiper.model.actor import load_actor, load_tokenizer
from hiper.rollout.chat import ChatCodec
from hiper.rollout.trajectory import Trajectory
from hiper.stages import MODEL_FOLDER, game_index
from hiper.study.spec import load_study
from hiper.train.batch import make_batch
from hiper.train.credit import assign_credit
from hiper.train.learner import Learner
from hiper.train.play import Player
from hiper.train.score import score
from hiper.train.stream import TaskStream

RIGHT, WRONG = ("clean ", "heat ", "cool ", "use "), "examine "
GROUP = 8
"""Episodes of a game, which estimators without a critic compare."""


def measure(study_file: Path, changes: Sequence[str], rounds: int, fitted: int) -> dict[str, Any]:
    """Credit of every arm over `rounds` of episodes, after `fitted` rounds that only critics see."""
    study = load_study(study_file, changes)
    base = study.base_cfg
    play = replace(base, algo=replace(base.algo, group_size=GROUP))
    index, device = game_index(base), pick_device(base)
    model = Path(base.paths.run) / "warm_start" / MODEL_FOLDER
    tokenizer = load_tokenizer(model)
    actor = load_actor(model, base.model).to(device).eval()
    sampler = torch.Generator(device).manual_seed(base.seed)
    player = Player(play, actor, ChatCodec(tokenizer), index, TaskStream(index.split("train"), base.seed), sampler)
    learners = {}
    for arm, words in study.arms.items():
        cfg = compose([*study.base, *words])
        learners[arm] = Learner.create(copy.deepcopy(actor), cfg, torch.Generator().manual_seed(0))
    found: dict[str, list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]] = {arm: [] for arm in learners}
    for number in range(fitted + rounds):
        _, episodes = player.sample()
        batch = make_batch(episodes, device)
        choices = [_choice(episode.trajectory) for episode in episodes]
        for arm, learner in learners.items():
            low = _round(learner, batch, learner.cfg)
            if number >= fitted:
                right, wrong = (_of(low, choices, wanted) for wanted in (True, False))
                found[arm].append((right, wrong, low[batch.mask]))
        print(f"round {number + 1} of {fitted + rounds}", file=sys.stderr)
    return {
        "study": study.name,
        "overrides": list(changes),
        "episodes": rounds * base.rollout.trajectories,
        "rounds_for_critics_alone": fitted,
        "arms": {arm: _summary(parts) for arm, parts in found.items()},
    }


def _round(learner: Learner, batch: Any, cfg: RunConfig) -> torch.Tensor:
    """(B, T) an arm's credit for each turn's action; its critic has seen the round afterwards."""
    scores = score(
        learner.actor,
        None,
        batch,
        budget=cfg.trainer.microbatch_tokens,
        temperature=cfg.rollout.temperature,
        with_states=learner.critic is not None,
        with_token_values=cfg.algo.name is Estimator.gae,
    )
    credit = assign_credit(batch, scores, cfg.algo)
    if learner.critic is not None:
        learner.fit(learner.critic, batch, scores, credit)
    return credit.levels.low


def _choice(trajectory: Trajectory) -> tuple[int, bool] | None:
    """Turn of the first decision between the two, and whether it was the right one; None where there was none."""
    for number, turn in enumerate(trajectory.turns):
        if turn.subgoal.startswith((*RIGHT, "look at ")) and turn.action.startswith((*RIGHT, WRONG)):
            return number, not turn.action.startswith(WRONG)
    return None


def _of(low: torch.Tensor, choices: Sequence[tuple[int, bool] | None], wanted: bool) -> torch.Tensor:
    return torch.stack([low[row, choice[0]] for row, choice in enumerate(choices) if choice is not None and choice[1] is wanted])


def _summary(parts: Sequence[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]) -> dict[str, Any]:
    right, wrong, everywhere = (torch.cat(column) for column in zip(*parts, strict=True))
    difference = float(right.mean() - wrong.mean())
    within = float(((right.var() * (len(right) - 1) + wrong.var() * (len(wrong) - 1)) / (len(right) + len(wrong) - 2)).sqrt())
    return {
        "right": len(right),
        "wrong": len(wrong),
        "mean_right": round(float(right.mean()), 4),
        "mean_wrong": round(float(wrong.mean()), 4),
        "gap": round(difference / float(everywhere.std()), 3),
        "clarity": round(difference / within, 3),
        "clarity_standard_error": round((1 / len(right) + 1 / len(wrong)) ** 0.5, 3),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument(
        "--rounds", type=int, default=3, help="iterations' worth of episodes whose credit is compared (default: %(default)s)"
    )
    parser.add_argument("--fitted", type=int, default=2, help="such rounds before them that only critics see (default: %(default)s)")
    options, overrides = parser.parse_known_args()
    print(json.dumps(measure(options.study, overrides, options.rounds, options.fitted), indent=1))

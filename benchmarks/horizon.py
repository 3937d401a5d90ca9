"""What an iteration costs as episodes grow longer: `python benchmarks/horizon.py [--turns 10 50 200] [OVERRIDE ...]` prints JSON.

The quickstart's network, untrained, plays generated games under the grammar; it seldom wins, so nearly all episodes have all their turns.
One iteration of each length warms up, the next is measured, in one process with one thread: seconds of processor time by phase, and what
a turn costs of it. In the `append` context a turn is encoded once, however many came before; what grows with them is attention.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from hiper.algos.registry import make_estimator
from hiper.composition.compose import compose
from hiper.model.actor import load_actor, load_tokenizer
from hiper.pipeline.stages import STAGES
from hiper.pipeline.state import task_index
from hiper.rollout.chat import ChatCodec
from hiper.runs.run_dir import begin_run
from hiper.runs.stage import before
from hiper.train.iteration import assess
from hiper.train.learner import Learner
from hiper.train.sample import Player
from hiper.train.stream import TaskStream

SETTINGS = (
    "experiment=quickstart",
    "threads=1",
    "demos.processes=1",
    "trainer.processes=1",
    "sft.processes=1",
    "alfworld.train=32",
    "alfworld.valid_seen=1",
    "alfworld.valid_unseen=1",
    "demos.count=64",
    "sft.max_steps=1",
    "rollout.trajectories=16",
    "rollout.max_turns=null",
    "rollout.max_tokens=32768",
    "model.tiny.max_positions=32768",
)
PHASES = ("rollout", "score", "update")


def main(turns: Sequence[int], overrides: Sequence[str]) -> dict[str, object]:
    """Measure each length."""
    with tempfile.TemporaryDirectory(prefix="hiper-horizon-") as folder:
        cfg = compose([*SETTINGS, *overrides, f"paths.run={folder}/run"])
        torch.set_num_threads(1)
        begin_run(cfg)
        for name in before("train"):
            STAGES[name](cfg)
        model, index = Path(folder) / "run" / "sft" / "model", task_index(cfg)
        tokenizer, found = load_tokenizer(model), {}
        for count in turns:
            cfg.env.max_turns = count
            actor = load_actor(model, cfg.model).eval()
            reference = load_actor(model, cfg.model).requires_grad_(False).eval()
            stream = TaskStream(index.split("train"), cfg.seed)
            player = Player(cfg, actor, ChatCodec(tokenizer), index, stream, torch.Generator().manual_seed(cfg.seed))
            learner = Learner.create(actor, cfg, torch.Generator().manual_seed(cfg.seed + 1))
            for _ in range(2):
                clock = [time.process_time()]
                episodes, _ = player.sample()
                clock.append(time.process_time())
                batch, outputs, credit = assess(
                    learner, make_estimator(cfg.algo), reference, episodes, lambda text: tokenizer.encode(text, add_special_tokens=False)
                )
                clock.append(time.process_time())
                learner.update(batch, outputs, credit, critic_only=False)
                clock.append(time.process_time())
            played = sum(len(episode.trajectory.turns) for episode in episodes)
            seconds = [after - before for before, after in zip(clock, clock[1:], strict=False)]
            found[count] = {
                "turns": round(played / len(episodes), 1),
                "tokens": round(batch.read_tokens / len(episodes)),
                **{f"{phase}_seconds": round(one, 2) for phase, one in zip(PHASES, seconds, strict=True)},
                "milliseconds_a_turn": round(1000 * sum(seconds) / played, 2),
            }
        return {"torch": torch.__version__, "trajectories": cfg.rollout.trajectories, "max_turns": found}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, nargs="+", default=[10, 50, 200])
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    print(json.dumps(main(options.turns, options.overrides), indent=2))

"""A model directory, played over full splits: `python examples/evaluate_a_model.py [MODEL DATA]`.

MODEL is any directory that `AutoModelForCausalLM` loads, DATA its tasks (`games/data` of a run). Without them a smoke run is made first.
"""

from __future__ import annotations

import sys
from pathlib import Path

import hiper

SPLIT = "valid_seen"


def main(model: Path, data: Path, out: Path) -> None:
    """Evaluate, and look at an episode."""
    overrides = [f"evaluate.splits=[{SPLIT}]", "evaluate.temperature=0"]
    summary = hiper.evaluate(model, data, out, overrides)
    print(summary)  # success with Wilson's 95 % interval
    episode = hiper.load_episodes(out / "trajectories.jsonl")[0]
    print(f"{episode.task}: {'won' if episode.won else 'lost'} after {len(episode.turns)} turns")
    for turn in episode.turns[:3]:
        print(f"  {'SWITCH' if turn.switch else 'KEEP'} {turn.subgoal!r}: {turn.action}")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        main(Path(sys.argv[1]), Path(sys.argv[2]), Path("evaluations/example"))
    else:
        run = Path("runs/example")
        hiper.run(["experiment=smoke", f"paths.run={run}"])
        main(run / "train" / "model", run / "tasks" / "data", run / "example")

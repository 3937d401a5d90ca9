"""Numbers of an iteration's episodes, and the line that a log has of them."""

from __future__ import annotations

from collections.abc import Sequence

from hiper.protocol import Fault
from hiper.rollout.trajectory import Trajectory

Metrics = dict[str, float]


def rollout_metrics(trajectories: Sequence[Trajectory]) -> Metrics:
    """Episode-weighted statistics: each episode counts once, however long it was.

    `switch/rate` is the share of turns after the first that start a segment; the first turn's start is forced.
    """
    count = len(trajectories)
    turns = [turn for trajectory in trajectories for turn in trajectory.turns]
    later = sum(len(trajectory.turns) - 1 for trajectory in trajectories)
    segments = sum(trajectory.segments for trajectory in trajectories)
    won = [trajectory for trajectory in trajectories if trajectory.won]
    return {
        "rollout/success_rate": len(won) / count,
        "rollout/score": sum(float(t.won) if t.score is None else t.score for t in trajectories) / count,
        "rollout/turns": len(turns) / count,
        "rollout/turns_won": sum(len(trajectory.turns) for trajectory in won) / max(1, len(won)),
        "rollout/truncated_rate": sum(trajectory.stop != "terminated" for trajectory in trajectories) / count,
        "rollout/reply_tokens": sum(turn.tokens for turn in turns) / len(turns),
        "rollout/valid_rate": sum(not turn.faults for turn in turns) / len(turns),
        "rollout/missing_action_rate": sum(Fault.missing_action in turn.faults for turn in turns) / len(turns),
        "rollout/inadmissible_rate": sum(not turn.admissible for turn in turns) / len(turns),
        "switch/rate": (segments - count) / max(1, later),
        "switch/segment_length": len(turns) / segments,
        "switch/segments": segments / count,
    }


def log_line(iteration: int, total: int, metrics: Metrics, seconds: Metrics) -> str:
    """An iteration in a line; `seconds` are its phases'."""
    text = (
        f"iteration {iteration}/{total}: success {metrics['rollout/success_rate']:.2f}, turns {metrics['rollout/turns']:.1f}, "
        f"switch {metrics['switch/rate']:.2f}, segment {metrics['switch/segment_length']:.1f}, "
        f"inadmissible {metrics['rollout/inadmissible_rate']:.2f}, kl {metrics.get('optim/kl_ref', 0.0):.3f}, {sum(seconds.values()):.1f} s"
    )
    return text + (f", evaluation {metrics['eval/success_rate']:.2f}" if "eval/success_rate" in metrics else "")

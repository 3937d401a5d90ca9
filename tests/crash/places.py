"""The places where runs are killed and where the power is cut, by name; see `stand_at.py` for how they are written."""

from __future__ import annotations

ITERATION = "call hiper.train.trainer:_Run._iterate"
EVALUATION = "call hiper.train.play:Player.evaluate"
REPLY = "call hiper.rollout.policy:TransformersPolicy.reply"
LINE = "cut hiper.tracking.metrics:MetricsFile.append"
WRITE = "hiper.train.checkpoint:_write"

BEFORE_RECORD = "file os.rename */train.partial/stage.json"
"""All of a training is written but its record."""

METRICS_LINE = "call hiper.train.trainer:log_line 2"
"""A line of metrics has been written, the checkpoint that belongs to it has not."""

BETWEEN_SWAP = "file os.rename */.train.replaced then file os.rename */train.partial"
"""The finished training has been moved aside, the new one has not taken its place."""

SAVING = (
    "call hiper.train.checkpoint:save_file 2",
    f"call {WRITE} 3",
    f"call {WRITE} 4",
    "file os.rename */.iteration-000002.tmp",
    "call hiper.train.trainer:_Run._prune 2",
)
"""In writing a checkpoint: before its tensors, state, manifest and rename, and after it."""

FINISHING = (
    "call hiper.train.trainer:_Run.save 2 then call hiper.model.actor:save_file 1",
    BEFORE_RECORD,
    "file os.remove */train.partial/begun.json",
    "file os.rename */.train.replaced",
    "file shutil.rmtree */.train.replaced then file os.remove *",
)
"""In finishing a stage: before its model, its record, its mark's end, the first rename of its swap; in deleting what it replaced."""

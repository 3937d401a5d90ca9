"""The places where runs are killed and where the power is cut, by name; see `stand_at.py` for how they are written."""

from __future__ import annotations

ITERATION = "call hiper.train.trainer:_Run._iterate"
EVALUATION = "call hiper.train.sample:Player.evaluate"
REPLY = "call hiper.rollout.samplers.transformers:TransformersSampler.reply"
LINE = "cut hiper.tracking.metrics:MetricsFile.append"
TENSORS = "hiper.runs.checkpoint:save_file"
WRITE = "hiper.runs.checkpoint:_write"
"""Of a checkpoint: its tensors; then, twice, its state and its manifest."""
MODELS = "hiper.train.trainer:_Run._write_models"
MODEL = "call hiper.model.actor:save_file"
SFT_STEP = "call hiper.sft.checkpoint:Checkpoints.on_step_begin"
CHUNK = "hiper.evaluation.evaluate:write_chunk"

BEFORE_RECORD = "file os.rename */train.partial/stage.json"
"""All of a training is written but its record."""

METRICS_LINE = "call hiper.train.trainer:log_line 2"
"""A line of metrics has been written, the checkpoint that belongs to it has not."""

BETWEEN_SWAP = "file os.rename */.train.replaced then file os.rename */train.partial"
"""The finished training has been moved aside, the new one has not taken its place."""

SAVING = (
    f"call {TENSORS} 2",
    f"call {WRITE} 3",
    f"call {WRITE} 4",
    "file os.rename */.iteration-000002.tmp",
    "call hiper.train.trainer:_Run._prune 2",
)
"""In writing a checkpoint: before its tensors, state, manifest and rename, and after it."""

FINISHING = (
    f"call {MODELS} 1 then {MODEL} 1",
    BEFORE_RECORD,
    "file os.remove */train.partial/begun.json",
    "file os.rename */.train.replaced",
    "file shutil.rmtree */.train.replaced then file os.remove *",
)
"""In finishing a stage: before its model, its record, its mark's end, the first rename of its swap; in deleting what it replaced."""

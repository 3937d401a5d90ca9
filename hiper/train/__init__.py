"""Training: one iteration after another, its loss, checkpoints, alarms, and several processes at it."""

"""Sweeps: Optuna searches over the settings of the train stage. `hiper` knows nothing of it; `hiper sweep` and `flows.sweep` start it."""

"""Sweeps: Optuna searches over the settings of the train stage."""

"""Prefect flows: thin, they know the stages of `hiper` and nothing else."""

"""Prefect flows: thin, they know the stages of `hiper` and nothing else."""

import logging

# Workers send the log of `hiper` to Prefect (PREFECT_LOGGING_EXTRA_LOGGERS); without a level of its own it would hold warnings alone.
if logging.getLogger("hiper").level == logging.NOTSET:
    logging.getLogger("hiper").setLevel(logging.INFO)

"""Prefect for a command of this process. Its settings are made before anything of it is imported: it reads them once."""

from __future__ import annotations

import logging
import os

from hiper.errors import WorkflowError
from hiper.runtime.packages import missing

logger = logging.getLogger(__name__)


def start_prefect() -> None:
    """Make Prefect ready, with a server of its own where PREFECT_API_URL names none."""
    quiet = {
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_LOGGING_LEVEL": "CRITICAL",  # on the terminal the stages tell the story
        "PREFECT_LOGGING_EXTRA_LOGGERS": "hiper",  # and in Prefect's UI, too
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
        "PREFECT_CLIENT_MAX_RETRIES": "3",  # each waits longer; a server that has gone is given up after some 15 seconds
    }
    for name, value in quiet.items():
        os.environ.setdefault(name, value)
    if "PREFECT_API_URL" not in os.environ:
        logger.info("starting Prefect's embedded server, which takes some ten seconds (--direct goes without)")
    try:
        from hiper.integrations.prefect.server import use_server

        use_server()
    except ImportError as error:
        raise missing("this command", "prefect", error, "add --direct") from error
    except WorkflowError as error:
        raise WorkflowError(f"{error} `--direct` does the same work without Prefect.") from error

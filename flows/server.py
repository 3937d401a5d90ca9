"""Prefect's embedded server, started so that Ctrl-C in the terminal reaches the run and not the server."""

from __future__ import annotations

import signal
import threading

from prefect.settings import get_current_settings


def start_embedded_server() -> None:
    """Start the server that flows use where no PREFECT_API_URL is set; it stops when this process ends. Otherwise do nothing.

    A terminal sends Ctrl-C to every process it started. Prefect's server would go first, and the run, on its way out, would try for
    a minute to report to it. A process inherits the signals its parent thread blocks, so the server is started from a thread that
    blocks this one; the main thread keeps listening.

    Raises:
        RuntimeError: the server did not come up.
    """
    if get_current_settings().api.url is not None:
        return
    from prefect.server.api.server import SubprocessASGIServer  # all of the server: seconds, and wanted only here

    failures: list[Exception] = []

    def start() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            SubprocessASGIServer().start()
        except Exception as error:  # handed to the main thread
            failures.append(error)

    thread = threading.Thread(target=start, name="prefect-server-start", daemon=True)
    thread.start()
    thread.join()
    if failures:
        raise RuntimeError(f"Prefect's embedded server did not start: {failures[0]}") from failures[0]

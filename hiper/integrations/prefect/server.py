"""The Prefect server of a command: the one that PREFECT_API_URL names, or an embedded one that ends with the command."""

from __future__ import annotations

import atexit
import os
import socket
from dataclasses import dataclass

import httpx
from prefect.context import refresh_global_settings_context
from prefect.settings import get_current_settings

from hiper.errors import WorkflowError
from hiper.integrations.prefect.access import AUTH, URL, client_environment, new_auth_string, server_environment
from hiper.runtime.module import module_command
from hiper.runtime.process import Process, stop

TO_START = 180.0
"""Seconds an embedded server may take to answer; some five on a quiet machine."""
TO_ANSWER = 15.0
"""Seconds a server that runs may take to answer."""
TO_STOP = 5.0


@dataclass(frozen=True)
class EmbeddedServer:
    """A server for one command."""

    url: str
    auth_string: str
    process: Process

    def environment(self) -> dict[str, str]:
        """What talks to it."""
        return {URL: self.url, AUTH: self.auth_string}

    def stop(self) -> None:
        """End it, in peace if it can."""
        stop([self.process], TO_STOP)


def use_server() -> None:
    """Let flows of this process report to the server that is set, or to an embedded one that is started for them.

    Raises:
        ConfigError: the file with the server's auth string is open to others.
        WorkflowError: the server does not answer, or wants another auth string; the embedded one did not come up.
    """
    api = get_current_settings().api
    if api.url is None:
        server = start_embedded_server()
        atexit.register(server.stop)
        _set(server.environment())
        return
    if api.auth_string is None and api.key is None:  # set nowhere, neither in the environment nor in a profile of Prefect's
        kept = client_environment({**os.environ, URL: api.url})
        if kept:
            _set(kept)
    _check(api.url)


def start_embedded_server() -> EmbeddedServer:
    """Start a server on 127.0.0.1, for who knows its auth string, and wait until it answers. It ends with this process, however that ends.

    It is given a socket that listens already: nobody else can take its port, and with it what is sent there. It has a session of its
    own, so that Ctrl-C in the terminal reaches the run and not the server, to which the run reports on its way out.

    Raises:
        WorkflowError: it did not come up.
    """
    auth_string = new_auth_string()
    with socket.create_server(("127.0.0.1", 0), backlog=128) as held:
        port = held.getsockname()[1]
        environment = {
            **os.environ,
            **server_environment(auth_string, port),
            "PREFECT_SERVER_UI_ENABLED": "false",
            "PREFECT__SERVER_EPHEMERAL": "1",
            "PREFECT__SERVER_FINAL": "1",
        }
        command = module_command("hiper.integrations.prefect.embedded", str(held.fileno()))
        process = Process(command, environment, descriptors=[held.fileno()])
    server = EmbeddedServer(f"http://127.0.0.1:{port}/api", auth_string, process)
    try:
        httpx.get(f"{server.url}/health", timeout=TO_START, trust_env=False).raise_for_status()
    except httpx.HTTPError as error:
        server.stop()
        raise WorkflowError(f"Prefect's embedded server did not start: {error}") from error
    except BaseException:
        server.stop()
        raise
    return server


def _set(environment: dict[str, str]) -> None:
    """Put settings of Prefect into the environment, and have it read them."""
    os.environ.update(environment)
    refresh_global_settings_context()


def _check(url: str) -> None:
    """See that a server answers, and answers this user.

    Raises:
        WorkflowError: it does not.
    """
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError

    try:
        with get_client(sync_client=True, httpx_settings={"timeout": TO_ANSWER}) as client:
            if (failed := client.api_healthcheck()) is not None:
                said = str(failed) or type(failed).__name__
                raise WorkflowError(f"no Prefect server answers at {url} ({said}). Start it, or unset {URL}.")
            client.read_flows(limit=1)
    except PrefectHTTPStatusError as error:
        if error.response.status_code not in (401, 403):
            raise WorkflowError(f"the Prefect server at {url} answers {error.response.status_code}.") from error
        raise WorkflowError(f"the Prefect server at {url} wants another auth string: set {AUTH}, see docs/orchestration.md.") from error
    except httpx.HTTPError as error:
        raise WorkflowError(f"the Prefect server at {url} does not answer ({str(error) or type(error).__name__}).") from error

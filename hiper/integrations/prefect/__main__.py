"""Prefect on this machine, protected: `python -m hiper.integrations.prefect server | deploy | worker | prefect ...`, which `make` calls.

    server    the server and its UI, for who has the auth string (`hiper.integrations.prefect.access`)
    deploy    the pools cpu and gpu, the GPU's queue, and everything in prefect.yaml
    worker    runs what is due in a pool
    prefect   any command of Prefect's, such as `python -m hiper.integrations.prefect prefect flow-run ls`

The server is PREFECT_API_URL's, http://127.0.0.1:4200/api where that is not set. What these commands start ends with them.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from hiper.errors import HiperError
from hiper.integrations.prefect.access import QUIET, SERVER_AUTH, URL, auth_file, client_environment, make_auth_string, server_environment
from hiper.runtime.process import Process

PORT = 4200
INTERRUPTED = 130
"""Exit code of a command that a signal ended."""
POOLS = (
    ("work-pool", "create", "cpu", "--type", "process"),
    ("work-pool", "create", "gpu", "--type", "process"),
    ("work-queue", "create", "one-at-a-time", "--pool", "gpu", "--limit", "1"),
)
"""Commands that make what prefect.yaml names; where it exists they fail, and it is left as it is."""


def server(port: int) -> int:
    """Start the server and wait for its end; the exit code.

    Raises:
        ConfigError: the file of the auth string is open to others, or holds none.
    """
    if (auth_string := os.environ.get(SERVER_AUTH)) is None:
        file = auth_file(os.environ)
        auth_string = make_auth_string(file)
        print(f"Prefect's UI asks for the auth string, the one line in {file}", flush=True)
    # What is set already counts: behind a proxy, its origin does.
    protected = {**server_environment(auth_string, port), **_given("PREFECT_SERVER_CORS_ALLOWED_ORIGINS")}
    environment = {**_environment(), URL: f"http://127.0.0.1:{port}/api", **protected}
    return _prefect(environment, "server", "start", "--host", "127.0.0.1", "--port", str(port))


def deploy() -> int:
    """Make pools and deployments; the exit code.

    Raises:
        ConfigError: the file of the auth string is open to others, or holds none.
    """
    environment = _client()
    for command in POOLS:
        if _prefect(environment, *command) == INTERRUPTED:
            return INTERRUPTED
    return _prefect(environment, "deploy", "--all")


def worker(pool: str) -> int:
    """Run what is due in a pool until a signal; the exit code.

    Raises:
        ConfigError: the file of the auth string is open to others, or holds none.
    """
    return _prefect(_client(), "worker", "start", "--pool", pool)


def main(arguments: Sequence[str]) -> int:
    """Run one of the commands; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m hiper.integrations.prefect", description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("server", help="start the server").add_argument("--port", type=int, default=PORT)
    commands.add_parser("deploy", help="make pools and deployments")
    commands.add_parser("worker", help="start a worker").add_argument("--pool", default="cpu")
    commands.add_parser("prefect", help="run a command of Prefect's", add_help=False)
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command != "prefect":
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        if options.command == "server":
            return server(options.port)
        if options.command == "deploy":
            return deploy()
        if options.command == "worker":
            return worker(options.pool)
        return _prefect(_client(), *arguments[1:])
    except HiperError as error:
        print(f"flows: {error}", file=sys.stderr)
        return error.exit_code


def _environment() -> dict[str, str]:
    """This process's, with what our deployments take for granted: the server, and the checkout that flows run in."""
    defaults = {URL: f"http://127.0.0.1:{PORT}/api", "HIPER_HOME": str(Path(__file__).resolve().parents[3])}
    return {**defaults, **os.environ, **QUIET}


def _client() -> dict[str, str]:
    environment = _environment()
    return {**environment, **client_environment(environment)}


def _given(name: str) -> dict[str, str]:
    return {name: os.environ[name]} if name in os.environ else {}


def _prefect(environment: Mapping[str, str], *arguments: str) -> int:
    """Run a Prefect command that ends with this process, to its end; signals are passed on to it."""
    process = Process([sys.executable, "-m", "prefect", "--no-prompt", *arguments], environment, reads=True)
    asked = False

    def pass_on(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        process.send(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, pass_on)
    code = process.wait()
    return INTERRUPTED if code < 0 or (asked and code) else code


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

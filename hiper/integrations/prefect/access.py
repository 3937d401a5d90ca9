"""Who may talk to a Prefect server of ours: whoever knows its auth string, and no web page but its own.

A server that runs deployments runs code, so everything that reaches it must come from its owner. Three settings see to that:

* an *auth string* ("user:password", HTTP basic authentication), without which nothing is answered but whether the server lives. It also
  stops what the other two do not see: other users of the machine, and pages that have their own name point to 127.0.0.1 (DNS rebinding);
* CORS: no other page may read answers, or send requests that a browser asks leave for;
* CSRF protection: what changes something needs a token that only an answer contains.

The string of `make server` is made once and kept in a file that its owner alone may read, beside the server's database (PREFECT_HOME): so
commands find it from any directory, and no commit, image or package takes it along. Strings go from process to process in the
environment, never on a command line, which others can read.

This module imports nothing of Prefect, whose settings are read when it is imported.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Mapping
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from hiper.errors import ConfigError
from hiper.runtime.files import sync
from hiper.runtime.reading import read_text

URL, AUTH, SERVER_AUTH = "PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING"
"""Prefect's environment variables: where the server is, and its auth string for who talks to it and for itself."""

FILE = "hiper-auth-string"
QUIET = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
"""Environment under which nothing is sent to anybody else."""

_MOST = 4096


def auth_file(environment: Mapping[str, str]) -> Path:
    """Where the auth string of this user's server is kept."""
    return Path(environment.get("PREFECT_HOME") or "~/.prefect").expanduser() / FILE


def new_auth_string() -> str:
    """An auth string nobody can guess."""
    return f"hiper:{secrets.token_urlsafe(32)}"


def make_auth_string(file: Path) -> str:
    """The auth string in a file, made if there is none. The file is never there without its contents, nor open to others.

    Raises:
        ConfigError: as `read_auth_string`.
    """
    with suppress(FileNotFoundError):
        return read_auth_string(file)
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    text = new_auth_string()
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
            opened.write(text + "\n")
            opened.flush()
            os.fsync(descriptor)
        with suppress(FileExistsError):  # another server was quicker: its string counts
            os.link(temporary, file)
    finally:
        temporary.unlink()
    sync(file.parent)
    return read_auth_string(file)


def read_auth_string(file: Path) -> str:
    """The auth string in a file.

    Raises:
        FileNotFoundError: there is none.
        ConfigError: others may read the file, it is another user's, or it holds no auth string.
    """
    found = file.lstat()
    if stat.S_ISREG(found.st_mode) and (found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077):
        raise ConfigError(
            f"{file} holds the password of your Prefect server, but is open to others (mode {stat.S_IMODE(found.st_mode):04o}, owner "
            f"{found.st_uid}). Delete it and start the server anew: it makes another."
        )
    text = read_text(file, _MOST).strip()
    user, colon, password = text.partition(":")
    if not (user and colon and password) or not text.isprintable():
        raise ConfigError(
            f"{file} holds no auth string (user:password on one line). Delete it and start the server anew: it makes another."
        )
    return text


def client_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What to add to an environment so that a server of this user's on this machine, or at the end of a tunnel, lets it in.

    The kept string goes to a loopback address alone: to a server elsewhere it would be given away.

    Raises:
        ConfigError: as `read_auth_string`.
    """
    if environment.get(AUTH) or environment.get("PREFECT_API_KEY") or not is_loopback(environment.get(URL, "")):
        return {}
    with suppress(FileNotFoundError):
        return {AUTH: read_auth_string(auth_file(environment))}
    return {}


def server_environment(auth_string: str, port: int) -> dict[str, str]:
    """Settings of a server on 127.0.0.1 that answers who knows the auth string, and no web page but its own UI."""
    return {
        **QUIET,
        SERVER_AUTH: auth_string,
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"http://127.0.0.1:{port},http://localhost:{port}",
    }


def is_loopback(url: str) -> bool:
    """Whether a URL names this machine."""
    host = urlsplit(url).hostname or ""
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"

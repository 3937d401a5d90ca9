"""Rules of the auth string.

1. Its file is made once, complete and open to its owner alone from its first moment; a second server takes the first one's string.
2. A file that others can read, or that holds something else, is refused.
3. Commands find it by themselves where the server is this machine's and nothing else was set; it is sent nowhere else.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from hiper.errors import ConfigError, DataError
from hiper.integrations.prefect import access
from hiper.integrations.prefect.access import AUTH, URL, auth_file, client_environment, is_loopback, make_auth_string, read_auth_string

LOCAL = "http://127.0.0.1:4200/api"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"PREFECT_HOME": str(tmp_path / "prefect"), URL: LOCAL}


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_file_is_its_owners_alone_from_its_first_moment(umask: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[int] = []
    open_it, link = os.open, os.link

    def opened(path: Any, flags: int, mode: int = 0o777, **more: Any) -> int:
        descriptor = open_it(path, flags, mode, **more)
        if flags & os.O_CREAT:
            assert flags & os.O_EXCL, "a file that somebody else has put there is not written to"
            modes.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        return descriptor

    def linked(source: Any, target: Any, **more: Any) -> None:
        assert Path(source).read_text().startswith("hiper:"), "it appears with its contents"
        link(source, target, **more)

    monkeypatch.setattr(access.os, "open", opened)
    monkeypatch.setattr(access.os, "link", linked)
    before = os.umask(umask)
    try:
        text = make_auth_string(tmp_path / "home" / "file")
    finally:
        os.umask(before)
    assert modes == [0o600]
    assert stat.S_IMODE((tmp_path / "home" / "file").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "home").stat().st_mode) == 0o700
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["file"]
    assert len(text) > 40


def test_it_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    text = make_auth_string(file)
    assert make_auth_string(file) == text == read_auth_string(file)
    assert make_auth_string(tmp_path / "other") != text

    def quicker(source: Any, target: Any) -> None:
        Path(target).touch(mode=0o600)
        Path(target).write_text("other:server\n")
        raise FileExistsError

    monkeypatch.setattr(access.os, "link", quicker)
    assert make_auth_string(tmp_path / "race") == "other:server"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_file_open_to_others_is_refused(mode: int, tmp_path: Path) -> None:
    file = tmp_path / "file"
    make_auth_string(file)
    file.chmod(mode)
    with pytest.raises(ConfigError, match=rf"file holds the password .* \(mode {mode:04o}"):
        make_auth_string(file)


@pytest.mark.parametrize("text", ["", "word", ":password", "user:", "user:pass\nword", "user:\x1b[2J", "a" * 5000])
def test_what_is_no_auth_string_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch(mode=0o600)
    file.write_text(text)
    with pytest.raises((ConfigError, DataError), match="file"):
        read_auth_string(file)


def test_commands_find_it(environment: dict[str, str]) -> None:
    assert client_environment(environment) == {}, "a server without it: nothing is made up"
    text = make_auth_string(auth_file(environment))
    assert client_environment(environment) == {AUTH: text}
    assert client_environment({**environment, AUTH: "own:string"}) == {}
    assert client_environment({**environment, "PREFECT_API_KEY": "key"}) == {}


@pytest.mark.parametrize(
    ("url", "ours"),
    [
        (LOCAL, True),
        ("http://localhost:1/api", True),
        ("http://[::1]:4200/api", True),
        ("https://api.prefect.cloud/api", False),
        ("http://10.0.0.2:4200/api", False),
        ("http://127.0.0.1.example.org/api", False),
        ("http://localhost@example.org/api", False),
        ("http://localhost.example.org", False),
        ("", False),
    ],
)
def test_it_is_sent_to_this_machine_alone(url: str, ours: bool, environment: dict[str, str]) -> None:
    make_auth_string(auth_file(environment))
    assert is_loopback(url) is ours
    assert bool(client_environment({**environment, URL: url})) is ours

"""Rules of both Prefect servers, the one of `make server` and the one embedded in `hiper run`; both are real ones.

1. They listen on loopback alone.
2. Who does not know the auth string gets nothing and changes nothing, whatever Host and Origin say, by HTTP and by websocket.
3. A page from elsewhere is not answered so that a browser would let it read, and gets no leave to send; not even with the auth string
   does it change anything without a CSRF token.
4. Who knows the string works as before: the commands of `python -m hiper.integrations.prefect` find it.
5. The string is on no command line and in no log.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from hiper.errors import WorkflowError
from hiper.integrations.prefect.access import AUTH, URL, auth_file, read_auth_string
from hiper.integrations.prefect.server import EmbeddedServer, use_server
from hiper.runtime.parent_death import guarded
from tests.processes import marked, orphans
from tests.sockets import Watch, beyond_loopback, listening

EVIL = "http://evil.example"
ALLOW = "access-control-allow-origin"
PATIENCE = 180.0
"""Seconds a server may take to start; the machine may be busy."""


@dataclass
class Served:
    """A server that runs."""

    url: str
    auth_string: str
    pid: int
    log: Path | None = None
    environment: dict[str, str] | None = None

    @property
    def port(self) -> int:
        return httpx.URL(self.url).port or 0

    def send(self, method: str, path: str, *, known: bool = False, token: bool = False, **headers: str) -> httpx.Response:
        """A request as a page could send it: JSON that says it is text needs no leave; `known`: with the auth string."""
        auth = tuple(self.auth_string.split(":")) if known else None
        with httpx.Client(auth=auth, timeout=60) as client:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            if token:
                found = client.get(f"{self.url}/csrf-token", params={"client": "test"})
                sent |= {"Prefect-Csrf-Token": found.json()["token"], "Prefect-Csrf-Client": "test"}
            body = json.dumps({"name": "planted"}) if method == "POST" else None
            return client.request(method, f"{self.url}/{path}", content=body, headers={"Content-Type": "text/plain", **sent})

    def planted(self) -> bool:
        """Whether a flow of that name is there."""
        return self.send("GET", "flows/name/planted", known=True).status_code == 200


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """What `make server` starts."""
    home = tmp_path_factory.mktemp("home")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment, mark = marked()
    environment |= {"PREFECT_HOME": str(home / "prefect"), URL: f"http://127.0.0.1:{port}/api"}
    log = home / "log"
    with log.open("wb") as said:
        command = guarded(
            [sys.executable, "-m", "hiper.integrations.prefect", "server", "--port", str(port)]
        )  # so that it ends with the tests
        process = subprocess.Popen(command, env=environment, stdout=said, stderr=said, start_new_session=True)
    try:
        _until_it_answers(environment[URL], log)
        yield Served(environment[URL], read_auth_string(auth_file(environment)), process.pid, log, environment)
        watch = Watch(process.pid)
        watch.look()
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
        assert orphans(mark, watch.processes) == {}
    finally:
        process.kill()


def _until_it_answers(url: str, log: Path) -> None:
    over = time.monotonic() + PATIENCE
    while True:
        try:
            if httpx.get(f"{url}/health", timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            assert time.monotonic() < over, log.read_text()
            time.sleep(0.2)


@pytest.fixture(params=["made", "embedded"])
def served(request: pytest.FixtureRequest) -> Served:
    if request.param == "made":
        found: Served = request.getfixturevalue("made")
        return found
    server: EmbeddedServer = request.getfixturevalue("embedded_server")
    return Served(server.url, server.auth_string, server.process.pid)


def test_it_listens_on_loopback_alone(served: Served) -> None:
    if not sys.platform.startswith("linux"):  # whose sockets are whose is read from /proc
        pytest.skip("sockets are listed from /proc, which Linux alone has")
    found = listening(served.pid)
    assert ("127.0.0.1", served.port) in {(listener.address, listener.port) for listener in found}
    assert beyond_loopback(found) == set()


@pytest.mark.parametrize("path", ["flows/", "deployments/", "work_pools/", "flows/filter", "variables/", "automations/"])
def test_a_foreign_page_gets_no_leave(served: Served, path: str) -> None:
    asked = {"Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": "content-type,authorization,prefect-csrf-token"}
    answer = served.send("OPTIONS", path, Origin=EVIL, **asked)
    assert ALLOW not in answer.headers
    assert answer.status_code == 400
    answer = served.send("OPTIONS", path, Origin="null", **asked)
    assert ALLOW not in answer.headers


@pytest.mark.parametrize("path", ["flows/", "deployments/", "work_pools/", "flows/filter", "variables/", "admin/database/drop"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": EVIL},
        {"Origin": EVIL, "Content_Type": "application/json"},
        {"Origin": "http://rebound.example:4200", "Host": "rebound.example:4200"},
        {"Authorization": "Basic aGlwZXI6Z3Vlc3M="},
        {},
    ],
)
def test_who_does_not_know_the_string_changes_nothing(served: Served, path: str, headers: dict[str, str]) -> None:
    answer = served.send("POST", path, **headers)
    assert answer.status_code in (401, 403)
    assert ALLOW not in answer.headers
    assert not served.planted()


@pytest.mark.parametrize("path", ["csrf-token?client=test", "flows/name/planted", "admin/settings", "block_types/slug/secret"])
def test_who_does_not_know_the_string_reads_nothing(served: Served, path: str) -> None:
    for headers in ({"Origin": EVIL}, {"Host": "rebound.example"}, {}):
        answer = served.send("GET", path, **headers)
        assert answer.status_code == 401
        assert answer.json() == {"exception_message": "Unauthorized"}
        assert ALLOW not in answer.headers


def test_the_string_without_a_csrf_token_changes_nothing(served: Served) -> None:
    """As where a browser remembers the string for this address and adds it by itself."""
    answer = served.send("POST", "flows/", known=True, Origin=EVIL)
    assert answer.status_code == 403
    assert ALLOW not in answer.headers
    assert not served.planted()


@pytest.mark.parametrize("path", ["events/in", "events/out", "logs/out"])
def test_a_websocket_needs_the_string(served: Served, path: str) -> None:
    """Browsers let any page open one."""
    address = f"{served.url.replace('http', 'ws', 1)}/{path}"
    for protocols in (None, ["prefect"]):
        with pytest.raises(WebSocketException), connect(address, origin=EVIL, subprotocols=protocols, open_timeout=30) as opened:
            opened.send(json.dumps({"type": "auth", "token": "guess"}))
            assert "auth_success" not in str(opened.recv(timeout=30))


def test_who_knows_the_string_works(served: Served) -> None:
    """So the refusals above are not for another reason. Even then a foreign page may not read the answer."""
    try:
        answer = served.send("POST", "flows/", known=True, token=True, Origin=EVIL, Content_Type="application/json")
        assert answer.status_code == 201
        assert ALLOW not in answer.headers
        assert served.planted()
    finally:
        planted = served.send("GET", "flows/name/planted", known=True).json()["id"]
        assert served.send("DELETE", f"flows/{planted}", known=True, token=True).status_code == 204


def test_the_servers_own_page_may_read(made: Served) -> None:
    for host in ("127.0.0.1", "localhost"):
        own = f"http://{host}:{made.port}"
        assert made.send("GET", "flows/name/planted", known=True, Origin=own).headers[ALLOW] == own
    shown = httpx.get(f"http://127.0.0.1:{made.port}/ui-settings", timeout=60).json()
    assert (shown["auth"], shown["csrf_enabled"], shown["api_url"]) == ("BASIC", True, made.url)


def flows(served: Served, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    assert served.environment is not None
    command = [sys.executable, "-m", "hiper.integrations.prefect", *arguments]
    return subprocess.run(command, env={**served.environment, **environment}, capture_output=True, text=True, check=False)


def test_commands_find_the_string(made: Served) -> None:
    ran = flows(made, "prefect", "work-pool", "create", "found", "--type", "process")
    assert ran.returncode == 0, ran.stderr
    assert made.send("GET", "work_pools/found", known=True).status_code == 200
    ran = flows(made, "prefect", "work-pool", "create", "lost", "--type", "process", **{AUTH: "hiper:guess"})
    assert ran.returncode != 0
    assert made.send("GET", "work_pools/lost", known=True).status_code == 404


def test_flows_use_it_and_say_what_is_wrong(made: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.context import refresh_global_settings_context
    from prefect.settings import get_current_settings

    assert made.environment is not None
    with monkeypatch.context() as patch:
        for name in ("PREFECT_HOME", URL):
            patch.setenv(name, made.environment[name])
        patch.setenv("PREFECT_CLIENT_MAX_RETRIES", "0")
        patch.setenv(AUTH, "hiper:guess")
        refresh_global_settings_context()
        with pytest.raises(WorkflowError, match="wants another auth string: set PREFECT_API_AUTH_STRING"):
            use_server()
        patch.delenv(AUTH)
        refresh_global_settings_context()
        use_server()
        found = get_current_settings().api.auth_string
        assert found is not None and found.get_secret_value() == made.auth_string
        with socket.create_server(("127.0.0.1", 0)) as free:
            patch.setenv(URL, f"http://127.0.0.1:{free.getsockname()[1]}/api")
        refresh_global_settings_context()
        with pytest.raises(WorkflowError, match="no Prefect server answers at"):
            use_server()
    refresh_global_settings_context()


def test_the_string_is_nowhere_to_be_seen(served: Served) -> None:
    password = served.auth_string.partition(":")[2]
    if sys.platform.startswith("linux"):
        shown = subprocess.run(["ps", "-eww", "-o", "args"], capture_output=True, text=True, check=True).stdout
        assert str(served.port) in shown or served.log is None
        assert password not in shown
    if served.log is not None:
        assert served.log.stat().st_size > 0
        assert password not in served.log.read_text(encoding="utf-8")
        assert os.stat(auth_file(served.environment or {})).st_mode & 0o077 == 0

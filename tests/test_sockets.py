"""The test helper that watches sockets sees what it is there to see; otherwise every test that uses it would pass."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from tests.sockets import Listener, Process, Watch, alive, beyond_loopback, listening, survivors, tree


@pytest.mark.parametrize(
    ("family", "kind", "host", "protocol", "reachable"),
    [
        (socket.AF_INET, socket.SOCK_STREAM, "127.0.0.1", "tcp", False),
        (socket.AF_INET, socket.SOCK_STREAM, "0.0.0.0", "tcp", True),
        (socket.AF_INET6, socket.SOCK_STREAM, "::1", "tcp6", False),
        (socket.AF_INET6, socket.SOCK_STREAM, "::", "tcp6", True),
        (socket.AF_INET6, socket.SOCK_STREAM, "::ffff:127.0.0.1", "tcp6", False),
        (socket.AF_INET, socket.SOCK_DGRAM, "0.0.0.0", "udp", True),
        (socket.AF_INET6, socket.SOCK_DGRAM, "::1", "udp6", False),
    ],
)
def test_a_socket_is_seen(family: int, kind: int, host: str, protocol: str, reachable: bool) -> None:
    with socket.socket(family, kind) as one:
        try:
            one.bind((host, 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
        if kind == socket.SOCK_STREAM:
            assert one.getsockname()[1] not in {listener.port for listener in listening(os.getpid())}, "it does not listen yet"
            one.listen()
        port = one.getsockname()[1]
        (found,) = (listener for listener in listening(os.getpid()) if listener.port == port)
        assert found == Listener(protocol, host, port, os.getpid())
        assert (beyond_loopback([found]) == {found}) is reachable
    assert port not in {listener.port for listener in listening(os.getpid())}


def test_a_grandchild_is_watched() -> None:
    """Started by a thread, which has children of its own; what it listens on is seen although it stops before the watch does."""
    grandchild = "import socket, time; s = socket.create_server(('0.0.0.0', 0)); print(s.getsockname()[1], flush=True); time.sleep(0.5)"
    child = f"""
import subprocess, sys, threading
threading.Thread(target=subprocess.run, args=([sys.executable, "-c", {grandchild!r}],)).start()
"""
    with subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE, text=True) as process, Watch(process.pid, 0.02) as watch:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        assert len(tree(process.pid)) == 2
        process.wait()
    (found,) = beyond_loopback(watch.listeners)
    assert (found.address, found.port) == ("0.0.0.0", port)
    assert {seen.pid for seen in watch.processes} == {process.pid, found.pid}
    assert survivors(watch.processes, 5.0) == set()
    assert tree(process.pid) == set()


def test_who_is_alive() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        watch = Watch(process.pid)
        watch.look()
        (known,) = watch.processes
        assert alive([known, Process(known.pid, known.begun + 1)]) == {process.pid}
        assert survivors([known], 0.1) == {process.pid}
        process.kill()
        assert survivors([known], 5.0) == set(), "a zombie is not alive"

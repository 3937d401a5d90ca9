"""Which sockets a process and all that it started listen on, as `ss -lntup` shows them, and which of its processes are still alive.

Read from /proc (Linux), without root. `Watch` follows a command through its whole life: a look at one moment would miss what listens for a
second.

    with subprocess.Popen(command) as process, Watch(process.pid) as watch:
        process.wait()
    assert not beyond_loopback(watch.listeners)
"""

from __future__ import annotations

import ipaddress
import os
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

PROC = Path("/proc")
LISTEN = {"tcp": "0A", "tcp6": "0A", "udp": "07", "udp6": "07"}
"""State of a socket that anybody may connect or send to, by the kernel's table; a UDP socket has it while it is bound and not connected."""


class Listener(NamedTuple):
    """A socket that waits for others."""

    protocol: str
    """A key of `LISTEN`."""
    address: str
    port: int
    pid: int


class Process(NamedTuple):
    """A process, by what no later one has in common with it."""

    pid: int
    begun: int
    """Ticks from the machine's start to the process's."""


def tree(root: int) -> set[int]:
    """A process and all that it started, however far down, by process id; empty when it has ended."""
    if not (PROC / str(root)).exists():
        return set()
    found, open_ = set(), [root]
    while open_:
        pid = open_.pop()
        found.add(pid)
        for children in PROC.glob(f"{pid}/task/*/children"):
            with suppress(OSError):  # the thread, or the process, ended in between
                open_ += [child for child in map(int, children.read_text().split()) if child not in found]
    return found


def listening(tree_of: int) -> set[Listener]:
    """What a process and all that it started listen on at this moment."""
    found: set[Listener] = set()
    tables: dict[str, dict[str, tuple[str, str, int]]] = {}  # network namespace -> socket -> protocol, address, port
    for pid in tree(tree_of):
        with suppress(OSError):
            mine = set(_open_files(pid))
            namespace = os.readlink(PROC / str(pid) / "ns" / "net")
            if namespace not in tables:
                tables[namespace] = dict(_table(pid))
            found |= {Listener(*tables[namespace][name], pid) for name in mine & tables[namespace].keys()}
    return found


def beyond_loopback(listeners: Iterable[Listener]) -> set[Listener]:
    """Those that another machine can reach."""
    return {listener for listener in listeners if not _is_loopback(listener.address)}


def alive(processes: Iterable[Process]) -> set[int]:
    """Which of these have not ended, by process id. One that has ended and that nobody has asked after (a zombie) is not alive."""
    return {process.pid for process in processes if _look_up(process.pid) == process}


def survivors(processes: Iterable[Process], seconds: float) -> set[int]:
    """Which are alive after so many seconds; comes back as soon as none is."""
    known, deadline = set(processes), time.monotonic() + seconds
    while (left := alive(known)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


class Watch:
    """Looks at a process and all that it starts every `pause` seconds, in a thread."""

    def __init__(self, root: int, pause: float = 0.05) -> None:
        self.listeners: set[Listener] = set()
        """All that were seen to listen."""
        self.processes: set[Process] = set()
        """All that were seen, ended ones included."""
        self.looks = 0
        self._root, self._pause = root, pause
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def look(self) -> None:
        """Look once more, now."""
        processes = {_look_up(pid) for pid in tree(self._root)}
        self.processes |= {process for process in processes if process is not None}
        self.listeners |= listening(self._root)
        self.looks += 1

    def _follow(self) -> None:
        while not self._over.wait(self._pause):
            self.look()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()


def _look_up(pid: int) -> Process | None:
    """A process that has not ended."""
    try:
        state, *rest = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else Process(pid, int(rest[18]))


def _open_files(pid: int) -> Iterator[str]:
    """What its file descriptors lead to; `socket:[INODE]` for a socket."""
    for descriptor in (PROC / str(pid) / "fd").iterdir():
        with suppress(FileNotFoundError):  # closed in between
            yield os.readlink(descriptor)


def _table(pid: int) -> Iterator[tuple[str, tuple[str, str, int]]]:
    """Sockets that listen in a process's network namespace: `socket:[INODE]`, as file descriptors name it, -> protocol, address, port."""
    for protocol, state in LISTEN.items():
        with suppress(FileNotFoundError):  # a kernel without IPv6
            for line in (PROC / str(pid) / "net" / protocol).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == state:
                    address, port = fields[1].split(":")
                    yield f"socket:[{fields[9]}]", (protocol, _address(address), int(port, 16))


def _address(text: str) -> str:
    """The kernel shows the bytes of an address as 32-bit numbers of the machine's own byte order."""
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    address = ipaddress.ip_address(struct.pack(f"={len(words)}I", *words))
    return f"::ffff:{mapped}" if (mapped := _mapped(address)) else str(address)


def _is_loopback(text: str) -> bool:
    address = ipaddress.ip_address(text)
    return (_mapped(address) or address).is_loopback


def _mapped(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 one stands for."""
    return address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None

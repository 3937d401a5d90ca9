"""What happens to files on a disk."""

from __future__ import annotations

import os
from pathlib import Path


def flip_a_bit(path: Path) -> None:
    """In the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def halve(path: Path) -> None:
    """Cut a file off in its middle."""
    os.truncate(path, path.stat().st_size // 2)

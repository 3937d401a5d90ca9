"""A process that ends when the one that started it does, also when that one is killed and cannot say so."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

LEASH = "HIPER_LEASH"
"""Environment variable: the process id of the one that started this process and wants it to end with it."""

_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Where `LEASH` names this process's parent, be sent SIGTERM when that ends (Linux; elsewhere nothing is done)."""
    parent = os.environ.pop(LEASH, None)
    if parent is None or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):  # it ended before the call
        os.kill(os.getpid(), signal.SIGTERM)

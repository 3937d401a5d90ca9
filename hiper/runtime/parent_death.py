"""Processes that end when the one that started them does, also when that one is killed and cannot say so."""

from __future__ import annotations

import os
from collections.abc import Sequence

from hiper.runtime.module import module_command


def guarded(command: Sequence[str]) -> list[str]:
    """The command to start instead of this one, from this process, so that it and all it starts end when this process does.

    The process that is started passes on SIGINT, SIGTERM and SIGHUP, and ends as the command ends: see `hiper.runtime.guard`. Start it in a
    session of its own (`start_new_session=True`), or Ctrl-C in a terminal reaches it beside what this process sends.
    """
    return module_command("hiper.runtime.guard", str(os.getpid()), *command)

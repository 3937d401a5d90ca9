"""Modules of this package as programs."""

from __future__ import annotations

import sys
from pathlib import Path

_ROOT = str(Path(__file__).resolve().parents[2])
# -P: Python would look in the working directory first, where a folder may have our name. A checkout that is not installed is found all the
# same: what is started is the code that starts it.
# Imports make hundreds of thousands of objects, none of which goes: at its usual threshold the collector looks through them for a second.
_START = (
    "import gc, runpy, sys; gc.set_threshold(50_000, 20, 20); "
    "root, name = sys.argv[1:3]; sys.argv[1:3] = []; root in sys.path or sys.path.insert(0, root); "
    "runpy.run_module(name, run_name='__main__', alter_sys=True)"
)


def module_command(name: str, *arguments: str) -> list[str]:
    """The command that runs a module of ours, whatever lies in the working directory.

    Args:
        name: of the module, such as `hiper`.
        arguments: its own.
    """
    return [sys.executable, "-P", "-c", _START, _ROOT, name, *arguments]

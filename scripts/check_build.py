"""Say, before pip starts, whether this machine can build what HiPER installs; standard library only.

`alfworld` needs `textworld`, which needs the planner package `fast-downward-textworld`. That comes as source: it wants a C++
compiler and a CMake of the 3 series. Without them pip fails with pages of C++; this script fails with one sentence.

Usage: python check_build.py [VENV]; exit code 0 when the build can start, 1 otherwise.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

PYTHONS = ((3, 11), (3, 13))
"""Oldest and newest Python the pinned packages install on."""


def planner_installed(venv: Path) -> bool:
    """Whether the virtual environment already holds the built planner."""
    python = venv / "bin" / "python"
    if not python.exists():
        return False
    return subprocess.run([str(python), "-c", "import fast_downward"], capture_output=True, check=False).returncode == 0


def python_problem(version: tuple[int, int]) -> str | None:
    """What is wrong with this Python, or None."""
    low, high = PYTHONS
    if low <= version <= high:
        return None
    wanted = f"{low[0]}.{low[1]} to {high[0]}.{high[1]}"
    return f"Python {version[0]}.{version[1]} is not supported; HiPER needs {wanted}. Name another: make PYTHON=python3.11 run"


def compiler_problem() -> str | None:
    """What is wrong with the C++ compiler, or None."""
    if any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        return None
    return "no C++ compiler found (c++, g++ or clang++). Install one: `apt install g++ make`, or on macOS `xcode-select --install`."


def cmake_problem(version_text: str | None) -> str | None:
    """What is wrong with CMake, or None.

    Args:
        version_text: what `cmake --version` printed; None when there is no cmake.
    """
    cure = 'Install one of the 3 series: `apt install cmake` (Debian, Ubuntu), or `pip install "cmake<4"` in the environment make runs in.'
    if version_text is None:
        return f"no cmake found. {cure}"
    match = re.search(r"version (\d+)\.(\d+)", version_text)
    if match is None:
        return f"`cmake --version` printed {version_text.splitlines()[:1]!r}, which names no version. {cure}"
    if int(match[1]) == 3:
        return None
    return f"CMake {match[1]}.{match[2]} cannot build the planner (its project file needs CMake 3). {cure}"


def cmake_version() -> str | None:
    """What `cmake --version` prints, or None without a cmake."""
    cmake = shutil.which("cmake")
    return None if cmake is None else subprocess.run([cmake, "--version"], capture_output=True, text=True, check=False).stdout


def main(arguments: list[str]) -> int:
    """Check Python, compiler and CMake; all problems are printed at once."""
    problems = [python_problem(sys.version_info[:2])]
    if not (arguments and planner_installed(Path(arguments[0]))):
        problems += [compiler_problem(), cmake_problem(cmake_version())]
    found = [problem for problem in problems if problem is not None]
    for problem in found:
        print(f"hiper: cannot install here: {problem}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Say, before pip starts, whether HiPER can be installed here; standard library only.

The original ALFWorld needs `textworld`, which needs the planner package `fast-downward-textworld`. That comes as source: it wants a C++
compiler and a CMake of the 3 series. Without them pip fails with pages of C++; this script fails with one sentence.

Usage, with exit code 0 for yes and 1 for no:
    python check_build.py                   whether system and Python will do
    python check_build.py --planner VENV    whether the planner can be built, or VENV has it
    python check_build.py --torch LOCK      whether this Python has the version of torch that a lock file names, built for whatever
"""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
from pathlib import Path

PYTHONS = ((3, 11), (3, 13))
"""Oldest and newest Python the pinned packages install on."""


def platform_problem(platform: str) -> str | None:
    """What is wrong with this system, as `sys.platform` calls it, or None."""
    if platform.startswith(("linux", "darwin")):
        return None
    return f"HiPER runs on Linux and macOS, and this is {platform}. On Windows use the Windows Subsystem for Linux."


def torch_installed(lock: Path) -> bool:
    """Whether this Python has the torch that a lock file names; which build of it does not count."""
    try:
        found = importlib.metadata.version("torch").partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return False
    return re.search(rf"^torch=={re.escape(found)}\b(?!\.)", lock.read_text(encoding="utf-8"), re.MULTILINE) is not None


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
    """Answer one question; all problems are printed at once."""
    question, *names = arguments or [""]  # no `match`: an older Python has to get as far as the sentence that refuses it
    if question == "--torch":
        return 0 if torch_installed(Path(names[0])) else 1
    if question == "--planner":
        problems = [] if planner_installed(Path(names[0])) else [compiler_problem(), cmake_problem(cmake_version())]
    else:
        problems = [platform_problem(sys.platform), python_problem(sys.version_info[:2])]
    found = [problem for problem in problems if problem is not None]
    for problem in found:
        print(f"hiper: cannot install here: {problem}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

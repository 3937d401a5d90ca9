"""Write the lock files of `requirements/` from `pyproject.toml`: every version, and the SHA-256 of every file of each release.

    python scripts/lock.py [--upgrade]

`uv` resolves, because pip can only answer for the machine and the Python it runs on; it is no dependency of ours: `pip install uv` in an
environment of its own. Versions that are locked stay where they still fit, unless `--upgrade` is given. What is written:

    run.txt         what the whole pipeline needs, but for torch; and `alfworld`, without what it needs itself
    dev.txt         run.txt, every extra that the tests use, and the tests' own tools
    docs.txt        Sphinx
    torch-cuda.txt  torch as the package index has it, with the CUDA libraries that it asks for on Linux

`torch-cpu.txt` is kept by hand, for the index with CPU builds of torch is another one.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from itertools import product
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "requirements"
ENVIRONMENTS = [
    {
        "python_version": python,
        "python_full_version": f"{python}.{patch}",
        "sys_platform": platform,
        "platform_system": system,
        "os_name": "posix",
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "implementation_name": "cpython",
    }
    for python, patch, (platform, system, machine) in product(
        ("3.11", "3.12", "3.13"), (0, 9), (("linux", "Linux", "x86_64"), ("linux", "Linux", "aarch64"), ("darwin", "Darwin", "arm64"))
    )
]
"""Where HiPER installs."""
_TORCH = re.compile(r"torch|triton|nvidia-.*|cuda-.*")
"""What belongs to the choice between CPU and CUDA."""

Lock = dict[str, tuple[Requirement, list[str]]]
"""Package -> the pinned requirement, and hashes."""


def read(text: str) -> Lock:
    """The requirements of a lock file."""
    found: Lock = {}
    lines = (line for line in text.replace("\\\n", " ").splitlines() if line.strip() and not line.lstrip().startswith("#"))
    for line in lines:
        requirement, *hashes = re.split(r"\s+--hash=", line.strip())
        parsed = Requirement(requirement)
        found[parsed.name] = parsed, [one.strip() for one in hashes]
    return found


def write(lock: Mapping[str, tuple[Requirement, list[str]]], about: str) -> str:
    """A lock file: what no supported environment installs is left out, and so is a marker that holds in all."""
    lines = [f"# {about}", "# Written by scripts/lock.py."]
    for name, (requirement, hashes) in sorted(lock.items()):
        holds = [requirement.marker is None or requirement.marker.evaluate(environment) for environment in ENVIRONMENTS]
        if any(holds):
            marker = "" if all(holds) else f" ; {requirement.marker}"
            lines.append(" \\\n    ".join([f"{name}{requirement.specifier}{marker}", *(f"--hash={one}" for one in sorted(hashes))]))
    return "\n".join(lines) + "\n"


def resolve(extra: str, kept: Path | None, constraint: str) -> Lock:
    """Let uv resolve the core and an extra for all supported platforms.

    Args:
        extra: a name from `project.optional-dependencies`.
        kept: a lock file whose versions are kept where they fit; None: the newest are taken.
        constraint: a lock file's text; versions are those that it names.
    """
    with tempfile.TemporaryDirectory() as folder:
        out, bound = Path(folder) / "out.txt", Path(folder) / "bound.txt"
        bound.write_text(constraint, encoding="utf-8")
        if kept is not None and kept.is_file():
            shutil.copy(kept, out)
        options = ["--universal", "--python-version=3.11", "--generate-hashes", "--no-annotate", "--no-header", "--quiet"]
        command = ["uv", "pip", "compile", *options, f"--extra={extra}", f"--constraints={bound}", f"--output-file={out}", "pyproject.toml"]
        subprocess.run(command, cwd=ROOT, check=True)
        return read(out.read_text(encoding="utf-8"))


def main(upgrade: bool) -> int:
    """Write them all; the exit code."""
    if shutil.which("uv") is None:
        print("uv is missing: `pip install uv` in an environment of its own, and put that on PATH.", file=sys.stderr)
        return 1
    kept = {name: None if upgrade else FOLDER / f"{name}.txt" for name in ("run", "dev", "docs")}
    dev = resolve("dev", kept["dev"], "")
    same = "".join(f"{name}{requirement.specifier}\n" for name, (requirement, _) in dev.items())
    run, docs = resolve("run", kept["run"], same), resolve("docs", kept["docs"], same)
    torch = {name: entry for name, entry in run.items() if _TORCH.fullmatch(name)}
    files = {
        "run": (
            run | {"alfworld": dev["alfworld"]},
            "What the whole pipeline needs, but for torch. `alfworld` is here for its files alone.",
        ),
        "dev": (dev, "What the tests need: run.txt, every extra that they use, and their tools; torch comes with run.txt."),
        "docs": (docs, "What `make docs` needs."),
        "torch-cuda": (torch, "torch of the package index; on Linux built for CUDA, whose libraries come along: some 3 GB."),
    }
    for name, (lock, about) in files.items():
        left = lock if name == "torch-cuda" else {package: entry for package, entry in lock.items() if package not in torch}
        (FOLDER / f"{name}.txt").write_text(write(left, about), encoding="utf-8")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions that fit")
    sys.exit(main(parser.parse_args().upgrade))

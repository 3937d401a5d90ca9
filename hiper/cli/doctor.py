"""What this machine has and lacks, before a run finds out."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hiper.cli.parsing import Commands, say
from hiper.runtime.packages import INSTALL_ALFWORLD, how_to_install

GIB = 2**30
MEMORY_GIB = 4
"""What the quickstart needs at most."""
DISK_GIB = 2
"""Room for a few runs of the quickstart."""


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    name: str
    ok: bool
    required: bool
    """Whether the quickstart needs it."""
    found: str
    advice: str = ""
    """What to do about it; empty when it is fine."""

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def examine() -> list[Finding]:
    """Look at everything; takes some seconds, because packages are imported as a run would import them."""
    checks: tuple[Callable[[], Finding], ...] = (
        _python,
        _cores,
        _memory,
        _disk,
        _torch,
        _cuda,
        _transformers,
        _trl,
        _alfworld,
        _prefect,
        _config,
        _original,
        _compiler,
        _cmake,
        _official_games,
        _wandb,
        _optuna,
        _postgres,
        _dvc,
    )
    return [check() for check in checks]


def text(findings: list[Finding]) -> str:
    """The findings as a table for the terminal, the required ones that fail marked."""
    lines = []
    for finding in findings:
        mark = "ok" if finding.ok else "LACKS" if finding.required else "-"
        lines.append(
            f"{mark:<6}{finding.name:<16}{finding.found}" + (f"\n{'':<22}{finding.advice}" if finding.advice and not finding.ok else "")
        )
    lacking = [finding.name for finding in findings if finding.required and not finding.ok]
    lines.append(f"This machine lacks: {', '.join(lacking)}." if lacking else "This machine can run the quickstart.")
    return "\n".join(lines)


def _python() -> Finding:
    ok = (3, 11) <= sys.version_info[:2] <= (3, 13)
    return Finding("python", ok, True, platform.python_version(), "HiPER needs Python 3.11 to 3.13.")


def _cores() -> Finding:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Finding("cores", count >= 2, False, f"{count} usable", "The quickstart's twelve minutes are for two cores.")


def _memory() -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Finding("memory", total >= MEMORY_GIB * GIB, True, f"{total / GIB:.1f} GiB", f"The quickstart takes up to {MEMORY_GIB} GiB.")


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free
    return Finding("disk", free >= DISK_GIB * GIB, True, f"{free / GIB:.1f} GiB free here", f"Have {DISK_GIB} GiB free for runs.")


def _torch() -> Finding:
    return _imports("torch", "torch", "Which build fits this machine, and how to install it: docs/install.md.")


def _cuda() -> Finding:
    try:
        import torch
    except ImportError:
        return Finding("cuda", False, False, "unknown without torch")
    if not torch.cuda.is_available():
        return Finding("cuda", False, False, "none; the tiny model needs none", "Hub models want a GPU and a CUDA build of torch.")
    return Finding("cuda", True, False, f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}")


def _transformers() -> Finding:
    return _imports("transformers", "transformers", "It comes with `pip install hiper`.")


def _trl() -> Finding:
    return _imports("trl", "trl", f"The warm start is fine-tuned with it: {how_to_install(['trl'])}.")


def _alfworld() -> Finding:
    """Its files are what is needed, so it is not imported: that would make folders in the user's home."""
    try:
        return Finding("alfworld", True, True, version("alfworld"))
    except PackageNotFoundError:
        advice = f"It ships the floor plans of the generated games: `{INSTALL_ALFWORLD}`."
        return Finding("alfworld", False, True, "not installed", advice)


def _original() -> Finding:
    advice = f"Only alfworld.engine=textworld needs it: {how_to_install(['fast_downward'])}, which builds a planner."
    return _imports("original engine", "fast_downward", advice, "textworld", required=False)


def _prefect() -> Finding:
    """Prefect's server fails on import with some versions of fastapi that its metadata allows, so the import is tried."""
    try:
        importlib.import_module("prefect.server.api.server")
    except Exception as error:  # anything at all may come out of a broken pair of packages, and each means the same here
        found = f"its server does not import: {' '.join(str(error).split())[:120]}"
        advice = f"{how_to_install(['prefect'])} brings versions that go together. `hiper run --direct` does without Prefect."
        return Finding("prefect", False, True, found, advice)
    found = f"{version('prefect')}, server {os.environ.get('PREFECT_API_URL', 'embedded')}"
    return Finding("prefect", True, True, found)


def _config() -> Finding:
    from hiper.composition.compose import compose
    from hiper.config.places import config_dir
    from hiper.errors import ConfigError

    try:
        compose(["experiment=quickstart"])
        return Finding("config", True, True, str(config_dir()))
    except ConfigError as error:
        return Finding("config", False, True, "conf/ does not compose", str(error))


def _compiler() -> Finding:
    found = next((path for name in ("c++", "g++", "clang++") if (path := shutil.which(name))), None)
    return Finding("compiler", found is not None, False, found or "none", "Only needed to install the planner: `apt install g++ make`.")


def _cmake() -> Finding:
    cmake = shutil.which("cmake")
    if cmake is None:
        return Finding(
            "cmake", False, False, "none", 'Only needed to install the planner: `apt install cmake`, or `pip install "cmake<4"`.'
        )
    first = subprocess.run([cmake, "--version"], capture_output=True, text=True, check=False).stdout.partition("\n")[0]
    return Finding("cmake", "version 3." in first, False, first or cmake, 'The planner builds with CMake 3 only: `pip install "cmake<4"`.')


def _official_games() -> Finding:
    place = os.environ.get("ALFWORLD_DATA")
    if place is None:
        return Finding(
            "ALFWORLD_DATA", False, False, "not set", "Only tasks=official needs it; `alfworld-download` fetches the games (some 2 GB)."
        )
    ok = Path(place).is_dir()
    return Finding(
        "ALFWORLD_DATA", ok, False, place if ok else f"{place}, which is no directory", "Point it to the folder that holds json_2.1.1."
    )


def _wandb() -> Finding:
    finding = _extra("wandb", "tracking=wandb and wandb_offline")
    mode = os.environ.get("WANDB_MODE", "as tracking.wandb says")
    return replace(finding, found=f"{finding.found}, mode {mode}") if finding.ok else finding


def _optuna() -> Finding:
    return _extra("optuna", "`hiper sweep`")


def _postgres() -> Finding:
    return _extra("psycopg2", "sweeps that lie on a Postgres server", "psycopg2-binary")


def _dvc() -> Finding:
    return _extra("dvc", "dvc.yaml, `hiper models` and `hiper run --versioned`")


def _extra(module: str, what: str, package: str | None = None) -> Finding:
    try:
        return Finding(module, True, False, version(package or module))
    except PackageNotFoundError:
        return Finding(module, False, False, "not installed", f"Only {what} need it: {how_to_install([module])}.")


def _imports(name: str, module: str, advice: str, package: str | None = None, required: bool = True) -> Finding:
    try:
        importlib.import_module(module)
        return Finding(name, True, required, version(package or module))
    except (ImportError, OSError, PackageNotFoundError) as error:  # OSError: a shared library that does not load
        return Finding(name, False, required, f"does not import: {' '.join(str(error).split())[:120]}", advice)


def add(commands: Commands) -> None:
    """Add `hiper doctor`."""
    parser = commands.add("doctor", doctor, "what this machine has and lacks")
    parser.add_argument("--json", action="store_true", help="as JSON")


def doctor(options: argparse.Namespace) -> int:
    """Print the findings; exit code 1 where something required is missing."""
    findings = examine()
    say(json.dumps([finding.record() for finding in findings], indent=2) if options.json else text(findings))
    return 0 if all(finding.ok or not finding.required for finding in findings) else 1

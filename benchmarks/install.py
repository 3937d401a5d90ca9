"""What installing costs: `python benchmarks/install.py [CHECKOUT] [--commit COMMIT] [--target NAME] [--again]` prints JSON.

Clones the checkout into a temporary folder and lets `make` install there with an empty cache of pip's: seconds, CPU seconds, bytes
downloaded and bytes on disk, as a whole and by package. `--again` then installs a second clone with the cache that the first has filled.
Bytes downloaded are those that pip names in its log, to three digits; packages that an index serves from this machine's disk count, too.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

UNITS = {"bytes": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9}
_DOWNLOADED = re.compile(r"Downloading (?P<place>\S+) \((?P<size>[\d.]+) (?P<unit>bytes|kB|MB|GB)\)")
_FROM_DISK = re.compile(r"Processing (?P<place>/\S+\.(?:whl|tar\.gz|zip))\b")
_FILE = re.compile(r"^(?P<name>.+?)-\d[^/]*\.(?:whl|tar\.gz|zip)$")


def measure(checkout: Path, commit: str, target: str, again: bool) -> dict[str, object]:
    """Install one clone of a commit, and a second one beside it if asked."""
    with tempfile.TemporaryDirectory(prefix="hiper-install-") as folder:
        place = Path(folder)
        found = {"commit": _git(checkout, "rev-parse", "--short", commit), "target": target}
        clones = ["first", *(["second clone, same cache"] if again else [])]
        return {**found, **{name: _install(checkout, commit, target, place / str(number), place) for number, name in enumerate(clones)}}


def _install(checkout: Path, commit: str, target: str, clone: Path, shared: Path) -> dict[str, object]:
    """Let `make` install a fresh clone."""
    _git(checkout, "clone", "--quiet", "--no-hardlinks", str(checkout), str(clone))
    _git(clone, "checkout", "--quiet", _git(checkout, "rev-parse", commit))
    log = clone.with_name(f"{clone.name}.log")
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV", "MAKEFLAGS")}
    environment |= {"PIP_CACHE_DIR": str(shared / "cache"), "PIP_LOG": str(log)}
    begun, worked = time.perf_counter(), _cpu_seconds()
    subprocess.run(["make", target], cwd=clone, env=environment, check=True, stdout=subprocess.DEVNULL)
    seconds, cpu_seconds = time.perf_counter() - begun, _cpu_seconds() - worked
    (site,) = (clone / ".venv" / "lib").glob("python*/site-packages")
    down, disk = downloaded(log.read_text(encoding="utf-8")), on_disk(site)
    packages = {name: {"downloaded": down.get(name, 0), "on_disk": disk.get(name, 0)} for name in sorted(down.keys() | disk.keys())}
    return {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        "megabytes_downloaded": round(sum(down.values()) / 1e6, 1),
        "megabytes_on_disk": round(sum(file.lstat().st_size for file in _files(clone / ".venv")) / 1e6, 1),
        "packages": dict(sorted(packages.items(), key=lambda item: -item[1]["on_disk"])),
    }


def downloaded(log: str) -> dict[str, int]:
    """Bytes by package that a log of pip's says were fetched; those needed only to build are among them."""
    found: dict[str, int] = {}
    for line in log.splitlines():
        if (match := _DOWNLOADED.search(line)) is not None and ".metadata" not in match["place"]:
            size = int(float(match["size"]) * UNITS[match["unit"]])
        elif (match := _FROM_DISK.search(line)) is not None:
            size = Path(match["place"]).stat().st_size
        else:
            continue
        file = _FILE.match(match["place"].rpartition("/")[2])
        if file is not None:
            name = normal(file["name"])
            found[name] = found.get(name, 0) + size
    return found


def on_disk(site: Path) -> dict[str, int]:
    """Bytes by package in `site-packages`: the files that each has recorded, which bytecode made afterwards is not among."""
    found = {}
    for record in site.glob("*.dist-info/RECORD"):
        paths = (site / line.rsplit(",", 2)[0].strip('"') for line in record.read_text(encoding="utf-8").splitlines() if line)
        found[normal(record.parent.name.split("-")[0])] = sum(path.stat().st_size for path in paths if path.is_file())
    return found


def normal(name: str) -> str:
    """A package's name as an index spells it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _cpu_seconds() -> float:
    """Of the processes started and ended so far: a busy machine changes it little."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _git(place: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=place, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", nargs="?", type=Path, default=Path(__file__).parents[1], help="a clone of this project (this one)")
    parser.add_argument("--commit", default="HEAD", help="which state of it (HEAD)")
    parser.add_argument("--target", default=".venv/.installed", help="what make is asked for (.venv/.installed)")
    parser.add_argument("--again", action="store_true", help="install a second clone with the cache of the first")
    options = parser.parse_args()
    print(json.dumps(measure(options.checkout.resolve(), options.commit, options.target, options.again), indent=1))

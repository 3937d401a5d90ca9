"""Rules of the installation's measurement: a download counts wherever it came from, and once."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def test_what_a_log_says_was_fetched(root: Path, tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("install", root / "benchmarks" / "install.py")
    assert spec is not None
    assert spec.loader is not None
    install = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(install)
    wheel = tmp_path / "on_disk-2.0-py3-none-any.whl"
    wheel.write_bytes(b"12345")
    log = (
        "2026-11-27T23:07:10,580   Downloading spacy-3.8.18-cp311-cp311-manylinux_2_28_x86_64.whl (34.7 MB)\n"
        "2026-11-27T23:07:10,600   Downloading antlr4-python3-runtime-4.9.3.tar.gz (117 kB)\n"
        "2026-11-27T23:07:10,700   Downloading numpy-2.4.6-cp311-cp311-manylinux_2_28_x86_64.whl.metadata (6.6 kB)\n"
        "2026-11-27T23:07:10,800   Using cached six-1.17.0-py2.py3-none-any.whl (11 kB)\n"
        f"2026-11-27T23:07:10,900 Processing {wheel} (from -r requirements/run.txt (line 5))\n"
    )
    assert install.downloaded(log) == {"spacy": 34_700_000, "antlr4-python3-runtime": 117_000, "on-disk": 5}

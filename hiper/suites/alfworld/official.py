"""The official games: where they are, and fetching them with `alfworld`'s own downloader when they are nowhere."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from pathlib import Path

from hiper.errors import DataError, MissingDependencyError
from hiper.runtime.packages import INSTALL_ALFWORLD
from hiper.runtime.process import Processes
from hiper.suites.alfworld.games import GAME_FILE, RELEASE
from hiper.suites.alfworld.settings import SPLITS

logger = logging.getLogger(__name__)

VARIABLE = "ALFWORLD_DATA"


def official_data(data: str | None = None) -> Path:
    """The directory of the official games, fetched first where there is none.

    Args:
        data: `tasks.data`; None: $ALFWORLD_DATA, or the `alfworld` package's own default, `~/.cache/alfworld`. A directory named
            here is never downloaded into.

    Raises:
        DataError: `data` has no games, or the download failed.
        MissingDependencyError: there is nothing to download with.
    """
    if data is not None:
        root = Path(data).expanduser()
        if not _splits(root):
            raise DataError(
                f"tasks.data={data} has no {GAME_FILE} under {', '.join(SPLITS)}, nor under {RELEASE}/. "
                "Name the folder that holds the splits."
            )
        return root
    root = Path(os.environ.get(VARIABLE) or "~/.cache/alfworld").expanduser()
    if _splits(root) != list(SPLITS):
        _download(root)
    return root


def _splits(root: Path) -> list[str]:
    """Splits with at least one game."""
    base = root / RELEASE if (root / RELEASE).is_dir() else root
    return [split for split in SPLITS if next((base / split).glob(f"*/*/{GAME_FILE}"), None) is not None]


def _download(root: Path) -> None:
    beside = Path(sys.executable).with_name("alfworld-download")
    command = str(beside) if beside.is_file() else shutil.which("alfworld-download")
    if command is None:
        raise MissingDependencyError(
            f"the official games are not in {root}, and alfworld-download, which fetches them, is not installed. "
            f"Run `{INSTALL_ALFWORLD}`, set {VARIABLE} to a directory that has them, or use tasks.source=generated."
        )
    logger.info("fetching the official games into %s with %s (some 2 GB)", root, command)
    with Processes() as work:
        code = work.start([command, "--data-dir", str(root)]).wait()
    if _splits(root) != list(SPLITS):
        raise DataError(
            f"alfworld-download ended with code {code} and left no complete games in {root}. It needs github.com; "
            f"set {VARIABLE} to a directory that has the games, or use tasks.source=generated, which needs no download."
        )
    if code != 0:
        logger.warning("alfworld-download ended with code %d after the games were complete; the rest is not needed here", code)

"""What several flows show in the same way."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.artifacts import create_image_artifact, create_progress_artifact, update_progress_artifact

from hiper.runtime.progress import Progress

ARTIFACT_SECONDS = 5.0
"""Seconds between two updates of a progress artifact."""


@contextmanager
def progress_artifact(name: str) -> Iterator[Progress]:
    """A progress artifact that follows a stage, updated every few seconds; made when the stage first reports."""
    made: UUID | None = None
    last = 0.0

    def report(done: int, total: int) -> None:
        nonlocal made, last
        if total < 1 or (time.monotonic() - last < ARTIFACT_SECONDS and done < total):
            return
        last = time.monotonic()
        share = min(100.0, 100.0 * done / total)
        if made is None:
            made = _id(create_progress_artifact(progress=share, key=name, description=f"{name}: {done} of {total}"))
        else:
            update_progress_artifact(artifact_id=made, progress=share, description=f"{name}: {done} of {total}")

    yield report


def show_charts(folder: Path, prefix: str, names: Sequence[str] | None = None) -> None:
    """The SVG charts of a folder as image artifacts, all or those named."""
    for chart in sorted(folder.glob("*.svg")):
        if names is None or chart.stem in names:
            image = base64.b64encode(chart.read_bytes()).decode()
            key = f"{prefix}-{chart.stem}".replace(".", "-").replace("_", "-").lower()
            create_image_artifact(f"data:image/svg+xml;base64,{image}", key=key, description=chart.stem)


def _id(created: Any) -> UUID:
    assert isinstance(created, UUID), "outside an event loop Prefect's artifact calls return the id itself"
    return created

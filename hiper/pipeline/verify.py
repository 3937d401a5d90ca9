"""Whether a run's files are those that were written: every stage's, and every checkpoint's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hiper.errors import CheckpointError, DataError
from hiper.runs.plan import stages_of, upstream_of
from hiper.runs.run_dir import load_config
from hiper.runs.stage_folder import CHECKPOINTS, read_stage, verify_stage


def verify_run(run: Path) -> Iterator[tuple[str, bool]]:
    """Read every file of a run's finished stages and checkpoints; a line a stage and checkpoint, and whether it is as it was written.

    Raises:
        ConfigError: it is no run.
    """
    cfg = load_config(run)
    base = None if cfg.paths.base is None else Path(cfg.paths.base)
    for stage in stages_of(cfg):
        home = base if base is not None and not (run / stage).exists() and (base / stage).exists() else run
        try:
            if read_stage(home, stage) is None:
                yield f"{stage}: not finished", True
            else:
                record = verify_stage(home, stage, full=True)
                changed = [name for name in upstream_of(cfg, stage) if _changed(run, base, name, record.sources.get(name))]
                yield (
                    f"{stage}: " + (f"made from other files of {', '.join(changed)} than there are now" if changed else "as written"),
                    True,
                )
        except DataError as error:
            yield f"{stage}: DAMAGED. {error}", False
        for folder in (home / stage, home / f"{stage}.partial"):
            yield from _checkpoints(folder / CHECKPOINTS)


def _changed(run: Path, base: Path | None, stage: str, digest: str | None) -> bool:
    try:
        record = read_stage(run, stage) or (None if base is None else read_stage(base, stage))
    except DataError:
        return False  # said of that stage itself
    return record is None or record.digest != digest


def _checkpoints(folder: Path) -> Iterator[tuple[str, bool]]:
    if not folder.is_dir():
        return
    from hiper.runs.checkpoint import list_checkpoints, verify_checkpoint  # torch, for runs that have any

    for path in list_checkpoints(folder):
        try:
            verify_checkpoint(path)
            yield f"{path}: as written", True
        except CheckpointError as error:
            yield f"{path}: DAMAGED. {error}", False

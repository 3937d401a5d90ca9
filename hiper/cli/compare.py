"""Comparisons: arms times seeds."""

from __future__ import annotations

import argparse
from pathlib import Path

from hiper.cli.parsing import Commands, add_overrides, count, say


def add(commands: Commands) -> None:
    """Add `hiper compare`."""
    parser = commands.add("compare", compare, "compare arms over seeds from one warm start; goes on with what is not done")
    parser.add_argument("file", type=Path, metavar="FILE", help="a comparison, such as comparisons/estimators.yaml")
    parser.add_argument("--jobs", type=count, default=1, metavar="N", help="runs at a time (1)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page to write (docs/results.md)", default=Path("docs/results.md"))
    parser.add_argument("--split", metavar="SPLIT", help="whose tasks the page is about (the first of evaluate.splits)")
    parser.add_argument("--report-only", action="store_true", help="write the page from what is there")
    parser.add_argument("--only", metavar="PART", help="do one part and write no page: base (the warm start), or ARM/SEED")
    parser.add_argument("--dvc", action="store_true", help="do nothing but write a dvc.yaml of the parts; see docs/orchestration.md")
    add_overrides(parser)


def compare(options: argparse.Namespace) -> int:
    """The whole comparison, one part of it, or its page alone."""
    from hiper.experiments.comparison import BASE, load_comparison, run_base, run_comparison, write_results
    from hiper.experiments.comparison.versioned import write_versioned
    from hiper.pipeline.direct import outcome, run_stages
    from hiper.runtime.progress import track
    from hiper.suites import splits_of

    comparison = load_comparison(options.file, options.overrides)
    options.place = str(comparison.folder)
    if options.dvc:
        say(f"written: {write_versioned(comparison, options.file, Path.cwd(), options.overrides)}")
        return 0
    if options.only == BASE and comparison.one_start:
        run_base(comparison)
        return 0
    if options.only is not None:
        cell = comparison.cell(options.only)
        run_stages(cell.cfg, force=False)
        say(outcome(Path(cell.cfg.paths.run)))
        return 0
    if not options.report_only:
        with track("runs") as progress:
            run_comparison(comparison, options.jobs, progress)
    split = options.split or splits_of(comparison.base_cfg)[0]
    say(f"written: {write_results(comparison, options.out, split, f'hiper compare {options.file}')}")
    return 0

"""Damage files, give commands, see what they say; a table of it all.

    python -m tests.fuzz --cases 500 --table fuzz.md

Each case damages one file of the ground (see `ground.py`) in one way (`damage.py`) and gives one command that reads it (`kinds.py`).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from tests.fuzz.cases import Fuzz, draw
from tests.fuzz.judge import table


def main() -> int:
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--cases", type=int, default=500)
    parser.add_argument("--first", type=int, default=0, metavar="N", help="leave out the cases before this one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--table", type=Path, metavar="FILE", help="where to write the table; the terminal, if not given")
    parser.add_argument("--only", metavar="KIND", help="kinds whose names hold this")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="a folder for the ground, used again where it is there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hiper-fuzz-") as folder:
        rows = []
        with Fuzz(options.keep or Path(folder), Path(folder)) as fuzz:
            for number, case in enumerate(draw(options.cases, options.seed, options.only)):
                if number < options.first:
                    continue
                begun = time.monotonic()
                verdict = fuzz.run(case)
                rows.append((case.kind.name, case.damage, case.shown, verdict))
                said = f"{case.kind.name}, {case.damage}, `{case.shown}`: {verdict.outcome} {'' if verdict.good else repr(verdict.detail)}"
                print(f"{number:4d} {time.monotonic() - begun:5.1f} s {said}", flush=True)
    text = table(rows)
    if options.table is None:
        print(text)
    else:
        options.table.parent.mkdir(parents=True, exist_ok=True)
        options.table.parent.mkdir(parents=True, exist_ok=True)
        options.table.write_text(text, encoding="utf-8")
    return 0 if all(verdict.good for *_, verdict in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())

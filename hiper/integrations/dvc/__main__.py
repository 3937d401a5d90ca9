"""`python -m hiper.integrations.dvc [SUITE]`: write dvc.yaml of the checkout in the current directory from the table of the stages."""

from __future__ import annotations

import sys
from pathlib import Path

from hiper.errors import ConfigError
from hiper.integrations.dvc.stages import DEFAULT, DVC_FILE, text
from hiper.runtime.files import write_text


def main(root: Path, suite: str = DEFAULT) -> int:
    """Write it; the exit code."""
    if not (root / ".dvc").is_dir():
        print(f"hiper: {root} is not a checkout with DVC: it has no .dvc/.", file=sys.stderr)
        return ConfigError.exit_code
    write_text(root / DVC_FILE, text(suite))
    print(f"written: {root / DVC_FILE}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path.cwd(), *sys.argv[1:2]))

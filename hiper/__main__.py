"""`python -m hiper` is the `hiper` command."""

from hiper.cli import main

raise SystemExit(main())

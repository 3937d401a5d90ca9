"""`python -m hiper` is the `hiper` command."""

from hiper.cli.main import main

raise SystemExit(main())

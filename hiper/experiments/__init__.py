"""Many runs: comparisons (arms x seeds) and sweeps (a search)."""

"""Other programs: Prefect, DVC. Each module needs its package, nothing else does."""

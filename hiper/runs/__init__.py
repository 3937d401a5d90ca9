"""A run is a directory: its config, the folders of its stages, and what decides whether they are up to date."""

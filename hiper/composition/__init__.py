"""From overrides, files and saved settings to a checked `RunConfig`: above the schema, the estimators and the suites, which it asks."""

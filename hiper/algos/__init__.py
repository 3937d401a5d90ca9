"""Estimators: from episodes to advantages."""

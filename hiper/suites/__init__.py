"""Suites of tasks, behind one surface: `hiper.suites.suite`. What is ALFWorld's or WebShop's alone is in a folder of its own."""

from hiper.suites.base import StepResult, TextEnv
from hiper.suites.registry import make_env, register_suite, splits_of, suite_of

__all__ = ["StepResult", "TextEnv", "make_env", "register_suite", "splits_of", "suite_of"]

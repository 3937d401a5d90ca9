"""Sphinx: guides in Markdown, API pages from docstrings, the settings written from the schema. The pages ask for nothing over a network."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from hiper import __version__  # noqa: E402
from hiper.composition.reference import settings_page  # noqa: E402

project = "HiPER"
author = "HiPER contributors"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["site"]
html_theme = "alabaster"
html_theme_options = {"description": "Hierarchical plan-execute reinforcement learning of language-model agents"}
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]  # pages that commands write begin their sections as they like
default_role = "code"
napoleon_custom_sections = ["Source"]
napoleon_google_docstring = True
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "undoc-members": False, "show-inheritance": False}
autodoc_typehints = "signature"

(HERE / "settings.md").write_text(settings_page(), encoding="utf-8")  # git ignores it

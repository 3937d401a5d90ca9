"""The report: one self-contained page about a run, and its curves as SVG files."""

from hiper.report.write import write_report

__all__ = ["write_report"]

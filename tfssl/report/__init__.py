"""Pictures of what was learned: the sheet of views, and one self-contained page about runs."""

from tfssl.report.sheets import sheet

__all__ = ["sheet"]

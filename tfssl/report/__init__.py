"""Pictures of what was learned: the sheet of views, and one self-contained page about runs."""

from tfssl.report.features import gather
from tfssl.report.page import build
from tfssl.report.sheets import sheet

__all__ = ["build", "gather", "sheet"]

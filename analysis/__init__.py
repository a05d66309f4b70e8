"""From rows on disk to tables, figures and a report.

`analysis.load("results/noise")` gives data frames.
"""

from analysis.notebook import load

__all__ = ["load"]

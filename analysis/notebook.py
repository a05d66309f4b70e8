"""A sweep's results in a notebook: `analysis.load("results/noise").figure("effects")`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING

from analysis import catalogue, table
from analysis.results import Results
from tasks.parts.settings import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class LoadedResults(Results):
    """The results of one sweep, which draw themselves; see `Results`."""

    def figure(self, name: str, **options: object) -> Figure:
        """One of the report's figures.

        Args:
            name: a file in `analysis/figures`.
            options: the figure's, as in a sweep's `figures:`.

        Raises:
            UserError: there is no such figure or option, or the rows cannot be drawn so.
            ReportError: there is nothing to draw.
        """
        settings = [column.removeprefix("config.") for column in map(str, self.trials) if column.startswith("config.")]
        entry: str | Mapping[str, object] = {name: options} if options else name
        try:
            chosen = catalogue.parse(entry, list(self.rows.columns), settings, self.sweep)
        except UserError as error:
            raise UserError(error.message) from None  # its words name the option
        drawn: Figure = chosen.module.draw(chosen.module.compute(self, chosen.options), chosen.options)
        return drawn


def load(results: str | os.PathLike[str]) -> LoadedResults:
    """The results of a sweep as data frames.

    `rows` has a line for each example and what it was measured under, `trials` one for each trial.

    Args:
        results: the sweep's folder or URI, `results/noise` or `s3://bucket/results/noise`.

    Raises:
        ReportError: the folder holds no sweep, or none of its trials is finished.
    """
    found = table.load(results)
    return LoadedResults(**{field.name: getattr(found, field.name) for field in fields(Results)})

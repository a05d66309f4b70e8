"""From long rows to arrays of seeds x examples x points, the shape that the statistics take."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.options import FigureOptions
from analysis.results import ReportError, Results
from analysis.stats import SHARE, Bounds, Estimate, Floats, Ints, crossed_mean
from tasks.parts.measures.ladder import mean_height

CHOSEN_BY = ("id", "condition", "kind", "found", "correct")
"""The row columns by which rows are chosen and counted, where there are any."""


@dataclass(frozen=True)
class MeasuredArray:
    """One column of the rows as an array.

    Attributes:
        values: (S, N, R), NaN where there is no row.
        trials: (S,) the trials, which are the seeds of one recipe.
        ids: (N,) the examples.
        points: (R,) the positions along the ladder, ascending; a single 0 where there is no ladder.
        bounds: what the values lie between.
    """

    values: Floats
    trials: NDArray[np.object_]
    ids: Ints
    points: Floats
    bounds: Bounds = None

    def estimate(self, options: FigureOptions) -> Estimate:
        """The mean at each point, with its interval."""
        return crossed_mean(self.values, level=options.level, bounds=self.bounds)


def select(
    results: Results,
    options: FigureOptions,
    *,
    kind: str | None = None,
    condition: str | None = None,
    recipe: str | None = None,
) -> pd.DataFrame:
    """The rows of one kind, condition and recipe, without those that the options leave out.

    Where one of the three is None, rows are of all of its values.

    Raises:
        ReportError: there is no such row; the line says what there is.
    """
    rows = results.rows
    keep = np.ones(len(rows), bool)
    for column, wanted in (("kind", kind), ("condition", condition), ("recipe", recipe)):
        if wanted is None:
            continue
        if column not in rows or wanted not in set(rows[column].dropna().unique()):
            there = sorted(map(str, rows[column].dropna().unique())) if column in rows else []
            raise ReportError(f"no rows of the {column} {wanted!r}; there are {', '.join(there) or 'none'}")
        keep &= (rows[column] == wanted).to_numpy()
    if options.only_found and {"condition", "found"} <= set(rows):  # without an attack, no centre is missing
        moved = (rows["condition"] != results.baseline).to_numpy()
        for column in ("found", "correct"):
            if column in rows:
                keep &= ~moved | rows[column].to_numpy(bool)
    if options.only_correct and "correct" in rows:
        keep &= rows["correct"].to_numpy(bool)
    chosen = rows[keep]
    if chosen.empty:
        raise ReportError("no rows are left to draw")
    return chosen


def left_out(results: Results, options: FigureOptions) -> str:
    """A sentence on the examples without a moved centre, which `select` leaves out, or no words."""
    rows = results.rows
    if not options.only_found or not {"condition", "found"} <= set(rows):
        return ""
    moved = rows[(rows["condition"] != results.baseline).to_numpy()]
    known = [column for column in ("found", "correct") if column in rows]
    if options.only_correct and "correct" in rows:
        moved = moved[moved["correct"].to_numpy(bool)]
    if not known or moved.empty:
        return ""
    kept = moved[known].astype(bool).all(axis=1)
    searches = kept.groupby(
        [moved["trial"], moved["id"]], observed=True
    ).all()  # an image without any one of its centres
    missed = (~searches).groupby(level=0, observed=True).agg(["sum", "size"])
    if not missed["sum"].any():
        return ""
    names = " and ".join(name for name in conditions(rows) if name != results.baseline)
    low, high = int(missed["sum"].min()), int(missed["sum"].max())
    of = spread(int(missed["size"].min()), int(missed["size"].max()), "example")
    how_many = f"{low} to {high}" if low < high else f"{low}"
    words = (
        f"Around {names} centres, images that were misclassified to begin with or that the search did not fool are left "
        f"out: {how_many} of {of}{' a trial' if len(missed) > 1 else ''}"
    )
    return f"{words}; there, recipes are compared on different subsets." if len(results.recipes) > 1 else f"{words}."


def kinds(results: Results) -> list[str | None]:
    """The kinds of noise in the rows, in order of appearance; [None] where rows know no kinds."""
    if "kind" not in results.rows:
        return [None]
    return [str(kind) for kind in results.rows["kind"].dropna().unique()] or [None]


def conditions(rows: pd.DataFrame) -> list[str]:
    """The conditions in the rows, in the task's own order, else as they appear.

    Where rows know no conditions it is one without words, [""].
    """
    if "condition" not in rows:
        return [""]
    there, kind = rows["condition"].dropna().unique(), rows["condition"].dtype
    order = kind.categories if isinstance(kind, pd.CategoricalDtype) and kind.ordered else there
    return [str(name) for name in order if name in there]


def arrays(
    rows: pd.DataFrame, column: str, along: str = "radius", by: str | None = "condition", *, bounds: Bounds = None
) -> dict[str, MeasuredArray]:
    """One array for each value of the column `by`.

    All have the same axes, so that they can be subtracted.

    Args:
        rows: with `trial`, `id` and the columns that the other arguments name.
        column: of numbers or truth values.
        along: the column with the places on the ladder; there is one place where it is missing.
        by: the column that tells the arrays apart; one array, named "", where it is missing.
        bounds: what the column's values lie between (`Results.bounds`). Of truth values that is
            known.

    Raises:
        ReportError: the column holds no finite number.
    """
    seed, trials = pd.factorize(rows["trial"], sort=True)  # of codes, so much faster than of words
    example, ids = pd.factorize(rows["id"].to_numpy(), sort=True)
    ladder = rows[along].to_numpy(float) if along in rows else np.zeros(len(rows))
    point, points = pd.factorize(ladder, sort=True)
    names = np.asarray(trials, dtype=object)
    bounds = SHARE if pd.api.types.is_bool_dtype(rows[column]) else bounds
    shape = (len(trials), len(ids), len(points))
    cell = (seed * shape[1] + example) * shape[2] + point
    values = np.where(point >= 0, rows[column].to_numpy(float), np.nan)  # no place on the ladder: no value
    if not np.isfinite(values).any():
        raise ReportError(f"the column {column} holds no number")
    if by is None or by not in rows:
        return {"": MeasuredArray(_means(cell, values, shape), names, ids, points, bounds)}
    found = {}
    for name in conditions(rows) if by == "condition" else [str(value) for value in rows[by].dropna().unique()]:
        here = (rows[by] == name).to_numpy()
        found[name] = MeasuredArray(_means(cell[here], values[here], shape), names, ids, points, bounds)
    return found


def _means(cell: Ints, values: Floats, shape: tuple[int, int, int]) -> Floats:
    known = np.isfinite(values)
    size = int(np.prod(shape))
    counts = np.bincount(cell[known], minlength=size)
    sums = np.bincount(cell[known], weights=values[known], minlength=size)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan).reshape(shape)


def mean_over(cube: MeasuredArray, at: float | None = None) -> MeasuredArray:
    """One number an example: at the point `at`, or averaged over the ladder.

    The average is the normalised area under the curve.

    Raises:
        ReportError: no point of the ladder lies near `at`.
    """
    values, points = cube.values, cube.points
    if at is not None:
        nearest = int(np.abs(points - at).argmin())
        if not np.isclose(points[nearest], at, rtol=1e-3, atol=1e-9):
            raise ReportError(
                f"radius {at:g} was not measured; there are {', '.join(f'{point:.3g}' for point in points)}"
            )
        one = values[:, :, nearest]
    else:
        one = mean_height(points, values)
    return MeasuredArray(one[:, :, None], cube.trials, cube.ids, np.zeros(1), cube.bounds)


def counted(n: int, word: str) -> str:
    """A number of things in words.

    >>> counted(1, "seed"), counted(200, "example")
    ('1 seed', '200 examples')
    """
    return f"{n} {word}" if n == 1 else f"{n} {word}s"


def spread(low: int, high: int, word: str) -> str:
    """A range of numbers of things in words.

    >>> spread(3, 3, "seed"), spread(180, 200, "example")
    ('3 seeds', '180 to 200 examples')
    """
    return counted(high, word) if low == high else f"{low} to {high} {word}s"


def caption(frame: pd.DataFrame, options: FigureOptions, marks: str) -> str:
    """How many examples and seeds a frame's numbers are of, and what their intervals are over.

    Args:
        frame: with columns `n` and `seeds`.
        options: with the level of the intervals.
        marks: what the intervals are drawn as ("Bands", "Bars").
    """
    n, seeds = frame["n"].astype(int), frame["seeds"].astype(int)
    examples = f"{spread(n.min(), n.max(), 'example')}, " if n.max() else ""  # not known of every scalar
    words = [f"n = {examples}{spread(seeds.min(), seeds.max(), 'seed')}."]
    several = (seeds > 2).any()
    if several or ((seeds == 1).any() and n.max()):
        what = " and ".join(["seeds"] * bool(several) + ["examples"] * bool(n.max()))
        words.append(f"{marks}: {100 * options.level:g} % intervals over {what}.")
    if (seeds == 2).any():
        of = "Of two seeds" if several or (seeds == 1).any() else marks
        words.append(f"{of}: from one seed to the other, which is no interval of confidence.")
    if seeds.max() == 1:
        words.append("With one seed the intervals say nothing about other trainings.")
    return " ".join(words)

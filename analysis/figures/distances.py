"""How far an image must be moved: the distribution of the smallest perturbation that was found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pydantic import Field

from analysis import style, telling
from analysis.cube import caption, conditions_unfit, select, subsets
from analysis.options import SETTING, FigureOptions
from analysis.results import ReportError, Results
from analysis.stats import SHARE, crossed_mean

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Options(FigureOptions):
    """The options of `distances`."""

    by: str | None = Field(
        None,
        description="varied setting that the colour tells; by default the recipe, or the attack where many vary",
        json_schema_extra=SETTING,
    )
    points: int = Field(80, ge=2, description="at how many distances a curve is drawn at most")


def needs(options: Options) -> list[str]:
    """The row columns it takes."""
    return ["id", "correct", "found", "distance"]


def unfit(columns: set[str]) -> str | None:
    """Rows around several centres are no rows of a search."""
    return conditions_unfit(columns)


def compute(results: Results, options: Options) -> pd.DataFrame:
    """One line a curve and distance: `recipe`, `colour`, `column`, `dash`, `x`, `mean`, `low`, `high`, `n`, `seeds`.

    `mean` is the share of correctly classified examples whose smallest perturbation is at most `x`: an empirical
    distribution function, of which a search that found nothing is at infinity.
    """
    rows = select(results, options)
    rows = rows[rows["correct"].to_numpy(bool)]
    told = telling.lines(results, options.by)
    parts, missed = [], []
    for recipe in results.recipes:
        smallest, end = _smallest(rows[rows["recipe"] == recipe])  # (S, N), inf where nothing was found
        if not np.isfinite(smallest).any():
            if np.isinf(smallest).any():
                missed.append(1.0)
            continue
        grid = _grid(smallest[np.isfinite(smallest)], end, options.points)
        values = np.where(np.isnan(smallest)[:, :, None], np.nan, smallest[:, :, None] <= grid)  # (S, N, R)
        estimate = crossed_mean(values, level=options.level, bounds=SHARE)
        missed.append(float(np.isinf(smallest).sum() / (~np.isnan(smallest)).sum()))
        parts.append(pd.DataFrame({**told.of(results, recipe), "x": grid, **estimate.columns()}))
    if not parts:
        raise ReportError("no search found anything")
    frame = pd.concat(parts, ignore_index=True)
    shares = [f"{100 * share:.3g}" for share in (min(missed), max(missed))]
    none = f"{shares[0]} %" if len(set(shares)) == 1 else f"{shares[0]} to {shares[1]} %, by recipe"
    words = [
        "Share of the correctly classified examples with an adversarial image at most that far away (the distribution "
        "of the smallest perturbation found).",
        f"Searches that found nothing count as infinitely far: {none}.",
        subsets(rows),
        told.untold(),
        caption(frame, options, "Bands"),
    ]
    frame.attrs = {
        "caption": " ".join(filter(None, words)),
        "x": results.length_label("distance"),
        "mean": "share of examples fooled",
        "colour": told.title(results),
        "own_x": telling.is_norm(told.column),
    }
    return frame


def _smallest(rows: pd.DataFrame) -> tuple[Any, float]:
    """(S, N): the smallest distance of each trial's example, inf where none was found, NaN where none was searched.

    Also the end of the curve: as far as was searched, or the largest distance where that lies beyond.
    """
    if rows.empty:
        return np.full((1, 1), np.nan), 0.0
    found = rows["found"].to_numpy(bool)
    far = rows[["trial", "id"]].assign(distance=np.where(found, rows["distance"].to_numpy(float), np.inf))
    by_example = far.groupby(["trial", "id"], observed=True)["distance"].min().unstack("id").to_numpy(float)
    searched = rows["radius"].to_numpy(float) if "radius" in rows else np.zeros(1)
    reached = by_example[np.isfinite(by_example)]
    return by_example, float(max(searched[np.isfinite(searched)].max(initial=0), reached.max(initial=0)))


def _grid(distances: Any, end: float, points: int) -> Any:
    """0, at most so many of the distances, evenly chosen in their order, and the end."""
    known = np.unique(distances)
    if len(known) > points:
        known = np.unique(np.quantile(distances, np.linspace(0, 1, points), method="inverted_cdf"))
    return np.unique(np.concatenate([[0.0], known, [end]]))


def draw(frame: pd.DataFrame, options: Options) -> Figure:
    """One panel, or one for each value of a setting: distribution functions as steps, with bands."""
    with style.paper():
        frame = telling.named(frame)
        laid = telling.layout(frame)
        order, dashes = laid.order, laid.dashes
        handles: dict[Any, Any] = {}
        for column, ax in laid.panels:
            here = frame[frame["column"] == column]
            crowded = here["recipe"].nunique() > telling.CROWD
            for (_, colour, dash), line in here.groupby(["recipe", "colour", "dash"], sort=False):
                how = {**style.look(order.index(colour), len(order), laid.numeric), "marker": ""}
                if len(dashes) > 1:
                    how["linestyle"] = style.DASHES[dashes.index(dash) % len(style.DASHES)]
                (drawn,) = ax.step(line["x"], line["mean"], where="post", linewidth=0.8 if crowded else 1.2, **how)
                low, high = line["low"].to_numpy(float), line["high"].to_numpy(float)
                alpha = 0.03 if crowded else 0.12
                ax.fill_between(line["x"], low, high, step="post", color=how["color"], alpha=alpha, linewidth=0)
                handles.setdefault(colour, drawn)
            ax.set_title(column)
            ax.set_xlim(left=0)
            ax.set_xlabel(style.wrap(frame.attrs.get("x", "distance"), laid.width - 0.5))
            ax.set_ylim(-0.03, 1.03)
        laid.panels[0][1].set_ylabel(frame.attrs.get("mean", "share of examples fooled"))
        telling.legend(laid.figure, handles, order, dashes, frame.attrs.get("colour") or None)
    return laid.figure

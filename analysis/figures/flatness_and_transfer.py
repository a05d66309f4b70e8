"""Does flatness around a found image tell whether it fools other networks?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from pydantic import Field

from analysis import style
from analysis.arrays import arrays, caption, counted
from analysis.networks import COLUMNS, networks, transfers
from analysis.options import FigureOptions
from analysis.results import ReportError, Results
from analysis.stats import CELLS, SHARE, Floats, rank_correlation, resample_weights

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

POOLED = "all sources"


class Options(FigureOptions):
    """The options of `flatness_and_transfer`."""

    flatness: str = Field("flatness", description="row column of the flatness around the found image, at its source")
    bins: int = Field(5, ge=2, le=50, description="bins of equal numbers of images, by the flatness at their source")
    recipe: str | None = Field(None, description="recipe, by its label; by default the first")


def needs(options: Options) -> list[str]:
    """The row columns it takes."""
    return [*COLUMNS, options.flatness]


def compute(results: Results, options: Options) -> pd.DataFrame:
    """The numbers that are drawn: one line for each source and bin.

    The columns are `source`, `bin`, `x` (mean flatness), `mean`, `low`, `high`, `n`, `seeds`.
    `mean` is the share of the other networks that the image fools, of those that classify its
    original correctly, averaged over examples. Bins are taken within each source, so that a source
    whose images are flat and transfer badly for other reasons does not make a slope. The
    correlation is taken within each source, too, then averaged over sources.
    """
    pairs = _pairs(transfers(results, options, options.recipe), options.flatness)
    parts = []
    pooled = [_estimates(pairs, options).assign(source=POOLED)]
    for source, of_source in pairs.groupby("source", sort=False):
        parts.append(_estimates(of_source, options).assign(source=source))
    frame = pd.concat([*parts, *pooled], ignore_index=True)
    frame = frame[["source", "bin", "x", "mean", "low", "high", "n", "seeds"]]
    rho, low, high = _correlation(pairs, options)
    sources = counted(pairs["source"].nunique(), "source")
    interval = f"{100 * options.level:g} % interval {_signed(low)} to {_signed(high)}"
    words = [
        "Share of the other networks that an image found at one network fools, by how flat the source is around it, in "
        f"{options.bins} bins of equal numbers within each source (fewer where many are equally flat); only originals "
        "that source and other network classify correctly.",
        "Black: all sources; thin: single sources (their intervals are in the table of numbers).",
        f"Spearman's rank correlation by image, mean over {sources}: {_signed(rho)} ({interval})."
        if np.isfinite(rho)
        else "No rank correlation can be told: flatness or transfer is the same for all images.",
        caption(frame[frame["source"] == POOLED], options, "Bands"),
    ]
    short = f"mean rank correlation {_signed(rho)} ({_signed(low)} to {_signed(high)})" if np.isfinite(rho) else ""
    frame.attrs = {
        "caption": " ".join(words),
        "x": results.column_label(options.flatness).split(";")[0],
        "mean": "share of other networks fooled",
        "correlation": short,
    }
    return frame


def _pairs(rows: pd.DataFrame, flatness: str) -> pd.DataFrame:
    """One line a trial, source and example: `flatness`, and the share of networks `fooled`."""
    single = rows[~rows["joint"] & rows["source"].isin(networks(rows)) & rows["found"] & (rows["source_correct"] == 1)]
    others = single[single["held_out"] & (single["target_correct"] == 1)]
    others = others.assign(flatness=others[flatness].astype(float)).dropna(subset=["flatness", "fooled"])
    if others.empty:
        raise ReportError("no found image was tried on another network that classifies its original correctly")
    keys = ["source", "trial", "id"]
    pairs = others.groupby(keys, sort=False, observed=True)[["flatness", "fooled"]].mean().reset_index()
    known = [name for name in networks(rows) if name in set(pairs["source"])]
    return pairs.sort_values("source", key=lambda names: names.map(known.index), kind="stable", ignore_index=True)


def _estimates(pairs: pd.DataFrame, options: Options) -> pd.DataFrame:
    """The mean flatness and transfer of each bin, with its interval over examples.

    Images of equal flatness share a bin.
    """
    within = pairs.groupby(["source", "trial"], observed=True)["flatness"]
    bins = ((within.rank() - 0.5) / within.transform("size") * options.bins).astype(int)
    binned = pairs.assign(bin=bins)
    flatness = binned.groupby(["id", "bin"])["flatness"].mean().groupby("bin").mean().reindex(range(options.bins))
    cube = arrays(binned, "fooled", along="bin", by=None, bounds=SHARE)[""]
    estimate = cube.estimate(options)
    frame = pd.DataFrame(
        {"bin": cube.points.astype(int) + 1, "x": flatness.loc[list(cube.points)].to_numpy(), **estimate.columns()}
    )
    return frame[frame["n"] > 0]


def _correlation(pairs: pd.DataFrame, options: Options) -> tuple[float, float, float]:
    """Spearman's correlation of flatness and transfer within each source, averaged over sources.

    The ends of its interval are by a bootstrap over examples.
    """
    example, ids = pd.factorize(pairs["id"], sort=True)
    groups = list(pairs.groupby(["source", "trial"], observed=True).indices.values())
    flatness, fooled = pairs["flatness"].to_numpy(float), pairs["fooled"].to_numpy(float)

    def mean(weights: Floats) -> Floats:
        """The mean correlation in resamples with these weights, (B, examples): (B,)."""
        each = np.array(
            [rank_correlation(flatness[rows], fooled[rows], weights[:, example[rows]]) for rows in groups]
        )  # (sources, B)
        known = np.isfinite(each)
        with np.errstate(invalid="ignore"):
            return np.where(known, each, 0).sum(0) / known.sum(0)

    rho = float(mean(np.ones((1, len(ids))))[0])
    rng = np.random.default_rng(0)
    step = max(1, CELLS // len(ids))
    sizes = [min(step, options.resamples - start) for start in range(0, options.resamples, step)]
    drawn = np.concatenate([mean(resample_weights(len(ids), size, rng)) for size in sizes])
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn) or len(ids) < 2:
        return rho, float("nan"), float("nan")
    low, high = np.quantile(drawn, (0.5 - options.level / 2, 0.5 + options.level / 2))
    return rho, float(low), float(high)


def _signed(value: float) -> str:
    """A number with a proper minus sign.

    >>> _signed(-0.314), _signed(0.2)
    ('\u22120.31', '0.20')
    """
    return f"{value:.2f}".replace("-", "\u2212")


def draw(frame: pd.DataFrame, options: Options) -> Figure:
    """One panel: all sources in black with its band, single sources as thin lines."""
    with style.paper():
        names = [name for name in dict.fromkeys(frame["source"]) if name != POOLED]
        many = len(names) > len(style.COLOURS)
        listed = [*names, POOLED] if len(names) > 1 and not many else []
        height = 2.6 + style.legend_height(style.COLUMN, listed)
        figure, axes = style.panels(1, 1, width=style.COLUMN, height=height)
        ax = axes[0, 0]
        handles: dict[str, Artist] = {}
        if len(names) > 1:
            for place, name in enumerate(names):
                line = frame[frame["source"] == name]
                how: style.Look = {**style.look(place, len(names)), "markersize": 2.4, "alpha": 0.8}
                if many:
                    how = {"color": style.GREY, "alpha": 0.5}
                how["linewidth"] = 0.8
                handles["single source" if many else name] = ax.plot(line["x"], line["mean"], **how)[0]
        line = frame[frame["source"] == POOLED]
        band = (line["x"], line["mean"], line["low"], line["high"])
        style.curve(ax, *band, {"color": "black", "marker": "o", "linewidth": 1.8, "zorder": 5}, alpha=0.2)
        handles[POOLED] = ax.lines[-1]
        drawn = max(float(frame["mean"].max()), float(line["high"].fillna(0).max()))
        ax.set_ylim(bottom=0, top=min(1.03, max(0.05, 1.1 * drawn)))
        note = frame.attrs.get("correlation")
        if note:
            ax.set_title(note, fontsize=7, loc="right")
        ax.set_xlabel(style.wrap(frame.attrs.get("x", options.flatness), 2.8))
        ax.set_ylabel(style.wrap(frame.attrs.get("mean", "share of other networks fooled"), 1.4))
        if len(names) > 1:
            style.legend(figure, list(handles.values()), list(handles))
    return figure

"""How many networks one found image fools, by where it was found."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from pydantic import Field

from analysis import style
from analysis.arrays import spread
from analysis.networks import COLUMNS, controls, jointly, networks, sources, transfers
from analysis.options import FigureOptions
from analysis.results import ReportError, Results
from analysis.stats import wilson

if TYPE_CHECKING:
    from matplotlib.figure import Figure

JOINT = "all but one, jointly"


class Options(FigureOptions):
    """The options of `shared_examples`."""

    recipe: str | None = Field(None, description="recipe, by its label; by default the first")
    only_correct: bool = Field(
        True, description="leave out the examples that any of the networks misclassifies to begin with"
    )
    panels: int = Field(12, ge=3, description="how many sources are drawn at most")


def needs(options: Options) -> list[str]:
    """The row columns it takes."""
    return [*COLUMNS, "shared"]


def compute(results: Results, options: Options) -> pd.DataFrame:
    """The numbers that are drawn: one line for each bar.

    The columns are `source`, `x` (how many networks are fooled), `mean`, `low`, `high`, `n`,
    `seeds`. `mean` is the share of the images found at the source that fool exactly `x` networks,
    with its Wilson interval. Joint attacks that each left out networks are averaged within an
    example.
    """
    rows = transfers(results, options, options.recipe)
    total = len(networks(rows))
    asked = rows["id"].nunique()
    if options.only_correct:
        wrong = set(rows.loc[rows["target_correct"] != 1, "id"])
        rows = rows[~rows["id"].isin(wrong)]
    kept = rows["id"].nunique()
    if not kept:
        raise ReportError("no example is classified correctly by every network (only_correct: false keeps the others)")
    at_random = controls(rows)
    # a random step finds nothing; what it fools is counted as it is
    images = rows[rows["source"].isin(at_random) | ((rows["source_correct"] == 1) & rows["found"])]
    images = images.drop_duplicates(["trial", "source", "id"])
    order = sources(rows)
    merged = dict.fromkeys(jointly(rows), JOINT)
    images = images.assign(source=images["source"].map(lambda name: merged.get(name, name)))
    parts = []
    for source in dict.fromkeys(merged.get(name, name) for name in order):
        here = images[images["source"] == source]
        known = here["shared"].to_numpy(float)
        here, known = here[np.isfinite(known)], known[np.isfinite(known)]
        if not len(here):
            continue
        exactly = (known[:, None] == np.arange(total + 1)).astype(float)  # (images, networks + 1)
        by_id = pd.DataFrame(exactly).groupby(here["id"].to_numpy()).mean().to_numpy()  # (N, networks + 1)
        n = len(by_id)
        low, high = wilson(by_id.sum(0).clip(0, n), n, options.level)
        numbers = {"x": np.arange(total + 1), "mean": by_id.mean(0), "low": low, "high": high}
        parts.append(pd.DataFrame({"source": source, **numbers, "n": n, "seeds": here["trial"].nunique()}))
    if not parts:
        raise ReportError("no search found anything")
    frame = pd.concat(parts, ignore_index=True)
    counts = frame["n"]
    words = [
        f"Share of found images by how many of the {total} networks they fool, the source itself included.",
        f"{kept} of {asked} examples are used: those that every network classifies correctly unmoved."
        if options.only_correct
        else "Examples that a network misclassifies unmoved count as fooling it.",
        f"n = {spread(counts.min(), counts.max(), 'example')}: those for which the search at the source succeeded.",
        f"{JOINT}: one image against all networks but one (which are among those counted), averaged over which was left "
        "out."
        if merged
        else "",
        *(f"{name}: moved as far in a random direction." for name in at_random),
        f"Thin lines: {100 * options.level:g} % Wilson intervals over examples of these networks.",
        _hidden(len(parts), options.panels),
    ]
    frame.attrs = {
        "caption": " ".join(filter(None, words)),
        "x": "number of networks fooled",
        "mean": "share of found images",
        "joint": JOINT,
        "controls": at_random,
    }
    return frame


def _hidden(count: int, panels: int) -> str:
    return f"Only {panels} of {count} sources are drawn; the table of numbers has all." if count > panels else ""


def draw(frame: pd.DataFrame, options: Options) -> Figure:
    """A small histogram for each source; the joint attack and the control come last."""
    with style.paper():
        names = list(dict.fromkeys(frame["source"]))
        at_random = frame.attrs.get("controls", [])
        special = [name for name in names if name in (frame.attrs.get("joint", JOINT), *at_random)]
        single = [name for name in names if name not in special]
        shown = [*single[: options.panels - len(special)], *special]
        columns = min((4, 3), key=lambda count: -len(shown) % count) if len(shown) > 4 else len(shown)
        rows = -(-len(shown) // columns)
        width = style.COLUMN if columns <= 2 else style.DOUBLE
        figure, axes = style.panels(rows, columns, width=width, height=1.45, sharex=True, sharey=True)
        for ax in axes.flat[len(shown) :]:
            ax.set_visible(False)
        for place, (ax, name) in enumerate(zip(axes.flat, shown, strict=False)):
            here = frame[frame["source"] == name]
            colour = style.COLOURS[0] if name in single else style.GREY if name in at_random else style.COLOURS[1]
            ax.bar(here["x"], here["mean"], width=0.8, color=colour, alpha=0.75)
            ax.vlines(here["x"], here["low"], here["high"], color="black", linewidth=0.8)
            ax.set_title(f"{style.wrap(name, width / columns - 0.2)}\n(n = {here['n'].iloc[0]})", fontsize=7)
            last = int(frame["x"].max())
            ax.set_xticks(range(0, last + 1, 1 if last <= 10 else 5))
            if place + columns >= len(shown):
                ax.tick_params(labelbottom=True)
        axes[0, 0].set_ylim(bottom=0)
        figure.supxlabel(frame.attrs.get("x", "number of networks fooled"), fontsize=style.RC["axes.labelsize"])
        figure.supylabel(frame.attrs.get("mean", "share of found images"), fontsize=style.RC["axes.labelsize"])
    return figure

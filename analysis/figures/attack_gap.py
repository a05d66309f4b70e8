"""Which attack is strongest: robust accuracy against all, and what each leaves standing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from pydantic import Field

from analysis import attacks, encoding, style
from analysis.arrays import arrays, caption, counted, select
from analysis.options import FigureOptions
from analysis.results import ReportError, Results, recipe_labels, sentence, short_names
from analysis.stats import SHARE
from engine.store.records import SweepRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COSTS = ["forwards", "backwards"]
LENGTHS = (attacks.NORM, attacks.SPACE)
"""Attacks that differ in these measure in different units: they get panels of their own."""
TWO = "needs two attacks or more of the same networks"


class Options(FigureOptions):
    """The options of `attack_gap`."""

    found: str = Field("found", description="row column that tells whether the attack succeeded within the radius")


def needs(options: Options) -> list[str]:
    """The row columns it takes."""
    return ["id", "correct", "radius", options.found, *COSTS]


def why_not_rows(columns: set[str]) -> str | None:
    """Why rows around several centres are not meant."""
    return attacks.refuse_conditions(columns)


def why_not_sweep(sweep: SweepRecord, options: Options) -> str | None:
    """Why a sweep cannot be drawn, or None."""
    if sweep.varied is None:
        return None
    attack, others = _split(sweep.varied)
    if not attack:
        return f"{TWO}, and nothing of the attack varies but what it measures in"
    if sweep.search and others:
        return f"{TWO}, and those of a search differ in {', '.join(short_names(others))}"
    return None


def _split(varied: Sequence[str]) -> tuple[list[str], list[str]]:
    """The varied settings that make another attack, and those that make another recipe.

    Attacks that differ in their radius alone are one, at several radii.
    """
    apart = [name for name in varied if name not in (*LENGTHS, attacks.RADIUS)]
    attack = [name for name in apart if name == attacks.ATTACK or name.startswith(f"{attacks.ATTACK}.")]
    return attack, [name for name in apart if name not in attack]


def compute(results: Results, options: Options) -> pd.DataFrame:
    """The numbers that are drawn: one line for each curve and radius.

    The columns are `what` (best, gap), `attack`, `recipe`, `column`, `x`, `mean`, ..., `passes`.
    `best` is the share of examples that are classified correctly and that no attack fools within
    the radius `x`: for each image and seed the worst case over all attacks of the sweep. `gap` is
    the share that `attack` leaves standing and another attack fools, paired by image and seed: by
    as much its own robust accuracy is larger. Images and seeds count where all attacks were run.
    `passes` is the median of an attack's passes over correctly classified examples.
    """
    rows = select(results, options)
    trials = _trials(results)
    robust = attacks.standing(rows, options.found)
    for name in ("attack", "recipe", "column"):
        robust[name] = robust["trial"].map(trials[name]).astype(str)
    robust["trial"] = robust["trial"].map(trials["seed"]).astype(str)  # trials of one seed share their network
    passes = _passes(rows, trials)
    parts, pools = [], set()
    for column in trials["column"].cat.categories:
        for recipe in trials["recipe"].cat.categories:
            here = robust[(robust["column"] == column) & (robust["recipe"] == recipe)]
            if here["attack"].nunique() < 2:
                continue
            each = arrays(here, "robust", by="attack", bounds=SHARE)
            each = {name: each[name] for name in trials["attack"].cat.categories if name in each}
            best = np.minimum.reduce([cube.values for cube in each.values()])  # NaN where an attack was not run
            if not np.isfinite(best).any():
                continue
            pools.add((column, *each))
            curves = {"": best, **{name: cube.values - best for name, cube in each.items()}}
            for name, values in curves.items():
                cube = replace(next(iter(each.values())), values=values)
                estimate = cube.estimate(options)
                what = {"what": "gap" if name else "best", "attack": name, "recipe": recipe, "column": column}
                cost = {"passes": passes.get(name, np.nan)}
                parts.append(pd.DataFrame({**what, "x": cube.points, **estimate.columns(), **cost}))
    if not parts:
        raise ReportError(TWO)
    frame = pd.concat(parts, ignore_index=True)
    moved = (frame["what"] == "best") | (frame["x"] > 0)  # where nothing is moved all attacks are the same
    frame = frame[(frame["n"] > 0) & moved].reset_index(drop=True)
    words = [
        _lead(frame),
        "Points are hundredths of the examples, the most at any radius and in any recipe: by as much the curve of that "
        "attack alone overstates robustness.",
        "Left: share of examples that are classified correctly and that none of the attacks fools within the radius; "
        "further attacks can only lower it. Right: share that the attack leaves standing and another one fools, paired "
        "by image. Passes: forward and backward, median over correctly classified examples.",
        "Not every recipe met all attacks." if len(pools) > len({column for column, *_ in pools}) else "",
        _hidden(frame),
        caption(frame, options, "Bands"),
    ]
    frame.attrs = {
        "caption": " ".join(filter(None, words)),
        "x": attacks.length_label(results, "radius"),
        "mean": "robust accuracy, all attacks",
        "gap": "left standing that another attack fools",
    }
    return frame


def _trials(results: Results) -> pd.DataFrame:
    """By finished trial: its `attack`, `recipe`, `column` (what it measures in) and `seed`."""
    done = results.trials[results.trials["status"] == "done"].set_index("trial")
    attack, others = _split(results.varied)
    lengths = [name for name in LENGTHS if f"config.{name}" in done and done[f"config.{name}"].nunique() > 1]
    told = {}
    for name, settings in (("attack", attack), ("recipe", others), ("column", lengths)):
        values = done[[f"config.{setting}" for setting in settings]].set_axis(settings, axis=1)
        labels, order = recipe_labels(values, fallback="")
        told[name] = pd.Categorical(labels, categories=order)
    seed = done[f"config.{results.replicates}"].astype(str) if results.replicates else ""
    return pd.DataFrame(told, index=done.index).assign(seed=seed)


def _passes(rows: pd.DataFrame, trials: pd.DataFrame) -> dict[str, float]:
    """By attack: the median of its passes over correctly classified examples, over all radii."""
    correct = rows[rows["correct"].to_numpy(bool)]
    spent = correct.groupby(["trial", "id"], observed=True)[COSTS].max().sum(axis=1).rename("passes").reset_index()
    spent["attack"] = spent["trial"].map(trials["attack"]).astype(str)
    return {str(name): float(value) for name, value in spent.groupby("attack")["passes"].median().items()}


def _lead(frame: pd.DataFrame) -> str:
    """A sentence for each unit of length: the strongest attack, and the gaps of the others."""
    sentences = []
    gap = frame[frame["what"] == "gap"]
    for column in gap["column"].unique():
        here = gap[gap["column"] == column]
        most = here.groupby("attack", sort=False)["mean"].max().sort_values(kind="stable")
        points = {str(attack): _points(value) for attack, value in most.items()}
        best = next(iter(points.values()))
        leaders = [attack for attack, value in points.items() if value == best]
        names = " and ".join(filter(None, [", ".join(leaders[:-1]), leaders[-1]]))
        verb, none = "leaves" if len(leaders) == 1 else "leave", best == "0"
        how_much = "nothing" if none else f"at most {best} points"
        others = ", ".join(f"{attack} {value}" for attack, value in points.items() if value != best)
        others = f"; {others}{' points at most' if none else ''}" if others else ""
        where = f"{column}: " if column else ""
        sentences.append(f"{where}{names} {verb} {how_much} standing that another attack fools{others}.")
    return sentence(" ".join(sentences)) if len(sentences) > 1 else sentences[0]


def _points(share: float) -> str:
    """A share in hundredths.

    >>> _points(0.0533), _points(0.12), _points(0.0004), _points(0.0)
    ('5.3', '12', '0.04', '0')
    """
    points = 100 * share
    return f"{points:.1f}".removesuffix(".0") if points >= 0.1 or points == 0 else f"{points:.1g}"


def _drawn(frame: pd.DataFrame) -> tuple[list[str], list[str]]:
    """The attacks and the recipes that are drawn.

    Of many these are the strongest attacks, and the recipes in which attacks differ most.
    """
    gap = frame[frame["what"] == "gap"]
    gaps, recipes = (gap.groupby(name, sort=False)["mean"].max() for name in ("attack", "recipe"))
    kept = gaps.nsmallest(len(style.COLOURS)).index, recipes.nlargest(len(style.DASHES)).index
    return [str(one) for one in gaps.index if one in kept[0]], [str(one) for one in recipes.index if one in kept[1]]


def _hidden(frame: pd.DataFrame) -> str:
    """A sentence on what is in the table of numbers alone, or no words."""
    words = []
    for shown, name, which in zip(_drawn(frame), ("attack", "recipe"), ("strongest", "most telling"), strict=True):
        count = frame.loc[frame["what"] == "gap", name].nunique()
        words += [f"the {len(shown)} {which} of {counted(count, name)}"] if len(shown) < count else []
    return f"Only {' and '.join(words)} are drawn; all are in the table of numbers." if words else ""


def draw(frame: pd.DataFrame, options: Options) -> Figure:
    """Two panels for each unit of length: the best of all attacks, and each attack's gap to it."""
    from matplotlib.lines import Line2D

    with style.paper():
        frame = frame.assign(**{name: encoding.or_empty(frame[name]) for name in ("attack", "recipe", "column")})
        strongest, recipes = _drawn(frame)
        shown = frame[frame["recipe"].isin(recipes) & frame["attack"].isin([*strongest, ""])]
        columns = list(dict.fromkeys(shown["column"]))
        passes = frame.dropna(subset="passes").groupby("attack")["passes"].first()
        names = {name: f"{name} ({passes[name]:,.0f} passes)" if name in passes else name for name in strongest}
        labels = [*names.values(), *(recipes if len(recipes) > 1 else [])]
        height = 2.5 + style.legend_height(style.DOUBLE, labels) / len(columns)
        figure, axes = style.panels(len(columns), 2, width=style.DOUBLE, height=height)
        for column, (left, right) in zip(columns, axes, strict=True):
            here = shown[shown["column"] == column]
            for (_, attack, recipe), line in here.groupby(["what", "attack", "recipe"], sort=False):
                dash = style.DASHES[recipes.index(recipe)]
                how: style.Look = {"color": "black", "marker": "o"}
                if attack:
                    how = style.look(strongest.index(attack), len(strongest))
                how["linestyle"] = dash
                alpha = 0.24 / (len(recipes) + (len(strongest) if attack else 0))  # bands lie over one another
                band = (line["x"], line["mean"], line["low"], line["high"])
                style.curve(right if attack else left, *band, how, alpha=alpha)
            for ax, label in ((left, frame.attrs.get("mean")), (right, frame.attrs.get("gap"))):
                style.number_axis(ax, here["x"].unique())
                ax.set_title(column)
                ax.set_xlabel(style.wrap(frame.attrs.get("x", "radius"), style.DOUBLE / 2 - 0.5))
                ax.set_ylabel(style.wrap(label or "", height - 0.5))
            left.set_ylim(-0.03, 1.03)
            _from_zero(right, here[here["what"] == "gap"])
        handles = []
        for place in range(len(strongest)):
            solid: style.Look = {**style.look(place, len(strongest)), "linestyle": "-"}
            handles.append(Line2D([], [], **solid))
        if len(recipes) > 1:
            handles += [Line2D([], [], color="black", linestyle=style.DASHES[place]) for place in range(len(recipes))]
        style.legend(figure, handles, labels)
    return figure


def _from_zero(ax: Axes, here: pd.DataFrame) -> None:
    """Limits of a y axis of shares that may all be 0."""
    top = float(np.nanmax([0.01, *here["mean"], *here["high"]]))
    ax.set_ylim(-0.04 * top, 1.06 * top)

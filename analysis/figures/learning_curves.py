"""A metric of the trainings against the epoch, one line a training.

Where a scheduler stopped a training, its line ends in a cross.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from pydantic import Field

from analysis import style
from analysis.arrays import counted
from analysis.options import METRIC, FigureOptions
from analysis.results import OF_TRAINING, ReportError, Results, epoch_metric, epochs_of, sentence
from engine.store.records import SweepRecord

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

LEGEND = 6
"""At most so many recipes have a colour of their own."""


class Options(FigureOptions):
    """The options of `learning_curves`."""

    metric: str | None = Field(
        None,
        description="metric of an epoch; by default the scheduler's, else accuracy (held-out images first), else the "
        "first there is",
        json_schema_extra=METRIC,
    )


def why_not_sweep(sweep: SweepRecord, options: Options) -> str | None:
    """Why a sweep cannot be drawn, or None."""
    return None if sweep.epochs else "needs trainings, and the trials have none"


def needs(options: Options) -> list[str]:
    """No row column: it draws the epochs of the trials' classifiers."""
    return []


def compute(results: Results, options: Options) -> pd.DataFrame:
    """The numbers that are drawn: one line for each training and epoch.

    The columns are `trial`, `recipe`, `status`, `x` (epoch), `mean` (the metric), `low`, `high`
    (none), `n`, `seeds`. Trials that share a network share its training, which stands under the
    first of those that saw most of it.
    """
    parts = []
    trials = _trained(results)
    for _, trial in trials.drop_duplicates("training").iterrows():
        where = {"trial": trial["trial"], "recipe": str(trial["recipe"]), "status": trial["status"]}
        parts.append(pd.DataFrame(trial["epochs"]).assign(**where))
    known = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    if "epoch" not in known:
        raise ReportError("no trial has trained one classifier for an epoch")
    scheduler = results.sweep.scheduler
    there = [str(name) for name in known if name not in ("trial", "recipe", "status", "epoch")]
    ours = [scheduler.metric] if scheduler else []
    wanted = [options.metric] if options.metric else [*ours, "validation_accuracy", "accuracy", *there]
    metric = next((name for name in wanted if name in known), None)
    if metric is None:
        raise ReportError(f"metric: no epoch has {wanted[0]}; there are {', '.join(there) or 'none'}")
    frame = known[["trial", "recipe", "status"]].assign(x=known["epoch"].astype(int), mean=known[metric].astype(float))
    frame = frame.dropna(subset="mean").assign(low=np.nan, high=np.nan, n=1, seeds=1)
    frame = frame.sort_values(["status", "trial", "x"], ascending=[False, True, True], ignore_index=True)
    counts = frame.drop_duplicates("trial")["status"].value_counts()
    stopped = int(counts.get("stopped", 0))
    rule = {"asha": "asynchronous successive halving", "median": "the median stopping rule"}.get(
        scheduler.name if scheduler else "", "a scheduler"
    )
    spared = frame["x"].max() * len(frame["trial"].unique()) - len(frame) if stopped else 0
    label, n = epoch_metric(metric), int(counts.sum())
    drawn = trials["training"].isin(trials.loc[trials["trial"].isin(frame["trial"]), "training"]).sum()
    words = [
        f"{sentence(label)} against the epoch, one line a training; n = {counted(n, 'training')}"
        + (
            f" of {drawn} trials: those that share a network share a line, under the name of the first."
            if n < drawn
            else "."
        ),
        "It is that of the images trained on, with their noise and augmentation." if metric in OF_TRAINING else "",
        f"Crosses: {counted(stopped, 'training')} that {rule} stopped ({spared} epochs fewer than if all had been as "
        "long as the longest)."
        if stopped
        else "",
        "No intervals: each line is one training.",
    ]
    frame.attrs = {"caption": " ".join(filter(None, words)), "x": "epoch", "mean": label}
    return frame


def _trained(results: Results) -> pd.DataFrame:
    """The trials with `epochs`, as lists, each with its `training`: the key of its network.

    Those that are done come before those that were stopped, and these by how far they came: a
    training that a scheduler stopped for one trial may have gone on for another, and then it was
    not stopped.
    """
    trials = results.trials[results.trials["status"].isin(["done", "stopped"])]
    reached = [epochs_of(trial) for _, trial in trials.iterrows()]
    trials = trials.assign(epochs=pd.Series(reached, index=trials.index, dtype=object))
    trials = trials[trials["epochs"].map(len) > 0]
    own = trials["classifier"] if "classifier" in trials else trials["trial"]
    trials = trials.assign(training=own.fillna(trials["trial"]), reached=trials["epochs"].map(len))
    return trials.sort_values(["status", "reached"], ascending=[True, False], kind="stable")


def draw(frame: pd.DataFrame, options: Options) -> Figure:
    """Few recipes in colours of their own; of many, those that were stopped in grey."""
    with style.paper():
        figure, axes = style.panels(1, 1, width=style.COLUMN, height=2.6)
        ax = axes[0, 0]
        recipes = list(dict.fromkeys(frame["recipe"]))
        told = len(recipes) <= LEGEND
        handles: dict[str, Artist] = {}
        for _, line in frame.groupby("trial", sort=False):
            recipe, stopped = line["recipe"].iloc[0], line["status"].iloc[0] == "stopped"
            colour = style.COLOURS[recipes.index(recipe)] if told else style.GREY if stopped else style.COLOURS[0]
            (drawn,) = ax.plot(line["x"], line["mean"], color=colour, linewidth=0.8, alpha=0.6 if stopped else 0.9)
            handles.setdefault(recipe if told else "stopped" if stopped else "done", drawn)
            if stopped:
                ax.plot(line["x"].iloc[-1:], line["mean"].iloc[-1:], "x", color=colour, markersize=4)
            elif len(line) == 1:
                ax.plot(line["x"], line["mean"], "o", color=colour)
        ax.set_xlabel(frame.attrs.get("x", "epoch"))
        ax.set_ylabel(frame.attrs.get("mean", options.metric or ""))
        ax.xaxis.get_major_locator().set_params(integer=True)
        if len(handles) > 1:
            style.legend(figure, list(handles.values()), list(handles))
    return figure

"""Figures of searches: from a table of trials whose front and curves are known."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pictures import labels_stay_inside_and_apart

from analysis import catalogue, style
from analysis.drawing import draw, from_csv
from analysis.points import front, points
from analysis.results import ReportError, Results
from analysis.sections import render
from analysis.stats import SHARE, over_seeds
from analysis.summary import summarise
from analysis.table import load
from engine.store.records import SweepRecord
from engine.store.store import Store

NAMES = ["importance", "learning_curves", "parallel_coordinates", "pareto"]


def key(number: int, seed: int = 0) -> str:
    """The hash of a trial, as it were, of a point and a seed."""
    return f"{number:08x}{seed:08x}"


def searched(folder: Path, *, seeds: int = 1, count: int = 12, **sweep: object) -> Results:
    """A search of two objectives. The third point failed, every fourth was stopped early."""
    lines = []
    for number in range(count):
        rate, optimiser = 10.0 ** (-3 + number * 7 % 12 / 4), ["sgd", "adam"][number % 2]
        status = "failed" if number == 2 else "stopped" if number % 4 == 3 else "done"
        for seed in range(seeds):
            reached = 6 if status == "done" else 2 if status == "stopped" else 0
            epochs = [
                {"epoch": e + 1, "loss": 2.0 / (e + 1), "validation_accuracy": 1 - 0.5 ** (e + 1)}
                for e in range(reached)
            ]
            line = {
                "trial": key(number, seed),
                "label": "",
                "status": status,
                "seconds": 1.0,
                "epochs": json.dumps(epochs),
            }
            line |= {"error": "no" if status == "failed" else None, "config.recipe.learning_rate": rate}
            line |= {"config.recipe.optimiser": optimiser, "config.recipe.seed": seed}
            if status == "done":
                line |= {
                    "summary.accuracy": 0.5 + 0.04 * number + 0.01 * seed,
                    "summary.cost": (number - 6.5) ** 2 + seed,
                }
            lines.append(line)
    importance = [
        {
            "objective": o,
            "setting": s,
            "mean": m,
            "low": m - 0.1,
            "high": m + 0.2,
            "n": 8,
            "seeds": seeds,
            "resamples": 100,
        }
        for o in ("accuracy", "cost")
        for s, m in (("recipe.optimiser", 0.2), ("recipe.learning_rate", 0.7))
    ]
    told = {
        "name": "s",
        "task": "t",
        "varied": ["recipe.learning_rate", "recipe.optimiser"],
        "replicates": "recipe.seed",
        "labels": {"recipe.learning_rate": "peak learning rate"},
        "objective": {"metric": "accuracy", "mode": "max"},
        "objectives": [{"metric": "accuracy", "mode": "max"}, {"metric": "cost", "mode": "min"}],
        "search": {"recipe.learning_rate": "loguniform", "recipe.optimiser": "choice"},
        "scheduler": {"name": "asha", "metric": "validation_accuracy", "grace": 1, "reduction": 3, "least": 3},
        "importance": importance,
        "epochs": True,
        **sweep,
    }
    store = Store(folder)
    table = pa.Table.from_pandas(pd.DataFrame(lines), preserve_index=False)
    store.write_table("trials.parquet", table.replace_schema_metadata({b"sweep": json.dumps(told).encode()}))
    return load(folder)


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_figure_keeps_the_contract(name: str, seeds: int, tmp_path: Path) -> None:
    results = searched(tmp_path, seeds=seeds)
    chosen = catalogue.parse(name, sweep=results.sweep)
    frame = chosen.module.compute(results, chosen.options)
    assert {"x", "mean", "low", "high", "n", "seeds"} <= set(frame)
    assert "n = " in frame.attrs["caption"]
    interval = frame.dropna(subset=["low", "high"])
    assert (interval["low"] <= interval["mean"]).all()
    assert (interval["mean"] <= interval["high"]).all()
    before = frame.copy()
    figure = chosen.module.draw(frame, chosen.options)
    pd.testing.assert_frame_equal(frame, before)
    drawn = {
        round(float(v), 9) for ax in figure.axes for line in ax.lines for v in (*line.get_ydata(), *line.get_xdata())
    }
    assert {round(v, 9) for v in frame["mean"]} <= drawn
    labels_stay_inside_and_apart(figure, name)
    made = draw(chosen, results, name)
    assert made.error is None, made.details
    again = chosen.module.draw(from_csv(made.csv or b""), chosen.options)
    assert style.save(again, "png") == made.png


@given(arrays(float, st.tuples(st.integers(1, 12), st.integers(1, 4)), elements=st.integers(0, 3).map(float)))
def test_the_front_is_that_of_brute_force(values: np.ndarray) -> None:
    there = values.tolist()
    dominated = [
        any(all(o >= p for o, p in zip(other, point, strict=True)) and other != point for other in there)
        for point in there
    ]
    assert front(values).tolist() == [not d for d in dominated]


def test_the_front_of_the_points_that_are_done(tmp_path: Path) -> None:
    results = searched(tmp_path)
    chosen = catalogue.parse("pareto")
    frame = chosen.module.compute(results, chosen.options)
    # accuracy grows with the number, cost is least at 6 and 7 (stopped); the best: 6 and after
    assert np.allclose(sorted(frame.loc[frame["front"], "x"]), [0.5 + 0.04 * n for n in (6, 8, 9, 10)])
    assert len(frame) == 8


def test_a_point_is_the_mean_over_its_seeds_with_its_interval(tmp_path: Path) -> None:
    found = points(searched(tmp_path, seeds=3), 0.9)
    assert found["status"].tolist().count("stopped early") == 3
    assert found["status"].tolist().count("failed") == 1
    line = found[found["accuracy"].round(6) == 0.51].iloc[0]
    one = over_seeds([0.5, 0.51, 0.52], level=0.9, bounds=SHARE)
    told = line[["accuracy", "accuracy.low", "accuracy.high"]].astype(float)
    assert np.allclose(told, [one.mean[0], one.low[0], one.high[0]])
    assert found.loc[found["status"] != "done", "accuracy"].isna().all()


def test_the_page_lists_stopped_trainings_and_the_best_point_first(tmp_path: Path) -> None:
    results = searched(tmp_path)
    best = results.trials.sort_values("summary.accuracy", ascending=False)["recipe"].iloc[0]
    table = summarise(results)
    assert table["recipe"].iloc[0] == best
    assert table["accuracy"].dropna().is_monotonic_decreasing
    shown = re.sub(r"<[^>]*>|\s", " ", render(results, [], table, {}, "")).split("Stopped early")[1]
    words = re.sub(r"\s+", " ", shown)
    assert "trial epochs training loss validation accuracy" in words
    stopped = results.trials[results.trials["status"] == "stopped"]
    assert words.count("2 1 0.75") == len(stopped) == 3  # epochs, loss and validation accuracy of the last of them
    for recipe in stopped["recipe"]:
        assert recipe in words


def test_a_point_that_lacks_a_seed_comes_after_those_that_are_done(tmp_path: Path) -> None:
    """Though the seeds that a scheduler has left are the best of all."""
    results = searched(tmp_path, seeds=2)
    best = results.trials["trial"].isin([key(10, 0), key(10, 1)])
    last = results.trials["trial"] == key(10, 1)
    trials = results.trials.assign(status=results.trials["status"].mask(last, "stopped"))
    trials["summary.accuracy"] = trials["summary.accuracy"].mask(last)
    results = dataclasses.replace(results, trials=trials)
    table = summarise(results)
    assert table["recipe"].iloc[-1] == trials.loc[best, "recipe"].iloc[0]
    assert table["accuracy"].iloc[-1] == table["accuracy"].max()
    assert table["accuracy"].iloc[:-1].is_monotonic_decreasing
    assert table[["seeds", "trials"]].iloc[-1].tolist() == [1, 2]
    words = re.sub(r"\s+", " ", render(results, [], table, {}, ""))
    assert f"{table['recipe'].iloc[-1]} (1 of 2 seeds)" in words
    assert "its means are of those that are, and it comes after the others." in words
    assert "The best of the 7 points" in words
    cheap = dataclasses.replace(
        results, sweep=results.sweep.model_copy(update={"objectives": results.sweep.objectives[1:]})
    )
    assert summarise(cheap)["cost"].iloc[:-1].is_monotonic_increasing


def test_stopped_trainings_are_shown_with_what_they_reached(tmp_path: Path) -> None:
    results = searched(tmp_path)
    chosen = catalogue.parse("learning_curves")
    frame = chosen.module.compute(results, chosen.options)
    lengths = frame.groupby(["status", "trial"]).size()
    assert (lengths["stopped"] == 2).all()
    assert (lengths["done"] == 6).all()
    assert np.allclose(frame["mean"], 1 - 0.5 ** frame["x"])
    assert "Crosses: 3 trainings" in frame.attrs["caption"]
    assert "(12 epochs fewer" in frame.attrs["caption"]
    figure = chosen.module.draw(frame, chosen.options)
    assert sum(line.get_marker() == "x" for line in figure.axes[0].lines) == 3
    other = catalogue.parse({"learning_curves": {"metric": "loss"}})
    assert np.allclose(other.module.compute(results, other.options)["mean"], 2 / frame["x"])
    with pytest.raises(ReportError, match="no epoch has margin; there are loss, validation_accuracy"):
        chosen.module.compute(results, catalogue.parse({"learning_curves": {"metric": "margin"}}).options)


def test_trials_that_share_a_network_share_a_line(tmp_path: Path) -> None:
    """One that was stopped for one trial and went on for another was not stopped."""
    results = searched(tmp_path)
    network = {key(0): "a", key(1): "a", key(3): "a", key(7): "b", key(11): "b"}
    trials = results.trials.assign(classifier=results.trials["trial"].map(network))
    results = dataclasses.replace(results, trials=trials)
    chosen = catalogue.parse("learning_curves")
    frame = chosen.module.compute(results, chosen.options)
    lines = frame.drop_duplicates("trial").set_index("trial")
    assert set(lines.index) == {key(number) for number in (0, 7, 4, 5, 6, 8, 9, 10)}
    assert lines.loc[key(0), "recipe"] == trials.loc[trials["trial"] == key(0), "recipe"].item()
    assert lines["status"].eq("stopped").sum() == 1
    assert "n = 8 trainings of 11 trials" in frame.attrs["caption"]
    assert "Crosses: 1 training that" in frame.attrs["caption"]


def test_metrics_of_no_split_are_of_the_images_trained_on(tmp_path: Path) -> None:
    results = searched(tmp_path)
    chosen = catalogue.parse({"learning_curves": {"metric": "loss"}})
    frame = chosen.module.compute(results, chosen.options)
    assert frame.attrs["mean"] == "training loss"
    assert "of the images trained on" in frame.attrs["caption"]
    chosen = catalogue.parse("learning_curves")
    assert chosen.module.compute(results, chosen.options).attrs["mean"] == "validation accuracy"


def test_logarithmic_settings_lie_on_logarithmic_axes(tmp_path: Path) -> None:
    results = searched(tmp_path)
    chosen = catalogue.parse("parallel_coordinates")
    frame = chosen.module.compute(results, chosen.options)
    rates = frame[frame["axis"] == "peak learning rate"]
    numbers = results.trials.drop_duplicates("recipe").set_index("recipe")["config.recipe.learning_rate"]
    shown = np.log10(rates["point"].map(numbers.to_dict()).astype(float))
    assert np.allclose(rates["mean"], (shown - shown.min()) / (shown.max() - shown.min()))
    best = frame[frame["colour"] == 1]
    assert set(best["point"]) == {results.trials.loc[results.trials["trial"] == key(10), "recipe"].item()}
    assert frame.loc[frame["status"] == "stopped early", "axis"].nunique() == 2  # they have no outcome


def test_what_is_left_out_is_told(tmp_path: Path) -> None:
    """Of twelve points three were stopped and one failed: the rest do not show the whole space."""
    results = searched(tmp_path, seeds=2)
    told = {}
    for name in NAMES:
        chosen = catalogue.parse(name)
        told[name] = chosen.module.compute(results, chosen.options).attrs["caption"]
    for name in ("pareto", "importance"):
        assert "n = 8 points. Left out of 12 points: 3 stopped early, 1 failed." in told[name]
    assert "less important than it is" in told["importance"]
    assert "3 stopped early, without an outcome. Left out of 12 points: 1 failed." in told["parallel_coordinates"]
    trials = results.trials
    complete = dataclasses.replace(results, trials=trials[trials["recipe"].isin(results.recipes)])
    for name in NAMES:
        chosen = catalogue.parse(name)
        assert "Left out" not in chosen.module.compute(complete, chosen.options).attrs["caption"]


def test_the_page_says_that_the_best_of_many_was_chosen(tmp_path: Path) -> None:
    words = "The best of the 8 points was chosen by these very numbers"
    results = searched(tmp_path)
    assert words in render(results, [], summarise(results), {}, "")
    for sweep in ({"search": {}}, {"objective": None, "objectives": []}):
        other = searched(tmp_path, **sweep)
        assert "was chosen by" not in render(other, [], summarise(other), {}, "")


def test_null_is_a_value_on_the_axis_of_a_setting(tmp_path: Path) -> None:
    """Not missing: a point's line meets the axis at `none`, not on the way to the next axis."""
    results = searched(tmp_path)
    choice = results.trials["trial"].map(lambda trial: [None, 1.0, 0.5][int(trial[:8], 16) % 3])
    trials = results.trials.assign(**{"config.recipe.learning_rate": choice})
    results = dataclasses.replace(results, trials=trials)
    chosen = catalogue.parse("parallel_coordinates")
    frame = chosen.module.compute(results, chosen.options)
    axis = frame[frame["axis"] == "peak learning rate"]
    assert set(axis["point"]) == set(frame["point"])
    assert axis.groupby("value")["mean"].agg(set).to_dict() == {"none": {0.0}, "0.5": {0.5}, "1": {1.0}}
    chosen.module.draw(frame, chosen.options)


@pytest.mark.parametrize(
    ("name", "entries", "said"),
    [
        ("pareto", {"objectives": [{"metric": "a", "mode": "max"}]}, "needs two objectives or more"),
        ("importance", {"search": {}}, "is of a search, and the sweep has none"),
        ("parallel_coordinates", {"search": {"x": "int"}}, "needs an objective, and the sweep has none"),
        ("learning_curves", {"epochs": False}, "needs trainings, and the trials have none"),
    ],
)
def test_a_sweep_that_a_figure_is_not_of(name: str, entries: dict[str, object], said: str) -> None:
    sweep = SweepRecord.read(entries)
    with pytest.raises(ValueError, match=said):
        catalogue.parse(name, sweep=sweep)
    assert name not in [chosen.name for chosen in catalogue.fitting(["id"], sweep)]
    assert name not in [chosen.name for chosen in catalogue.fitting(["id"])]


def test_names_that_are_no_objective_are_told(tmp_path: Path) -> None:
    results = searched(tmp_path)
    for entry in ({"pareto": {"x": "acuracy"}}, {"parallel_coordinates": {"by": "acuracy"}}):
        chosen = catalogue.parse(entry)
        with pytest.raises(ReportError, match="acuracy is no objective; there are accuracy, cost"):
            chosen.module.compute(results, chosen.options)


def test_the_axes_of_the_front_are_two_objectives(tmp_path: Path) -> None:
    results = searched(tmp_path)
    for chosen_axes, (x, y) in {
        (): ("accuracy", "cost"),
        (("x", "cost"),): ("cost", "accuracy"),
        (("y", "accuracy"),): ("cost", "accuracy"),
        (("y", "cost"),): ("accuracy", "cost"),
    }.items():
        chosen = catalogue.parse({"pareto": dict(chosen_axes)}, sweep=results.sweep)
        frame = chosen.module.compute(results, chosen.options)
        assert (frame.attrs["x"], frame.attrs["mean"]) == (x, y)
    both = {"pareto": {"x": "cost", "y": "cost"}}
    with pytest.raises(ValueError, match="figure pareto: x and y are both cost"):
        catalogue.parse(both, sweep=results.sweep)
    with pytest.raises(ReportError, match="x and y are both cost"):
        catalogue.find("pareto").compute(results, catalogue.parse(both).options)

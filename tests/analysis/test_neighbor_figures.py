"""The figure of hidden neighbours, against counts in plain loops and planted depths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from linear_sweeps import grid, write
from planted_neighbors import DEPTHS, MOVES, STAGES, neighbored

from analysis import catalogue
from analysis.results import ReportError, Results
from analysis.table import load

PLACES = ("pixels", *STAGES[1:])


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Results:
    points = grid(attack__stop=["first", "last"], recipe__seed=[0, 1])
    return load(write(tmp_path_factory.mktemp("one"), points, measure=neighbored))


def compute(results: Results, **options: object) -> pd.DataFrame:
    chosen = catalogue.parse({"depth_profile": options}, columns=list(results.rows))
    frame = chosen.module.compute(results, chosen.options)
    assert isinstance(frame, pd.DataFrame)
    return frame


@pytest.mark.parametrize("y", ["new_class", "old_class"])
def test_shares_are_counted_as_in_a_loop(one: Results, y: str) -> None:
    """Over images that were correct and found by every move; each seed counts alike."""
    frame = compute(one, y=y).set_index(["panel", "move", "x"])
    assert len(frame) == 2 * (4 + 4 + 3 + 4)
    for move in MOVES:
        for place, depth in zip(PLACES, DEPTHS, strict=True):
            by_seed = []
            for seed in (0, 1):
                rows = neighbored({"recipe.seed": seed}).to_dict("records")
                here = [row for row in rows if row["move"] == move and row["depth"] == depth]
                counted = [row for row in here if row["correct"] and row["id"] % 10 != 9]
                by_seed.append([row[y] for row in counted])
            if not by_seed[0]:
                assert (move, place) == ("hidden", "pixels")
                continue
            for panel in ("first", "last"):
                cell = frame.loc[(panel, move, place)]
                assert cell["mean"] == pytest.approx(np.mean([np.mean(values) for values in by_seed]))
                assert (cell["n"], cell["seeds"]) == (len(by_seed[0]) / 4, 2)


def test_stages_are_in_order_of_depth_whatever_their_order_in_the_rows(one: Results) -> None:
    rows = one.rows.sort_values("depth", ascending=False, kind="stable")
    frame = compute(Results(one.sweep, one.trials, rows, one.varied, one.replicates))
    of_line = frame[(frame["panel"] == "first") & (frame["move"] == "adversarial")]
    assert of_line["x"].tolist() == list(PLACES)
    assert of_line["depth"].tolist() == list(DEPTHS)


def test_all_examples_count_where_that_is_asked_for(one: Results) -> None:
    assert set(compute(one, only_found=False)["n"]) == {40}
    assert set(compute(one)["n"]) == {30}
    assert ": 30 of 40 examples," in compute(one).attrs["caption"]


def test_one_recipe_has_one_panel(one: Results) -> None:
    assert set(compute(one, recipe="last")["panel"]) == {""}
    with pytest.raises(ReportError, match="no recipe 'lats'; there are first; last"):
        compute(one, recipe="lats")


def test_no_image_that_counts_is_told(tmp_path: Path) -> None:
    none = load(write(tmp_path, grid(recipe__seed=[0]), measure=lambda point: neighbored(point).assign(correct=False)))
    with pytest.raises(ReportError, match="no example was correct"):
        compute(none)

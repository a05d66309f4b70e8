"""The trials' scalars against a setting: the numbers of the summary table, told apart as asked."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from linear_sweeps import NOISE, OPTIMISER, SEED, grid, write

from analysis import catalogue
from analysis.drawing import draw
from analysis.results import Results
from analysis.summary import summarise
from analysis.table import load

POINTS = grid(
    **{
        "recipe__input_noise__radius": [0.0, 0.1],
        "recipe__optimiser": ["sgd", "adam"],
        "recipe__flip": [False, True],
        "recipe__seed": [0, 1, 2],
    }
)
FLIP = "recipe.flip"


def results_of(tmp_path: Path) -> Results:
    return load(write(tmp_path, POINTS, examples=20))


def frame_of(results: Results, **options: object) -> pd.DataFrame:
    chosen = catalogue.parse({"scalar_curves": options})
    drawn = draw(chosen, results, "scalar_curves")
    assert drawn.error is None, drawn.error
    return chosen.module.compute(results, chosen.options)


def test_the_numbers_are_those_of_the_table(tmp_path: Path) -> None:
    results = results_of(tmp_path)
    frame = frame_of(results, y=["flatness", "accuracy"], x=NOISE, by=OPTIMISER, column=FLIP, reference="sgd")
    table = summarise(results).set_index("recipe")
    assert len(frame) == 2 * len(table)
    for _, line in frame.iterrows():
        expected = table.loc[line["recipe"], [line["scalar"], f"{line['scalar']}.low", f"{line['scalar']}.high"]]
        assert line[["mean", "low", "high"]].tolist() == pytest.approx(expected.tolist())
        assert line["x"] == results.setting_of(line["recipe"], NOISE)
        assert line["line"] == results.setting_of(line["recipe"], OPTIMISER)
    assert sorted(set(frame["column"])) == ["flip no", "flip yes"]
    assert "Grey: sgd, for comparison." in frame.attrs["caption"]


def test_settings_are_chosen_where_none_is_named(tmp_path: Path) -> None:
    results = results_of(tmp_path)
    frame = frame_of(results)
    assert set(frame["x"]) == {0.0, 0.1}
    assert set(frame["line"]) == {"sgd", "adam"}
    assert set(frame["column"]) == {"flip no", "flip yes"}
    words = frame_of(results, x=OPTIMISER, by=FLIP)
    assert set(words["x"]) == {"sgd", "adam"}
    assert set(words["line"]) == {"no", "yes"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"y": ["flatnes"]}, "y: no trial reports flatnes; they report"),
        ({"by": OPTIMISER, "reference": "lion"}, "reference: recipe.optimiser is never lion; it is sgd, adam"),
        ({"x": SEED}, f"x: {SEED} does not differ between the recipes"),
    ],
)
def test_what_cannot_be_drawn_is_told_in_one_line(options: dict[str, object], said: str, tmp_path: Path) -> None:
    drawn = draw(catalogue.parse({"scalar_curves": options}), results_of(tmp_path), "scalar_curves")
    assert drawn.error is not None
    assert drawn.error.startswith(said)

"""Every figure on disk keeps the same promises, whatever the sweep."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pandas as pd
import pytest
from linear_sweeps import NOISE, OPTIMISER, SEED, grid, rows, write
from matplotlib.figure import Figure
from pictures import labels_stay_inside_and_apart
from planted_evaluations import EVALUATION_COLUMNS, evaluated
from planted_neighbors import NEIGHBOR_COLUMNS, neighbored
from planted_searches import NAMES, SEARCH_COLUMNS, searched, transferred

from analysis import catalogue, style
from analysis.drawing import draw, from_csv
from analysis.results import Results
from analysis.table import load
from engine.store.records import SweepRecord

RADIUS = "recipe__input_noise__radius"
SWEEPS: dict[str, dict[str, Any]] = {
    "nothing varies": {"points": grid(dataset=["digits"]), "sweep": {"varied": []}},
    "seeds": {"points": grid(recipe__seed=[0, 1, 2])},
    "one number": {"points": grid(**{RADIUS: [0.0, 0.01, 0.1, 1.0]})},
    "words": {"points": grid(recipe__optimiser=["sgd", "adam"], recipe__seed=[0, 1]), "conditions": ["genuine"]},
    "two": {
        "points": grid(**{RADIUS: [0.0, 0.1], "recipe__optimiser": ["sgd", "adam"], "recipe__seed": [0, 1]}),
        "kinds": ["additive", "multiplicative", "sphere"],
        "failed": [3],
        "missing": [4],
    },
    "three": {
        "points": grid(**{RADIUS: [0.0, 0.1], "recipe__optimiser": ["sgd", "adam"], "recipe__flip": [False, True]}),
        "conditions": ["genuine", "random"],
    },
    "search": {
        "points": [{NOISE: 0.01 * i, "recipe.learning_rate": 10.0 ** (-1 - (i * 7 % 12) / 4)} for i in range(12)],
    },
    "one radius": {"points": grid(recipe__seed=[0, 1]), "radii": [0.1]},
    "one example": {"points": grid(recipe__seed=[0]), "examples": 1},
    "many classes": {"points": grid(recipe__seed=[0]), "classes": 30},
    "odd words": {
        "points": grid(recipe__optimiser=["$x_", '#1, "a" \n<b>']),
        "sweep": {"classes": [f"${i} #\\frac" for i in range(10)], "labels": {OPTIMISER: "the $ optimiser"}},
    },
    "attacks": {
        "points": grid(attack__name=["pgd", "apgd", "square", "fmn"], recipe__seed=[0, 1]),
        "measure": searched,
        "sweep": {"columns": SEARCH_COLUMNS},
    },
    "attacks of few": {
        "points": grid(attack__name=["fmn", "apgd"], recipe__optimiser=["sgd", "adam"], recipe__seed=[0, 1]),
        "measure": searched,
    },
    "attacks of many": {
        "points": grid(attack__name=["pgd", "fmn"], **{RADIUS: [0.02 * i for i in range(8)]}),
        "measure": searched,
    },
    "one attack": {"points": grid(recipe__seed=[0]), "measure": searched, "examples": 2},
    "norms": {
        "points": grid(attack__norm=["Linf", "L2"], recipe__optimiser=["sgd", "adam"], recipe__seed=[0, 1]),
        "measure": searched,
    },
    "norms alone": {"points": grid(attack__norm=["Linf", "L2"]), "measure": searched, "ladder": [0.3]},
    "many searches": {
        "points": grid(
            attack__name=["pgd", "apgd", "fmn"],
            attack__norm=["Linf", "L2"],
            recipe__optimiser=["sgd", "adam"],
            **{RADIUS: [0.0, 0.1]},
        ),
        "measure": searched,
    },
    "transfer": {"points": grid(attack__seed=[0]), "measure": transferred},
    "transfer of two": {
        "points": grid(attack__epsilon=[0.1, 0.2], recipe__seed=[0, 1]),
        "measure": transferred,
        "names": NAMES[2:4],
    },
    "transfer of many": {
        "points": grid(attack__seed=[0]),
        "measure": transferred,
        "names": [f"a network with a long name seed {i}" for i in range(14)],
    },
    "transfer of odd words": {
        "points": grid(attack__seed=[0]),
        "measure": transferred,
        "names": ["$x_", '#1, "a" \n<b>', "all but"],
        "joint": False,
    },
    "evaluations": {
        "points": grid(**{RADIUS: [0.0, 0.1, 0.2], "recipe__optimiser": ["sgd", "adam"], "recipe__seed": [0, 1]}),
        "measure": evaluated,
        "sweep": {"columns": EVALUATION_COLUMNS},
    },
    "neighbours": {
        "points": grid(attack__stop=["first", "last"], recipe__seed=[0, 1]),
        "measure": neighbored,
        "sweep": {"columns": NEIGHBOR_COLUMNS},
    },
    "neighbours of many": {
        "points": grid(**{RADIUS: [0.02 * i for i in range(6)]}),
        "measure": neighbored,
        "stages": ["0", "layer1.0.a_long_name", "layer2.0.a_long_name", "the last layer"],
    },
    "one evaluation": {"points": grid(recipe__seed=[0]), "measure": evaluated},
    "many evaluations": {
        "points": grid(
            **{RADIUS: [0.0, 0.05, 0.1, 0.2]},
            recipe__optimiser=["sgd", "adam"],
            recipe__flip=[False, True],
            recipe__space=["pixel", "hidden:4"],
        ),
        "measure": evaluated,
    },
}


RARE = {
    *("seeds", "one number", "three", "one radius", "one example", "odd words"),
    *("one evaluation", "many evaluations", "neighbours of many"),
    *("attacks of many", "norms alone", "many searches", "transfer of many", "transfer of odd words"),
}
"""Sweeps that seldom are; all of them together take some ten seconds."""


OF_ROWS = [name for name in catalogue.names() if catalogue.parse(name).needs]
"""The others draw what a sweep says of itself: test_study_figures holds them to the same."""


def figures_of(sweep: str) -> list[str]:
    """The figures that the rows of a sweep can be drawn as."""
    measured = SWEEPS[sweep].get("measure", rows)({}, examples=1)
    told = {"varied": [name for name in SWEEPS[sweep]["points"][0] if name != SEED], **SWEEPS[sweep].get("sweep", {})}
    return [
        chosen.name
        for chosen in catalogue.fitting([*measured, "trial", "recipe"], SweepRecord.read(told))
        if chosen.needs
    ]


PAIRS = [
    pytest.param(sweep, name, marks=[pytest.mark.slow] if sweep in RARE else [])
    for sweep in SWEEPS
    for name in figures_of(sweep)
]


def test_every_figure_is_drawn_in_some_sweep() -> None:
    drawn = {name for sweep in SWEEPS if sweep not in RARE for name in figures_of(sweep)}
    assert drawn == set(OF_ROWS)


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Results:
    how = {"examples": 30, **SWEEPS[request.param]}
    return load(write(tmp_path_factory.mktemp("sweep"), how.pop("points"), **how))


@pytest.fixture(scope="module")
def each(tmp_path_factory: pytest.TempPathFactory) -> list[Results]:
    """A sweep of each task."""
    points = grid(**{RADIUS: [0.0, 0.05, 0.1, 0.2], "recipe__optimiser": ["sgd", "adam"], "recipe__seed": [0, 1, 2]})
    flatness = write(tmp_path_factory.mktemp("flatness"), points, examples=40)
    points = grid(attack__norm=["Linf", "L2"], attack__name=["pgd", "fmn"], recipe__seed=[0, 1])
    searches = write(tmp_path_factory.mktemp("searches"), points, measure=searched)
    transfer = write(tmp_path_factory.mktemp("transfer"), grid(attack__seed=[0]), measure=transferred)
    points = grid(**{RADIUS: [0.0, 0.1], "recipe__optimiser": ["sgd", "adam"], "recipe__seed": [0, 1]})
    evaluations = write(tmp_path_factory.mktemp("evaluations"), points, measure=evaluated)
    points = grid(attack__stop=["first", "last"], recipe__seed=[0, 1, 2])
    neighbors = write(tmp_path_factory.mktemp("neighbors"), points, measure=neighbored)
    return [load(folder) for folder in (flatness, searches, transfer, evaluations, neighbors)]


@pytest.mark.parametrize(("results", "name"), PAIRS, indirect=["results"])
def test_figure_keeps_the_contract(results: Results, name: str) -> None:
    chosen = catalogue.parse(name, columns=list(results.rows))
    assert chosen.options.model_config["frozen"]
    frame = chosen.module.compute(results, chosen.options)
    assert {"x", "mean", "low", "high", "n", "seeds"} <= set(frame)
    assert len(frame)
    interval = frame.dropna(subset=["low", "high"])
    assert (interval["low"] <= interval["mean"] + 1e-9).all()
    assert (interval["mean"] <= interval["high"] + 1e-9).all()
    assert (frame["n"] >= 1).all()
    caption = frame.attrs["caption"]
    assert "n = " in caption
    of_pairs = "from one seed to the other" in caption
    assert of_pairs or "95 % intervals over " in caption or "Wilson" in caption
    assert of_pairs or "95 %" in caption

    before = frame.copy()
    figure = chosen.module.draw(frame, chosen.options)
    pd.testing.assert_frame_equal(frame, before)  # drawing changes no number
    drawn = _heights(figure)
    bold = frame[frame["level"] != "example"] if "level" in frame else frame
    missed = {round(y, 9) for y in bold["mean"]} - drawn
    assert not missed or "Only " in caption, "computed but not drawn"
    for ax in figure.axes:
        assert ax.get_xlabel() or ax is not figure.axes[-1] or figure.get_supxlabel() or not frame.attrs["x"]
    labels_stay_inside_and_apart(figure, name)


@pytest.mark.parametrize("name", OF_ROWS)
def test_figure_can_be_drawn_from_its_csv(name: str, each: list[Results]) -> None:
    chosen = catalogue.parse(name)
    results = next(one for one in each if name in {figure.name for figure in catalogue.fitting(one.rows, one.sweep)})
    drawn = draw(chosen, results, name)
    assert drawn.error is None, drawn.details
    assert drawn.csv is not None
    frame = from_csv(drawn.csv)
    again = chosen.module.draw(frame, chosen.options)
    assert style.save(again, "png") == drawn.png
    plain = pd.read_csv(io.BytesIO(drawn.csv), comment="#")
    assert list(plain) == list(frame)
    assert np.allclose(plain["mean"], frame["mean"])
    assert drawn.pdf is not None
    assert drawn.pdf.startswith(b"%PDF")
    assert b"/Type3" not in drawn.pdf  # text stays text


def _heights(figure: Figure) -> set[float]:
    """Every number that is drawn: along lines, in the cells of matrices, as heights of bars."""
    numbers: list[float] = []
    for ax in figure.axes:
        numbers += [y for line in ax.lines for y in np.asarray(line.get_ydata(), float)]
        numbers += [y for image in ax.images for y in np.ma.filled(image.get_array(), np.nan).ravel()]
        numbers += [bar.get_height() for bars in ax.containers for bar in bars]
    return {round(float(y), 9) for y in numbers}

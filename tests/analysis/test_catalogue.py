"""What a sweep's `figures:` list may say, and the one line for what it may not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pandas as pd
import pytest
from commands import PROJECT
from linear_sweeps import rows
from planted_searches import searched, transferred

from analysis import catalogue
from tasks.parts.settings import UserError

COLUMNS = ["id", "label", "condition", "kind", "radius", "p_true", "persistence"]
SETTINGS = ["recipe.optimiser", "recipe.input_noise.radius", "recipe.seed", "radii"]


def test_every_figure_on_disk_is_found() -> None:
    assert set(catalogue.names()) >= {"flatness_curves", "conditions", "recipes", "effects"}
    for name in catalogue.names():
        assert catalogue.find(name).__name__ == f"analysis.figures.{name}"


@pytest.mark.parametrize(
    "entry",
    [
        "recipes",
        {"recipes": {"y": "p_true", "by": "recipe.optimiser"}},
        {"effects": {"radius": 0.1, "x": "recipe.input_noise.radius"}},
        {"conditions": None},
        {"flatness_curves": {"level": 0.9}},
    ],
)
def test_good_entries(entry: object) -> None:
    chosen = catalogue.parse(entry, columns=COLUMNS, settings=SETTINGS)
    assert set(chosen.needs) <= set(COLUMNS)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("recipies", "unknown figure 'recipies'; there are .*; did you mean recipes?"),
        ("../report", "unknown figure"),
        ({"recipes": {"colour": "x"}}, "figure recipes: colour: unknown field; recipes has .*by"),
        ({"recipes": {"buy": "x"}}, "did you mean by?"),
        ({"recipes": {"y": "p_tru"}}, "figure recipes: y: no row column 'p_tru'; there are .*; did you mean p_true?"),
        ({"recipes": {"by": "optimiser"}}, "by: no setting 'optimiser'; .*did you mean recipe.optimiser?"),
        ({"effects": {"x": "recipe.optimizer"}}, "did you mean recipe.optimiser?"),
        ({"effects": {"level": 95}}, "figure effects: level: must be at most 0.999, not 95"),
        ({"effects": {"radius": "wide"}}, "figure effects: radius: must be a number.*, not wide"),
        ({"effects": {}, "recipes": {}}, "is not a figure"),
        ({"effects": ["y"]}, "is not a figure"),
        (7, "is not a figure"),
    ],
)
def test_bad_entries(entry: object, said: str) -> None:
    with pytest.raises(ValueError, match=said) as error:
        catalogue.parse(entry, columns=COLUMNS, settings=SETTINGS)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("entry", "field"),
    [
        ({"recipes": {"level": 0.9, "y": "p_tru"}}, "recipes.y"),
        ({"recipes": {"level": 9, "by": "optimiser"}}, "recipes.level"),
        ({"recipes": {"by": "optimiser"}}, "recipes.by"),
        ({"security_curve": {}}, "security_curve"),
        ("security_curve", None),
        ("recipies", None),
    ],
)
def test_a_mistake_has_the_path_of_its_option(entry: object, field: str | None) -> None:
    with pytest.raises(UserError) as error:
        catalogue.parse(entry, columns=COLUMNS, settings=SETTINGS)
    assert error.value.field == field


def test_column_that_a_default_needs_is_checked() -> None:
    with pytest.raises(ValueError, match="no row column 'persistence'"):
        catalogue.parse("recipes", columns=["id", "radius"])


def test_fitting_leaves_out_what_lacks_columns() -> None:
    assert [chosen.name for chosen in catalogue.fitting(COLUMNS)] == [
        "conditions",
        "differences",
        "effects",
        "flatness_curves",
        "recipes",
    ]
    assert [chosen.name for chosen in catalogue.fitting(["id", "persistence"])] == ["effects"]
    assert catalogue.fitting(["id", "loss"]) == []


FLATNESS = {"conditions", "effects", "flatness_curves", "recipes"}
SEARCH = {"distances", "search_cost", "security_curve"}
TRANSFER = {"flatness_and_transfer", "shared_examples", "transfer_matrix"}


@pytest.mark.parametrize(
    ("columns", "drawn"),
    [(rows, FLATNESS), (searched, SEARCH), (transferred, TRANSFER)],
    ids=["flatness", "searches", "transfer"],
)
def test_every_task_has_its_figures_and_no_other(columns: Callable[..., pd.DataFrame], drawn: set[str]) -> None:
    """Of these ten: rows of one task are not drawn as what another measured."""
    fits = {chosen.name for chosen in catalogue.fitting(list(columns({}, examples=10)))}
    assert fits & (FLATNESS | SEARCH | TRANSFER) == drawn


@pytest.mark.parametrize("entry", ["distances", {"security_curve": {"random": None}}])
def test_rows_around_several_centres_are_no_search(entry: object) -> None:
    """They have the columns, but their distances are those of the centres."""
    with pytest.raises(ValueError, match=r"measured around several centres \(condition\)"):
        catalogue.parse(entry, columns=list(rows({}, examples=1)))


def test_checking_loads_neither_matplotlib_nor_torch_nor_ray() -> None:
    """A sweep file is checked before any work: it must not wait for what only drawing needs."""
    program = (
        "import sys; from analysis import catalogue; [catalogue.parse(name) for name in catalogue.names()];"
        "print(*sorted({'matplotlib', 'torch', 'ray', 'scipy.stats'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == []

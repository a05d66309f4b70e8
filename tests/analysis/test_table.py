"""From a folder to data frames: what is joined, what is left out, a line for what is not there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from linear_sweeps import NOISE, OPTIMISER, RADII, SEED, grid, rows, write

from analysis.arrays import conditions
from analysis.results import ReportError
from analysis.table import load, overview
from engine.store.store import Store

GRID = grid(recipe__input_noise__radius=[0.1, 0.0], recipe__optimiser=["sgd", "adam"], recipe__seed=[0, 1])


def test_rows_are_those_that_were_written(tmp_path: Path) -> None:
    results = load(write(tmp_path, GRID, failed=[1], missing=[2], examples=20))
    assert len(results.rows) == 6 * len(rows(GRID[0], examples=20))
    assert (results.trials["status"] == "done").sum() == 6
    for _, trial in results.trials[results.trials["status"] == "done"].iterrows():
        point = {name: trial[f"config.{name}"] for name in (NOISE, OPTIMISER, SEED)}
        mine = (
            results.rows[results.rows["trial"] == trial["trial"]]
            .astype({"condition": str})
            .sort_values(["condition", "id", "radius"])
        )
        truth = rows(point, examples=20).sort_values(["condition", "id", "radius"])
        assert np.array_equal(mine["persistence"], truth["persistence"])
        for name, value in point.items():
            assert (mine[f"config.{name}"] == value).all()


def test_recipes_are_named_and_ordered(tmp_path: Path) -> None:
    results = load(write(tmp_path, GRID, examples=10))
    assert results.varied == (NOISE, OPTIMISER)
    assert results.replicates == SEED
    assert results.recipes == [
        "sgd, input noise 0",
        "sgd, input noise 0.1",
        "adam, input noise 0",
        "adam, input noise 0.1",
    ]
    assert results.values(NOISE) == [0.0, 0.1]
    assert results.is_numeric(NOISE)
    assert not results.is_numeric(OPTIMISER)
    assert results.setting_of("adam, input noise 0.1", NOISE) == 0.1


def test_failed_recipe_is_no_recipe(tmp_path: Path) -> None:
    results = load(write(tmp_path, GRID, failed=[0, 1], examples=10))
    assert "sgd, input noise 0.1" not in results.recipes


def test_words_are_stored_as_codes(tmp_path: Path) -> None:
    """What is the same in thousands of rows costs a byte or two in each: there may be millions."""
    results = load(write(tmp_path, GRID, examples=10))
    for name in ("condition", "kind", "trial", "recipe", f"config.{NOISE}", f"config.{OPTIMISER}"):
        assert isinstance(results.rows[name].dtype, pd.CategoricalDtype), name


def test_only_named_columns_are_read(tmp_path: Path) -> None:
    folder = write(tmp_path, GRID, examples=10)
    results = load(folder, ["id", "radius", "nowhere"])
    assert (
        {"id", "radius"} <= set(results.rows) <= {"id", "radius", "trial", "recipe", *(f"config.{n}" for n in GRID[0])}
    )
    assert "persistence" in overview(folder).rows


def test_overview_reads_no_row(tmp_path: Path) -> None:
    assert len(overview(write(tmp_path, GRID, examples=10)).rows) == 0


def test_seeds_alone_make_one_recipe(tmp_path: Path) -> None:
    results = load(write(tmp_path, grid(recipe__seed=[0, 1, 2]), examples=10))
    assert results.recipes == ["noise"]
    assert results.rows["trial"].nunique() == 3


def test_group_that_varies_stands_for_its_settings(tmp_path: Path) -> None:
    """Of a group that varies as a whole, those of its settings that differ tell recipes apart."""
    points = [{NOISE: radius, "recipe.input_noise.kind": "additive"} for radius in (0.0, 0.1)]
    results = load(write(tmp_path, points, sweep={"varied": ["recipe.input_noise"]}, examples=10))
    assert results.varied == (NOISE,)


def test_a_setting_that_varies_without_a_column_is_told(tmp_path: Path) -> None:
    """Left out, its recipes would pass for seeds of one."""
    folder = write(tmp_path, GRID, sweep={"varied": [OPTIMISER, "recipe.network_options.width"]}, examples=10)
    with pytest.raises(ReportError, match=r"no values of recipe\.network_options\.width, which varies"):
        load(folder)


def test_values_that_differ_late_keep_recipes_apart(tmp_path: Path) -> None:
    points = grid(recipe__learning_rate=[0.1000001, 0.1000002])
    assert len(load(write(tmp_path, points, examples=10)).recipes) == 2


def test_null_is_a_value(tmp_path: Path) -> None:
    results = load(write(tmp_path, grid(recipe__clip_norm=[None, 1.0]), examples=10))
    assert results.recipes == ["clip norm none", "clip norm 1"]
    assert not results.is_numeric("recipe.clip_norm")


def test_empty_part_is_passed_over(tmp_path: Path) -> None:
    """A chunk all of whose examples were left out does not know its columns' types."""
    folder = write(tmp_path, GRID, examples=10)
    before = load(folder)
    empty = pa.table({name: pa.array([], pa.float64()) for name in rows(GRID[0], examples=1)})
    trial = before.trials["trial"].iloc[0]
    left_out = empty.replace_schema_metadata({"ids": "[9999]"})
    Store(folder).write_table(f"trials/{trial}/rows/part-zzz.parquet", left_out)
    after = load(folder)
    assert len(after.rows) == len(before.rows)
    assert set(after.rows["condition"].cat.categories) == {"genuine", "adversarial", "random"}


def test_part_being_written_is_passed_over(tmp_path: Path) -> None:
    folder = write(tmp_path, GRID, examples=10)
    trial = load(folder).trials["trial"].iloc[0]
    (folder / "trials" / trial / "rows" / ".writing-1-part-2.parquet").write_bytes(b"half")
    assert len(load(folder).rows) == len(GRID) * 10 * 3 * len(RADII)


@pytest.mark.parametrize("reader", [load, overview])
def test_one_line_for_what_is_not_there(tmp_path: Path, reader: object) -> None:
    assert callable(reader)
    with pytest.raises(ReportError, match="no sweep's results here"):
        reader(tmp_path / "nowhere")
    with pytest.raises(ReportError, match=r"no trial is finished \(1 failed, 1 missing\)"):
        reader(write(tmp_path / "a", grid(recipe__seed=[0, 1]), failed=[0], missing=[1]))
    with pytest.raises(ReportError, match="nonsense"):
        reader("nonsense://bucket/x")
    store = Store(tmp_path / "b")
    store.write("trials.parquet", b"not parquet")
    with pytest.raises(ReportError, match="cannot be read"):
        reader(tmp_path / "b")
    store.write_table("trials.parquet", pa.table({"trial": ["a"], "status": ["done"]}))
    with pytest.raises(ReportError, match="which sweep"):
        reader(tmp_path / "b")


def test_labels(tmp_path: Path) -> None:
    results = load(write(tmp_path, GRID, examples=10, fixed={"space": "pixel"}))
    assert results.setting_label(NOISE) == "training-noise radius (pixel units)"
    assert results.setting_label(OPTIMISER) == "optimiser"
    assert results.column_label("radius", "multiplicative") == "noise radius (relative to the pixel)"
    assert results.class_name(0) == "plane"
    assert results.class_name(99) == "99"
    latent = load(write(tmp_path / "latent", GRID, examples=10, fixed={"space": "latent"}))
    assert latent.column_label("radius", "additive") == "radius (pixel units)"  # the sweep's own words
    assert json.loads(results.trials["config.radii"].iloc[0]) == list(RADII)


def test_conditions_have_the_order_of_the_task_and_the_first_is_the_baseline(tmp_path: Path) -> None:
    """Those that it does not name come after; where it names none, they are as they appear."""
    found = load(write(tmp_path / "named", GRID[:2], examples=10, sweep={"conditions": ["random", "genuine"]}))
    assert conditions(found.rows) == ["random", "genuine", "adversarial"]
    assert found.baseline == "random"
    found = load(write(tmp_path / "unnamed", GRID[:2], examples=10, sweep={"conditions": None}))
    assert conditions(found.rows) == list(dict.fromkeys(rows(GRID[0], examples=10)["condition"]))
    assert found.baseline == "genuine"

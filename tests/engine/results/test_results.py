"""The table of trials that a run leaves.

Read again, it tells every recipe apart, and seeds are nothing but seeds.
"""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from pydantic import JsonValue

from analysis import catalogue, report
from analysis.results import ReportError, Results
from analysis.table import load as read
from engine.plan.plan import Planned, plan
from engine.results.records import Outcome
from engine.results.table import table
from engine.store.records import TrialRecord
from engine.store.store import Store
from engine.sweep import check_figures
from engine.sweepfile import load

FIXED = {"examples": 5, "recipe": {"dataset": "blobs", "network": "mlp", "epochs": 1}}


pytestmark = pytest.mark.usefixtures("in_tmp_path")


def planned(**entries: JsonValue) -> tuple[load.Spec, list[Planned]]:
    Path("x.yaml").write_text(yaml.safe_dump({"task": "input_flatness", "fixed": FIXED, **entries}, sort_keys=False))
    loaded = load.load("x.yaml")
    check_figures(loaded)
    return loaded, plan(loaded)


def results(*, with_importance: bool = True, **entries: JsonValue) -> Results:
    """A sweep as if it had run: the n-th trial's accuracy is n."""
    loaded, items = planned(**entries)
    store = Store("results")
    store.write_table("trials.parquet", table(loaded, ended(items), with_importance=with_importance))
    for item in items:  # as if all of its examples were left out
        covered = pa.table({}).replace_schema_metadata({"ids": json.dumps(item.ids)})
        store.write_table(f"trials/{item.key}/rows/part-0.parquet", covered)
    return read("results")


def ended(items: list[Planned]) -> list[Outcome]:
    return [
        Outcome(
            item,
            TrialRecord(
                status="done",
                trial=item.key,
                point=item.trial.point,
                config=item.trial.config.model_dump(mode="json"),
                summary={"accuracy": float(number)},
                epochs=({"epoch": 1, "loss": 1.0, "accuracy": 0.5},),
            ),
        )
        for number, item in enumerate(items)
    ]


def test_an_entry_of_a_free_mapping_tells_recipes_apart() -> None:
    found = results(grid={"recipe.network_options.width": [16, 64]}, seeds=3)
    assert found.varied == ("recipe.network_options.width",)
    assert found.recipes == ["width 16", "width 64"]
    assert found.trials.groupby("recipe", observed=True).size().tolist() == [3, 3]
    assert found.is_numeric("recipe.network_options.width")
    assert found.setting_label("recipe.network_options.width") == "network options width"
    report.build("results")
    summary = Path("results/summary.csv").read_text().splitlines()
    assert summary[0].startswith("recipe,recipe.network_options.width,seeds")
    assert len(summary) == 3
    page = Path("results/report.html").read_text()
    assert "<code>recipe.network_options.width</code></td><td>16, 64</td>" in page


def test_what_varies_in_the_recipe_that_is_finetuned_tells_recipes_apart() -> None:
    name = "recipe.finetune_from.input_noise.radius"
    found = results(grid={name: [0, 0.1], "recipe.finetune_from.epochs": [1, 2]})
    assert found.varied == (name, "recipe.finetune_from.epochs")
    assert len(found.recipes) == 4
    assert found.values(name) == [0, 0.1]
    assert found.setting_label(name) == "training-noise radius (pixel units) of finetune_from"


def test_a_group_inside_a_setting_tells_recipes_apart() -> None:
    found = results(grid={"recipe.finetune_from.input_noise": [{"radius": 0}, {"radius": 0.1}]})
    assert len(found.recipes) == 2


def test_a_figure_may_name_an_entry_of_a_free_mapping() -> None:
    name = "recipe.network_options.width"
    results(grid={name: [16, 64]}, figures=[{"effects": {"x": name}}])
    with pytest.raises(load.SpecError, match=r"x: no setting 'recipe\.network_options\.width'"):
        planned(figures=[{"effects": {"x": name}}])


def test_parallel_coordinates_have_an_axis_for_an_entry_of_a_free_mapping() -> None:
    search = {"recipe.network_options.width": {"int": [8, 64]}, "recipe.optimiser": {"choice": ["sgd", "adam"]}}
    found = results(search=search, trials=6, objective={"metric": "accuracy"})
    chosen = catalogue.parse("parallel_coordinates", sweep=found.sweep)
    frame = chosen.module.compute(found, chosen.options)
    assert list(dict.fromkeys(frame.sort_values("x")["axis"])) == ["network options width", "optimiser", "accuracy"]


def test_a_training_that_trials_share_is_one_training() -> None:
    """Three networks, and an augmentation that moves nothing: it has the plain network's key."""
    found = results(grid={"samples": [4, 5, 6]}, seeds=3)
    assert found.trials["classifier"].nunique() == 3
    chosen = catalogue.parse("learning_curves")
    frame = chosen.module.compute(found, chosen.options)
    assert len(frame) == 3
    assert "n = 3 trainings of 9 trials" in frame.attrs["caption"]
    space = {"recipe.adversarial_augmentation.space": ["pixel", "hidden:1"]}
    assert results(grid=space).trials["classifier"].nunique() == 1


def test_a_trial_of_several_networks_is_about_none() -> None:
    networks = [{"network": "mlp"}, {"network": "linear"}]
    found = results(task="transfer", fixed=FIXED | {"networks": networks})
    assert found.trials["classifier"].tolist() == [None]


def test_importances_that_no_figure_asked_for_are_not_there() -> None:
    search = {"recipe.network_options.width": {"int": [8, 64]}}
    found = results(search=search, trials=6, objective={"metric": "accuracy"}, with_importance=False)
    assert found.sweep.importance is None
    chosen = catalogue.parse("importance", sweep=found.sweep)
    with pytest.raises(ReportError, match="name importance among its figures, and run it again"):
        chosen.module.compute(found, chosen.options)

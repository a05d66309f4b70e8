"""Importances of searched settings.

The objectives depend on a single setting, so its importance is known; only complete points count.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from engine import sweep
from engine.plan.plan import Planned, plan
from engine.search import importance
from engine.store.records import Importance, TrialRecord
from engine.sweepfile.load import Spec, load

SEARCH = """\
task: user.closed_form
fixed: {examples: 4, recipe: {dataset: blobs, network: linear}}
search:
  x: {uniform: [-1, 1]}
  y: {loguniform: [0.001, 10]}
  steps: {int: [0, 3]}
  shape: {choice: [round, [1, 2], [3]]}
trials: 60
objective: {metric: bowl, mode: min}
resources: {gpus: 0}
"""
FEWER = """\
task: user.closed_form
fixed: {examples: 4, recipe: {dataset: blobs, network: linear}}
search:
  recipe.learning_rate: {choice: [1/2, 8/255, 0.75]}
  x: {uniform: [-1, 1]}
trials: 6
resources: {gpus: 0}
"""


@pytest.fixture(autouse=True)
def alone(in_tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importance, "RESAMPLES", 5)


def planned(text: str, *overrides: str) -> tuple[Spec, list[Planned]]:
    Path("s.yaml").write_text(text)
    spec = load("s.yaml", overrides)
    return spec, plan(spec)


def done(items: list[Planned], **metrics: Callable[[Mapping[str, Any]], float | None]) -> list[dict[str, Any]]:
    """Records of finished trials, with scalars that are functions of their points."""
    return [
        {"status": "done", "summary": {name: value(item.trial.point) for name, value in metrics.items()}}
        for item in items
    ]


def importances(spec: Spec, items: list[Planned], records: list[dict[str, Any]]) -> list[Importance]:
    return importance.importance(spec, items, [TrialRecord.read(record) for record in records])


@pytest.mark.parametrize(
    ("setting", "objective"),
    [
        ("x", lambda point: point["x"] ** 3),
        ("y", lambda point: -point["y"]),
        ("steps", lambda point: float(point["steps"] > 1)),
        ("shape", lambda point: 5.0 if point["shape"] == [1, 2] else 4.0),
    ],
)
def test_an_objective_of_one_setting_is_explained_by_it_alone(
    setting: str, objective: Callable[[Mapping[str, Any]], float]
) -> None:
    spec, items = planned(SEARCH)
    lines = importances(spec, items, done(items, bowl=objective))
    assert {line.objective for line in lines} == {"bowl"}
    assert {line.n for line in lines} == {60}
    found = {line.setting: line.mean for line in lines}
    assert set(found) == {"x", "y", "steps", "shape"}
    assert found.pop(setting) > 0.95
    assert max(found.values()) < 0.05


def test_each_objective_is_explained_by_its_own_setting() -> None:
    spec, items = planned(SEARCH.replace("{metric: bowl, mode: min}", "[{metric: left}, {metric: right}]"))
    records = done(items, left=lambda point: point["x"], right=lambda point: point["steps"])
    found = {(line.objective, line.setting): line.mean for line in importances(spec, items, records)}
    assert found["left", "x"] > 0.95 > 0.05 > found["left", "steps"]
    assert found["right", "steps"] > 0.95 > 0.05 > found["right", "x"]


def test_records_of_a_search_of_fewer_settings_are_of_the_points_that_are_planned() -> None:
    spec, items = planned(SEARCH)
    records = [record | {"point": {"x": 0.0}} for record in done(items, bowl=lambda point: point["steps"])]
    found = {line.setting: line.mean for line in importances(spec, items, records)}
    assert found["steps"] > 0.95


def test_without_an_objective_or_with_few_points_there_are_none() -> None:
    spec, items = planned("".join(line for line in SEARCH.splitlines(True) if "objective" not in line))
    assert importances(spec, items, done(items)) == []
    spec, items = planned(SEARCH, "trials=4")
    assert importances(spec, items, done(items, bowl=lambda point: point["x"])) == []
    spec, items = planned(SEARCH)
    assert importances(spec, items, done(items, bowl=lambda point: 1.0)) == []


@pytest.mark.parametrize("odd", [{"status": "stopped"}, {"status": "failed"}, {"status": "missing"}, None])
def test_only_points_with_all_seeds_and_objectives_count(odd: dict[str, str] | None) -> None:
    """A point with a missing value of one seed is left out, whatever its other seeds have."""
    spec, items = planned(SEARCH + "seeds: 2\n", "trials=20")
    records = done(items, bowl=lambda point: point["steps"] + point["recipe.seed"])
    before = importances(spec, items, records)
    assert {(line.n, line.seeds) for line in before} == {(20, 2)}
    records[6]["summary"] = {"bowl": 1e6}
    records[7] = odd if odd is not None else {"status": "done", "summary": {"bowl": None}}
    found = importances(spec, items, records)
    assert {(line.n, line.seeds) for line in found} == {(19, 2)}
    assert next(line.mean for line in found if line.setting == "steps") > 0.95
    rest = [*range(6), *range(8, 40)]
    assert found == importances(spec, [items[i] for i in rest], [records[i] for i in rest])


def test_an_interval_is_that_of_the_resamples_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    spec, items = planned(SEARCH, "trials=10")
    of_resamples = iter([0.1, 0.2, 0.3, 0.4, 0.5])

    def explained(_sweep: Any, _params: Any, _values: Any, trees: int) -> dict[str, float]:
        return {"x": 0.9 if trees == importance.TREES else next(of_resamples)}

    monkeypatch.setattr(importance, "_explained", explained)
    (line,) = importances(spec, items, done(items, bowl=lambda point: point["x"]))
    assert (line.mean, line.resamples) == (0.9, 5)
    assert (line.low, line.high) == pytest.approx((0.11, 0.49))


def test_a_single_point_that_differs_is_no_crash_where_no_tree_draws_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importance, "RESAMPLES", 30)
    monkeypatch.setattr(importance, "TREES_OF_A_RESAMPLE", 1)
    spec, items = planned(SEARCH, "trials=8")
    lines = importances(spec, items, done(items, bowl=lambda point: float(point is items[3].trial.point)))
    assert {line.setting for line in lines} == {"x", "y", "steps", "shape"}
    assert all(0 < line.resamples < 30 for line in lines)


OF_BOWL = "objective: {metric: bowl, mode: min}\n"


@pytest.mark.parametrize("objective", ["", OF_BOWL, f"{OF_BOWL}figures: [parallel_coordinates]\n"])
def test_a_search_of_more_settings_takes_the_records_of_before(
    objective: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One value of `y` is its default, and a learning rate is written in another way."""
    Path("s.yaml").write_text(FEWER + objective)
    assert sweep.main(["s.yaml", "--local"]) == 0
    more = FEWER.replace("8/255", str(8 / 255)).replace("trials", "  y: {choice: [1, 0.5]}\ntrials")
    Path("s.yaml").write_text(more + objective)
    capsys.readouterr()
    assert sweep.main(["s.yaml", "--local"]) == 0
    said = capsys.readouterr().out
    assert "6 of 6 trials done" in said
    ran = int(said.split("; ")[-2].split()[0])
    assert 0 < ran < 6  # some were there
    record = json.loads(pq.read_schema("results/s/trials.parquet").metadata[b"sweep"])
    if "figures" in objective:  # none of them shows importances
        assert "importance" not in record
    else:
        found = [line["setting"] for line in record["importance"]]
        assert found == (["recipe.learning_rate", "x", "y"] if objective else [])

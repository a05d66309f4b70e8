"""Artifacts are made once and shared, and made again only where something is missing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from pydantic import JsonValue

from engine import sweep
from engine.execution import trial
from engine.execution.context import Job
from engine.execution.executors import LocalExecutor
from engine.execution.workers import RunContext
from engine.plan.plan import Planned, exists, plan
from engine.store.records import TrialRecord
from engine.store.store import Store
from engine.sweepfile.load import Spec, load
from tasks import adversarial_search
from tasks.parts.artifacts import adversarial_examples, classifier
from tasks.parts.artifacts.common.kind import Given, Product, Progress
from tasks.parts.batching import Batch

RECIPE: dict[str, JsonValue] = {"dataset": "blobs", "network": "linear", "epochs": 2}
ATTACK = {"norm": "Linf", "epsilon": 0.12, "steps": 5}


@pytest.fixture
def store(in_tmp_path: Path) -> Store:
    return Store(in_tmp_path / "results")


class Work:
    """What was trained and attacked, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.trained: list[int] = []
        self.searched: list[int] = []
        train, attack = classifier.make, adversarial_examples.make

        def training(request: classifier.Request, *rest: Any) -> Iterator[Progress | Product]:
            self.trained.append(request.recipe.epochs)
            return train(request, *rest)

        def attacking(request: adversarial_examples.Request, given: Given, batch: Batch) -> Mapping[str, object]:
            self.searched += batch.ids
            return attack(request, given, batch)

        monkeypatch.setattr(classifier, "make", training)
        monkeypatch.setattr(adversarial_examples, "make", attacking)

    def taken(self) -> tuple[list[int], list[int]]:
        """What was done since the last look, sorted.

        It has the epochs of each training, and the examples attacked.
        """
        done = sorted(self.trained), sorted(self.searched)
        self.trained.clear()
        self.searched.clear()
        return done


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    return Work(monkeypatch)


def planned(task: str, **entries: Any) -> tuple[Spec, list[Planned]]:
    resources = {"chunk": 4, "gpus": 0} | entries.pop("resources", {})
    file = Path(f"{entries.pop('name', task)}.yaml")
    sections = {name: entries.pop(name) for name in ("grid", "seeds") if name in entries}
    fixed = {"examples": 6, "recipe": RECIPE} | entries
    file.write_text(json.dumps({"task": task, "fixed": fixed, "resources": resources, **sections}))
    spec = load(file)
    return spec, plan(spec)


def run(store: Store, task: str, **entries: JsonValue) -> list[TrialRecord]:
    """The trials of a sweep in this process: their records."""
    spec, items = planned(task, **entries)
    job = Job.of(spec, store, LocalExecutor(), RunContext(data_root=spec.data_root))
    records = [trial.run(item, job, lambda said: None) for item in items]
    assert [record.status for record in records] == ["done"] * len(items), records[0].traceback
    return records


def rows(store: Store, task: str) -> pd.DataFrame:
    assert store.folder is not None
    parts = [pd.read_parquet(part) for part in sorted((store.folder / task).glob("trials/*/rows/part-*.parquet"))]
    return pd.concat(parts).sort_values(["id", "radius"], ignore_index=True)


def made(store: Store, kind: str) -> list[Path]:
    assert store.folder is not None
    return sorted((store.folder / "artifacts" / kind).glob("*"))


FLATNESS: dict[str, JsonValue] = {"attack": ATTACK, "samples": 4, "radii": [0.1]}
SEARCH: dict[str, JsonValue] = {"attack": ATTACK, "black_box": 0}


def test_one_search_serves_all_who_ask_for_the_same(store: Store, work: Work) -> None:
    run(store, "adversarial_search", **SEARCH)
    ids = list(planned("adversarial_search", **SEARCH)[1][0].ids)
    assert work.taken() == ([2], ids)
    run(store, "adversarial_search", name="again", **SEARCH)  # another sweep
    run(store, "input_flatness", **FLATNESS)  # another task
    run(store, "input_flatness", name="more", **FLATNESS, grid={"kinds": [["sphere"], ["additive", "sphere"]]})
    same = {"attack": {"steps": 5, "stop": "first", "options": {"momentum": 0.0}}, "radii": [0.12], "black_box": 3}
    run(store, "adversarial_search", name="in_other_words", **same)
    assert work.taken() == ([], [])
    assert len(made(store, "classifier")) == len(made(store, "adversarial_examples")) == 1
    run(store, "input_flatness", name="other", **FLATNESS | {"attack": ATTACK | {"steps": 6}})
    assert work.taken() == ([], ids)
    assert len(made(store, "adversarial_examples")) == 2
    found = rows(store, "adversarial_search").drop_duplicates("id").set_index("id")
    around = rows(store, "input_flatness")
    adversarial = around[around["condition"] == "adversarial"].drop_duplicates("id").set_index("id")
    assert adversarial["found"].equals(found["found"])
    assert adversarial["distance"].to_numpy() == pytest.approx(found["distance"].to_numpy(), abs=1e-6)


def test_a_longer_list_searches_the_new_examples_alone(store: Store, work: Work) -> None:
    run(store, "adversarial_search", **SEARCH, examples=[7, 3, 20])
    assert work.taken() == ([2], [3, 7, 20])
    run(store, "adversarial_search", name="longer", **SEARCH, examples=[20, 1, 7, 30])
    assert work.taken() == ([], [1, 30])
    run(store, "adversarial_search", name="alone", **SEARCH, examples=[1, 3, 30])
    assert work.taken() == ([], [])
    fresh = Store("elsewhere")
    run(fresh, "adversarial_search", name="alone", **SEARCH, examples=[1, 3, 30])
    pd.testing.assert_frame_equal(rows(store, "alone"), rows(fresh, "alone"), rtol=1e-5, atol=1e-5)


def test_a_search_that_was_cut_short_goes_on_where_it_stopped(
    store: Store, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while searching, and later what was there already was partly lost."""
    whole = Store("whole")
    run(whole, "adversarial_search", **SEARCH, examples=[0, 1, 2, 3, 4, 5], resources={"chunk": 2})
    work.taken()
    attack = adversarial_examples.make

    def killed(request: adversarial_examples.Request, given: Given, batch: Batch) -> Mapping[str, object]:
        if 2 in batch.ids:
            raise KeyboardInterrupt
        return attack(request, given, batch)

    monkeypatch.setattr(adversarial_examples, "make", killed)
    settings = {**SEARCH, "examples": [0, 1, 2, 3, 4, 5], "resources": {"chunk": 2}}
    with pytest.raises(KeyboardInterrupt):
        run(store, "adversarial_search", **settings)
    assert work.taken() == ([2], [0, 1])
    monkeypatch.setattr(adversarial_examples, "make", attack)
    _, (item,) = planned("adversarial_search", **settings)
    assert not exists(item.needs["adversarial"], store)
    assert exists(replace(item.needs["adversarial"], ids=(0, 1)), store)
    run(store, "adversarial_search", **settings)
    assert work.taken() == ([], [2, 3, 4, 5])
    parts = sorted((made(store, "adversarial_examples")[0] / "rows").glob("part-*.parquet"))
    parts[1].unlink()
    (lost,) = made(store, "adversarial_examples")
    for file in (Path(store.location("adversarial_search")) / "trials").glob("*/trial.json"):
        file.unlink()
    run(store, "adversarial_search", **settings)
    assert work.taken() == ([], [2, 3])
    pd.testing.assert_frame_equal(rows(store, "adversarial_search"), rows(whole, "adversarial_search"), rtol=1e-5)
    about = json.loads((lost / "artifact.json").read_text())
    assert about["request"]["attack"]["steps"] == 5
    assert "examples" not in about


def test_points_are_kept_as_floats_with_their_shape(store: Store) -> None:
    run(store, "adversarial_search", **SEARCH)
    (folder,) = made(store, "adversarial_examples")
    part = next((folder / "rows").glob("part-*.parquet"))
    schema = pq.read_schema(part)
    assert json.loads(schema.metadata[b"shapes"]) == {"points": [1, 4, 4]}
    assert re.fullmatch(r"fixed_size_list<.*: float>\[16\]", str(schema.field("points").type))
    found = rows(store, "adversarial_search")
    assert found["verified"].all()
    assert (found["distance"] * 255 % 1 > 1e-3).any()  # not rounded to the levels of a file


def test_several_networks_are_trained_once_and_searched_together(store: Store, work: Work) -> None:
    pool = {"networks": [{"epochs": 1}, {"epochs": 2}, {"epochs": 3}], "members": 1, "attack": ATTACK, "samples": 2}
    run_pool = {**pool, "joint": True}
    spec, (item,) = planned("transfer", **run_pool)
    job = Job.of(spec, store, LocalExecutor(), RunContext())
    record = trial.run(item, job, lambda said: None)
    assert record.status == "done", record.traceback
    trained, searched = work.taken()
    assert trained == [1, 2, 3]
    assert len(searched) == 6 * (3 + 3)
    assert len(made(store, "adversarial_examples")) == 6
    # This is of a network of the pool.
    run(store, "adversarial_search", attack=ATTACK | {"stop": "first"}, black_box=0)
    assert work.taken() == ([], [])


def test_what_is_switched_off_makes_no_other_network(store: Store, work: Work) -> None:
    off: list[dict[str, JsonValue]] = [
        {},
        {"adversarial_augmentation": {"probability": 0, "epsilon": 0.2, "space": "hidden:1", "only": "correct"}},
        {"adversarial_augmentation": {"epsilon": 0, "direction": "random"}},
        {"robust": {"method": "pgd", "epsilon": 0}},
        {"input_noise": {"radius": 0.3, "probability": 0}},
    ]
    items = []
    for number, part in enumerate(off):
        spec, (item,) = planned("input_flatness", name=f"s{number}", **FLATNESS, recipe=RECIPE | {"epochs": 2} | part)
        record = trial.run(item, Job.of(spec, store, LocalExecutor(), RunContext()), lambda said: None)
        assert record.status == "done", record.traceback
        items.append(item)
    assert len({item.key for item in items}) == len(off)  # each is a trial, under its own name
    assert work.trained == [2]
    tables = [pd.read_parquet(store.folder / item.folder / "rows") for item in items if store.folder]
    assert all(table.equals(tables[0]) for table in tables)


def test_what_is_finetuned_from_is_made_first_and_used_by_others(store: Store, work: Work) -> None:
    run(store, "input_flatness", **FLATNESS, recipe=RECIPE | {"epochs": 1, "finetune_from": {"epochs": 4}})
    assert work.trained == [4, 1]
    work.taken()
    run(store, "input_flatness", name="base", **FLATNESS, recipe=RECIPE | {"epochs": 4})
    run(store, "input_flatness", name="on", **FLATNESS, recipe=RECIPE | {"epochs": 3, "finetune_from": {"epochs": 4}})
    assert work.taken()[0] == [3]


def test_checks_are_kept_with_the_trial_and_one_that_fails_is_told(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (record,) = run(store, "adversarial_search", **SEARCH)
    stored = json.loads(store.read(f"adversarial_search/trials/{record.trial}/trial.json"))
    assert stored["checks"] == dict(record.checks)
    assert set(record.checks.values()) == {None}
    monkeypatch.setattr(
        adversarial_search, "checks", lambda config, rows: {"all is well": None, "two is one": "it is not"}
    )
    arguments = ["adversarial_search.yaml", "--local", "--results", store.location("")]
    planned("adversarial_search", **SEARCH, grid={"seed": [1]})
    assert sweep.main(arguments) == 1
    said = capsys.readouterr()
    assert "self-check FAILED: seed=1: two is one: it is not\n" in said.err
    assert "all is well" not in said.err
    assert "1 of 1 trials done" in said.out
    assert sweep.main(arguments) == 1  # not forgotten in the next run
    again = capsys.readouterr()
    assert "two is one" in again.err
    assert "; 0 run now" in again.out


def test_a_dry_run_counts_searches_and_a_fresh_one_keeps_them(
    store: Store, work: Work, capsys: pytest.CaptureFixture[str]
) -> None:
    planned("adversarial_search", **SEARCH, examples=[0, 1, 2], seeds=2)
    arguments = ["adversarial_search.yaml", "--local", "--results", store.location("")]
    assert sweep.main([*arguments, "--dry-run"]) == 0
    assert "2 networks to train, 4 epochs; 6 attacks; 6 examples to measure" in capsys.readouterr().out
    assert not Path("results").exists()
    assert sweep.main([*arguments, "seeds=1"]) == 0
    assert work.taken() == ([2], [0, 1, 2])
    capsys.readouterr()
    assert sweep.main([*arguments, "--dry-run", "examples=[0,1,2,3]"]) == 0
    said = capsys.readouterr().out
    assert "1 networks to train, 2 epochs; 5 attacks; 8 examples to measure" in said
    before = {path: path.stat().st_mtime_ns for path in Path("results/artifacts").rglob("*") if path.is_file()}
    assert sweep.main([*arguments, "seeds=1", "--fresh"]) == 0
    assert "; 1 run now" in capsys.readouterr().out
    assert work.taken() == ([], [])
    assert {path: path.stat().st_mtime_ns for path in Path("results/artifacts").rglob("*") if path.is_file()} == before


@pytest.mark.cluster
@pytest.mark.slow
def test_networks_of_one_trial_are_trained_side_by_side_over_ray(in_tmp_path: Path, cluster: str) -> None:
    """And the rows are those of a run in one process."""
    networks = [{"epochs": 30}, {"epochs": 31}, {"epochs": 32, "finetune_from": {"epochs": 2}}]
    fixed = {
        **{"networks": networks, "members": 1, "examples": 12, "attack": {**ATTACK, "stop": "last"}, "samples": 4},
        "recipe": {"dataset": "digits", "network": "mlp"},
    }
    Path("pool.yaml").write_text(json.dumps({"task": "transfer", "fixed": fixed, "resources": {"chunk": 5, "gpus": 0}}))
    for name, options in (("ray", ["--address", cluster]), ("local", ["--local"])):
        assert sweep.main(["pool.yaml", *options, "--results", name]) == 0
    keys = ["id", "source", "target"]
    tables = []
    for name in ("ray", "local"):
        parts = [pd.read_parquet(part) for part in Path(name).glob("pool/trials/*/rows/part-*.parquet")]
        tables.append(pd.concat(parts).sort_values(keys, ignore_index=True))
    assert not tables[0].duplicated(keys).any()
    pd.testing.assert_frame_equal(*tables, rtol=1e-5, atol=1e-5)

    spans = {}
    for file in Path("ray/artifacts/classifier").glob("*/artifact.json"):
        about = json.loads(file.read_text())
        ended_at = file.stat().st_mtime
        spans[about["request"]["recipe"]["epochs"]] = (ended_at - about["seconds"], ended_at)
    assert set(spans) == {30, 31, 32, 2}
    assert spans[30][0] < spans[31][1]
    assert spans[31][0] < spans[30][1]  # they overlap
    assert spans[2][1] <= spans[32][0]  # what is finetuned comes after what it starts from

"""Whole runs, with and without Ray.

Both give the same rows; nothing is done twice, and nothing is lost when something is killed.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from commands import started, wait_for
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from engine import sweep
from engine.store.store import Store
from tasks.parts.data import load as data

FLATNESS = """
task: input_flatness
fixed:
  examples: 30
  samples: 40
  radii: [0.1, 0.3]
  attack: {epsilon: 0.3, steps: 5}
  recipe: {dataset: digits, network: mlp, epochs: 2}
grid:
  recipe.input_noise.radius: [0, 0.2]
seeds: 2
resources: {chunk: 7, gpus: 0}
"""
SLOW = """
task: user.slow_task
fixed:
  examples: 60
  delay: %s
  log: %s
  recipe: {dataset: digits, network: linear, epochs: 1}
resources: {chunk: 5, gpus: 0}
"""


ONE_SEED = FLATNESS.replace("seeds: 2", "seeds: 1")


def write(folder: Path, text: str, name: str = "small.yaml") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def rows_of(results: Path, name: str = "small") -> dict[str, pd.DataFrame]:
    """The rows of each trial, by its hash, sorted."""
    found = {}
    for trial in (results / name / "trials").iterdir():
        parts = [pd.read_parquet(part) for part in sorted((trial / "rows").glob("part-*.parquet"))]
        frame = pd.concat(parts)
        keys = [key for key in ("id", "condition", "kind", "radius") if key in frame]
        assert not frame.duplicated(keys).any()
        found[trial.name] = frame.sort_values(keys, ignore_index=True)
    return found


Key = TypeVar("Key")


def assert_same(left: Mapping[Key, pd.DataFrame], right: Mapping[Key, pd.DataFrame]) -> None:
    assert left.keys() == right.keys()
    for key in left:
        pd.testing.assert_frame_equal(left[key], right[key], rtol=1e-5, atol=1e-5)


def statuses(results: Path, name: str = "small") -> list[str]:
    return pd.read_parquet(results / name / "trials.parquet")["status"].tolist()


@pytest.mark.draws
def test_a_sweep_leaves_everything_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, results = write(tmp_path, FLATNESS), tmp_path / "results"
    assert sweep.main([file, "--local", "--results", str(results)]) == 0
    folder = results / "small"
    assert statuses(results) == ["done"] * 4
    assert (folder / "report.html").stat().st_size > 10_000
    assert {path.suffix for path in (folder / "figures").iterdir()} == {".png", ".pdf", ".csv"}
    for trial in rows_of(results).values():
        assert trial["id"].nunique() == 30
        assert len(trial) == 30 * 3 * 3  # conditions, and two radii beside the centre
    record = json.loads(next((folder / "trials").glob("*/trial.json")).read_text())
    assert record["status"] == "done"
    assert record["versions"]["torch"]
    assert {"point", "config", "devices", "seconds", "summary"} <= record.keys()
    networks = list((results / "artifacts" / "classifier").iterdir())
    assert len(networks) == 4
    torch.load(networks[0] / "arrays.pt", weights_only=True)
    logs = {path.name for path in (folder / "tensorboard").iterdir()}
    assert logs == {"input noise 0", "input noise 0.2", "report"}

    before = {path: path.stat().st_mtime_ns for path in results.rglob("*") if path.is_file()}
    assert sweep.main([file, "--local", "--results", str(results)]) == 0
    assert {path: path.stat().st_mtime_ns for path in results.rglob("*") if path.is_file()} == before
    assert "; 0 run now" in capsys.readouterr().out


def test_a_longer_grid_runs_only_the_new_points(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--local", "--results", str(tmp_path / "results")]
    assert sweep.main([write(tmp_path, ONE_SEED), *options]) == 0
    file = write(tmp_path, FLATNESS)
    assert sweep.main([file, *options]) == 0
    assert "4 of 4 trials done; 2 run now" in capsys.readouterr().out
    assert sweep.main([file, *options, "seeds=1", "--dry-run"]) == 0
    assert "to do: 0 trials" in capsys.readouterr().out
    assert sweep.main([file, *options, "--fresh"]) == 0
    assert "; 4 run now" in capsys.readouterr().out


def test_chunks_do_not_matter(tmp_path: Path) -> None:
    file = write(tmp_path, FLATNESS)
    for chunk in (1, 30):
        options = ["--local", "--results", str(tmp_path / str(chunk)), f"resources.chunk={chunk}", "seeds=1"]
        assert sweep.main([file, *options]) == 0
    assert_same(rows_of(tmp_path / "1"), rows_of(tmp_path / "30"))


def test_a_failed_trial_is_kept_and_tried_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = ONE_SEED.replace("recipe.input_noise.radius: [0, 0.2]", "recipe.learning_rate: [0.05, 1.0e+30]")
    file, results = write(tmp_path, text), tmp_path / "results"
    for _ in range(2):
        assert sweep.main([file, "--local", "--results", str(results)]) == 1
        said = capsys.readouterr()
        assert "1 of 2 trials done" in said.out
        assert ": training diverged: the loss is not finite in epoch 1; take a smaller learning rate" in said.err
        assert "Traceback" not in said.err
        table = pd.read_parquet(results / "small" / "trials.parquet")
        assert sorted(table["status"]) == ["done", "failed"]
        failed = table.loc[table["status"] == "failed", "trial"].item()
        record = json.loads((results / "small" / "trials" / failed / "trial.json").read_text())
        assert "Traceback" in record["traceback"]
        assert record["config"]["recipe"]["learning_rate"] == 1e30
    assert "failed" in (results / "small" / "report.html").read_text()


def test_a_sweep_that_fails_throughout_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = ONE_SEED.replace("epochs: 2", "epochs: 2, learning_rate: 1e30")
    file, results = write(tmp_path, text), tmp_path / "results"
    assert sweep.main([file, "--local", "--results", str(results)]) == 1
    assert "0 of 2 trials done" in (said := capsys.readouterr().out)
    assert said.strip().endswith("trial.json")  # where the traceback is
    assert statuses(results) == ["failed"] * 2
    assert not (results / "small" / "report.html").exists()


def test_rows_deleted_under_a_running_trial_are_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, results = write(tmp_path, ONE_SEED), tmp_path / "results"
    wrote = Store.write_table

    def lost(store: Store, path: str, table: pa.Table) -> None:
        wrote(store, path, table)
        if "/rows/" in path and "part-00000" in path and not (tmp_path / "lost").exists():
            (tmp_path / "lost").touch()
            store.delete(path)

    monkeypatch.setattr(Store, "write_table", lost)
    assert sweep.main([file, "--local", "--results", str(results)]) == 1
    assert sorted(statuses(results)) == ["done", "failed"]
    assert sweep.main([file, "--local", "--results", str(results)]) == 0
    assert statuses(results) == ["done"] * 2


def test_a_missing_objective_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path, FLATNESS + "objective: {metric: no_such_scalar}\n")
    assert sweep.main([file, "--local", "--results", str(tmp_path / "results"), "seeds=1"]) == 2
    assert "objective.metric: no trial reports no_such_scalar; they report accuracy, " in capsys.readouterr().err
    # The others were not begun
    assert len(list((tmp_path / "results" / "small" / "trials").iterdir())) == 1


def test_a_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep.main([write(tmp_path, FLATNESS), "--dry-run", "--results", str(tmp_path / "results")]) == 0
    assert "4 networks to train, 8 epochs; 120 attacks; 120 examples to measure" in capsys.readouterr().out
    assert not (tmp_path / "results").exists()


def test_only_correct_examples_are_not_measured_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An example that is left out has no row, and is covered all the same."""
    file, results = write(tmp_path, FLATNESS), tmp_path / "results"
    options = ["--local", "--results", str(results), "only_correct=true", "recipe.epochs=0", "seeds=1"]
    assert sweep.main([file, *options]) in (0, 1)
    for trial in (results / "small" / "trials").glob("*/trial.json"):
        trial.unlink()
    capsys.readouterr()
    assert sweep.main([file, *options, "--dry-run"]) == 0
    assert "0 examples to measure" in capsys.readouterr().out


def run(file: str, results: Path, *options: str) -> None:
    assert sweep.main([file, "--results", str(results), *options]) == 0


def lines(log: Path) -> list[tuple[int, int]]:
    """Which process measured which example, in order."""
    return [(int(pid), int(example)) for pid, example in map(str.split, log.read_text().splitlines())]


@pytest.mark.cluster
@pytest.mark.slow
def test_ray_gives_the_rows_of_a_local_run(tmp_path: Path, cluster: str) -> None:
    file = write(tmp_path, FLATNESS)
    run(file, tmp_path / "ray", "--address", cluster)
    run(file, tmp_path / "local", "--local")
    assert_same(rows_of(tmp_path / "ray"), rows_of(tmp_path / "local"))
    assert statuses(tmp_path / "ray") == ["done"] * 4


@pytest.mark.cluster
@pytest.mark.slow
def test_a_killed_worker_loses_and_doubles_nothing(
    tmp_path: Path, cluster: str, capsys: pytest.CaptureFixture[str]
) -> None:
    log, killed = tmp_path / "log", []

    def kill() -> None:
        while not log.exists() or len(lines(log)) <= 12:
            time.sleep(0.02)
        killed.append(lines(log)[-1])
        os.kill(killed[0][0], signal.SIGKILL)

    killing = threading.Thread(target=kill, daemon=True)
    killing.start()
    file = write(tmp_path, SLOW % (0.05, log))
    run(file, tmp_path / "ray", "--address", cluster)
    killing.join()
    assert "1 of 1 trials done" in capsys.readouterr().out
    # It was killed in mid-chunk, so its chunk was measured again.
    assert [example for _, example in lines(log)].count(killed[0][1]) > 1
    run(file, tmp_path / "local", "--local")
    assert_same(rows_of(tmp_path / "ray"), rows_of(tmp_path / "local"))


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_goes_on_where_it_stopped(
    tmp_path: Path, how: signal.Signals, cluster: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run that is killed has its own Ray, the interrupted one has joined a cluster."""
    log, results = tmp_path / "log", tmp_path / "ray"
    file = write(tmp_path, SLOW % (0.2, log))
    options = ["--address", cluster] if how == signal.SIGINT else []
    process = started(file, "--results", str(results), *options)
    wait_for(lambda: len(list(results.glob("small/trials/*/rows/part-*.parquet"))) >= 3, process)
    os.kill(process.pid, how)
    said, _ = process.communicate(timeout=60)
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert "goes on from here" in said
        assert "Traceback" not in said
    kept = {int(i) for part in results.glob("small/trials/*/rows/*.parquet") for i in pd.read_parquet(part)["id"]}
    assert len(kept) < 60
    log.unlink()
    run(file, results, "--address", cluster)
    assert "1 of 1 trials done" in capsys.readouterr().out
    # What was stored is not measured again
    assert kept.isdisjoint(example for _, example in lines(log))
    run(write(tmp_path, SLOW % (0, log)), tmp_path / "local", "--local")
    found, wanted = rows_of(results), rows_of(tmp_path / "local")
    assert_same(dict(enumerate(found.values())), dict(enumerate(wanted.values())))


@pytest.mark.cluster
@pytest.mark.slow
def test_two_trials_that_need_one_network_train_it_once(tmp_path: Path, cluster: str) -> None:
    text = ONE_SEED.replace("recipe.input_noise.radius: [0, 0.2]", "samples: [10, 20, 30]").replace(
        "  samples: 40\n", ""
    )
    run(write(tmp_path, text), tmp_path / "ray", "--address", cluster)
    assert statuses(tmp_path / "ray") == ["done"] * 3
    assert len(list((tmp_path / "ray" / "artifacts" / "classifier").iterdir())) == 1


def test_local_and_an_address_exclude_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep.main([write(tmp_path, FLATNESS), "--local", "--address", "auto"]) == 2
    assert "exclude each other" in capsys.readouterr().err


AUGMENTED = """
task: input_flatness
fixed:
  examples: 10
  samples: 10
  radii: [0.1]
  attack: {epsilon: 0.3, steps: 2}
  recipe: {dataset: digits, network: mlp, epochs: 2, train_examples: 200, adversarial_augmentation: {epsilon: 0.3}}
grid:
  recipe.adversarial_augmentation.probability: [0, 0.5]
  recipe.adversarial_augmentation.space: [pixel, "hidden:1"]
resources: {chunk: 10, gpus: 0}
"""


def test_augmentation_leaves_a_picture_of_what_it_does(tmp_path: Path) -> None:
    """In the network's folder, in those of its trials, and in the report.

    Nowhere if nothing is augmented.
    """
    assert sweep.main([write(tmp_path, AUGMENTED), "--local", "--results", str(tmp_path / "results")]) == 0
    folder = tmp_path / "results" / "small"
    kept = {
        path.read_bytes() for path in (tmp_path / "results/artifacts/classifier").glob("*/attachments/augmentation.png")
    }
    assert len(kept) == 2
    spaces = []
    for trial in (folder / "trials").iterdir():
        record = json.loads((trial / "trial.json").read_text())
        settings = record["config"]["recipe"]["adversarial_augmentation"]
        if settings["probability"] == 0:
            assert "augmentation" not in record["attachments"]
            assert not (trial / "attachments/augmentation.png").exists()
            continue
        spaces.append(settings["space"])
        notes = record["attachments"]["augmentation"]
        assert notes["space"] == settings["space"]
        assert len(notes["columns"]) == 8
        assert (trial / "attachments/augmentation.png").read_bytes() in kept
    assert sorted(spaces) == ["hidden:1", "pixel"]
    page = (folder / "report.html").read_text()
    assert page.count("Training images, and what the augmentation makes of them") == 2


SHOWING = """
task: showing.brighter
fixed: {examples: 30, recipe: {dataset: blobs, network: linear, epochs: 1}}
grid: {offset: [0.0, 0.25]}
seeds: 2
"""
SHOWS = """
import numpy as np
from pydantic import Field

from tasks.parts.artifacts.common.pictures import pictures
from tasks.parts.contract import TaskConfig

COLUMNS = {"id": "example", "brightness": "mean pixel"}


class Config(TaskConfig):
    offset: float = Field(default=0.0, description="what is added to the pixels")


def needs(config):
    return {"classifier": config.recipe}


def measure(config, given, batch):
    return {"id": np.asarray(batch.ids), "brightness": batch.images.flatten(1).mean(1).numpy()}


def summarise(config, rows):
    return {"brightness": float(rows["brightness"].mean())}


def show(config, given, batch):
    columns = [{"example": i} for i in batch.ids]
    rows = {"image": batch.images, "brighter": batch.images + config.offset}
    return {"brighter_images": pictures(rows, columns, caption="Brighter images.")}
"""


def test_a_task_leaves_pictures_of_a_few_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are in the trials' folders, in the report and in the TensorBoard log."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "showing").mkdir()
    (tmp_path / "showing/brighter.py").write_text(SHOWS)
    assert sweep.main([write(tmp_path, SHOWING), "--local", "--results", str(tmp_path / "results")]) == 0
    folder = tmp_path / "results" / "small"
    for trial in (folder / "trials").iterdir():
        record = json.loads((trial / "trial.json").read_text())
        examples = [column["example"] for column in record["attachments"]["brighter_images"]["columns"]]
        assert len(examples) == 8
        images, _ = data.take(data.load("blobs", "test"), examples)
        sheet = np.asarray(Image.open(trial / "attachments/brighter_images.png"))
        height, width = images.shape[2:]
        assert sheet.shape == (2 * height, 8 * width, 3)
        brighter = np.concatenate(list((images[:, 0] + record["config"]["offset"]).clamp(0, 1)), axis=1)
        assert np.abs(sheet[height:, :, 0] / 255 - brighter).max() <= 0.51 / 255
    page = (folder / "report.html").read_text()
    assert page.count("<h3>Brighter images: ") == 2  # one a recipe
    logs = [EventAccumulator(str(run)).Reload().Tags()["images"] for run in (folder / "tensorboard").iterdir()]
    assert logs.count(["brighter_images"]) == 2

"""The TensorBoard log: few runs, a recipe each, with series in time and the names of the report."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from analysis import recipe_log
from engine import sweep
from engine.execution.tensorboard import LIVE, live
from engine.store.store import Store

SWEEP = """
task: input_flatness
fixed:
  examples: 12
  samples: 4
  radii: [0.1, 0.3]
  conditions: [genuine]
  recipe: {dataset: digits, network: linear, epochs: 2, train_examples: 100}
grid: {recipe.learning_rate: RATES}
seeds: 3
figures: [effects]
resources: {gpus: 0}
"""


def ran(folder: Path, rates: str = "[0.1, 1/100]") -> Path:
    (folder / "few.yaml").write_text(SWEEP.replace("RATES", rates))
    assert sweep.main([str(folder / "few.yaml"), "--local", "--results", str(folder / "results")]) == 0
    return folder / "results" / "few"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ran(tmp_path_factory.mktemp("finished"))


def events(run: Path) -> EventAccumulator:
    return EventAccumulator(str(run), size_guidance={"tensors": 0}).Reload()


def words(log: EventAccumulator, tag: str) -> str:
    return log.Tensors(f"{tag}/text_summary")[0].tensor_proto.string_val[0].decode()


def trainings(folder: Path) -> dict[str, pd.DataFrame]:
    """The epochs of all trials, by their learning rate."""
    found: dict[str, list[dict[str, float]]] = {}
    for file in (folder / "trials").glob("*/trial.json"):
        record = json.loads(file.read_text())
        found.setdefault(str(record["config"]["recipe"]["learning_rate"]), []).extend(record["epochs"])
    return {rate: pd.DataFrame(epochs).groupby("epoch").mean() for rate, epochs in found.items()}


def test_a_run_is_the_mean_over_the_seeds_of_a_recipe(finished: Path) -> None:
    folder = finished
    runs = {path.name: path for path in (folder / "tensorboard").iterdir()}
    assert runs.keys() == {"learning rate 0.01", "learning rate 0.1", "report"}
    summary = pd.read_csv(folder / "summary.csv").set_index("recipe")
    for rate, mean in trainings(folder).items():
        log = events(runs[f"learning rate {rate}"])
        told = [(event.step, event.value) for event in log.Scalars("training/loss")]
        assert told == [(epoch, pytest.approx(loss)) for epoch, loss in mean["loss"].items()]
        for name in ("accuracy", "flatness_genuine"):
            (event,) = log.Scalars(f"summary/{name}")
            assert event.value == pytest.approx(summary.loc[f"learning rate {rate}", name])
        # what is drawn against a radius would be smoothed as if it were a series in time
        assert {tag.split("/")[0] for tag in log.Tags()["scalars"]} == {"training", "summary"}
    report = events(runs["report"])
    assert report.Tags()["images"] == ["effects"]
    assert "n = 12 examples, 3 seeds" in words(report, "effects")
    assert "| learning rate 0.01 | 3 |" in words(report, "table")


def test_few_of_many_recipes_have_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe_log, "MOST", 2)
    folder = ran(tmp_path, "[0.1, 0.2, 0.3]")
    assert {path.name for path in (folder / "tensorboard").iterdir()} == {
        "learning rate 0.1",
        "learning rate 0.2",
        "report",
    }
    table = words(events(folder / "tensorboard/report"), "table")
    assert "The first 2 of 3 recipes have a run here." in table
    assert "| learning rate 0.3 | 3 |" in table


def test_what_a_user_put_into_the_log_stays(tmp_path: Path) -> None:
    folder = ran(tmp_path, "[0.1, 0.3]")
    mine = folder / "tensorboard/mine/events.out.tfevents.1.host"
    mine.parent.mkdir()
    mine.write_text("mine")
    ran(tmp_path, "[0.2, 0.4]")
    assert mine.read_text() == "mine"
    assert {path.name for path in (folder / "tensorboard").iterdir()} == {
        "learning rate 0.2",
        "learning rate 0.4",
        "mine",
        "report",
    }


def test_single_trials_are_written_elsewhere_when_asked_for(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    single = tmp_path / "single"
    assert recipe_log.main([str(finished), str(single)]) == 0
    runs = sorted(path.name for path in single.iterdir())
    assert len(runs) == 6
    assert runs[0].startswith("learning rate 0.01, seed 0-")
    assert [event.step for event in events(single / runs[0]).Scalars("training/loss")] == [1, 2]
    assert recipe_log.main([str(finished), str(single)]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert recipe_log.main([str(tmp_path), str(tmp_path / "other")]) == 2
    assert "no sweep's results" in capsys.readouterr().err


def test_while_trials_run_the_latest_logs_are_kept(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for number in range(LIVE + 3):
        with live(store, "few", f"trial-{number}") as board:
            board.epoch({"epoch": 1, "loss": 0.5})
        (file,) = (tmp_path / f"few/tensorboard/running/trial-{number}").iterdir()
        file.rename(file.with_name(f"events.out.tfevents.{1000 + number}.host"))
    running = tmp_path / "few/tensorboard/running"
    assert {path.name for path in running.iterdir()} == {f"trial-{number}" for number in range(3, LIVE + 3)}
    (running / "beginning").mkdir()  # by another trial, which is about to open its file
    with live(store, "few", "last"):
        assert (running / "beginning").is_dir()

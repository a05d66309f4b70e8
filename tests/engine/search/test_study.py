"""Searches: the study agrees with the trials' records, and no trial is run twice.

This holds whatever was killed, lost or added in between.
"""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
from commands import started, wait_for

from engine import sweep
from engine.search.study_file import opened
from engine.store.owned import SweepFolder
from engine.store.store import Store

BOWL = """\
task: user.closed_form
fixed: {examples: 4, recipe: {dataset: blobs, network: linear}}
search:
  x: {uniform: [-1, 1]}
  y: {loguniform: [0.001, 10]}
  steps: {int: [0, 3]}
  shape: {choice: [round, [1, 2]]}
trials: 8
searcher: {name: tpe, startup: 3}
objective: {metric: bowl, mode: min}
resources: {gpus: 0}
"""
FRONT = """\
task: user.closed_form
fixed: {examples: 4, recipe: {dataset: blobs, network: linear}}
search:
  x: {uniform: [-1, 1]}
  steps: {int: [0, 3]}
trials: 12
searcher: {name: nsga2, population: 4}
objective: [{metric: left, mode: min}, {metric: right, mode: min}]
resources: {gpus: 0}
"""
RATES = """\
task: input_flatness
fixed:
  examples: 5
  samples: 2
  radii: [0.1]
  conditions: [genuine]
  recipe: {dataset: digits, train_examples: 200, network: linear, epochs: 4, validation: 0.2, schedule: constant}
search:
  recipe.learning_rate: {loguniform: [0.0001, 0.1]}
trials: 7
searcher: tpe
scheduler: {name: asha, metric: validation_loss, grace: 1, reduction: 2}
objective: {metric: accuracy}
resources: {gpus: 0}
figures: [recipes]
"""


pytestmark = pytest.mark.usefixtures("in_tmp_path")


def run(text: str, *arguments: str, name: str = "s", status: int = 0) -> None:
    """Runs a search.

    `trials=3` and `seeds=2` are written into its file: as overrides they would make a quick look.
    """
    for entry in ("trials", "seeds"):
        for given in [one.replace("=", ": ") for one in arguments if one.startswith(f"{entry}=")]:
            there = re.search(f"^{entry}: .*", text, flags=re.M)
            text = text.replace(there[0], given) if there else f"{text}{given}\n"
    arguments = tuple(one for one in arguments if not one.startswith(("trials=", "seeds=")))
    Path(f"{name}.yaml").write_text(text)
    assert sweep.main([f"{name}.yaml", "--local", *arguments]) == status


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the results of a search's first trial; tests work on copies."""
    folder = tmp_path_factory.mktemp("begun")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run(BOWL, "trials=1")
    return folder


def points(results: str = "results", name: str = "s") -> list[dict[str, Any]]:
    """The points that were chosen, in order."""
    return [p["values"] for p in json.loads(Path(results, name, "search.json").read_text())["points"]]


def kept(file: str = "results/s/study.db", name: str = "s") -> optuna.Study:
    """The study in a file, as optuna-dashboard reads it."""
    journal = optuna.storages.journal.JournalFileBackend
    storage: Any = f"sqlite:///{file}" if file.endswith(".db") else optuna.storages.JournalStorage(journal(file))
    return optuna.load_study(study_name=name, storage=storage)


def held(file: str = "results/s/study.db", name: str = "s") -> list[optuna.trial.FrozenTrial]:
    return kept(file, name).get_trials()


def trials(results: str = "results", name: str = "s") -> pd.DataFrame:
    return pd.read_parquet(Path(results, name, "trials.parquet"))


def bowl(point: dict[str, Any]) -> float:
    return float((point["x"] - 0.3) ** 2 + np.log10(point["y"] / 0.1) ** 2 + point["steps"])


def test_the_study_holds_the_closed_form_of_each_point() -> None:
    run(BOWL, "trials=20")
    chosen, study = points(), held()
    assert len(chosen) == len(study) == 20
    assert [t.value for t in study] == pytest.approx([bowl(point) for point in chosen])
    assert {t.state.name for t in study} == {"COMPLETE"}
    for point, trial in zip(chosen, study, strict=True):
        assert trial.params == {**point, "shape": "round" if point["shape"] == "round" else "[1, 2]"}
    values = [t.value or 0.0 for t in study]
    assert np.mean(values[12:]) < np.mean(values[:5])  # it learns
    table = trials().set_index("trial")
    assert sorted(table["summary.bowl"]) == pytest.approx(sorted(values))
    for trial in study:
        (key,) = trial.user_attrs["trials"]
        assert table.loc[key, "summary.bowl"] == pytest.approx(trial.value)


RANDOM = BOWL.replace("name: tpe, startup: 3", "name: random") + "storage: a.db\n"


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        (BOWL, None),
        (FRONT, "study.db"),
        (FRONT, "search.json"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [(FRONT, None), (BOWL, "study.db"), (BOWL, "search.json")]
        ),
        *(pytest.param(RANDOM, lost, marks=pytest.mark.slow) for lost in (None, "study.db", "search.json")),
    ],
)
def test_a_longer_search_goes_on_as_if_it_had_not_stopped(
    text: str, lost: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    file = "a.db" if "a.db" in text else "study.db"
    run(text, "trials=7", "--results", "whole")
    run(text, "trials=4")
    if lost is not None:
        Path("results/s", lost.replace("study.db", file)).unlink()
    capsys.readouterr()
    run(text, "trials=7")
    done = len(trials())
    assert points() == points("whole")
    there, whole = held(f"results/s/{file}"), held(f"whole/s/{file}")
    assert [(t.params, t.values) for t in there] == [(t.params, t.values) for t in whole]
    ran = int(capsys.readouterr().out.split("; ")[-2].split()[0])
    assert ran == done - len({json.dumps(point) for point in points()[:4]})
    run(text, "trials=2")
    assert "; 0 run now" in capsys.readouterr().out
    assert len(trials()) == 2
    assert len(points()) == 7  # what is known is not forgotten


def test_storage_none_and_journal_resume_alike() -> None:
    for storage in ("none", "study.journal"):
        run(BOWL, f"storage={storage}", "trials=4", "--results", storage)
        run(BOWL, f"storage={storage}", "--results", storage)
    run(BOWL)
    assert points("none") == points("study.journal") == points()
    assert not list(Path("none/s").glob("study*"))
    assert [t.values for t in held("study.journal/s/study.journal")] == [t.values for t in held()]


def test_seeds_are_replicates() -> None:
    text = BOWL.replace("metric: bowl", "metric: noisy")
    run(text, "seeds=1", "trials=3")
    assert [t.value for t in held()] == pytest.approx([bowl(point) for point in points()])
    run(text, "seeds=3", "trials=5")  # those of before have more seeds now, and other values in the study
    assert len(trials()) == 15
    assert [t.value for t in held()] == pytest.approx([bowl(point) + 1 for point in points()])
    assert held()[0].user_attrs["noisy"].endswith(" over 3 seeds")


def test_a_point_that_comes_again_is_run_once() -> None:
    text = BOWL.split("search:")[0] + "search:\n  steps: {int: [0, 1]}\ntrials:" + BOWL.split("trials:")[1]
    run(text)
    assert len(points()) == 8
    assert len(trials()) == 2
    assert [t.value for t in held()] == pytest.approx([bowl({"x": 0, "y": 1, **point}) for point in points()])


def test_failures_are_told_and_tried_again(capsys: pytest.CaptureFixture[str]) -> None:
    text = BOWL.replace("shape: {choice: [round, [1, 2]]}", "shape: {choice: [round, broken]}")
    run(text, status=1)
    broken = [point["shape"] == "broken" for point in points()]
    assert 0 < sum(broken) < 8
    assert [t.state.name == "FAIL" for t in held()] == broken
    capsys.readouterr()
    run(text, status=1)
    assert f"; {sum(broken)} run now" in capsys.readouterr().out
    assert [t.state.name == "FAIL" for t in held()] == broken


def test_a_point_whose_settings_do_not_go_together_is_passed_over(capsys: pytest.CaptureFixture[str]) -> None:
    text = BOWL.replace("int: [0, 3]", "int: [6, 8]")  # 7 goes with nothing, and is at no end
    run(text, status=1)
    assert "7 goes with nothing" in capsys.readouterr().err
    odd = [point["steps"] == 7 for point in points()]
    assert any(odd)
    assert [t.state.name == "FAIL" for t in held()] == odd
    assert len(trials()) == 8 - sum(odd)


def test_settings_that_go_together_at_the_ends_alone_are_no_mistake_of_the_sweep() -> None:
    """Between its ends `x` does not go with 9 steps: such points are refused, and others follow."""
    run(BOWL.replace("int: [0, 3]", "int: [9, 10]"), "--dry-run")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("uniform: [-1, 1]", "uniform: [-1, 0.5]"), 's.yaml:4: search.x: was {"uniform": [-1.0, 1.0]} when'),
        (("  y: {loguniform: [0.001, 10]}\n", ""), 's.yaml:3: search: had y: {"loguniform": [0.001, 10.0]} when'),
        (("  steps:", "  batch: {int: [1, 2]}\n  steps:"), "s.yaml:6: search.batch: was not there when"),
        (("[round, [1, 2]]", "[round]"), 'search.shape: was {"choice": ["round", [1, 2]]} when'),
        (("mode: min", "mode: max"), 'objective: was [{"metric": "bowl", "mode": "min"}] when'),
        (("startup: 3", "startup: 4"), "searcher: was "),
        (("name: tpe, startup: 3", "name: nsga2"), "searcher: was "),
        (("examples: 4", "examples: 5"), "s.yaml:2: fixed.examples: was 4 when"),
    ],
)
@pytest.mark.parametrize("lost", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_another_study_under_the_same_name_is_refused(
    change: tuple[str, str], said: str, lost: bool, begun: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(begun / "results", "results")
    if lost:
        Path("results/s/search.json").unlink()
    before = {path: path.stat().st_mtime_ns for path in Path("results").rglob("*")}
    capsys.readouterr()
    for options in ([], ["--dry-run"]):
        run(BOWL.replace(*change), *options, status=2)
        out, err = capsys.readouterr()
        assert said in err
        assert "put that back, or begin a new study with --fresh" in err
        assert err.count("\n") == 1
        assert not out
    assert {path: path.stat().st_mtime_ns for path in Path("results").rglob("*")} == before
    if not lost:
        run(BOWL.replace(*change), "trials=1", "--fresh")
        assert len(held()) == len(trials()) == 1


def test_a_storage_is_of_one_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "studies.db"
    run(BOWL + f"storage: {file}\n", "trials=1", name="first")
    content = file.read_bytes()
    for options in ([], ["--dry-run"], ["--fresh"]):
        run(BOWL + f"storage: {file}\n", *options, status=2)
        assert f"s.yaml:12: storage: {file} holds the study of the sweep first; give s" in capsys.readouterr().err
    assert file.read_bytes() == content
    assert not Path("results/s").exists()


@pytest.mark.parametrize(
    ("storage", "said"),
    [
        ("no/such/folder.db", "storage: {folder}/no/such is no folder that can be written to"),
        ("text.db", "storage: {folder}/text.db cannot be used: file is not a database"),
        ("other.db", "storage: {folder}/other.db cannot be used: no such table: version_info"),
        ("text.journal", "storage: {folder}/text.journal cannot be used: "),
        ("folder.db", "storage: {folder}/folder.db is a folder"),
    ],
)
def test_a_storage_that_is_none_is_refused(
    storage: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("text.db", "text.journal"):
        Path(name).write_text("Not a study, by far. " * 100)
    Path("folder.db").mkdir()
    with sqlite3.connect("other.db") as database:
        database.execute("CREATE TABLE notes (line TEXT)")
    database.close()
    content = Path("other.db").read_bytes()
    run(BOWL, f"storage={tmp_path / storage}", status=2)
    err = capsys.readouterr().err
    assert said.format(folder=tmp_path) in err
    assert err.count("\n") == 1
    assert Path("other.db").read_bytes() == content
    assert not Path("results").exists()


@pytest.mark.parametrize("name", ["study.db", "study.journal"])
def test_an_optuna_study_of_somebodys_own_is_refused_and_left(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A study of another is refused also if it has the sweep's name.

    It is refused also where the search has points already, or is to forget them.
    """
    run(BOWL, f"storage={name}", "trials=1")
    file = Path("results/s", name)
    file.unlink()
    own = optuna.create_study(study_name="s", storage=opened(file))
    own.add_trial(optuna.trial.create_trial(value=3.0))
    content = file.read_bytes()
    expected = f"storage: {file.absolute()} holds a study s that is of no sweep; give s a file of its own"
    for lost in (False, True):
        if lost:
            Path("results/s/search.json").unlink()
        before = {path: path.stat().st_mtime_ns for path in Path("results").rglob("*")}
        for options in ([], ["--dry-run"], ["--fresh"]):
            capsys.readouterr()
            run(BOWL, f"storage={name}", *options, status=2)
            err = capsys.readouterr().err
            assert expected in err
            assert err.count("\n") == 1
        assert {path: path.stat().st_mtime_ns for path in Path("results").rglob("*")} == before
    assert file.read_bytes() == content


def test_a_study_that_has_just_been_begun_is_no_obstacle() -> None:
    """A run may be killed after it made the study and before it told it anything."""
    SweepFolder(Store("results").within("s")).claim()
    optuna.create_study(study_name="s", storage=opened(Path("results/s/study.db")), direction="maximize")
    run(BOWL, "trials=1")
    assert [t.value for t in held()] == pytest.approx([bowl(point) for point in points()])


@pytest.mark.parametrize("name", ["study.db", "study.journal"])
def test_fresh_begins_a_study_of_other_objectives(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    run(FRONT, f"storage={name}", "trials=2")
    one = FRONT.replace("[{metric: left, mode: min}, {metric: right, mode: min}]", "{metric: right, mode: max}")
    run(one, f"storage={name}", "trials=2", status=2)
    assert "or begin a new study with --fresh" in capsys.readouterr().err
    run(one, f"storage={name}", "trials=2", "--fresh")
    study = kept(f"results/s/{name}")
    assert [direction.name for direction in study.directions] == ["MAXIMIZE"]
    assert study.metric_names == ["right"]
    assert [t.value for t in study.trials] == pytest.approx([(p["x"] - 1) ** 2 + p["steps"] for p in points()])


def test_a_dry_run_of_a_search_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    run(BOWL, "--dry-run")
    assert "8 more points are chosen" in capsys.readouterr().out
    assert not Path("results").exists()
    run(BOWL, "trials=3")
    before = {path: path.stat().st_mtime_ns for path in Path("results").rglob("*")}
    run(BOWL, "--dry-run")
    assert "5 more points are chosen" in (said := capsys.readouterr().out)
    assert said.count(" done ") == 3
    assert {path: path.stat().st_mtime_ns for path in Path("results").rglob("*")} == before


@pytest.mark.parametrize("text", [BOWL, BOWL.replace("{metric: bowl, mode: min}", "[{metric: left}, {metric: bowk}]")])
def test_an_objective_that_no_trial_reports_ends_the_run(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    several = "left" in text
    run(text if several else text.replace("metric: bowl", "metric: bowk"), status=2)
    said = capsys.readouterr().err.splitlines()[-1]
    at = "objective.1.metric" if several else "objective.metric"
    assert said == f"s.yaml:10: {at}: no trial reports bowk; they report bowl, noisy, left, right; did you mean bowl?"
    assert len(list(Path("results/s/trials").iterdir())) == 1
    run(text.replace("bowk", "right"), "trials=2")  # the mistake is mended: nothing is left that would stand in the way
    assert [t.state.name for t in held()] == ["COMPLETE"] * 2


GRID = BOWL.split("search:")[0] + "grid: {x: [0, 0.5, 1]}\nresources: {gpus: 0}\n"


@pytest.mark.parametrize(
    ("text", "options"),
    [
        (GRID, []),
        (RANDOM, ["storage=none"]),
        (RANDOM, ["storage=study.db"]),
        (RANDOM, ["storage=study.db", "trials=9"]),
    ],
)
def test_an_objective_that_no_finished_trial_reports_is_refused(
    text: str, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is left to run, so no trial would lack the objective; the results stay unchanged."""
    text = text.replace("objective: {metric: bowl, mode: min}\n", "")
    run(text.replace("storage: a.db\n", ""))
    before = {path: path.stat().st_mtime_ns for path in Path("results").rglob("*")}
    capsys.readouterr()
    for more in ([], ["--dry-run"]):
        run(text + "objective: {metric: bowk}\n", *options, *more, status=2)
        out, err = capsys.readouterr()
        line = len(text.splitlines()) + 1
        named = f"s.yaml:{line}: objective.metric: no trial reports bowk; "
        assert err == f"{named}they report bowl, noisy, left, right; did you mean bowl?\n"
        assert not out
    assert {path: path.stat().st_mtime_ns for path in Path("results").rglob("*")} == before
    run(text + "objective: {metric: bowl}\n", *options)


@pytest.mark.parametrize("odd", [{}, {"left": None}])
def test_a_finished_trial_without_a_number_for_the_objective_has_failed(
    odd: dict[str, None], capsys: pytest.CaptureFixture[str]
) -> None:
    text = RANDOM.replace("storage: a.db\n", "") + "seeds: 2\n"
    run(text)
    path = next(Path("results/s/trials").glob("*/trial.json"))
    record = json.loads(path.read_text())
    del record["summary"]["left"]
    path.write_text(json.dumps(record | {"summary": record["summary"] | odd}))
    capsys.readouterr()
    for storage in ("none", "study.db"):
        run(text.replace("metric: bowl", "metric: left"), f"storage={storage}", status=1)
        out, err = capsys.readouterr()
        assert ": it has no number for the objective left" in err
        assert "15 of 16 trials done, 1 failed; 0 run now" in out
        assert trials().set_index("trial").loc[record["trial"], "status"] == "failed"
    states = {point.user_attrs["trials"].count(record["trial"]): point.state.name for point in held()}
    assert states == {1: "FAIL", 0: "COMPLETE"}
    run(text)  # for the other objective it is done
    assert "16 of 16 trials done; 0 run now" in capsys.readouterr().out


def test_stopped_trials_are_results(capsys: pytest.CaptureFixture[str]) -> None:
    run(RATES)
    table = trials()
    stopped = table[table["status"] == "stopped"]
    assert 0 < len(stopped) < 7
    assert "7 trials done" in (said := capsys.readouterr()).out
    assert f"{len(stopped)} stopped early" in said.out
    assert "stopped after epoch 1" in said.err
    assert (stopped["reached.epoch"] < 4).all()
    assert stopped["reached.validation_loss"].notna().all()
    assert (table.loc[table["status"] == "done", "reached.epoch"] == 4).all()
    assert len(list(Path("results/artifacts/classifier").iterdir())) == 7 - len(stopped)
    assert {t.state.name for t in held()} == {"COMPLETE", "PRUNED"}
    assert sum(t.state.name == "PRUNED" for t in held()) == len(stopped)
    # Each was worse, at the epoch at which it stopped, than the better half of those before it.
    curves = [[-e["validation_loss"] for e in json.loads(epochs)] for epochs in table["epochs"]]
    for place, curve in enumerate(curves):
        for rung in (1, 2):  # the rung at 4 is the end
            before = [other[rung - 1] for other in curves[:place] if len(other) >= rung]
            if len(curve) >= rung and before:
                assert (curve[rung - 1] < np.percentile(before, 50)) == (len(curve) == rung)
    run(RATES)
    assert "; 0 run now" in capsys.readouterr().out
    run(RATES, "trials=8")  # the scheduler knows the trainings of before
    assert len(trials()) == 8
    run(RATES, "scheduler=none", "trials=8")
    assert set(trials()["status"]) == {"done"}
    assert {t.state.name for t in held()} == {"COMPLETE"}


def killed(process: subprocess.Popen[str], when: Callable[[], bool]) -> None:
    """Kills a run without warning as soon as something holds."""
    wait_for(when, process)
    process.kill()
    process.communicate(timeout=60)


@pytest.mark.slow
def test_a_killed_search_runs_nothing_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log"
    text = BOWL.replace("examples: 4", f"examples: 4, delay: 0.05, log: {log}") + "seeds: 2\n"
    Path("k.yaml").write_text(text)
    killed(started("k.yaml", "--local"), lambda: log.exists() and len(log.read_text().splitlines()) >= 5)
    run(text, name="k")
    assert "16 of 16 trials done" in capsys.readouterr().out
    measured = [tuple(line.split()[1:]) for line in log.read_text().splitlines()]
    assert len(set(measured)) == 16
    assert len(measured) <= 17  # that in flight
    study = held("results/k/study.db", "k")
    assert [t.value for t in study] == pytest.approx([bowl(point) for point in points(name="k")])
    run(text, "--results", "whole", name="k")
    assert points("whole", name="k") == points(name="k")


@pytest.mark.slow
@pytest.mark.cluster
def test_ray_stops_trainings_and_resumes_a_killed_search(cluster: str) -> None:
    """Stopping a training cancels its task; a killed driver loses only what was running."""
    Path("k.yaml").write_text(RATES)
    options = ["k.yaml", "--max-concurrent", "2", "--address", cluster]

    def ended() -> dict[Path, float]:
        return {path: json.loads(path.read_text())["started"] for path in Path("results/k/trials").glob("*/trial.json")}

    killed(started(*options), lambda: len(ended()) >= 2)
    before = ended()
    assert sweep.main(options) == 0
    assert before.items() <= ended().items()  # none was run again
    table = trials(name="k")
    stopped = table["status"] == "stopped"
    assert len(table) == 7
    assert set(table["status"]) == {"done", "stopped"}
    assert (table.loc[stopped, "reached.epoch"] < 4).all()
    assert len(list(Path("results/artifacts/classifier").iterdir())) == (~stopped).sum()
    states = [t.state.name for t in held("results/k/study.db", "k")]
    assert sorted(states) == sorted("PRUNED" if early else "COMPLETE" for early in stopped)

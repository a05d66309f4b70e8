"""Quick looks: a sweep with other trials has its own page, and shares measurements."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import optuna
import pandas as pd
import pytest

from analysis import report, table
from engine import sweep
from engine.sweepfile.load import SpecError, load

GRID = """\
task: input_flatness
fixed:
  examples: 6
  samples: 4
  radii: [0.1]
  conditions: [genuine]
  recipe: {dataset: blobs, network: linear, epochs: 1}
grid:
  recipe.optimiser: [sgd, adam]
seeds: 2
figures: [recipes]
resources: {gpus: 0}
"""
SEARCH = """\
task: user.closed_form
fixed: {examples: 4, recipe: {dataset: blobs, network: linear}}
search:
  x: {uniform: [-1, 1]}
trials: 4
seeds: 1
searcher: {name: tpe, startup: 3}
objective: {metric: bowl, mode: min}
resources: {gpus: 0}
"""


pytestmark = pytest.mark.usefixtures("in_tmp_path")


def page(*overrides: str, text: str = GRID) -> str:
    Path("x.yaml").write_text(text)
    return load("x.yaml", overrides).page


def run(*arguments: str, text: str = GRID, name: str = "x") -> None:
    Path(f"{name}.yaml").write_text(text)
    assert sweep.main([f"{name}.yaml", "--local", *arguments]) == 0


def contents(folder: str) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["resources.gpus=0.5", "resources={chunk: 3}", "figures=[effects]", "about=x", "data_root=/nowhere"],
        ["batch=4"],
        ["objective.metric=accuracy"],
        ["examples=6", "recipe.epochs=1.0", "seeds=[0, 1]", "grid.recipe.optimiser=[adam, sgd]"],
        ["recipe.weight_noise.sigma=0"],  # as it is where nothing is said
        ["seeds=1", "seeds=2"],
        ["samples=3", "fixed.samples=4"],
    ],
)
def test_overrides_that_change_no_trial_keep_the_page(overrides: list[str]) -> None:
    assert page(*overrides) == "x"


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["seeds=1"], "x@seeds=1"),
        (["seeds=3"], "x@seeds=3"),
        (["seeds=1", "examples=5"], "x@seeds=1,examples=5"),
        (["examples=5", "seeds=1"], "x@examples=5,seeds=1"),
        (["fixed.examples=5", "figures=[effects]", "batch=3", "samples=4"], "x@examples=5"),
        (["seeds=3", "examples=5", "seeds=1"], "x@examples=5,seeds=1"),
        (["recipe.epochs=3", "recipe={dataset: blobs, network: mlp}", "recipe.epochs=2"], None),
        (["recipe.optimiser=sgd"], "x@recipe.optimiser=sgd"),
        (["recipe.learning_rate=1e-3"], "x@recipe.learning_rate=0.001"),
    ],
)
def test_the_page_of_a_quick_look_is_named_after_its_overrides(overrides: list[str], name: str | None) -> None:
    found = page(*overrides)
    assert found == name if name else re.fullmatch(r"x@[\w.,=+-]+-[0-9a-f]{8}", found)


def test_no_two_quick_looks_share_a_page() -> None:
    looks = [
        ["radii=[0.1, 8/255]"],
        ["radii=[0.1, 8 /255]"],
        ["radii=['0.1', '8/255']"],
        ["radii=[0.1,0.2]"],
        ["radii=[0.1,0.2,0.3]"],
        *([f"radii={[0.01 * number for number in range(1, 60)] + [last]}"] for last in (0.7, 0.8)),
        ["classes=['0']"],
        ["classes=[0]"],
        ["about=a,seeds=1", "seeds=1"],
        ["seeds=1", "samples=2"],
    ]
    names = []
    for look in looks:
        try:
            names.append(page(*look))
        except SpecError:  # no number
            continue
    assert len(set(names)) == len(names) > 7
    assert all(re.fullmatch(r"[A-Za-z0-9._=+,@-]+", name) and len(name) < 104 for name in names)


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["trials=9"], "x"),
        (["trials=9", "batch=3", "storage=a.db", "scheduler=none"], "x"),
        (["trials=3"], "x@trials=3"),
        (["trials=9", "seeds=2"], "x@seeds=2"),
        (["objective.mode=max"], "x@objective.mode=max"),
        (["searcher=random"], "x@searcher=random"),
        (["search.x={uniform: [0, 1]}"], "x@search.x=_uniform__0,1__-63c8bcf9"),
        (["x=0.5"], "x@x=0.5"),
        (["y=0.5", "trials=4"], "x@y=0.5"),
    ],
)
def test_a_longer_search_keeps_the_page(overrides: list[str], name: str) -> None:
    found = page(*overrides, text=SEARCH)
    assert re.sub("-[0-9a-f]{8}$", "", found) == re.sub("-[0-9a-f]{8}$", "", name)


def test_a_random_search_that_is_longer_keeps_the_page_whatever_it_aims_at() -> None:
    text = SEARCH.replace("searcher: {name: tpe, startup: 3}\n", "")
    assert page("trials=9", "objective.metric=left", text=text) == "x"
    assert page("objective.metric=left", "storage=a.db", text=text) == "x@objective.metric=left"
    assert page("searcher.seed=2", text=text) == "x@searcher.seed=2"


def test_a_quick_look_leaves_the_sweeps_page_alone_and_measures_nothing_twice(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run()
    before = contents("results/x")
    capsys.readouterr()
    run("seeds=1", "--dry-run")
    out = capsys.readouterr().out
    assert f"results in {Path('results/x@seeds=1').absolute()}, trials in {Path('results/x').absolute()}\n" in out
    assert "to do: 0 trials" in out
    assert not Path("results/x@seeds=1").exists()
    run("seeds=1")
    said = capsys.readouterr().out.splitlines()[-1]
    report_file = Path("results/x@seeds=1/report.html")
    assert said == f"x@seeds=1: 2 of 2 trials done; 0 run now; {report_file.absolute()}"
    assert contents("results/x") == before
    found = table.load("results/x@seeds=1")
    assert len(found.trials) == 2
    assert found.rows["id"].nunique() == 6
    text = re.sub(r"\s+", " ", report_file.read_text())
    told = 'A quick look, with <code>seeds=1</code>. See also <a href="../x/report.html">the report of the sweep itself</a>.'
    assert told in text
    assert "A quick look" not in Path("results/x/report.html").read_text()

    for file in ("report.html", "summary.csv"):
        (report_file.parent / file).unlink()
    assert report.main(["results/x@seeds=1"]) == 0
    assert told in re.sub(r"\s+", " ", report_file.read_text())
    assert Path("results/x@seeds=1/summary.csv").exists()


def test_what_a_quick_look_has_measured_the_sweep_takes(capsys: pytest.CaptureFixture[str]) -> None:
    run("seeds=1", "examples=5", "figures=[effects]")
    folder = Path("results/x@seeds=1,examples=5")
    assert not (folder / "trials").exists()
    assert "the report of the sweep itself" not in (folder / "report.html").read_text()  # there is none
    run("seeds=1")
    before = contents(str(folder)) | contents("results/x@seeds=1")
    capsys.readouterr()
    run()
    assert "x: 4 of 4 trials done; 2 run now" in capsys.readouterr().out
    assert contents(str(folder)) | contents("results/x@seeds=1") == before
    shutil.rmtree("results/x")
    assert report.main([str(folder)]) == 2
    assert "its trials are not there any more; they were in" in capsys.readouterr().err


def test_the_resolved_sweep_of_a_quick_look_runs_as_it_did(capsys: pytest.CaptureFixture[str]) -> None:
    run("seeds=1", "examples=5")
    text = Path("results/x@seeds=1,examples=5/sweep.yaml").read_text()
    run(text=text, name="again")
    first, second = (pd.read_parquet(f"results/{name}/trials.parquet") for name in ("x@seeds=1,examples=5", "again"))
    assert first["trial"].tolist() == second["trial"].tolist()


def test_a_quick_look_beside_a_folder_of_the_users_own_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("x", "x@seeds=1"):
        Path(name).mkdir()
        Path(name, "notes.txt").write_text("mine")
        Path("x.yaml").write_text(GRID)
        assert sweep.main(["x.yaml", "--local", "--results", ".", "seeds=1"]) == 2
        assert f"/{name} exists and was not made by inputscape" in capsys.readouterr().err
        Path(name, "notes.txt").unlink()
    assert contents("x") == contents("x@seeds=1") == {}


def points(folder: str) -> list[float]:
    return [point["values"]["x"] for point in json.loads(Path(folder, "search.json").read_text())["points"]]


@pytest.mark.parametrize("storage", [None, "studies.db"])
def test_a_quick_look_at_a_search_has_a_study_of_its_own(
    storage: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """This holds also where all studies of the sweep share a file."""
    text = SEARCH + (f"storage: {tmp_path / storage}\n" if storage else "")
    run(text=text)
    before = points("results/x")
    capsys.readouterr()
    run("trials=2", text=text)
    assert "x@trials=2: 2 of 2 trials done; 0 run now" in capsys.readouterr().out  # the same first choices
    run("objective.metric=left", text=text)
    run("trials=6", text=text)
    assert "x: 6 of 6 trials done; 2 run now" in capsys.readouterr().out
    assert points("results/x")[:4] == before
    assert points("results/x@trials=2") == before[:2]
    for name, count in [("x", 6), ("x@trials=2", 2), ("x@objective.metric=left", 4)]:
        file = tmp_path / storage if storage else Path("results", name, "study.db")
        study = optuna.load_study(study_name=name, storage=f"sqlite:///{file}")
        assert [trial.params["x"] for trial in study.trials] == points(f"results/{name}")
        assert len(study.trials) == count


def test_a_search_goes_on_with_other_settings_of_speed(capsys: pytest.CaptureFixture[str]) -> None:
    run(text=SEARCH)
    run("batch=3", "trials=5", text=SEARCH)
    assert "x: 5 of 5 trials done; 1 run now" in capsys.readouterr().out

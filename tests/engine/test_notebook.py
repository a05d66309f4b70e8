"""A sweep from a notebook, its console script, and modules of the user's own that hide ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from commands import PROJECT
from matplotlib.figure import Figure

import analysis
import engine
from engine import shadows
from tasks.parts.settings import UserError

SWEEP = {
    "task": "input_flatness",
    "fixed": {
        "recipe": {"dataset": "blobs", "network": "linear", "epochs": 1},
        **{"examples": 6, "samples": 4, "radii": [0.1], "conditions": ["genuine"]},
    },
    "grid": {"recipe.input_noise.radius": [0, 0.1]},
    "seeds": 2,
    "resources": {"gpus": 0},
}


@pytest.fixture(autouse=True)
def sweep_file(in_tmp_path: Path) -> None:
    Path("x.yaml").write_text(json.dumps(SWEEP))


def test_a_sweep_is_run_and_read_from_a_notebook() -> None:
    found = engine.run("x.yaml", {"fixed.samples": 5}, seeds=1, local=True)
    assert len(found.trials) == 2
    assert set(found.trials["status"]) == {"done"}
    assert set(found.rows["samples"]) == {1, 5}
    assert isinstance(found.figure("effects"), Figure)
    assert isinstance(found.figure("recipes", y="accuracy"), Figure)
    (page,) = Path("results").glob("x@*")  # a quick look has a page of its own
    again = analysis.load(page)
    pd.testing.assert_frame_equal(again.rows, found.rows)
    with pytest.raises(UserError, match="did you mean effects"):
        found.figure("efects")
    with pytest.raises(UserError, match=r"^figure recipes: y: no row column 'accurracy'"):
        found.figure("recipes", y="accurracy")


def test_a_mistake_is_raised_in_one_line() -> None:
    with pytest.raises(UserError, match=r"seedds: unknown field.*did you mean seed"):
        engine.run("x.yaml", seedds=1, local=True)
    assert not Path("results").exists()


@pytest.mark.parametrize(
    ("name", "hides"),
    [
        *((f"{name}/__init__.py", True) for name in ("engine", "tasks", "analysis")),
        *(("tasks.py", True), ("tasks/notes.txt", False), ("my_tasks.py", False)),
    ],
)
def test_what_hides_ours_is_noticed(name: str, hides: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    assert shadows.shadow() is None
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_text("")
    said = shadows.shadow()
    assert (said is not None) == hides
    assert said is None or said.startswith(str(tmp_path))
    assert said is None or "\n" not in said


def test_the_command_says_what_hides_ours(tmp_path: Path) -> None:
    """Before anything is imported."""
    Path("tasks.py").write_text("")
    ran = subprocess.run(
        [sys.executable, "-m", "engine.sweep", "x.yaml"],
        **{"env": {**os.environ, "PYTHONPATH": str(PROJECT)}, "capture_output": True, "text": True},
    )
    assert ran.returncode == 2
    assert ran.stderr == f"{tmp_path}/tasks.py hides the tasks of inputscape; run in another folder, or rename it\n"


def test_the_console_script_finds_modules_in_the_working_folder(tmp_path: Path) -> None:
    Path("mine").mkdir()
    Path("mine/task.py").write_text("from tasks.input_flatness import *\nfrom tasks.input_flatness import Config\n")
    Path("x.yaml").write_text(json.dumps(SWEEP | {"task": "mine.task"}))
    program = "import sys; sys.argv = ['inputscape', 'x.yaml', '--dry-run']; from engine.console import main; sys.exit(main())"
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "PYTHONSAFEPATH": "1"}
    ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "x: mine.task, 4 trials" in ran.stdout

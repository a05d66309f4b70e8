"""What is measured anew and what is not.

Versions count, and code of the user's own with all that it imports of his. Words do not.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from pydantic import JsonValue

from engine import sweep
from engine.plan import identity
from engine.plan.plan import Planned, plan
from engine.sweepfile.load import load
from tasks import input_flatness
from tasks.parts.artifacts import adversarial_examples, classifier
from tasks.parts.artifacts.common.attack_functions import versions_of

OWN_TASK = '''
"""Like evaluation."""
from own.helping import factor
from tasks import evaluation
from tasks.evaluation import *  # all of it

def summarise(config, rows):
    return {"hits": factor * evaluation.summarise(config, rows)["accuracy"]}

scores = None
del scores
'''
SWEEP: dict[str, JsonValue] = {
    "task": "own.task",
    "fixed": {"examples": 8, "conditions": ["clean"], "recipe": {"dataset": "blobs", "network": "linear", "epochs": 1}},
    "resources": {"gpus": 0},
}


pytestmark = pytest.mark.usefixtures("in_tmp_path")


def planned(task: str = "input_flatness", **fixed: JsonValue) -> Planned:
    recipe = {"dataset": "blobs", "network": "linear"}
    Path("x.yaml").write_text(json.dumps({"task": task, "fixed": {"recipe": recipe, **fixed}}))
    (item,) = plan(load("x.yaml"))
    return item


def keys(**fixed: JsonValue) -> dict[str, str]:
    """Of a trial and of what it needs, by name."""
    item = planned(**fixed)
    return {"trial": item.key, **{name: artifact.key for name, artifact in item.needs.items()}}


@pytest.fixture
def unversioned() -> Iterator[None]:
    versions_of.cache_clear()
    yield
    versions_of.cache_clear()


@pytest.mark.usefixtures("unversioned")
@pytest.mark.parametrize(
    ("module", "changed"),
    [
        (input_flatness, {"trial"}),
        (importlib.import_module("tasks.parts.attacks.pgd"), {"trial", "adversarial"}),
        (adversarial_examples, {"trial", "adversarial"}),
        (classifier, {"trial", "adversarial", "classifier"}),
        (importlib.import_module("tasks.parts.attacks.apgd"), set()),
    ],
)
def test_a_version_counts_where_its_numbers_do(
    module: ModuleType, changed: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = keys(attack={"name": "pgd"})
    versions_of.cache_clear()
    monkeypatch.setattr(module, "VERSION", 2)
    after = keys(attack={"name": "pgd"})
    assert {name for name in before if before[name] != after[name]} == changed


@pytest.mark.usefixtures("unversioned")
def test_the_versions_of_what_an_attack_is_made_of_count(monkeypatch: pytest.MonkeyPatch) -> None:
    before = keys(attack={"name": "auto"})
    versions_of.cache_clear()
    monkeypatch.setattr(importlib.import_module("tasks.parts.attacks.apgd"), "VERSION", 2)
    assert keys(attack={"name": "auto"})["adversarial"] != before["adversarial"]


@pytest.mark.parametrize("version", [True, 0, 1.5, "2", None])
def test_a_version_that_is_no_whole_number_is_refused(
    version: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(input_flatness, "VERSION", version)
    Path("x.yaml").write_text("task: input_flatness\n")
    assert sweep.main(["x.yaml", "--local"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(
        "x.yaml:1: task: input_flatness is no task: its VERSION must be a whole number above 0, not "
    )
    assert not Path("results").exists()


def test_code_of_the_users_own_is_measured_anew_where_it_says_something_else(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Also if only the file says that it imports; not for a comment.

    Modules are remembered, as in one process.
    """
    Path("own").mkdir()
    Path("own/task.py").write_text(OWN_TASK)
    Path("own/helping.py").write_text("factor = 1\n")
    Path("x.yaml").write_text(json.dumps(SWEEP))

    def run() -> tuple[str, str]:
        identity._source_hash.cache_clear()  # as a process that starts now
        assert sweep.main(["x.yaml", "--local"]) == 0
        told = capsys.readouterr()
        return told.out, told.err

    out, err = run()
    assert "1 run now" in out
    assert "measured anew" not in err
    Path("own/helping.py").write_text('"""Helps."""\n\nfactor = 1  # one\n')
    out, err = run()
    assert "0 run now" in out
    Path("own/helping.py").write_text("factor = 2\n")
    out, err = run()
    assert "1 run now" in out
    assert "x: 1 trials were measured with other data, weights or code, and are measured anew\n" in err
    out, err = run()
    assert "0 run now" in out
    assert "measured anew" not in err

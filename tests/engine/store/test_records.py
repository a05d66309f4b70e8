"""Records of trials and sweeps: all versions can be read, and only given fields are written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from engine.store.records import Objective, SweepRecord, TrialRecord, read_trial, write_trial
from engine.store.store import Store

FOLDER = "s/trials/0123456789abcdef"


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Only given fields are in the file: that of a failed trial has no scalars."""
    store = Store(tmp_path)
    done = TrialRecord(
        status="done",
        config={"recipe": {"noise": [0.1, None]}},
        summary={"accuracy": 0.5, "distance": None, "examples": 3},
        infinite={"distance": "inf"},
        epochs=({"epoch": 1, "loss": 0.25},),
        checks={"sound": None, "grows": "it falls"},
        seconds=1.5,
    )
    write_trial(store, FOLDER, done)
    assert read_trial(store, FOLDER) == done
    assert done.scalars == {"accuracy": 0.5, "distance": float("inf"), "examples": 3}
    assert done.unpassed == {"grows": "it falls"}
    write_trial(store, FOLDER, TrialRecord(status="failed", error="no"))
    assert store.read_json(f"{FOLDER}/trial.json") == {"status": "failed", "error": "no"}


def test_no_record_and_one_that_is_cut_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path)
    assert read_trial(store, FOLDER) is None
    assert not capsys.readouterr().err
    for content in (b'{"status": "do', b'{"seconds": 3}'):
        store = Store(tmp_path)
        store.write(f"{FOLDER}/trial.json", content)
        assert read_trial(store, FOLDER) is None
        assert "cut, or no record of ours" in capsys.readouterr().err


@pytest.mark.parametrize(
    "odd",
    [
        {"seconds": "long"},
        {"versions": ["torch"]},
        {"checks": 3},
        {"devices": {"cpu": 1}},
        {"epochs": "none"},
        {"colour": "red"},
    ],
)
def test_a_field_that_is_odd_or_unknown_loses_no_other(odd: dict[str, Any]) -> None:
    record = TrialRecord.read({"status": "done", "summary": {"accuracy": 1.0}, **odd})
    assert (record.status, record.summary) == ("done", {"accuracy": 1.0})
    assert all(getattr(record, name, None) == getattr(TrialRecord(), name, None) for name in odd)


def test_code_that_writes_an_odd_field_is_wrong() -> None:
    with pytest.raises(ValidationError, match="seconds"):
        TrialRecord.model_validate({"status": "done", "seconds": "long"})


def test_a_sweep_of_an_earlier_version_had_one_order_of_conditions() -> None:
    """In any order of rows, the other conditions are compared with genuine images."""
    assert SweepRecord.read({"task": "input_flatness"}).conditions == ("genuine", "adversarial", "random")
    assert SweepRecord.read({"task": "evaluation", "conditions": None}).conditions is None
    assert SweepRecord.read({"conditions": ["random"]}).conditions == ("random",)


def test_a_sweep_of_an_earlier_version_had_one_objective() -> None:
    one = {"metric": "accuracy", "mode": "max"}
    assert SweepRecord.read({"objective": one}).objective == Objective(metric="accuracy")
    several = SweepRecord.read({"objective": one, "objectives": [{"metric": "cost", "mode": "min"}, one]})
    assert [objective.metric for objective in several.objectives] == ["cost", "accuracy"]
    assert json.loads(json.dumps(several.to_json()))["objectives"][1] == one
    nothing = SweepRecord.read({})
    assert (nothing.objective, nothing.varied, nothing.importance, nothing.epochs) == (None, None, None, True)

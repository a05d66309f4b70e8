"""Scores by example: sums and counts of means, and other scalars without groups of examples."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest

from engine.store.scores import GROUPS, by_example
from tasks.parts.contract import TaskConfig

IDS = [9, 4, 7, 5]
NAMES = ["hits", "median"]
ROWS = pd.DataFrame({"id": [4, 4, 7, 9], "hit": [1.0, 0.0, 1.0, np.nan]})


HITS = {"hits": ROWS.set_index("id")["hit"]}


def task(**parts: Any) -> Any:
    given = {
        "summarise": lambda config, rows: {"hits": float(rows["hit"].mean()), "median": float(rows["hit"].median())}
    }
    return cast(Any, SimpleNamespace(**(given | parts)))


def test_sums_and_counts_are_those_of_each_example() -> None:
    table = by_example(task(), TaskConfig(), ROWS, IDS, NAMES, HITS).to_pandas().set_index("id")
    assert table.index.tolist() == IDS
    assert table["hits"].tolist() == [0, 1, 1, 0]
    assert table["hits.count"].tolist() == [0, 2, 1, 0]  # of 9 it is not known, and 5 has no row


def test_other_scalars_are_computed_without_each_group() -> None:
    metadata = by_example(task(), TaskConfig(), ROWS, IDS, NAMES, HITS).schema.metadata
    told = json.loads(metadata[b"left_out"])
    assert told == {"median": [1.0, 1.0, 0.5, 1.0]}  # without 9, 4, 7 and 5


def test_a_task_without_scores_has_all_of_its_scalars_left_out_by_group() -> None:
    ids = list(range(100))
    rows = pd.DataFrame({"id": ids, "hit": np.arange(100) % 2})
    table = by_example(task(), TaskConfig(), rows, ids, NAMES, {})
    told = json.loads(table.schema.metadata[b"left_out"])
    assert table.column_names == ["id"]
    assert {name: len(values) for name, values in told.items()} == {"hits": GROUPS, "median": GROUPS}
    assert told["hits"][0] == pytest.approx(rows[rows["id"] % GROUPS != 0]["hit"].mean())


def test_what_is_no_number_without_a_group_is_null() -> None:
    of = task(summarise=lambda config, rows: {"only": 1.0 if (rows["id"] == 7).any() else float("nan")})
    told = json.loads(by_example(of, TaskConfig(), ROWS, IDS, ["only"], {}).schema.metadata[b"left_out"])
    assert told == {"only": [1.0, 1.0, None, 1.0]}

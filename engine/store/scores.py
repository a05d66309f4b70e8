"""What each example adds to a trial's scalars; the report takes their intervals from it.

`trials/<hash>/scores.parquet` has a row for each example: `id` and, for each scalar that is a mean,
the sum (`<scalar>`) and the count (`<scalar>.count`) of the example's values. For the other scalars
the metadata have `left_out`: the scalar without each of at most `GROUPS` groups of examples, for a
jackknife.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa

if TYPE_CHECKING:
    from tasks.parts.contract import TaskConfig

GROUPS = 32
"""Most groups of examples in a jackknife.

Each group costs a call of `summarise`. With 32, Student's t is 2.04, not much above 1.96.
"""
FILE = "scores.parquet"
COUNT = ".count"


def by_example(
    task: ModuleType,
    config: TaskConfig,
    rows: pd.DataFrame,
    ids: Sequence[int],
    names: Sequence[str],
    means: Mapping[str, pd.Series],
) -> pa.Table:
    """The table of a trial's scores, the content of `scores.parquet`.

    Args:
        task: the module of the task.
        config: its settings.
        rows: all rows of the trial.
        ids: the trial's examples, those without rows included.
        names: the names of the trial's scalars.
        means: for each scalar that is a mean, the values that it is the mean of, indexed by
            example: the task's `scores`.
    """
    columns: dict[str, object] = {"id": np.asarray(ids, dtype=np.int64)}
    for name, values in means.items():
        grouped = values.astype(float).dropna().groupby(level=0)
        columns[name] = grouped.sum().reindex(list(ids), fill_value=0).to_numpy()
        columns[f"{name}{COUNT}"] = grouped.count().reindex(list(ids), fill_value=0).to_numpy()
    others = [name for name in names if name not in means]
    left_out = _left_out(task, config, rows, ids, others) if others else {}
    return pa.table(columns).replace_schema_metadata({"left_out": json.dumps(left_out)})


def _left_out(
    task: ModuleType, config: TaskConfig, rows: pd.DataFrame, ids: Sequence[int], names: Sequence[str]
) -> dict[str, list[float | None]]:
    """Each scalar without each of the groups; None where it is then missing or not finite."""
    groups = min(GROUPS, len(ids))
    group = pd.Series(np.arange(len(ids)) % groups, index=list(ids)).reindex(rows["id"]).to_numpy()
    found: dict[str, list[float | None]] = {name: [] for name in names}
    for place in range(groups):
        rest = rows[group != place]
        summary = task.summarise(config, rest) if len(rest) else {}
        for name in names:
            value = summary.get(name)
            found[name].append(None if value is None or not np.isfinite(value) else float(value))
    return found

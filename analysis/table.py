"""The results of a sweep, from disk to data frames."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from analysis.results import ReportError, Results, Scores, plain, recipe_labels
from engine.store.damaged import Damaged
from engine.store.naming import unfit_name
from engine.store.records import SweepRecord
from engine.store.row_parts import column_names, parts_of, read_parts
from engine.store.scores import COUNT, FILE
from engine.store.store import Store

READERS = 8
"""Parts read at the same time: what a remote store waits for is its latency."""


def overview(results: str | os.PathLike[str]) -> Results:
    """A sweep's results without their rows: the empty frame tells which columns there are.

    Raises:
        ReportError: the folder holds no sweep, or none of its trials is finished and has all of its
            rows.
    """
    store = open_store(results)
    sweep, trials, varied, replicates = _trials(store)
    home = home_of(store, sweep)
    columns: dict[str, None] = {}
    for trial in trials.loc[trials["status"] == "done", "trial"]:
        columns.update(dict.fromkeys(column_names(home, f"trials/{trial}/rows")))
        if columns:
            break
    return Results(sweep, trials, pd.DataFrame(columns=list(columns)), varied, replicates, _scores(home, trials))


def load(results: str | os.PathLike[str], columns: Sequence[str] | None = None) -> Results:
    """A sweep's results, with the rows of every finished trial.

    A trial that lacks rows of some of its examples is `incomplete`.

    Args:
        results: the sweep's folder or URI (`s3://bucket/results/noise`).
        columns: the row columns to read, all by default; those that are not there are left out. A
            large sweep has many millions of rows: a figure's `needs` says what it takes.

    Raises:
        ReportError: the folder holds no sweep, or none of its trials is finished and has all of its
            rows.
    """
    store = open_store(results)
    sweep, trials, varied, replicates = _trials(store)
    done = trials[trials["status"] == "done"]
    home = home_of(store, sweep)
    with ThreadPoolExecutor(READERS) as pool:
        tables = list(pool.map(lambda trial: _rows(home, trial, columns), done["trial"]))
    tables = [table for table in tables if table is not None]
    whole = (
        pa.concat_tables(tables, promote_options="permissive")
        if tables
        else pa.table({"trial": pa.array([], pa.string())})
    )
    frame = whole.to_pandas(strings_to_categorical=True, self_destruct=True)
    rows = _join(frame, done, [*varied, *([replicates] if replicates else [])])
    if sweep.conditions and "condition" in rows:
        there = list(rows["condition"].cat.categories)
        order = [name for name in sweep.conditions if name in there]
        order += [name for name in there if name not in order]
        rows["condition"] = rows["condition"].cat.set_categories(order, ordered=True)
    return Results(sweep, trials, rows, varied, replicates, _scores(home, trials))


def incomplete(results: Results) -> list[str]:
    """A line for each finished trial that is left out, since rows of it are missing."""
    name = results.sweep.name or "the sweep"
    lacking = results.trials.loc[results.trials["status"] == "incomplete", "lacks"]
    return [f"{name}: {lacks}; it is left out, run the sweep again" for lacks in lacking]


def _leave_out(store: Store, trials: pd.DataFrame) -> None:
    """Marks the finished trials that lack the rows of some of their `examples` as `incomplete`.

    `lacks` says what is missing. Trials of an earlier version, which did not count the examples,
    are left as they are. `store` is that of the folder that has the trials.

    Raises:
        ReportError: no trial has all of its rows.
    """
    trials["lacks"] = None
    if "examples" not in trials:
        return
    done = trials.index[trials["status"] == "done"]
    with ThreadPoolExecutor(READERS) as pool:
        covered = list(pool.map(lambda trial: _covered(store, trial), trials.loc[done, "trial"]))
    for place, there in zip(done, covered, strict=True):
        examples = int(trials.loc[place, "examples"])
        if there < examples:
            trials.loc[place, "status"] = "incomplete"
            trials.loc[place, "lacks"] = (
                f"the rows of {examples - there} of {examples} examples of trial {trials.loc[place, 'trial']} are missing"
            )
    if not (trials["status"] == "done").any():
        lacks = trials["lacks"].dropna()
        others = f" (and {len(lacks) - 1} other trials lack some)" if len(lacks) > 1 else ""
        raise ReportError(f"{store.uri}: {lacks.iloc[0]}{others}; run the sweep again")


def _covered(store: Store, trial: str) -> int:
    """Of how many examples a trial has the rows, or knows that there are none."""
    return len({example for _, ids in parts_of(store, f"trials/{trial}/rows") for example in ids})


def open_store(results: str | os.PathLike[str]) -> Store:
    """The store of a sweep's folder.

    Raises:
        ReportError: it cannot be reached, or holds no sweep.
    """
    try:
        store = Store(results)
        found = store.exists("trials.parquet")
    except (ValueError, OSError) as error:
        raise ReportError(f"{os.fspath(results)}: {str(error).strip().splitlines()[0]}") from error
    if not found:
        raise ReportError(f"{os.fspath(results)}: no sweep's results here (there is no trials.parquet)")
    return store


def home_of(store: Store, sweep: SweepRecord) -> Store:
    """The store of the folder that has a sweep's `trials`.

    It is the sweep's own, or, of a quick look, that of the sweep beside it.

    Args:
        store: of the sweep's folder.
        sweep: what the sweep says of itself; a quick look names the folder as `trials`.

    Raises:
        ReportError: what it names is no folder beside its own, or there are no trials.
    """
    if sweep.trials is None:
        return store
    try:
        home = store.beside(sweep.trials)
    except ValueError as error:
        raise ReportError(f"{store.uri}: trials.parquet does not tell where its trials are: {error}") from error
    if not home.exists("trials"):
        raise ReportError(f"{store.uri}: its trials are not there any more; they were in {home.uri}")
    return home


def _trials(store: Store) -> tuple[SweepRecord, pd.DataFrame, tuple[str, ...], str | None]:
    try:
        table = store.read_table("trials.parquet")
        sweep = SweepRecord.read(json.loads((table.schema.metadata or {})[b"sweep"]))
    except KeyError as error:
        raise ReportError(f"{store.uri}: trials.parquet does not say which sweep it belongs to") from error
    except (pa.ArrowInvalid, ValueError) as error:
        raise ReportError(f"{store.uri}: trials.parquet cannot be read: {str(error).splitlines()[0]}") from error
    trials = table.to_pandas()
    for trial in trials["trial"]:
        if unfit := unfit_name(str(trial)):
            raise ReportError(f"{store.uri}: trials.parquet names a trial {str(trial)!r}, which {unfit}")
    if not (trials["status"] == "done").any():
        counts = ", ".join(f"{count} {status}" for status, count in trials["status"].value_counts().items())
        raise ReportError(f"{store.uri}: no trial is finished ({counts or 'there are no trials'})")
    _leave_out(home_of(store, sweep), trials)
    replicates = sweep.replicates if f"config.{sweep.replicates}" in trials else None
    varied = tuple(name for name in _leaves(sweep.varied or (), trials) if name != replicates)
    settings = trials[[f"config.{name}" for name in varied]].set_axis(list(varied), axis=1)
    labels, order = recipe_labels(settings, fallback=sweep.name or "all trials")
    trials["recipe"] = pd.Categorical(labels, categories=order, ordered=True)
    return sweep, trials, varied, replicates


def _leaves(varied: Iterable[str], trials: pd.DataFrame) -> list[str]:
    """The settings that have a column.

    A group that varies as a whole stands for those of its settings that differ.

    Raises:
        ReportError: one has no column at or below it; without it different recipes would pass for
            seeds of one.
    """
    leaves: list[str] = []
    for name in varied:
        if f"config.{name}" in trials:
            leaves.append(name)
            continue
        below = [column for column in trials.columns if column.startswith(f"config.{name}.")]
        if not below:
            raise ReportError(
                f"trials.parquet has no values of {name}, which varies; delete report.html and run the sweep again"
            )
        leaves += [column.removeprefix("config.") for column in below if trials[column].nunique(dropna=False) > 1]
    return list(dict.fromkeys(leaves))


def _rows(store: Store, trial: str, columns: Sequence[str] | None) -> pa.Table | None:
    try:
        table, _ = read_parts(store, f"trials/{trial}/rows", columns)
    except Damaged as damaged:
        raise ReportError(f"{damaged}; delete that file and run the sweep again") from None
    if not table.num_rows:
        return None
    # a word a row is many times the memory of a code a row
    for position, field in enumerate(table.schema):
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            table = table.set_column(position, field.name, pc.dictionary_encode(table[position]))
    return table.append_column("trial", pa.array([trial] * table.num_rows, pa.string()).dictionary_encode())


def _scores(store: Store, trials: pd.DataFrame) -> dict[str, Scores]:
    """What the scalars of finished trials are made of; nothing for those of an earlier version."""
    done = [str(trial) for trial in trials.loc[trials["status"] == "done", "trial"]]
    with ThreadPoolExecutor(READERS) as pool:
        found = pool.map(lambda trial: _scores_of(store, trial), done)
        return {trial: scores for trial, scores in zip(done, found, strict=True) if scores is not None}


def _scores_of(store: Store, trial: str) -> Scores | None:
    path = f"trials/{trial}/{FILE}"
    if not store.exists(path):
        return None
    try:
        table = store.read_part(path)
    except Damaged as damaged:
        store.tell(damaged)
        return None
    arrays = {name: table[name].to_numpy() for name in table.column_names}
    names = [name for name in arrays if name != "id" and not name.endswith(COUNT)]
    told = json.loads((table.schema.metadata or {}).get(b"left_out", b"{}"))
    return Scores(
        arrays["id"],
        {name: arrays[name] for name in names},
        {name: arrays[f"{name}{COUNT}"].astype(float) for name in names},
        {name: np.array(values, dtype=float) for name, values in told.items()},
    )


def _join(rows: pd.DataFrame, done: pd.DataFrame, settings: Sequence[str]) -> pd.DataFrame:
    """Gives each row its trial's recipe and settings, as codes, since rows are many."""
    rows["trial"] = pd.Categorical(rows["trial"], categories=list(done["trial"]))
    trial = rows["trial"].cat.codes.to_numpy()
    recipe = done["recipe"].cat
    rows["recipe"] = pd.Categorical.from_codes(
        recipe.codes.to_numpy()[trial], categories=recipe.categories, ordered=True
    )
    for name in settings:
        values = pd.Categorical([plain(value) for value in done[f"config.{name}"]])
        rows[f"config.{name}"] = pd.Categorical.from_codes(values.codes[trial], dtype=values.dtype)
    return rows

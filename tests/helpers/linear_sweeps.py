"""A results folder as a sweep leaves it, of linear models whose flatness is known in closed form.

A linear model with margin m and weight-difference norm w keeps its class under N(0, sigma^2) noise
with probability Phi(m / (sigma w)); an adversarial centre sits just beyond the boundary, so it
keeps its (wrong) class with a quarter of the margin.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy.special import ndtr

from engine.store.naming import content_hash
from engine.store.store import Store
from tasks import input_flatness

RADII = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
SAMPLES = 100
NOISE, OPTIMISER, SEED = "recipe.input_noise.radius", "recipe.optimiser", "recipe.seed"
COLUMNS = {
    "radius": "radius (pixel units)",
    "p_true": "probability of the true class",
    "persistence": "share of samples that keep the class",
}


def persistence(margin: Any, radius: Any) -> Any:
    """Phi(m / (sigma w)) with w = 1; 1 without noise."""
    return np.where(radius == 0, 1.0, ndtr(margin / np.where(radius == 0, 1.0, radius)))


def margins(point: Mapping[str, Any], examples: int) -> Any:
    """The margins of a trial's examples.

    They are the same for every seed but for a shift, and larger with training noise.
    """
    ids = np.arange(examples)
    base = 0.01 + 0.3 * ((ids * 0.6180339887) % 1) ** 2 + 0.012 * (ids % 10)  # some fragile, some robust, by class
    shift = 0.01 * (float(point.get(SEED, 0)) - 1)
    return np.maximum(
        base + 0.5 * trained_with(point) + (0.05 if point.get(OPTIMISER) == "adam" else 0.0) + shift, 0.005
    )


def trained_with(point: Mapping[str, Any]) -> float:
    """The training noise of a trial."""
    return float(point.get(NOISE, 0.0))


def rows(
    point: Mapping[str, Any],
    examples: int = 40,
    kinds: Sequence[str] = ("additive",),
    conditions: Sequence[str] = ("genuine", "adversarial", "random"),
    radii: Sequence[float] = RADII,
    classes: int = 10,
) -> pd.DataFrame:
    """The rows of one trial: every tenth example's adversarial search fails."""
    ids = np.arange(examples)
    margin = margins(point, examples)
    parts = []
    for condition, kind, radius in itertools.product(conditions, kinds, radii):
        factor = {"genuine": 1.0, "adversarial": 0.25, "random": 0.9}[condition]
        keeps = persistence(factor * margin, radius * (0.5 if kind == "multiplicative" else 1))
        keeps = np.broadcast_to(keeps, ids.shape)
        true = 1 - keeps if condition == "adversarial" else keeps
        parts.append(
            pd.DataFrame(
                {
                    "id": ids,
                    "label": ids % classes,
                    "predicted": ids % classes,
                    "correct": ids % 7 != 3,
                    "condition": condition,
                    "found": (ids % 10 != 9) | (condition == "genuine"),
                    "distance": 0.0 if condition == "genuine" else margin,
                    "kind": kind,
                    "radius": radius,
                    "samples": SAMPLES,
                    "centre": ids % classes,
                    "p_true": true,
                    "p_true_se": np.sqrt(true * (1 - true) / SAMPLES),
                    "persistence": keeps,
                    "accuracy": true,
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def grid(**values: Sequence[Any]) -> list[dict[str, Any]]:
    """All points of a grid; double underscores stand for dots.

    >>> grid(recipe__seed=[0, 1])
    [{'recipe.seed': 0}, {'recipe.seed': 1}]
    """
    names = [name.replace("__", ".") for name in values]
    return [dict(zip(names, point, strict=True)) for point in itertools.product(*values.values())]


def write(
    folder: Path,
    points: Sequence[Mapping[str, Any]],
    *,
    failed: Sequence[int] = (),
    missing: Sequence[int] = (),
    sweep: Mapping[str, Any] | None = None,
    error: str = "RuntimeError: loss is nan",
    fixed: Mapping[str, Any] | None = None,
    measure: Callable[..., pd.DataFrame] | None = None,
    checks: Sequence[Mapping[str, str | None] | None] = (),
    **how: Any,
) -> Path:
    """Writes a sweep with one trial a point.

    The trials at the positions `failed` and `missing` have no rows.

    `measure(point, **how)` gives a trial's rows, `rows` by default; `checks` what each trial says
    of its self-checks.
    """
    store = Store(folder)
    names = list(dict.fromkeys(name for point in points for name in point))
    replicates = SEED if SEED in names else None
    lines = []
    for place, given in enumerate(points):
        point = {"dataset": "cifar10", "radii": json.dumps(RADII), **(fixed or {}), **given}
        trial = content_hash({name: str(value) for name, value in point.items()})
        status = "failed" if place in failed else "missing" if place in missing else "done"
        line = {
            "trial": trial,
            "status": status,
            "seconds": 12.5 + place,
            "error": error if status == "failed" else None,
        }
        line |= {f"config.{name}": value for name, value in point.items()}
        record = {
            "status": status,
            "versions": {"torch": "2.15.0", "ray": "2.60.0", "commit": "abc1234"},
            "devices": ["cpu"],
            "started": 1.7e9 + place,
            "seconds": 12.5,
        }
        if status == "done":
            measured = (measure or rows)(given, **how)
            if "correct" in measured:
                line |= {"summary.accuracy": float(measured["correct"].mean())}
            if {"persistence", "radius"} <= set(measured):
                first = measured["condition"] == measured["condition"].iloc[0]
                line |= {
                    "summary.flatness": float(measured.loc[first & (measured["radius"] == 0.1), "persistence"].mean())
                }
            if place < len(checks) and checks[place] is not None:
                record["checks"] = dict(checks[place] or {})
            for part, ids in enumerate(np.array_split(measured["id"].unique(), 2)):
                piece = pa.Table.from_pandas(measured[measured["id"].isin(ids)], preserve_index=False)
                piece = piece.replace_schema_metadata({b"ids": json.dumps(ids.tolist()).encode()})
                store.write_table(f"trials/{trial}/rows/part-{part:05d}.parquet", piece)
        elif status == "failed":
            record["traceback"] = f"Traceback (most recent call last):\n  <frame>\n{error}"
        if status != "missing":
            store.write_json(f"trials/{trial}/trial.json", record)
        lines.append(line)
    told = {
        "name": "noise",
        "task": "input_flatness",
        "about": "Does training noise flatten?",
        "varied": [name for name in names if name != replicates],
        "replicates": replicates,
        "labels": {NOISE: "training-noise radius (pixel units)"},
        "classes": ["plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
        "objective": {"metric": "flatness", "mode": "max"},
        "epochs": False,
        "figures": [],
        "columns": COLUMNS,
        "by_kind": {"radius": input_flatness.COLUMNS["radius"].by_kind},
        "conditions": input_flatness.COLUMNS["condition"].values,
        **(sweep or {}),
    }
    table = pa.Table.from_pandas(pd.DataFrame(lines), preserve_index=False)
    store.write_table("trials.parquet", table.replace_schema_metadata({b"sweep": json.dumps(told).encode()}))
    store.write("sweep.yaml", b"task: input_flatness\n")
    return folder

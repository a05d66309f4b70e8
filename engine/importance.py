"""How much of an objective's variance over a searched space each setting explains."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from engine.entries import Sweep
from engine.plan import Planned
from engine.space import distributions, encoded, quiet
from engine.spec import Spec

RESAMPLES = 100
"""Resamples of the points for the intervals of importances."""
TREES, TREES_OF_A_RESAMPLE = 64, 8
"""Trees of the forest of all points, and of each resample's: there are a hundred of them, and what few trees blur is little beside what
other points would change."""


def importance(spec: Spec, planned: list[Planned], records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """How much of an objective's variance over the searched space each setting explains: fANOVA (Hutter et al., 2014), by Optuna.

    Args:
        planned: the trials. A record may be of an earlier sweep, which searched other settings, so points are those planned.
        records: of these trials, in their order (`trial.json`).

    Returns:
        For each objective and setting: `objective`, `setting`, `mean`, percentile interval (95 %) `low` and `high` over resamples of
        the points, `n` points, `seeds` of a point at most, `resamples`. Nothing for an objective with fewer than five complete points, or
        the same at all.
    """
    sweep, seed = spec.sweep, spec.task.Config.replicates
    if not sweep.objectives:
        return []
    points: dict[str, list[dict[str, Any]]] = {}
    searched: dict[str, dict[str, Any]] = {}
    for item, record in zip(planned, records, strict=True):
        if record["status"] == "done":
            values = {name: value for name, value in item.trial.point.items() if name != seed}
            point = json.dumps(values, sort_keys=True)
            searched[point] = values
            points.setdefault(point, []).append(record)
    params = [encoded(sweep, searched[point]) for point in points]
    random = np.random.default_rng(0)
    lines: list[dict[str, Any]] = []
    for objective in sweep.objectives:
        values = [
            float(np.mean([record["summary"].get(objective.metric, np.nan) for record in point]))
            for point in points.values()
        ]
        n = len(values)
        if n < 5 or len(set(values)) < 2 or not np.isfinite(values).all():
            continue
        whole = _explained(sweep, params, values, TREES)
        draws = [random.integers(n, size=n) for _ in range(RESAMPLES)]
        drawn = [
            _explained(sweep, [params[i] for i in draw], [values[i] for i in draw], TREES_OF_A_RESAMPLE)
            for draw in draws
            if len({values[i] for i in draw}) > 1
        ]
        for name, mean in whole.items():
            low, high = np.quantile([one[name] for one in drawn], (0.025, 0.975))
            told = {"mean": mean, "low": min(float(low), mean), "high": max(float(high), mean), "n": n}
            seeds = max(map(len, points.values()))
            lines.append(
                {"objective": objective.metric, "setting": name, **told, "seeds": seeds, "resamples": len(drawn)}
            )
    return lines


def _explained(sweep: Sweep, params: list[dict[str, Any]], values: list[float], trees: int) -> dict[str, float]:
    import optuna

    quiet()
    study = optuna.create_study(direction="maximize")
    space = distributions(sweep)
    study.add_trials(
        [
            optuna.trial.create_trial(value=value, params=point, distributions=space)
            for point, value in zip(params, values, strict=True)
        ]
    )
    evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=trees, seed=0)
    found = optuna.importance.get_param_importances(study, evaluator=evaluator, params=list(space))
    return {name: float(found[name]) for name in space}

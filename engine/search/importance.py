"""How much of an objective's variance over a searched space each setting explains."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from engine.plan.plan import Planned
from engine.search.distributions import distributions, encoded, quiet
from engine.sweepfile.load import Spec
from engine.sweepfile.schema import Sweep

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
        the points, `n` points, `seeds` of a point at most, `resamples`. The interval is as the resamples give it: the mean, which is
        of all points, may lie outside. Nothing for an objective with fewer than five complete points (all seeds done, with all
        objectives), or the same at all.
    """
    sweep = spec.sweep
    if not sweep.objectives:
        return []
    complete = _complete(spec, planned, records)
    n, seeds = len(complete), max((len(summaries) for _, summaries in complete), default=0)
    params = [encoded(sweep, values) for values, _ in complete]
    random = np.random.default_rng(0)
    lines: list[dict[str, Any]] = []
    for objective in sweep.objectives:
        values = [float(np.mean([summary[objective.metric] for summary in summaries])) for _, summaries in complete]
        whole = _explained(sweep, params, values, TREES) if n >= 5 else None
        if whole is None:
            continue
        draws = [random.integers(n, size=n) for _ in range(RESAMPLES)]
        resampled = [
            _explained(sweep, [params[i] for i in draw], [values[i] for i in draw], TREES_OF_A_RESAMPLE)
            for draw in draws
        ]
        drawn = [one for one in resampled if one is not None]
        for name, mean in whole.items() if drawn else ():
            low, high = map(float, np.quantile([one[name] for one in drawn], (0.025, 0.975)))
            told = {"mean": mean, "low": low, "high": high, "n": n, "seeds": seeds, "resamples": len(drawn)}
            lines.append({"objective": objective.metric, "setting": name, **told})
    return lines


def _complete(
    spec: Spec, planned: list[Planned], records: list[dict[str, Any]]
) -> list[tuple[dict[str, Any], list[dict[str, float]]]]:
    """The searched values of each point whose seeds are all done and have all objectives, and their summaries."""
    seed, metrics = spec.task.Config.replicates, [objective.metric for objective in spec.sweep.objectives]
    points: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {}
    for item, record in zip(planned, records, strict=True):
        values = {name: value for name, value in item.trial.point.items() if name != seed}
        _, of = points.setdefault(json.dumps(values, sort_keys=True), (values, []))
        of.append(record)
    return [
        (values, [record["summary"] for record in of])
        for values, of in points.values()
        if all(
            record["status"] == "done" and all(record["summary"].get(metric) is not None for metric in metrics)
            for record in of
        )
    ]


def _explained(sweep: Sweep, params: list[dict[str, Any]], values: list[float], trees: int) -> dict[str, float] | None:
    """Setting -> importance, or None where the values, or those of every tree, are all the same."""
    if len(set(values)) < 2:
        return None
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
    try:
        found = optuna.importance.get_param_importances(study, evaluator=evaluator, params=list(space))
    except RuntimeError:  # one point that differs, and no tree has drawn it
        return None
    return {name: float(found[name]) for name in space}

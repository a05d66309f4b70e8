"""How much of an objective's variance over a searched space each setting explains."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from pydantic import JsonValue

from engine.plan.plan import Planned
from engine.search.distributions import distributions, encoded, quiet
from engine.store.records import Importance, TrialRecord
from engine.sweepfile.load import Spec
from engine.sweepfile.schema import Sweep

RESAMPLES = 100
"""Resamples of the points for the intervals of importances."""
TREES, TREES_OF_A_RESAMPLE = 64, 8
"""Trees of the forest of all points, and of each resample's: there are a hundred of them, and what few trees blur is little beside what
other points would change."""


def importance(spec: Spec, planned: Sequence[Planned], records: Sequence[TrialRecord | None]) -> list[Importance]:
    """How much of an objective's variance over the searched space each setting explains: fANOVA (Hutter et al., 2014), by Optuna.

    Args:
        planned: the trials. A record may be of an earlier sweep, which searched other settings, so points are those planned.
        records: of these trials, in their order; None for one that has not ended.

    Returns:
        One for each objective and setting. None for an objective with fewer than five complete
        points (all seeds done, with all objectives), or the same value at all of them.
    """
    sweep = spec.sweep
    if not sweep.objectives:
        return []
    complete = _complete(spec, planned, records)
    n, seeds = len(complete), max((len(summaries) for _, summaries in complete), default=0)
    params = [encoded(sweep, values) for values, _ in complete]
    random = np.random.default_rng(0)
    found: list[Importance] = []
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
            found.append(
                Importance(
                    objective=objective.metric,
                    setting=name,
                    mean=mean,
                    low=low,
                    high=high,
                    n=n,
                    seeds=seeds,
                    resamples=len(drawn),
                )
            )
    return found


def _complete(
    spec: Spec, planned: Sequence[Planned], records: Sequence[TrialRecord | None]
) -> list[tuple[dict[str, JsonValue], list[dict[str, float]]]]:
    """The searched values of each point whose seeds are all done and have all objectives, and their summaries."""
    seed, metrics = spec.task.Config.replicates, [objective.metric for objective in spec.sweep.objectives]
    points: dict[str, tuple[dict[str, JsonValue], list[dict[str, float]]]] = {}
    for item, record in zip(planned, records, strict=True):
        values = {name: value for name, value in item.trial.point.items() if name != seed}
        _, summaries = points.setdefault(json.dumps(values, sort_keys=True), (values, []))
        found = record.summary if record is not None and record.status == "done" else {}
        summaries.append({metric: value for metric in metrics if (value := found.get(metric)) is not None})
    return [
        (values, summaries)
        for values, summaries in points.values()
        if all(len(summary) == len(metrics) for summary in summaries)
    ]


def _explained(
    sweep: Sweep, params: list[dict[str, JsonValue]], values: list[float], trees: int
) -> dict[str, float] | None:
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

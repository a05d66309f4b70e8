"""Estimates which searched settings matter: the share of an objective's variance of each."""

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
"""Number of resamples of the points for the intervals."""
TREES, TREES_OF_A_RESAMPLE = 64, 8
"""Trees of the forest for all points, and for each resample.

Eight trees for each resample suffice: the variance between resamples dominates.
"""


def importance(spec: Spec, planned: Sequence[Planned], records: Sequence[TrialRecord | None]) -> list[Importance]:
    """The share of each objective's variance over the search space that each setting explains.

    The method is functional ANOVA (Hutter et al., 2014), as Optuna has it.

    Args:
        spec: the sweep with its search.
        planned: the trials. The points are taken from these, not from the records: a record may be
            that of an earlier sweep, which searched other settings.
        records: the records of these trials, in the same order; None for one that has not ended.

    Returns:
        One `Importance` for each objective and setting. An objective is left out if fewer than five
        points are complete (all seeds done, with all objectives), or all have the same value.
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
    """The searched values of each complete point, with the summaries of its seeds.

    A point is complete if all its seeds are done and have all objectives.
    """
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
    """Setting -> importance; None where all values are the same, or those of every tree are."""
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
    except RuntimeError:  # a single point differs, and no tree has drawn it
        return None
    return {name: float(found[name]) for name in space}

"""The trials' scalars by recipe: the mean over seeds, with its interval over seeds and examples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.results import Results, Scores
from analysis.stats import Estimate, Floats, crossed_mean, crossed_statistic, over_seeds

LEVEL = 0.95


def scalars(results: Results) -> list[str]:
    """The names of the trials' scalars, the sweep's objective first."""
    names = [str(name).removeprefix("summary.") for name in results.trials if str(name).startswith("summary.")]
    objective = results.sweep.objective
    return sorted(names, key=lambda name: objective is None or name != objective.metric)


def summarise(results: Results) -> pd.DataFrame:
    """One line a recipe: its settings, its seeds, and its scalars with their intervals.

    The columns are `recipe`, the varied settings, `seeds` that are done, `trials` of it in all, and
    `<scalar>`, `<scalar>.low`, `<scalar>.high`.

    The recipes of a grid come in its order, those of a search with the best of its (first)
    objective first. There those of which a trial was stopped or failed come after all others, since
    their means are of the seeds that survived.

    The intervals are those of the figures (`stats.crossed_mean`): over seeds and examples. With two
    seeds, `low` and `high` are the seeds.
    """
    done = results.trials[results.trials["status"] == "done"]
    lines = []
    for recipe in results.recipes:
        trials = done[done["recipe"] == recipe]
        line = {
            "recipe": recipe,
            **{name: results.setting_of(recipe, name) for name in results.varied},
            "seeds": len(trials),
            "trials": int((results.trials["recipe"] == recipe).sum()),
        }
        for name in scalars(results):
            one = estimate(results, trials, name, LEVEL)
            line |= {name: one.mean[0], f"{name}.low": one.low[0], f"{name}.high": one.high[0]}
        lines.append(line)
    frame, objective = pd.DataFrame(lines), results.sweep.objective
    if results.sweep.search and objective and objective.metric in frame:
        by = frame[objective.metric] * (1 if objective.mode == "min" else -1)
        order = pd.DataFrame({"incomplete": frame["seeds"] < frame["trials"], "by": by})
        return frame.loc[order.sort_values(["incomplete", "by"], kind="stable").index].reset_index(drop=True)
    return frame


def estimate(results: Results, trials: pd.DataFrame, scalar: str, level: float) -> Estimate:
    """A scalar's mean over trials that differ by their seed, with its interval; one point.

    The interval is over seeds and examples where all of the trials kept what the scalar is made of,
    else over the seeds alone.

    Args:
        results: of the sweep.
        trials: lines of `results.trials`; those that lack the scalar do not count.
        scalar: its name.
        level: of the interval.
    """
    column = trials.get(f"summary.{scalar}", pd.Series(np.nan, trials.index, dtype=float))
    values = pd.to_numeric(column, errors="coerce").to_numpy(float)
    known = np.isfinite(values)
    if np.isinf(values).any():  # infinitely far under one seed: so is the mean, and no interval holds it
        none = np.array([np.nan])
        return Estimate(np.array([np.inf]), none, none, np.zeros(1, int), np.array([int((~np.isnan(values)).sum())]))
    kept = [results.scores.get(str(trial)) for trial in trials.loc[known, "trial"]]
    scores = [one for one in kept if one is not None]
    bounds = results.bounds(scalar)
    if scores and len(scores) == len(kept):
        if all(scalar in one.sums for one in scores):
            return crossed_mean(*_aligned(scores, scalar), level=level, bounds=bounds)
        groups = {len(one.left_out.get(scalar, ())) for one in scores}
        if len(groups) == 1 and groups != {0}:
            left_out = np.array([one.left_out[scalar] for one in scores])
            return crossed_statistic(values[known], left_out, len(scores[0].ids), level=level, bounds=bounds)
    return over_seeds(values if len(values) else [np.nan], level=level, bounds=bounds)


def _aligned(scores: Sequence[Scores], scalar: str) -> tuple[Floats, Floats]:
    """The sums and counts of several trials on common examples, (S, N, 1) each."""
    ids = np.unique(np.concatenate([one.ids for one in scores]))
    both = np.zeros((2, len(scores), len(ids), 1))
    for seed, one in enumerate(scores):
        place = np.searchsorted(ids, one.ids)
        both[0, seed, place, 0], both[1, seed, place, 0] = one.sums[scalar], one.counts[scalar]
    return both[0], both[1]

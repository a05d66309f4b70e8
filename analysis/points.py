"""The points of a sweep by their scalars: objectives, the Pareto front, what was stopped."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from analysis.arrays import counted
from analysis.results import ReportError, Results
from analysis.summary import estimate
from engine.store.records import SweepRecord


def objectives(sweep: SweepRecord) -> dict[str, str]:
    """Whether more (max) or less (min) of each objective is better."""
    return {objective.metric: objective.mode for objective in sweep.objectives}


def no_search(sweep: SweepRecord) -> str | None:
    """Why a sweep is not a search with an objective, or None."""
    if not sweep.search:
        return "is of a search, and the sweep has none"
    return None if objectives(sweep) else "needs an objective, and the sweep has none"


def points(results: Results, level: float) -> pd.DataFrame:
    """One line a point of the sweep, with its status, settings and objectives.

    The columns are `recipe`, `status` (done, stopped early, failed), `seeds` that are done, the
    varied settings, and for each objective its mean over the seeds with its interval: `<metric>`,
    `<metric>.low`, `<metric>.high`, over `<metric>.n` examples.
    """
    lines = []
    for recipe, trials in results.trials.groupby("recipe", observed=True, sort=False):
        statuses = set(trials["status"])
        status = "done" if statuses == {"done"} else "stopped early" if "stopped" in statuses else "failed"
        line: dict[str, object] = {"recipe": recipe, "status": status, "seeds": int((trials["status"] == "done").sum())}
        line |= {name: results.setting_of(str(recipe), name) for name in results.varied}
        for metric in objectives(results.sweep):
            one = estimate(results, trials if status == "done" else trials[:0], metric, level)
            line |= {
                metric: one.mean[0],
                f"{metric}.low": one.low[0],
                f"{metric}.high": one.high[0],
                f"{metric}.n": one.n[0],
            }
        lines.append(line)
    return pd.DataFrame(lines)


def done(found: pd.DataFrame) -> pd.DataFrame:
    """The points whose trials are all done, of those that `points` found.

    Raises:
        ReportError: there is none.
    """
    found = found[found["status"] == "done"].reset_index(drop=True)
    if found.empty:
        raise ReportError("no point has all of its trials done")
    return found


def left_out(found: pd.DataFrame, statuses: Sequence[str] = ("stopped early", "failed")) -> str:
    """A sentence on the points that a figure leaves out; no words where there are none.

    Args:
        found: what `points` gave.
        statuses: of the points that are left out.

    >>> left_out(pd.DataFrame({"status": ["done", "failed", "stopped early", "failed"]}))
    'Left out of 4 points: 1 stopped early, 2 failed.'
    """
    counts = {status: int((found["status"] == status).sum()) for status in statuses}
    told = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    return f"Left out of {counted(len(found), 'point')}: {told}." if told else ""


def front(values: ArrayLike) -> NDArray[np.bool_]:
    """Which of N points (N, M), larger is better, are on the Pareto front.

    Of these no other point is at least as good in all and better in one.

    >>> front([[1, 0], [0, 1], [0, 0], [1, 0]]).tolist()
    [True, True, False, True]
    """
    here = np.asarray(values, float)
    as_good = (here[:, None] >= here[None]).all(-1)  # (N, N): the first is at least as good as the second
    better = (here[:, None] > here[None]).any(-1)
    return np.logical_not((as_good & better).any(axis=0))

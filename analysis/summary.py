"""The trials' scalars by recipe: the mean over seeds, with its interval."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.results import Results
from analysis.stats import student_mean

LEVEL = 0.95


def scalars(results: Results) -> list[str]:
    """The names of the trials' scalars, the sweep's objective first."""
    names = [str(name).removeprefix("summary.") for name in results.trials if str(name).startswith("summary.")]
    objective = (results.sweep.get("objective") or {}).get("metric")
    return sorted(names, key=lambda name: name != objective)


def summarise(results: Results) -> pd.DataFrame:
    """One line a recipe: `recipe`, the varied settings, `seeds` that are done, `trials` of it in all, and `<scalar>`, `<scalar>.low`,
    `<scalar>.high`.

    The recipes of a grid come in its order, those of a search with the best of its (first) objective first; there those of which a
    trial was stopped or failed come after all others, since their means are of the seeds that survived.

    The interval is Student's t over the seeds (NaN with one seed): it says how far another training may differ, not how
    far other examples may.
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
            values = pd.to_numeric(trials[f"summary.{name}"], errors="coerce").to_numpy(float)
            mean, low, high, _ = student_mean(values, LEVEL) if len(values) else (np.nan, np.nan, np.nan, 0)
            line |= {name: mean, f"{name}.low": low, f"{name}.high": high}
        lines.append(line)
    frame, objective = pd.DataFrame(lines), results.sweep.get("objective")
    if results.sweep.get("search") and objective and objective["metric"] in frame:
        by = frame[objective["metric"]] * (1 if objective["mode"] == "min" else -1)
        order = pd.DataFrame({"incomplete": frame["seeds"] < frame["trials"], "by": by})
        return frame.loc[order.sort_values(["incomplete", "by"], kind="stable").index].reset_index(drop=True)
    return frame

"""What the figures of attacks share: settings, units of lengths, which images withstand."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis import encoding
from analysis.encoding import Encoding
from analysis.results import Results

ATTACK = "attack"
"""The group of settings that every task with an attack has for it."""
NORM, SPACE = f"{ATTACK}.norm", f"{ATTACK}.space"
"""What lengths are measured in. Where attacks differ in these, their lengths cannot be compared."""
RADIUS = f"{ATTACK}.epsilon"
NAME = f"{ATTACK}.name"

LINES = 6
"""At most so many recipes are told apart by colour alone."""


def is_norm(setting: str | None) -> bool:
    """Whether a setting is a norm, of an attack or of anything else.

    >>> is_norm("attack.norm"), is_norm("recipe.seed"), is_norm(None)
    (True, False, False)
    """
    return setting is not None and setting.rpartition(".")[2] == "norm"


def name_that_differs(results: Results) -> str | None:
    """The setting that names the attack, if the attacks of a sweep differ."""
    named = (name for name in results.varied if name.endswith(NAME))
    return next((name for name in named if len(results.values(name)) > 1), None)


def lines(results: Results, by: str | None = None) -> Encoding:
    """Which settings colour, panels and dashes show, where lines are drawn against a length.

    Each recipe has a colour, and each norm a panel, since lengths in different norms cannot be
    compared. Of many recipes the colour shows the attack, where attacks differ. Panels and dashes
    show the rest, as in `encoding.assign_channels`.

    Args:
        results: of a sweep of attacks.
        by: the setting that the colour shows.

    Raises:
        ReportError: `by` does not differ between the recipes.
    """
    settings = encoding.differing(results, by)
    norm = next((name for name in settings if is_norm(name) and name != by), None)
    if norm is None and f"config.{NORM}" in results.trials and len(results.values(NORM)) > 1:
        norm = NORM  # each attack's own, where none is given
    others = [name for name in settings if name != norm]
    count = len(results.recipes) / (len(results.values(norm)) if norm in settings else 1)
    if by is None and count <= LINES:
        return Encoding(tuple(others) if norm or len(others) == 1 else (), norm)
    attack = next((name for name in others if name.endswith(NAME)), None)
    if norm is None:
        return encoding.assign_channels(results, by or attack)
    first = next((name for name in others if results.is_numeric(name)), others[0] if others else None)
    return encoding.with_dashes(results, settings, by or attack or first, norm)


def length_label(results: Results, column: str) -> str:
    """The axis label of a length that an attack was given or found.

    It tells the unit, and the norm where all trials have the same.
    """
    told = [set(results.trials.get(f"config.{name}", pd.Series(dtype=object)).dropna()) for name in (NORM, SPACE)]
    norms, spaces = ({str(value) for value in values} for values in told)
    if not norms or len(spaces) != 1 or norms == {"L0"}:
        return results.column_label(column)
    norm, space = "" if len(norms) > 1 else f"{norms.pop()} ", spaces.pop()
    unit = "pixel units" if space == "pixel" else f"units of the typical magnitude of {space}"
    return f"{norm}{column} ({unit})"


def standing(rows: pd.DataFrame, found: str) -> pd.DataFrame:
    """Which examples withstand an attack at each radius; at radius 0 nothing is moved.

    Args:
        rows: one for each example and radius, with `trial`, `id`, `correct` and `radius`.
        found: the row column that tells whether the attack succeeded.

    Returns:
        `trial`, `id`, `radius` and `robust`. The last is 1 where the image is classified correctly
        and the attack failed, else 0, and NaN where `found` has no value. At radius 0 it is whether
        the image is classified correctly.
    """
    fallen = pd.to_numeric(rows[found], errors="coerce").to_numpy(float)
    correct = rows["correct"].to_numpy(float)
    robust = np.where(np.isfinite(fallen), correct * (1 - fallen), np.nan)
    moved = rows[["trial", "id", "radius"]].assign(robust=robust)
    still = rows[["trial", "id"]].assign(radius=0.0, robust=np.where(np.isfinite(robust), correct, np.nan))
    still = still.dropna().drop_duplicates(["trial", "id"])
    return pd.concat([still, moved[moved["radius"] > 0]], ignore_index=True)


def refuse_conditions(columns: set[str]) -> str | None:
    """The reason to refuse rows with a column `condition`, or None.

    Figures of attacks take one result for each example and radius.
    """
    return (
        "the rows are measured around several centres (condition); it takes those of a search"
        if "condition" in columns
        else None
    )


def subsets(rows: pd.DataFrame) -> str:
    """A sentence where recipes are left with different examples, or no words."""
    sets = rows.groupby(["recipe", "trial"], observed=True)["id"].agg(frozenset)
    if sets.index.get_level_values("recipe").nunique() < 2 or sets.nunique() < 2:
        return ""
    return "Each recipe is judged on those that it classifies correctly: recipes are compared on different subsets."

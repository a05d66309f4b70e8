"""Rows of searches, one an example and radius, as the figures of attacks take them."""

from __future__ import annotations

import numpy as np
import pandas as pd


def standing(rows: pd.DataFrame, found: str) -> pd.DataFrame:
    """Which examples withstand: `trial`, `id`, `radius` and `robust`, with radius 0, where nothing is moved.

    Args:
        rows: with `correct`, `radius` and the column `found`, which tells whether the search succeeded.

    Returns:
        `robust` is 1 where the image is classified correctly and the search failed, else 0, and NaN
        where `found` has no value. At radius 0 it is whether the image is classified correctly.
    """
    fallen = pd.to_numeric(rows[found], errors="coerce").to_numpy(float)
    correct = rows["correct"].to_numpy(float)
    robust = np.where(np.isfinite(fallen), correct * (1 - fallen), np.nan)
    moved = rows[["trial", "id", "radius"]].assign(robust=robust)
    still = rows[["trial", "id"]].assign(radius=0.0, robust=np.where(np.isfinite(robust), correct, np.nan))
    still = still.dropna().drop_duplicates(["trial", "id"])
    return pd.concat([still, moved[moved["radius"] > 0]], ignore_index=True)

"""Rows as the task `evaluation` leaves them, of linear models.

What noise and attacks leave of the accuracy is known from the margin.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from linear_sweeps import margins, persistence

RADII = (0.05, 0.1, 0.2)
EPSILON = 0.1
DAMAGE = {"blur": 0.9, "rotation": 0.5}
"""The part of the margin that is left at the first severity; at the second, its square."""
EVALUATION_COLUMNS = {"accuracy": "accuracy (share of copies)"}


def correct(examples: int) -> Any:
    """Every seventh example is misclassified to begin with."""
    return np.arange(examples) % 7 != 3


def evaluated(point: Mapping[str, Any], examples: int = 40, conditions: tuple[str, ...] = ()) -> pd.DataFrame:
    """One row an example, condition, change and level.

    A corruption that leaves a margin below 0.1 changes the class.
    """
    margin, right = margins(point, examples), correct(examples)
    rows = [("clean", "none", 0, 0.0, np.ones(examples))]
    rows += [("noise", "gaussian", n, radius, persistence(margin, radius)) for n, radius in enumerate(RADII, 1)]
    rows += [("attack", "pgd", 1, EPSILON, (margin > EPSILON) * 1.0)]
    for name, left in DAMAGE.items():
        rows += [("corruption", name, n, n, (margin * left**n > 0.1) * 1.0) for n in (1, 2)]
    parts = []
    for condition, change, level, strength, keeps in rows:
        if conditions and condition not in conditions:
            continue
        ids = np.arange(examples)
        part = {
            "id": ids,
            "label": ids % 10,
            "predicted": np.where(right, ids % 10, (ids + 1) % 10),
            "correct": right,
            "condition": condition,
            "change": change,
            "level": level,
            "strength": float(strength),
            "accuracy": right * keeps,
            "persistence": keeps,
            "p_true": 0.1 + 0.8 * right * keeps,
            "confidence": 0.5 + 0.5 * np.minimum(margin, 0.99),
            "loss": -np.log(0.1 + 0.8 * right * keeps),
        }
        parts.append(pd.DataFrame(part))
    return pd.concat(parts, ignore_index=True)

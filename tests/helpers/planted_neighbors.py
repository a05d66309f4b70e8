"""Rows as `hidden_neighbors` leaves them: every image leaves its class at a known stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

STAGES = ("0", "relu1", "relu2", "linear")
DEPTHS = (0, 2, 4, 7)
K = 4
MOVES = ("none", "adversarial", "hidden", "random")
NEIGHBOR_COLUMNS = {"new_class": "share of neighbours of the new class", "moved": "how far it moved (share)"}


def change(ids: Any) -> Any:
    """The first stage at which an adversarial image has neighbours of its new class."""
    return 1 + ids % 3


def neighbored(
    point: Mapping[str, Any], examples: int = 40, stages: Sequence[str] = STAGES, moves: Sequence[str] = MOVES
) -> pd.DataFrame:
    """One row an example, move, stage and rank.

    Before the change one neighbour of four is of the new class already.
    """
    ids = np.arange(examples)
    parts = []
    for move in moves:
        for place, (stage, depth) in enumerate(zip(stages, DEPTHS, strict=False)):
            if move == "hidden" and place == 0:
                continue
            for rank in range(1, K + 1):
                attacked = move in ("adversarial", "hidden")
                after = place >= change(ids + int(point.get("recipe.seed", 0)))
                new = attacked & (after | (rank == K) & (ids % 2 == 0))
                part = {
                    "id": ids,
                    "label": ids % 10,
                    "predicted": ids % 10,
                    "correct": ids % 7 != 3,
                    "move": move,
                    "stage": stage,
                    "depth": depth,
                    "rank": rank,
                    "found": (ids % 10 != 9) | (move == "none"),
                    "moved": 0.1 * attacked,
                    "true_class": ~new,
                    "old_class": ~new,
                    "new_class": new,
                }
                parts.append(pd.DataFrame(part))
    return pd.concat(parts, ignore_index=True)

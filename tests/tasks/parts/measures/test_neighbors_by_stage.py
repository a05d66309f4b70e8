"""Where neighbours change, and how mixed they are, for numbers counted by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from tasks.parts.measures.neighbors_by_stage import depth_of_change, entropy_of


def test_a_change_that_is_taken_back_does_not_count() -> None:
    old = {"back": [1, 0, 1, 0], "half": [1, 1, 0.5, 0], "never": [1, 1, 1, 1], "end": [0, 0, 0, 1]}
    rows = pd.DataFrame(
        [
            {"id": name, "depth": 2 * depth, "old_class": rank < 2 * share}
            for name, shares in old.items()
            for depth, share in enumerate(shares)
            for rank in range(2)
        ]
    )
    assert depth_of_change(rows, 4).to_dict() == {"back": 0.75, "half": 0.5, "never": 1, "end": 1}
    later = rows[rows["depth"] >= 4]  # as of a move behind two of the four stages
    assert depth_of_change(later, 4).to_dict() == {"back": 0.75, "half": 0.5, "never": 1, "end": 1}


def test_entropy_is_that_of_the_shares() -> None:
    labels = torch.tensor([[1, 1, 1, 1], [0, 1, 2, 3], [5, 5, 5, 2]])
    uneven = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    np.testing.assert_allclose(entropy_of(labels), [0, np.log(4), uneven], atol=1e-12)

"""The TensorBoard log of a trial, in our own tags.

| where | what |
|---|---|
| Time series, `training/...` | loss, accuracy, learning rate an epoch |
| Custom scalars, `flatness` | mean probability against noise radius, with a band of the 95 % interval over the examples |
| Custom scalars, `search` | robust accuracy against the radius of a search, with such a band |
| HParams | what varies, and the trial's scalars |
| Images, run `figures` | the figures of the report |

TensorBoard's steps are whole numbers: a radius of 0.15 is step 150.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

STEPS_PER_UNIT = 1000
CURVE = "p_true"


class Board:
    """Writes the log of one run into a local folder."""

    def __init__(self, folder: Path):
        self._writer = SummaryWriter(str(folder))

    def epoch(self, report: Mapping[str, float], prefix: str = "training") -> None:
        """One epoch of a training, as `tasks.parts.training.Epoch`."""
        for name, value in report.items():
            if name != "epoch":
                self._writer.add_scalar(f"{prefix}/{name}", value, int(report["epoch"]))

    def curves(self, rows: pd.DataFrame) -> None:
        """Means over the examples against the radius, with bands, of what the rows have: probabilities under noise, or searches."""
        there = set(rows.columns)
        if {"condition", "kind", "radius", CURVE} <= there:
            self._flatness(rows)
        elif {"radius", "found", "correct"} <= there and "condition" not in there:
            robust = (rows["correct"] & ~rows["found"]).astype(float)
            tags = self._curve("search/robust_accuracy", robust, rows["radius"])
            chart = f"robust accuracy (step: {STEPS_PER_UNIT} x radius)"
            self._writer.add_custom_scalars({"search": {chart: ["Margin", tags]}})

    def _flatness(self, rows: pd.DataFrame) -> None:
        if {"found", "correct"} <= set(rows.columns):  # no adversarial image, nothing to be around
            rows = rows[(rows["condition"] == "genuine") | (rows["found"] & rows["correct"])]
        charts = {}
        for (condition, kind), some in rows.groupby(["condition", "kind"], observed=True):
            tags = self._curve(f"flatness/{kind}/{condition}", some[CURVE], some["radius"])
            chart = f"{condition}, {kind} noise: probability of the true class (step: {STEPS_PER_UNIT} x radius)"
            charts[chart] = ["Margin", tags]
        self._writer.add_custom_scalars({"flatness": charts})

    def _curve(self, tag: str, values: pd.Series, radii: pd.Series) -> list[str]:
        """Writes the mean at each radius, and the ends of its interval; returns the tags of the three."""
        for radius, some in values.groupby(radii):
            half = 1.96 * float(some.std(ddof=1)) / np.sqrt(len(some)) if len(some) > 1 else 0.0
            mean, step = float(some.mean()), round(float(radius) * STEPS_PER_UNIT)
            for part, value in [("mean", mean), ("low", mean - half), ("high", mean + half)]:
                self._writer.add_scalar(f"{tag}/{part}", value, step)
        return [f"{tag}/{part}" for part in ("mean", "low", "high")]

    def hyperparameters(self, point: Mapping[str, Any], scalars: Mapping[str, float]) -> None:
        """A line of the HParams table."""
        values = {name: v if isinstance(v, (bool, int, float, str)) else str(v) for name, v in point.items()}
        for summary in hparams(values, {f"summary/{name}": value for name, value in scalars.items()}):
            self._writer._get_file_writer().add_summary(summary)
        for name, value in scalars.items():
            self._writer.add_scalar(f"summary/{name}", value, 0)

    def image(self, tag: str, png: bytes) -> None:
        with Image.open(io.BytesIO(png)) as picture:
            self._writer.add_image(tag, np.asarray(picture.convert("RGB")), 0, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()

"""A task of a user's own without a network, whose scalars are functions of its settings."""

from __future__ import annotations

import os
import time
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from tasks.parts.contract import Batch, TaskConfig
from tasks.parts.training.recipes import Recipe

COLUMNS = {"id": "example", "bowl": "a number"}


class Config(TaskConfig):
    x: float = Field(default=0.0, ge=-1, le=1, description="of a bowl with its bottom at 0.3")
    y: float = Field(default=1.0, gt=0, description="of a bowl with its bottom at 0.1, on the logarithmic scale")
    steps: int = Field(default=1, ge=0, description="adds to the bowl")
    shape: Literal["round", "broken"] | list[int] = Field(default="round", description="broken: the trial fails")
    delay: float = Field(default=0.0, ge=0, description="seconds an example")
    log: str = Field(default="", description="file that gets a line `pid x` for each chunk measured")

    @model_validator(mode="after")
    def _together(self) -> Config:
        if self.steps == 7:
            raise ValueError("steps: 7 goes with nothing")
        if self.steps == 9 and abs(self.x) < 1:
            raise ValueError("steps: 9 goes with an x of 1 or -1 alone")
        return self


def needs(config: Config) -> dict[str, Recipe]:
    return {}


def measure(config: Config, made: dict[str, Any], batch: Batch) -> dict[str, Any]:
    if config.log:
        with open(config.log, "a") as log:
            print(os.getpid(), config.x, config.recipe.seed, file=log)
    time.sleep(config.delay * len(batch.ids))
    if config.shape == "broken":
        raise RuntimeError("broken")
    return {"id": np.array(batch.ids), "bowl": np.full(len(batch.ids), bowl(config))}


def bowl(config: Config) -> float:
    return (config.x - 0.3) ** 2 + np.log10(config.y / 0.1) ** 2 + config.steps


def summarise(config: Config, rows: pd.DataFrame) -> dict[str, float]:
    """`left` and `right` cannot both be large; `noisy` adds the seed."""
    value = float(rows["bowl"].mean())
    return {
        "bowl": value,
        "noisy": value + config.recipe.seed,
        "left": (config.x + 1) ** 2 + config.steps,
        "right": (config.x - 1) ** 2 + config.steps,
    }

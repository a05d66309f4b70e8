"""A slow task of a user's own, with a log of which process measured what.

It gives the label's logit and a random number for each example.
"""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
import pandas as pd
from pydantic import Field

from tasks.parts.batching import batch_size, in_batches
from tasks.parts.contract import Batch, TaskConfig
from tasks.parts.randomness import uniform
from tasks.parts.training.recipes import Recipe

COLUMNS = {"id": "example", "logit": "logit of the label", "number": "a random number"}


class Config(TaskConfig):
    delay: float = Field(default=0.0, ge=0, description="seconds an example")
    log: str = Field(default="", description="file that gets a line `pid id` for each example measured")


def needs(config: Config) -> dict[str, Recipe]:
    return {"classifier": config.recipe}


def measure(config: Config, made: dict[str, Any], batch: Batch) -> dict[str, Any]:
    size = batch_size(batch.images[0].numel(), batch.images.device)
    logits = in_batches(made["classifier"], batch.images, size)
    for example in batch.ids:
        if config.log:
            with open(config.log, "a") as log:
                print(os.getpid(), example, file=log)
        time.sleep(config.delay)
    return {
        "id": np.array(batch.ids),
        "logit": logits.gather(1, batch.labels[:, None]).squeeze(1).numpy(),
        "number": uniform(config.seed, "slow", batch.ids, ()).numpy(),
    }


def summarise(config: Config, rows: pd.DataFrame) -> dict[str, float]:
    return {"logit": float(rows["logit"].mean()), "examples": float(len(rows))}

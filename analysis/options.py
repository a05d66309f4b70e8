"""What the options of all figures share."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, JsonValue

SETTING: dict[str, JsonValue] = {"names": "setting"}
"""Marks an option that names a setting of the sweep: `Field(json_schema_extra=SETTING)`."""

OBJECTIVE: dict[str, JsonValue] = {"names": "objective"}
"""Marks an option that names one of the sweep's objectives."""

METRIC: dict[str, JsonValue] = {"names": "metric"}
"""Marks an option that names a metric of an epoch of training."""


class FigureOptions(BaseModel):
    """The options of every figure; unknown ones are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    level: float = Field(0.95, ge=0.5, le=0.999, description="level of the intervals")
    resamples: int = Field(1000, ge=100, le=100_000, description="bootstrap resamples, where a figure resamples")
    only_found: bool = Field(
        True,
        description="leave out moved centres whose search failed, or whose image is misclassified to begin with",
    )
    only_correct: bool = Field(False, description="leave out the examples that are misclassified to begin with")

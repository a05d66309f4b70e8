"""The entries of a sweep file, checked on their own; `engine.spec` checks them against their task."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from tasks.parts.randomness import generator
from tasks.parts.settings import Number, Positive, Settings

MOST_TRIALS = 100_000

_Int64 = Annotated[int, Field(ge=-(2**63), lt=2**63)]


class Resources(Settings):
    """What each remote task gets, and how many run at once."""

    cpus: Annotated[int, Field(gt=0)] = Field(default=1, description="CPU cores, and threads, of a chunk or a training")
    gpus: Annotated[Number, Field(ge=0)] | Literal["auto"] = Field(
        default="auto",
        description="GPUs of a chunk or a training, also a fraction; auto: 1 where a node has any, else 0",
    )
    chunk: Annotated[int, Field(gt=0)] | None = Field(
        default=None, description="examples in a remote task; by their number where null"
    )
    max_concurrent: Annotated[int, Field(gt=0)] | None = Field(
        default=None, description="trials at once; by the CPUs where null"
    )
    retries: int = Field(default=3, ge=0, description="how often a chunk is tried again after its worker died")
    nodes_may_join: bool = Field(
        default=False, description="accept GPUs that no node has yet: an autoscaler will add it"
    )

    @model_validator(mode="after")
    def _known(self) -> Resources:
        if self.nodes_may_join and self.gpus == "auto":
            raise ValueError("nodes_may_join needs gpus as a number: what later nodes have cannot be seen")
        return self

    @field_validator("gpus")
    @classmethod
    def _whole_or_part(cls, gpus: float | str) -> float | str:
        if isinstance(gpus, float) and gpus > 1 and gpus != int(gpus):
            raise ValueError("a whole number of GPUs or a fraction of one is needed")
        return gpus


class Objective(Settings):
    """The scalar that the sweep is about: a trial that does not report it has failed, and the report names it."""

    metric: str
    mode: Literal["max", "min"] = "max"


class Distribution(Settings):
    """What a searched setting is drawn from; exactly one of the four."""

    uniform: tuple[Number, Number] | None = None
    loguniform: tuple[Positive, Positive] | None = None
    whole: tuple[_Int64, _Int64] | None = Field(default=None, alias="int")
    choice: Annotated[list[Any], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _one(self) -> Distribution:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                "one of uniform: [low, high], loguniform: [low, high], int: [low, high], choice: [values] is needed"
            )
        (kind,) = given
        value = getattr(self, kind)
        if kind != "choice" and not value[0] < value[1]:
            raise ValueError(f"{kind.replace('whole', 'int')}: the first number must be below the second")
        return self

    def draw(self, name: str, index: int) -> Any:
        """The value of the index-th point, decided by the setting's name and the index alone: a longer search keeps its points."""
        random = generator(0, f"search {name}", index)
        if self.choice is not None:
            return self.choice[int(random.integers(len(self.choice)))]
        if self.whole is not None:
            return int(random.integers(self.whole[0], self.whole[1], endpoint=True))
        if self.loguniform is not None:
            low, high = map(math.log, self.loguniform)
            value, ends = math.exp(low + (high - low) * float(random.random())), self.loguniform
        else:
            assert self.uniform is not None
            low, high = ends = self.uniform
            value = low + (high - low) * float(random.random())
        return min(max(value, ends[0]), ends[1])  # rounding may have led out


class Sweep(Settings):
    """A sweep file."""

    task: str
    about: Annotated[str, StringConstraints(strip_whitespace=True)] = ""
    fixed: dict[str, Any] = {}
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}
    search: dict[str, Distribution] = {}
    trials: Annotated[int, Field(gt=0, le=MOST_TRIALS)] | None = None
    seeds: (
        Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
        | Annotated[int, Field(gt=0, le=MOST_TRIALS)]
        | None
    ) = None
    objective: Objective | None = None
    resources: Resources = Resources()
    figures: list[Any] | None = None
    data_root: str | None = None

    @model_validator(mode="after")
    def _grid_or_search(self) -> Sweep:
        if self.grid and self.search:
            raise ValueError("search: cannot go with grid: list values in grid, or draw them in search")
        if self.search and self.trials is None:
            raise ValueError("search: needs trials, the number of points that are drawn")
        if self.trials is not None and not self.search:
            raise ValueError("trials: belongs to search; without one, all combinations of the grid are run")
        return self

    @property
    def varied(self) -> list[str]:
        """Dotted names of what varies, seeds left out."""
        return [*self.grid, *self.search]

    @property
    def seed_list(self) -> list[int] | None:
        return list(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds

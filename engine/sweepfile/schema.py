"""The entries of a sweep file as types.

Here each entry is checked on its own; `engine.sweepfile.load` checks them against the task.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, JsonValue, StringConstraints, field_validator, model_validator

from tasks.parts.randomness import generator
from tasks.parts.settings import Number, Positive, Settings, UserError

MOST_TRIALS = 100_000
STORAGES = (".db", ".journal")
"""Endings of a study's file: SQLite, or Optuna's journal."""

_Int64 = Annotated[int, Field(ge=-(2**63), lt=2**63)]


class Resources(Settings):
    """CPUs, GPUs and examples of each remote task, and how many trials run at once."""

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
            raise UserError("nodes_may_join needs gpus as a number: what later nodes have cannot be seen")
        return self

    @field_validator("gpus")
    @classmethod
    def _whole_or_part(cls, gpus: float | str) -> float | str:
        if isinstance(gpus, float) and gpus > 1 and gpus != int(gpus):
            raise UserError(f"must be a whole number of GPUs or a fraction of one, not {gpus}")
        return gpus


class Objective(Settings):
    """The scalar to make as large or as small as possible.

    A trial that does not report it has failed, and the report names it.
    """

    metric: str
    mode: Literal["max", "min"] = "max"


class Searcher(Settings):
    """How the points of a search are chosen."""

    name: Literal["random", "tpe", "nsga2"] = Field(
        default="random",
        description="tpe: tree-structured Parzen estimator (Bergstra et al., 2011; several objectives: Ozaki et al., 2020); "
        "nsga2: genetic (Deb et al., 2002)",
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="of the draws")
    startup: Annotated[int, Field(gt=0)] = Field(
        default=10, description="tpe: points drawn at random before the first model"
    )
    population: Annotated[int, Field(gt=1)] = Field(default=20, description="nsga2: points in a generation")

    @model_validator(mode="after")
    def _own(self) -> Searcher:
        _belongs(self, startup="tpe", population="nsga2")
        return self


class Scheduler(Settings):
    """When a training is stopped early, by one of its epoch metrics."""

    name: Literal["asha", "median"] = Field(
        description="asha: asynchronous successive halving (Li et al., 2020); median: stopping rule of Golovin et al. (2017)"
    )
    metric: Literal["validation_accuracy", "validation_loss", "accuracy", "loss"] = Field(
        default="validation_accuracy", description="of an epoch; those of validation need recipe.validation above 0"
    )
    grace: Annotated[int, Field(gt=0)] = Field(default=1, description="epochs before the first decision")
    reduction: Annotated[int, Field(gt=1)] = Field(default=3, description="asha: one training in so many goes on")
    least: Annotated[int, Field(gt=0)] = Field(default=3, description="median: other trainings needed for a decision")

    @model_validator(mode="after")
    def _own(self) -> Scheduler:
        _belongs(self, reduction="asha", least="median")
        return self

    @property
    def sign(self) -> int:
        """1 where a larger metric is better, else -1."""
        return -1 if self.metric.endswith("loss") else 1


def _belongs(of: Searcher | Scheduler, **owners: str) -> None:
    for field, owner in owners.items():
        if field in of.model_fields_set and of.name != owner:
            raise UserError(f"belongs to {owner}, and this is {of.name}", field)


class Distribution(Settings):
    """What a searched setting is drawn from; exactly one of the four."""

    uniform: tuple[Number, Number] | None = None
    loguniform: tuple[Positive, Positive] | None = None
    whole: tuple[_Int64, _Int64] | None = Field(default=None, alias="int")
    choice: Annotated[list[JsonValue], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _one(self) -> Distribution:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise UserError(
                "one of uniform: [low, high], loguniform: [low, high], int: [low, high], choice: [values] is needed"
            )
        (kind,) = given
        value = getattr(self, kind)
        if kind != "choice" and not value[0] < value[1]:
            raise UserError("the first number must be below the second", kind.replace("whole", "int"))
        return self

    @property
    def kind(self) -> str:
        """The name of the distribution in the sweep file, such as `loguniform`."""
        (name,) = self.model_dump(by_alias=True, exclude_none=True)
        return str(name)

    def ends(self) -> list[JsonValue]:
        """The values at both ends of a range, or all values of a choice."""
        return self.choice or [*(self.bounds or self.whole or ())]

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Both ends of uniform or loguniform; None for the other two."""
        return self.uniform or self.loguniform

    def between(self) -> float | None:
        """A number between the ends of uniform or loguniform; None for the other two.

        It is not whole where both ends are.
        """
        if self.bounds is None:
            return None
        low, high = self.bounds
        part = (math.sqrt(5) - 1) / 2  # irrational: the value is never whole where the ends are
        return (1 - part) * low + part * high

    def draw(self, name: str, index: int, seed: int = 0) -> JsonValue:
        """The value that a setting has at one point of a random search.

        It depends on the seed, the name of the setting and the index of the point, and on nothing
        else. So a longer search has the points of a shorter one.
        """
        random = generator(seed, f"search {name}", index)
        if self.choice is not None:
            return self.choice[int(random.integers(len(self.choice)))]
        if self.whole is not None:
            return int(random.integers(self.whole[0], self.whole[1], endpoint=True))
        assert self.bounds is not None  # uniform or loguniform
        share, (low, high) = float(random.random()), self.bounds
        if self.loguniform is not None:
            value = math.exp(math.log(low) + (math.log(high) - math.log(low)) * share)
        else:
            value = low + (high - low) * share
        return min(max(value, low), high)  # rounding may leave the range


class Sweep(Settings):
    """The entries of a sweep file."""

    task: str
    about: Annotated[str, StringConstraints(strip_whitespace=True)] = ""
    fixed: dict[str, JsonValue] = {}
    grid: dict[str, Annotated[list[JsonValue], Field(min_length=1)]] = {}
    search: dict[str, Distribution] = {}
    trials: Annotated[int, Field(gt=0, le=MOST_TRIALS)] | None = None
    seeds: (
        Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
        | Annotated[int, Field(gt=0, le=MOST_TRIALS)]
        | None
    ) = None
    searcher: Searcher = Searcher()
    scheduler: Scheduler | None = None
    storage: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)] | None = None
    objective: Annotated[list[Objective], Field(min_length=1)] | None = None
    resources: Resources = Resources()
    figures: list[JsonValue] | None = None
    data_root: str | None = None

    @field_validator("searcher", "scheduler", mode="before")
    @classmethod
    def _named(cls, value: object) -> object:
        """A name alone stands for an entry with that name."""
        return {"name": value} if isinstance(value, str) else value

    @field_validator("scheduler", mode="before")
    @classmethod
    def _none(cls, value: object) -> object:
        return None if value in ("none", {"name": "none"}) else value

    @field_validator("objective", mode="before")
    @classmethod
    def _several(cls, value: object) -> object:
        return value if value is None or isinstance(value, list) else [value]

    @field_validator("storage")
    @classmethod
    def _known_kind(cls, value: str | None) -> str | None:
        if value is not None and value != "none" and not value.endswith(tuple(STORAGES)):
            raise UserError(f"must be none or a file that ends in {' or '.join(STORAGES)}, not {value}")
        return value

    @model_validator(mode="after")
    def _grid_or_search(self) -> Sweep:
        if self.grid and self.search:
            raise UserError("cannot go with grid: list values in grid, or draw them in search", "search")
        if self.search and self.trials is None:
            raise UserError("needs trials, the number of points that are drawn", "search")
        if self.trials is not None and not self.search:
            raise UserError("belongs to search; without one, all combinations of the grid are run", "trials")
        for entry in ("searcher", "scheduler", "storage"):
            if getattr(self, entry) and entry in self.model_fields_set and not self.search:
                raise UserError("belongs to search, and there is none", entry)
        if self.adaptive and not self.objective:
            raise UserError(f"{self.searcher.name} needs an objective, the scalar that it makes better", "searcher")
        if self.storage and self.storage != "none" and not self.objective:
            raise UserError("needs an objective: the study keeps its values", "storage")
        metrics = [objective.metric for objective in self.objectives]
        if len(set(metrics)) < len(metrics):
            raise UserError("a metric is given twice", "objective")
        return self

    @property
    def varied(self) -> list[str]:
        """Dotted names of the settings that vary, without the seed."""
        return [*self.grid, *self.search]

    @property
    def adaptive(self) -> bool:
        """Whether the search chooses its points by the results of earlier ones."""
        return bool(self.search) and self.searcher.name != "random"

    @property
    def objectives(self) -> list[Objective]:
        """The objectives of the sweep; none where it has none."""
        return self.objective or []

    @property
    def studied(self) -> bool:
        """Whether the search has an Optuna study."""
        return self.adaptive or (bool(self.search) and self.storage not in (None, "none"))

    @property
    def seed_list(self) -> list[int] | None:
        """The seeds one by one; None where the sweep gives none."""
        return list(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds

"""What a task is made of, seen from its file `tasks/<name>.py`: nothing is registered, the file name is the name in the YAML.

```
COLUMNS                            row column -> what it is, with its unit: what `measure` returns, and no more; `id` is one.
                                   A text, or a `Column` (tasks.parts.columns) that says more to the figures
MAY_BE_MISSING = frozenset()       optional: the columns that may have no value (NaN) in a row; any may where it is not declared
class Config(TaskConfig)           the settings; every field has a default, a unit and a bound
def needs(config)                  name -> request of an artifact: what must exist before the measurement
def measure(config, given, batch)  one chunk of examples -> columns of rows
def summarise(config, rows)        all rows -> name -> float, the trial's scalars
VERSION                            a whole number, raised by hand when its numbers change on purpose
SHARES                             optional: names of row columns and scalars that lie between 0 and 1; `*` stands for any ending
def scores(config, rows)           optional: scalar -> what it is the mean of, a series by example: for the scalar's interval
def check(config, split)           optional: raises UserError for what only the data can tell, before any work
def passes(config)                 optional: forward passes for one example at most, for the dry run's estimate
SUBJECT = "autoencoder"            optional: the name in `needs` of the whole thing that a trial is about, where it needs several
def checks(config, rows)           optional: what was checked -> what is wrong, or None: whether the numbers mean anything
```

What is not finite is a failure of the trial, never a number: an infinity in any column, no value where none may be missing, and a
network that returns NaN or infinity for an image, in whatever way the task asks it. A scalar of `summarise` may be NaN, where there was
nothing to measure, or infinite; not so an objective.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from types import ModuleType
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pandas as pd
from pydantic import Field
from torch import nn

from tasks.parts.artifacts import classifier
from tasks.parts.artifacts.common.kind import Product, Progress, Saved, kind_of
from tasks.parts.batching import Batch
from tasks.parts.data import load as data
from tasks.parts.rows import as_array
from tasks.parts.settings import Settings
from tasks.parts.training.recipes import Recipe

Needs = Mapping[str, Settings]
"""What a task's `needs` returns: requests of artifact kinds by name. A recipe stands for its classifier."""


def requests(needs: Needs) -> dict[str, Settings]:
    """What a task asks for, with each recipe as the request of its classifier."""
    return {name: classifier.Request(recipe=need) if isinstance(need, Recipe) else need for name, need in needs.items()}


def prepared(
    needs: Needs, models: nn.Module | Mapping[str, nn.Module], batch: Batch, *, root: str | None = None
) -> dict[str, Any]:
    """What `measure` is given, without the engine: in a notebook, or a test.

    Args:
        needs: what the task asks for.
        models: the networks by the name under which they are needed, or the only one: [0, 1] images
            (B, C, H, W) to logits (B, K), in evaluation mode. What is not among them is made here.
        batch: around whose images the task measures.
        root: of the data sets.

    Raises:
        ValueError: one network is given where several are needed.
    """
    asked = requests(needs)
    whole = dict(_whole(asked))
    if isinstance(models, nn.Module):
        networks = {name: request for name, request in whole.items() if isinstance(request, classifier.Request)}
        if any(request != next(iter(networks.values())) for request in networks.values()):
            raise ValueError(f"several networks are needed; give each by its name: {', '.join(networks)}")
        models = dict.fromkeys(networks, models)
    there = [(whole[name], model) for name, model in models.items() if name in whole]
    return {name: _in_memory(request, there, batch, root) for name, request in asked.items()}


def _whole(needs: Mapping[str, Settings]) -> Iterator[tuple[str, Settings]]:
    """The whole things that are needed, also by what is needed by example: those have the names of both."""
    for name, request in needs.items():
        kind = kind_of(request)
        if kind.per_example:
            yield from ((f"{name}/{inner}", need) for inner, need in _whole(kind.needs(request)))
        else:
            yield name, request


def _in_memory(request: Settings, there: list[tuple[Settings, Any]], batch: Batch, root: str | None) -> Any:
    found = next((loaded for known, loaded in there if known == request), None)
    if found is not None:
        return found
    kind, device = kind_of(request), str(batch.images.device)
    if kind.own_examples:
        ids = kind.examples(request, batch.ids, root)
        batch = Batch(ids, *data.take(kind.split(request, root), ids, device=device))
    given = {name: _in_memory(need, there, batch, root) for name, need in kind.needs(request).items()}
    if kind.per_example:
        made = kind.make_rows(request, given, batch)
        arrays = {name: as_array(values) for name, values in made.items()}
        return kind.load(request, Saved(arrays, ids=np.asarray(batch.ids)), device)
    product = _last(kind.make_whole(request, given, root, device))
    return kind.load(request, Saved(product.arrays, product.facts), device)


def _last(steps: Iterator[Progress | Product]) -> Product:
    *_, product = steps
    if not isinstance(product, Product):
        raise TypeError("the last that a kind's make yields must be a Product")
    return product


class TaskConfig(Settings):
    """The settings that every task has.

    `replicates` names the field that the sweep's `seeds:` varies. It is the recipe's seed, not the measurement's, so that trials that
    differ only by seed are measured with the same random numbers. Fields named in `performance` change the speed and not the result,
    and so are no part of a trial's identity.
    """

    replicates: ClassVar[str] = "recipe.seed"
    performance: ClassVar[frozenset[str]] = frozenset({"batch"})

    recipe: Recipe = Field(default=Recipe(), description="how the classifier is made")
    split: Literal["test", "train"] = Field(default="test", description="split of the data set that is measured")
    examples: Annotated[int, Field(gt=0)] | list[Annotated[int, Field(ge=0)]] | None = Field(
        default=None,
        description="how many examples (balanced over the classes), or their ids in the split; all where null",
    )
    classes: list[str | int] | None = Field(
        default=None, description="measure examples of these classes only; all where null"
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="keys the random numbers of the measurement")
    batch: int | None = Field(
        default=None, gt=0, description="images in one forward pass; chosen for the device where null"
    )


# What a task may leave out, as it then is. A task's own stand in its module under the same names.

SHARES: tuple[str, ...] = ()
MAY_BE_MISSING: Set[str] | None = None
SUBJECT: str | None = None


def check(config: TaskConfig, split: data.Split) -> None:
    """Nothing is refused."""


def passes(config: TaskConfig) -> int:
    """It is not known."""
    return 0


def scores(config: TaskConfig, rows: pd.DataFrame) -> Mapping[str, pd.Series]:
    """No scalar is known to be a mean."""
    return {}


def checks(config: TaskConfig, rows: pd.DataFrame) -> Mapping[str, str | None]:
    """There is nothing to check."""
    return {}


def hook(task: ModuleType, name: str) -> Any:
    """What a task has under an optional name of the contract, or what stands for it.

    >>> from tasks import transfer
    >>> hook(transfer, "check") is transfer.check, hook(transfer, "SHARES") == transfer.SHARES
    (True, True)
    """
    return getattr(task, name, globals()[name])

"""What a task is made of: one file, `tasks/<name>.py`, which the YAML names. Nothing is registered.

```
COLUMNS                            row column -> what it is, with its unit: exactly what `measure`
                                   returns, `id` among them. A text, or a `Column`
                                   (tasks.parts.columns) that tells the figures more
class Config(TaskConfig)           the settings; every field has a default, a unit and a bound
def needs(config)                  name -> request of an artifact that `measure` is given
def measure(config, given, batch)  one chunk of examples -> columns of rows
def summarise(config, rows)        all rows -> name -> float, the trial's scalars
VERSION                            a whole number, raised by hand when its numbers change on purpose

These may be left out:

MAY_BE_MISSING = frozenset()       the columns that may be NaN in a row; any may if this is left out
SHARES                             names of row columns and scalars that lie between 0 and 1; `*`
                                   stands for any ending
def scores(config, rows)           scalar -> series by example whose mean it is, for its interval
def check(config, split)           raises UserError for what only the data can tell, before any work
def check_settings(config, root)   likewise for what only the network or the training images can
                                   tell, in the task's own fields: it is asked before artifacts are
def passes(config)                 forward passes for one example at most, for the dry run
SUBJECT = "autoencoder"            name in `needs` of the whole thing that a trial is about; needed
                                   where there are several
def checks(config, rows)           what was checked -> what is wrong, or None
def show(config, given, batch)     name -> `Attachment`: pictures of a few of the examples; it is
                                   given what `measure` is
```

Numbers that are not finite are a failure of the trial: an infinity in any column, NaN in a column
that may not be missing, and a network that returns NaN or infinity for an image, whoever asks it. A
scalar of `summarise` may be NaN, where there was nothing to measure, or infinite. An objective may
be neither.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from types import ModuleType
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pandas as pd
from pydantic import Field
from torch import Tensor, nn

from tasks.parts.artifacts import classifier
from tasks.parts.artifacts.common.kind import Attachment, Given, Product, Progress, Saved, kind_of
from tasks.parts.batching import Batch, batch_size
from tasks.parts.data.load import Split, take
from tasks.parts.rows import as_array
from tasks.parts.settings import Settings
from tasks.parts.training.recipes import Recipe

Needs = Mapping[str, Settings]
"""What `needs` returns: requests of artifacts by name. A recipe stands for its classifier."""


def requests(needs: Needs) -> dict[str, Settings]:
    """What a task asks for, with each recipe as the request of its classifier."""
    return {name: classifier.Request(recipe=need) if isinstance(need, Recipe) else need for name, need in needs.items()}


def prepared(
    needs: Needs, models: nn.Module | Mapping[str, nn.Module], batch: Batch, *, root: str | None = None
) -> dict[str, Any]:
    """What `measure` is given, made without the engine: for a notebook, or a test.

    Args:
        needs: what the task asks for.
        models: the networks by the name under which they are needed, or the only one: [0, 1] images
            (B, C, H, W) to logits (B, K), in evaluation mode. Those that are absent are made here.
        batch: the examples that the task measures.
        root: folder of the data sets.

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
    existing = [(whole[name], model) for name, model in models.items() if name in whole]
    return {name: _in_memory(request, existing, batch, root) for name, request in asked.items()}


def _whole(needs: Mapping[str, Settings]) -> Iterator[tuple[str, Settings]]:
    """All whole artifacts that are needed; `name/inner` is one that a per-example one needs."""
    for name, request in needs.items():
        kind = kind_of(request)
        if kind.per_example:
            yield from ((f"{name}/{inner}", need) for inner, need in _whole(kind.needs(request)))
        else:
            yield name, request


def _in_memory(request: Settings, existing: list[tuple[Settings, nn.Module]], batch: Batch, root: str | None) -> object:
    found = next((loaded for known, loaded in existing if known == request), None)
    if found is not None:
        return found
    kind, device = kind_of(request), str(batch.images.device)
    if kind.own_examples:
        ids = kind.examples(request, batch.ids, root)
        batch = Batch(ids, *take(kind.split(request, root), ids, device=device))
    given = {name: _in_memory(need, existing, batch, root) for name, need in kind.needs(request).items()}
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

    `replicates` names the field that the sweep's `seeds:` varies. It is the recipe's seed and not
    the measurement's, so that trials that differ by seed alone are measured with the same random
    numbers. The fields named in `performance` change the speed and not the result. They are no part
    of a trial's identity, nor are those that are `unused`.
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

    @property
    def unused(self) -> frozenset[str]:
        """The fields that decide nothing as long as the others are as they are."""
        return frozenset()

    def batch_for(self, images: Tensor) -> int:
        """How many images like these, (B, C, H, W), go into one pass."""
        return self.batch or batch_size(images[0].numel(), images.device)


# The defaults of what a task may leave out, under the names that they have in its module.

SHARES: tuple[str, ...] = ()
MAY_BE_MISSING: Set[str] | None = None
SUBJECT: str | None = None


def check(config: TaskConfig, split: Split) -> None:
    """Refuses nothing."""


def check_settings(config: TaskConfig, root: str | None) -> None:
    """Refuses nothing."""


def passes(config: TaskConfig) -> int:
    """The number of passes is unknown."""
    return 0


def scores(config: TaskConfig, rows: pd.DataFrame) -> Mapping[str, pd.Series]:
    """No scalar is known to be a mean."""
    return {}


def checks(config: TaskConfig, rows: pd.DataFrame) -> Mapping[str, str | None]:
    """Nothing is checked."""
    return {}


def show(config: TaskConfig, given: Given, batch: Batch) -> Mapping[str, Attachment]:
    """There is nothing to show."""
    return {}


def hook(task: ModuleType, name: str) -> Any:
    """What a task has under an optional name of the contract, or the default.

    >>> from tasks import transfer
    >>> hook(transfer, "check") is transfer.check, hook(transfer, "SHARES") == transfer.SHARES
    (True, True)
    """
    return getattr(task, name, globals()[name])

"""What a task is made of, seen from its file `tasks/<name>.py`: nothing is registered, the file name is the name in the YAML.

```
COLUMNS                            row column -> what it is, with its unit: what `measure` returns, and no more; `id` is one.
                                   A text, or a `Column` (tasks.parts.columns) that says more to the figures
MAY_BE_MISSING = frozenset()       optional: the columns that may have no value (NaN) in a row; any may where it is not declared
class Config(TaskConfig)           the settings; every field has a default, a unit and a bound
def needs(config)                  name -> recipe of what must exist before the measurement
def measure(config, made, batch)   one chunk of examples -> columns of rows
def summarise(config, rows)        all rows -> name -> float, the trial's scalars
VERSION                            a whole number, raised by hand when its numbers change on purpose
SHARES                             optional: names of row columns and scalars that lie between 0 and 1; `*` stands for any ending
def scores(config, rows)           optional: scalar -> what it is the mean of, a series by example: for the scalar's interval
def check(config, split)           optional: raises UserError for what only the data can tell, before any work
def passes(config)                 optional: forward passes for one example at most, for the dry run's estimate
```

What is not finite is a failure of the trial, never a number: an infinity in any column, no value where none may be missing, and a
network that returns NaN or infinity for an image, in whatever way the task asks it. A scalar of `summarise` may be NaN, where there was
nothing to measure, or infinite; not so an objective.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from tasks.parts.artifacts.adversarial_examples import Adversarial, made
from tasks.parts.settings import Settings
from tasks.parts.training.recipes import Recipe

Need = Recipe | Adversarial
Needs = Mapping[str, Need]
"""What a task's `needs` returns."""


@dataclass(frozen=True)
class Batch:
    """Examples to measure: ids (B,) in their split, images (B, C, H, W) in [0, 1], labels (B,)."""

    ids: Sequence[int]
    images: Tensor
    labels: Tensor


def prepared(needs: Needs, model: nn.Module, batch: Batch) -> dict[str, Any]:
    """What `measure` needs of one classifier, without the engine: in a notebook, or a test.

    Args:
        needs: of a task that looks at one classifier.
        model: [0, 1] images (B, C, H, W) to logits (B, K), in evaluation mode.
        batch: around whose images the task measures.
    """
    return {
        name: made(need, [model] * len(need.networks), batch.images, batch.labels, batch.ids)
        if isinstance(need, Adversarial)
        else model
        for name, need in needs.items()
    }


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

"""What a kind of artifact is made of: one file, `tasks/parts/artifacts/<kind>.py`.

An artifact is a thing that is made once and reused: a classifier, adversarial examples, a bank of
representations. Nothing is registered. A task's `needs` returns requests, and a request is of the
kind in whose module its class stands, ours or the user's own. Some kinds make one whole thing,
others rows that grow by examples.

```
class Request(Settings)            what is asked for; frozen settings
PER_EXAMPLE = False                whether it is rows that grow by examples, or one whole thing
VERSION = 1                        raised by hand when its numbers change on purpose
def identity(request, root)        what decides its numbers, as JSON; what it needs adds its own
def make(request, given, ...)      whole: (request, given, root, device), yields `Progress`, at last
                                   a `Product`
                                   by example: (request, given, batch) -> columns, (B, ...) each
def load(request, saved, device)   what `measure` receives under the name it was asked for

These may be left out:

def needs(request)                 name -> request of another artifact, which `given` holds loaded
def check(request, root)           raises UserError with a field of the request, before any work
def split(request, root)           by example, required: the split whose images `make` is given
def examples(request, ids, root)   by example: the ids in that split, where they are not the
                                   trial's; `load` is then given the rows of all of them
def cost(request)                  the work, in words of several: {"epochs": 20}; by example: of one
DOING = "training"                 what its making is called while it goes on
```

`root` is the folder of the data sets, `device` a name that torch knows. A kind knows no Ray, logger
or file.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from tasks.parts.batching import Batch
from tasks.parts.data.load import Split
from tasks.parts.members import wrong_version
from tasks.parts.settings import Settings, UserError

PACKAGE = "tasks.parts.artifacts"
Given = Mapping[str, Any]
"""What `load` returned for each artifact that a request or a task needs, by name."""


@dataclass(frozen=True)
class Progress:
    """A step of the work has ended: `done` of `total`, with its numbers, such as an epoch's."""

    done: int
    total: int
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Attachment:
    """A picture or notes to look at, which a maker leaves beside its arrays.

    Attributes:
        tiles: images in a grid of rows and columns, (R, n, H, W, 3), uint8; None for notes alone.
        notes: words and numbers about them, as JSON.
    """

    tiles: np.ndarray | None
    notes: Mapping[str, Any]


@dataclass(frozen=True)
class Product:
    """One whole artifact: its arrays, facts about it as JSON, and attachments by name."""

    arrays: Mapping[str, np.ndarray]
    facts: Mapping[str, object] = field(default_factory=dict)
    attachments: Mapping[str, Attachment] = field(default_factory=dict)


@dataclass(frozen=True)
class Saved:
    """What was kept of an artifact, as `load` gets it. The arrays are shared: never write to them.

    Attributes:
        arrays: by name; by example: a row for each of `ids`, (N, ...), in that order.
        facts: about a whole artifact, as JSON.
        ids: of the examples, (N,); None for a whole artifact.
    """

    arrays: Mapping[str, np.ndarray]
    facts: Mapping[str, object] = field(default_factory=dict)
    ids: np.ndarray | None = None


@dataclass(frozen=True)
class Kind:
    """The members of a kind's module, with defaults for those that it leaves out."""

    module_name: str

    @property
    def module(self) -> ModuleType:
        """The kind's file, imported."""
        found = sys.modules.get(self.module_name)  # much faster than to ask for the import again
        return importlib.import_module(self.module_name) if found is None else found

    @property
    def name(self) -> str:
        """What it is called: by the name of the file if it is ours, else by that of the module."""
        return self.module_name.removeprefix(f"{PACKAGE}.")

    @property
    def ours(self) -> bool:
        """Whether it is one of ours, and not the user's own."""
        return self.name != self.module_name

    @property
    def per_example(self) -> bool:
        """Whether it is rows that grow by examples, and not one whole thing."""
        return self.module.PER_EXAMPLE

    @property
    def own_examples(self) -> bool:
        """Whether it says itself of which examples its rows are, whatever a trial measures."""
        return self.per_example and hasattr(self.module, "examples")

    @property
    def doing(self) -> str:
        """What its making is called while it goes on."""
        return getattr(self.module, "DOING", f"making {self.name}")

    def needs(self, request: Settings) -> dict[str, Settings]:
        """Requests of other artifacts, by name."""
        return dict(self.module.needs(request)) if hasattr(self.module, "needs") else {}

    def identity(self, request: Settings, root: str | None) -> object:
        """What decides its numbers, as JSON."""
        return self.module.identity(request, root)

    def check(self, request: Settings, root: str | None) -> None:
        """Raises a `UserError` for what can be refused before any work."""
        if hasattr(self.module, "check"):
            self.module.check(request, root)

    def split(self, request: Settings, root: str | None) -> Split:
        """The split whose images `make_rows` is given."""
        return self.module.split(request, root)

    def examples(self, request: Settings, ids: Sequence[int], root: str | None) -> tuple[int, ...]:
        """The ids of its examples in that split; `ids` are the trial's."""
        chosen = self.module.examples(request, ids, root) if self.own_examples else ids
        return tuple(int(i) for i in chosen)

    def cost(self, request: Settings) -> Mapping[str, int]:
        """The work, in words of several, such as epochs; by example: for one."""
        return self.module.cost(request) if hasattr(self.module, "cost") else {}

    def make_whole(
        self, request: Settings, given: Given, root: str | None, device: str
    ) -> Iterator[Progress | Product]:
        """Makes the whole thing: steps of the work, and at last the product."""
        return self.module.make(request, given, root, device)

    def make_rows(self, request: Settings, given: Given, batch: Batch) -> Mapping[str, ArrayLike | Tensor]:
        """Makes the rows of some examples: columns, (B, ...) each."""
        return self.module.make(request, given, batch)

    def load(self, request: Settings, saved: Saved, device: str) -> object:
        """What a task, or another kind, is given."""
        return self.module.load(request, saved, device)


def kind_of(request: Settings) -> Kind:
    """The kind of a request: the module in which its class stands.

    Raises:
        UserError: the module lacks a member that a kind must have, or has one that is wrong.
    """
    module_name, class_name = type(request).__module__, type(request).__qualname__
    kind = Kind(module_name)
    module, what = kind.module, f"the artifact kind {kind.name}"
    if class_name != "Request":
        message = f"{module_name}.{class_name} is no request of an artifact kind, whose class is called Request"
        raise UserError(message, "task")
    members = ["PER_EXAMPLE", "identity", "make", "load", *(["VERSION"] if kind.ours else [])]
    members += ["split"] if getattr(module, "PER_EXAMPLE", False) else []
    absent = [member for member in members if not hasattr(module, member)]
    if absent:
        raise UserError(f"{what} lacks {', '.join(absent)}", "task")
    if not isinstance(module.PER_EXAMPLE, bool):
        raise UserError(f"{what}: PER_EXAMPLE must be True or False, not {module.PER_EXAMPLE!r}", "task")
    if wrong := wrong_version(getattr(module, "VERSION", 1)):
        raise UserError(f"{what}: {wrong}", "task")
    alone = "." not in module_name
    if alone and importlib.util.find_spec(f"{PACKAGE}.{module_name}") is not None:
        raise UserError(f"{what} has the name of one of ours; rename its module", "task")
    return kind

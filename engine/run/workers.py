"""What the workers do: train a classifier, search around or measure a chunk of examples.

Plain functions; the same in a Ray task and in this process.
"""

from __future__ import annotations

import importlib
import json
import math
import platform
import reprlib
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import torch

from tasks.parts.artifacts import adversarial_examples
from tasks.parts.artifacts.adversarial_examples import Adversarial, Searched
from tasks.parts.contract import Batch, TaskConfig
from tasks.parts.data import load as data
from tasks.parts.finite import NotFinite, watched
from tasks.parts.models import build as models
from tasks.parts.models.spaces import magnitudes
from tasks.parts.settings import UserError
from tasks.parts.training import augmented_picture, training
from tasks.parts.training.recipes import Recipe

State = dict[str, np.ndarray]
"""A network's weights and buffers by name, or adversarial examples by field: what Ray shares between the processes of a node
without a copy."""

NETWORKS_KEPT = 16
EXAMPLES_FOR_MAGNITUDES = 512
TELL_EVERY = 0.3
"""Seconds between two messages of a training at least."""


@dataclass(frozen=True)
class Surroundings:
    """Where work is done: the device, the threads of a worker, and the folder of the data sets (None: the default)."""

    device: str = "cpu"
    threads: int = 1
    data_root: str | None = None


@dataclass(frozen=True)
class Made:
    """A trained classifier, ready to be rebuilt: `key` identifies it; `magnitudes` are those of its hidden spaces."""

    key: str
    recipe: Recipe
    shape: tuple[int, int, int]
    classes: int
    magnitudes: tuple[float, ...]


@dataclass(frozen=True)
class Sought:
    """Adversarial examples that were found. Their state holds `ids`, in rising order, and the fields of `Searched`."""

    key: str


_networks: OrderedDict[tuple[str, str], models.Classifier] = OrderedDict()


def train(recipe: Recipe, around: Surroundings, *start: State) -> Iterator[dict[str, Any]]:
    """Yields mappings with `epochs`, some that have ended, as `training.Epoch`; at the end one with the network's `state` and what
    describes it.

    What is yielded costs some milliseconds on its way, so that short epochs travel together.

    Args:
        start: the weights of the network that is finetuned, where the recipe says so. Shared memory: read, never written.
    """
    torch.set_num_threads(around.threads)
    with own_code("the training"):
        yield from _train(recipe, around, start)


def _train(recipe: Recipe, around: Surroundings, start: Sequence[State]) -> Iterator[dict[str, Any]]:
    split = _split(recipe, "train", around)
    base = {name: torch.tensor(value) for state in start for name, value in state.items()}  # torch.tensor copies
    model = training.untrained(recipe, split, base or None)
    ended, said = [], -math.inf  # the first is told at once
    for epoch in training.epochs(recipe, model, split, around.device):
        ended.append(dict(epoch))
        if time.monotonic() - said >= TELL_EVERY:
            yield {"epochs": ended}
            ended, said = [], time.monotonic()
    if ended:
        yield {"epochs": ended}
    try:
        loss, accuracy = training.score(model, _split(recipe, "test", around), around.device)
    except NotFinite as error:
        raise NotFinite(f"{error.message} for images of the test split") from error
    state = {name: value.cpu().numpy() for name, value in model.state_dict().items()}
    yield {
        "state": state,
        "shape": split.shape,
        "classes": len(split.classes),
        "magnitudes": _magnitudes(model, split, around.device),
        "test": {"loss": loss, "accuracy": accuracy},
        "device": device_name(around.device),
        "augmented": augmented_picture.of(recipe, model, split),
    }


def search(
    ids: Sequence[int], wanted: Adversarial, around: Surroundings, made: Sequence[Made], *states: State
) -> pa.Table:
    """The adversarial examples of one chunk, a line each: `id` and the fields of `Searched`.

    Args:
        made: the networks to fool, and `states` their weights in the same order. Shared memory: read, never written.
    """
    torch.set_num_threads(around.threads)
    networks = [_network(of, state, around.device) for of, state in zip(made, states, strict=True)]

    def some(ids: Sequence[int]) -> pa.Table:
        images, labels = data.take(_split(wanted.networks[0], wanted.split, around), ids, device=around.device)
        with own_code("the search"), watched(networks):
            found = adversarial_examples.made(wanted, networks, images, labels, ids)
        return _lines(found, ids, around.device)

    return _named(some, ids)


def _lines(found: Searched, ids: Sequence[int], device: str) -> pa.Table:
    columns = {field.name: getattr(found, field.name).cpu().numpy() for field in fields(found)}
    points = columns.pop("points")
    numbers = pa.array(points.astype(np.float32).reshape(-1))
    lines = pa.table({"id": pa.array(ids, pa.int64()), **columns})
    lines = lines.append_column("points", pa.FixedSizeListArray.from_arrays(numbers, int(np.prod(points.shape[1:]))))
    about = {"ids": _json(ids), "device": device_name(device), "shape": json.dumps(points.shape[1:])}
    return lines.replace_schema_metadata(about)


def measure(
    ids: Sequence[int],
    task: str,
    config: TaskConfig,
    around: Surroundings,
    made: dict[str, Made | Sought],
    *states: State,
) -> pa.Table:
    """The rows of one chunk of examples.

    Args:
        task: the task's module.
        made: name -> what was made, and `states` their arrays in the same order. Shared memory: read, never written.
    """
    torch.set_num_threads(around.threads)
    module = importlib.import_module(task)
    given = list(zip(made.items(), states, strict=True))
    networks = {name: _network(of, state, around.device) for (name, of), state in given if isinstance(of, Made)}

    def some(ids: Sequence[int]) -> pa.Table:
        images, labels = data.take(_split(config.recipe, config.split, around), ids, device=around.device)
        there = {
            name: _searched(ids, state, around.device) if isinstance(of, Sought) else networks[name]
            for (name, of), state in given
        }
        with own_code("measure"), watched(networks.values()):
            columns = module.measure(config, there, Batch(tuple(ids), images, labels))
        missing = getattr(module, "MAY_BE_MISSING", None)
        return table(columns, module.COLUMNS, ids, device_name(around.device), missing)

    return _named(some, ids)


def table(
    columns: Any, labels: Mapping[str, str], ids: Sequence[int], device: str, missing: Set[str] | None = None
) -> pa.Table:
    """Columns as an Arrow table that knows the ids of the examples it covers (also of those without rows) and its device.

    Args:
        columns: what a task's `measure` returned.
        labels: its `COLUMNS`.
        ids: the examples that it was given.
        missing: the columns that may have no value (NaN) in a row; any may where None.

    Raises:
        ValueError: there are other columns, or rows of other examples.
        NotFinite: a number is infinite, or missing where it may not be.
    """
    if not isinstance(columns, Mapping):
        raise TypeError(f"measure returned no columns but {reprlib.repr(columns)}")
    if set(columns) != set(labels):
        raise ValueError(f"measure returned the columns {sorted(columns)}, but COLUMNS has {sorted(labels)}")
    frame = pa.Table.from_pandas(pd.DataFrame({name: columns[name] for name in labels}), preserve_index=False)
    if "id" in labels and (others := set(frame["id"].unique().to_pylist()) - {int(i) for i in ids}):
        raise ValueError(f"measure returned rows of the example {others.pop()}, which it was not given")
    for name in labels:
        if (odd := _odd(frame[name], may_be_missing=missing is None or name in missing)) is not None:
            row, what = odd
            raise NotFinite(f"the column {name} has {what}", frame["id"][row].as_py() if "id" in labels else None)
    return frame.replace_schema_metadata({"ids": _json(ids), "device": device})


def _odd(values: pa.ChunkedArray, *, may_be_missing: bool) -> tuple[int, str] | None:
    """The first row with an infinite number, or without one that it should have, and what it has; None where all are in order."""
    if pa.types.is_nested(values.type):  # lists
        inner = _odd(pc.list_flatten(values), may_be_missing=may_be_missing)
        return None if inner is None else (pc.list_parent_indices(values)[inner[0]].as_py(), inner[1])
    if not may_be_missing and (odd := values.is_null(nan_is_null=True).to_numpy()).any():
        return int(odd.argmax()), "no value (NaN)"
    if pa.types.is_floating(values.type) and (odd := np.isinf(values.to_numpy())).any():
        return int(odd.argmax()), "an infinite number"
    return None


@contextmanager
def own_code(what: str) -> Iterator[None]:
    """Code of the user's own runs within: where it would end this process, that is a failure like any other.

    Args:
        what: is run, for the message.

    Raises:
        RuntimeError: in place of `SystemExit` and the like.
    """
    try:
        yield
    except (Exception, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        said = f": {error}" if str(error) else ""
        raise RuntimeError(f"{what} raised {type(error).__name__}{said}, which ends a process") from error


def _named(work: Callable[[Sequence[int]], pa.Table], ids: Sequence[int]) -> pa.Table:
    """`work(ids)`; where a network returns what is not finite, the error names an example for which it does."""
    try:
        return work(ids)
    except NotFinite as error:
        if error.example is not None:
            raise
        few = list(ids)
        while len(few) > 1:  # the half that fails
            half = few[: len(few) // 2]
            few = half if _fails(work, half) else few[len(few) // 2 :]
        raise NotFinite(error.message, int(few[0])) from error


def _fails(work: Callable[[Sequence[int]], pa.Table], ids: Sequence[int]) -> bool:
    try:
        work(ids)
    except NotFinite:
        return True
    return False


def _json(ids: Sequence[int]) -> str:
    return json.dumps([int(i) for i in ids])


def device_name(device: str) -> str:
    """Of the GPU, or the kind of processor."""
    return torch.cuda.get_device_name() if device == "cuda" else f"cpu ({platform.machine()})"


def _split(recipe: Recipe, split: str, around: Surroundings) -> data.Split:
    return data.load(recipe.dataset, split, root=around.data_root, image_size=recipe.image_size, classes=recipe.classes)


def _network(made: Made, state: State, device: str) -> models.Classifier:
    """The network in evaluation mode without parameter gradients; rebuilt once in a process, since many chunks use it."""
    key = (made.key, device)
    if key not in _networks:
        model = models.build(
            made.recipe.network,
            made.shape,
            made.classes,
            mean=(0.0,) * made.shape[0],
            std=(1.0,) * made.shape[0],
            options=made.recipe.network_options,
        )
        model.load_state_dict({name: torch.tensor(value) for name, value in state.items()})  # torch.tensor copies
        model.magnitudes = made.magnitudes
        _networks[key] = model.to(device).eval().requires_grad_(False)
        while len(_networks) > NETWORKS_KEPT:
            _networks.popitem(last=False)
    _networks.move_to_end(key)
    return _networks[key]


def _searched(ids: Sequence[int], state: State, device: str) -> Searched:
    """The adversarial examples of these ids."""
    rows = np.searchsorted(state["ids"], ids)
    names = [field.name for field in fields(Searched)]
    return Searched(**{name: torch.tensor(state[name][rows], device=device) for name in names})  # indexing copies


def _magnitudes(model: models.Classifier, split: data.Split, device: str) -> tuple[float, ...]:
    """Of the hidden spaces, over the first training images; none for a network that has no hidden spaces."""
    images, _ = data.take(split, split.ids[:EXAMPLES_FOR_MAGNITUDES], device=device)
    try:
        return magnitudes(model, images)
    except UserError:
        return ()

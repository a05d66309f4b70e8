"""What the workers do: make a whole artifact, make rows of one, or measure a chunk of examples.

These are plain functions, the same in a Ray task and in this process.
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
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import torch

from engine.store.arrays import LARGE, Shared, as_rows, opened, require_folder, size_of, write_whole
from engine.store.store import Store
from tasks.parts.artifacts import classifier
from tasks.parts.artifacts.common.kind import Attachment, Kind, Product, Progress
from tasks.parts.batching import Batch
from tasks.parts.contract import TaskConfig, hook
from tasks.parts.data import load as data
from tasks.parts.finite import NotFinite, watched
from tasks.parts.models.classifier import Classifier
from tasks.parts.own_code import survived
from tasks.parts.rows import as_array
from tasks.parts.settings import Settings, below

LOADED = 16
"""How many whole artifacts a process keeps loaded, since many chunks use them."""
TELL_EVERY = 0.3
"""Seconds at least between two messages of a maker."""


@dataclass(frozen=True)
class RunContext:
    """Where the work is done.

    Attributes:
        device: of torch.
        threads: of a worker.
        data_root: the folder of the data sets; None for the default.
    """

    device: str = "cpu"
    threads: int = 1
    data_root: str | None = None


@dataclass(frozen=True)
class Handle:
    """Tells a worker which artifact it is given; the arrays come beside it.

    Attributes:
        kind: the artifact's kind.
        request: what was asked for.
        key: stands for exactly these arrays; of rows, for those of exactly these examples.
    """

    kind: Kind
    request: Settings
    key: str


@dataclass(frozen=True)
class Made:
    """A message from the maker of a whole artifact: steps that have ended, or the product.

    Attributes:
        steps: the steps (epochs) that have ended since it was heard of last.
        product: in the last message; without its arrays where the worker has written them itself.
        bytes: the size of the file of arrays, where the worker has written it.
        device: the name of the device on which they were made.
    """

    steps: Sequence[Progress] = ()
    product: Product | None = None
    bytes: int | None = None
    device: str = ""


_loaded: OrderedDict[tuple[str, str], object] = OrderedDict()


def make_whole(
    handle: Handle,
    context: RunContext,
    place: tuple[Store, str],
    names: Sequence[str],
    handles: Sequence[Handle],
    *shared: Shared,
) -> Iterator[Made]:
    """Makes a whole artifact.

    A message costs some milliseconds on its way, so short steps travel together. The artifacts that
    this one needs come as `names`, `handles` and their arrays, `shared`. `place` is the artifact's
    store and folder, where the worker writes arrays that are too large to travel.
    """
    torch.set_num_threads(context.threads)
    given = _given(names, handles, shared, None, context.device)
    steps: list[Progress] = []
    said = -math.inf  # the first is told at once
    product: Product | None = None
    with survived(f"the {handle.kind.doing}"):
        for step in handle.kind.make_whole(handle.request, given, context.data_root, context.device):
            if isinstance(step, Product):
                product = step
                continue
            numbers = {name: float(value) for name, value in step.numbers.items()}
            steps.append(Progress(step.done, step.total, numbers))
            if time.monotonic() - said >= TELL_EVERY:
                yield Made(steps)
                steps, said = [], time.monotonic()
    if product is None:
        raise RuntimeError(f"the maker of the artifact kind {handle.kind.name} came to no product")
    device = device_name(context.device)
    if size_of(product.arrays) <= LARGE:
        yield Made(steps, product, None, device)
    else:
        require_folder(place[0])
        written = write_whole(*place, product.arrays)
        yield Made(steps, Product({}, product.facts, product.attachments), written, device)


def make_rows(
    ids: Sequence[int],
    handle: Handle,
    context: RunContext,
    names: Sequence[str],
    handles: Sequence[Handle],
    *shared: Shared,
) -> pa.Table:
    """The rows of an artifact for one chunk of examples.

    The artifacts that this one needs come as `names`, `handles` and their arrays, `shared`.
    """
    torch.set_num_threads(context.threads)
    kind = handle.kind

    def some(ids: Sequence[int]) -> pa.Table:
        images, labels = data.take(kind.split(handle.request, context.data_root), ids, device=context.device)
        given = _given(names, handles, shared, ids, context.device)
        with survived(f"the {kind.doing}"), watched(_networks(given)):
            columns = kind.make_rows(handle.request, given, Batch(tuple(ids), images, labels))
        arrays = {name: as_array(values) for name, values in columns.items()}
        return as_rows(arrays, ids, _about(ids, device_name(context.device)))

    return _named(some, ids)


def measure(
    ids: Sequence[int],
    task: str,
    config: TaskConfig,
    context: RunContext,
    names: Sequence[str],
    handles: Sequence[Handle],
    *shared: Shared,
) -> pa.Table:
    """The rows of a trial for one chunk of examples.

    `task` is the name of the task's module. The artifacts that the trial needs come as `names`,
    `handles` and their arrays, `shared`. The arrays are shared memory: read, never written.
    """
    torch.set_num_threads(context.threads)
    module = importlib.import_module(task)

    def some(ids: Sequence[int]) -> pa.Table:
        batch = _batch(config, ids, context)
        given = _given(names, handles, shared, ids, context.device)
        with survived("measure"), watched(_networks(given)):
            columns = module.measure(config, given, batch)
        return table(columns, module.COLUMNS, ids, device_name(context.device), hook(module, "MAY_BE_MISSING"))

    return _named(some, ids)


def show(
    ids: Sequence[int],
    task: str,
    config: TaskConfig,
    context: RunContext,
    names: Sequence[str],
    handles: Sequence[Handle],
    *shared: Shared,
) -> Mapping[str, Attachment]:
    """The pictures of a few examples that a task leaves; the arguments are those of `measure`."""
    torch.set_num_threads(context.threads)
    module = importlib.import_module(task)
    batch = _batch(config, ids, context)
    given = _given(names, handles, shared, ids, context.device)
    with survived("show"):
        return hook(module, "show")(config, given, batch)


def _batch(config: TaskConfig, ids: Sequence[int], context: RunContext) -> Batch:
    """Some of the examples that a task measures."""
    with below("recipe"):
        split = classifier.split_of(config.recipe, config.split, context.data_root)
    return Batch(tuple(ids), *data.take(split, ids, device=context.device))


def _given(
    names: Sequence[str], handles: Sequence[Handle], shared: Sequence[Shared], ids: Sequence[int] | None, device: str
) -> dict[str, object]:
    """The artifacts that are needed, loaded, by name.

    Of one by example, the rows of these examples; of a kind that has its own examples, all rows.
    """
    return {
        name: _load(handle, arrays, ids, device) for name, handle, arrays in zip(names, handles, shared, strict=True)
    }


def _load(handle: Handle, shared: Shared, ids: Sequence[int] | None, device: str) -> object:
    kind = handle.kind
    if kind.per_example and not kind.own_examples:
        return kind.load(handle.request, opened(shared, ids), device)
    key = (handle.key, device)
    if key not in _loaded:
        _loaded[key] = kind.load(handle.request, opened(shared, None), device)
        while len(_loaded) > LOADED:
            _loaded.popitem(last=False)
    _loaded.move_to_end(key)
    return _loaded[key]


def _networks(given: Mapping[str, object]) -> list[Classifier]:
    return [loaded for loaded in given.values() if isinstance(loaded, Classifier)]


def table(
    columns: object, labels: Mapping[str, str], ids: Sequence[int], device: str, missing: Set[str] | None = None
) -> pa.Table:
    """The columns that a task's `measure` returned, checked, as an Arrow table.

    The table's metadata has the ids of the examples it covers (also of those without rows) and the
    device's name.

    Args:
        columns: what `measure` returned.
        labels: the task's `COLUMNS`.
        ids: the examples that it was given.
        device: the name of the device.
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
    return frame.replace_schema_metadata(_about(ids, device))


def _odd(values: pa.ChunkedArray, *, may_be_missing: bool) -> tuple[int, str] | None:
    """Finds the first row whose number is infinite, or missing where it may not be.

    Returns its place, and what is wrong in words; None where all rows are in order.
    """
    if pa.types.is_nested(values.type):  # lists
        inner = _odd(pc.list_flatten(values), may_be_missing=may_be_missing)
        return None if inner is None else (pc.list_parent_indices(values)[inner[0]].as_py(), inner[1])
    if not may_be_missing and (odd := values.is_null(nan_is_null=True).to_numpy()).any():
        return int(odd.argmax()), "no value (NaN)"
    if pa.types.is_floating(values.type) and (odd := np.isinf(values.to_numpy())).any():
        return int(odd.argmax()), "an infinite number"
    return None


def _named(work: Callable[[Sequence[int]], pa.Table], ids: Sequence[int]) -> pa.Table:
    """`work(ids)`; an error about a number that is not finite names an example."""
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


def _about(ids: Sequence[int], device: str) -> dict[str, str]:
    """The metadata of a part of rows."""
    return {"ids": json.dumps([int(i) for i in ids]), "device": device}


def device_name(device: str) -> str:
    """The name of the GPU, or the kind of processor."""
    return torch.cuda.get_device_name() if device == "cuda" else f"cpu ({platform.machine()})"

"""Every artifact kind keeps the same promises.

The most important: the same request gives the same result, whatever else is made with it.
"""

from __future__ import annotations

import inspect
import json
import random
from collections.abc import Mapping, Sequence
from functools import cache
from types import ModuleType

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from engine.store.arrays import as_rows, opened, shared_rows, shared_whole, write_whole
from engine.store.store import Store
from tasks.parts.artifacts.common.kind import Product, Progress, Saved, kind_of
from tasks.parts.batching import Batch
from tasks.parts.contract import prepared
from tasks.parts.data import load as data
from tasks.parts.rows import as_array
from tasks.parts.settings import Settings
from tasks.parts.training.recipes import Recipe

RECIPE = Recipe(dataset="blobs", network="mlp", network_options={"width": 12}, epochs=2)
IDS = (3, 0, 14, 27, 41, 8, 55, 19, 20)


def asked(kind: ModuleType) -> Settings:
    """A request that is quickly made: a small recipe, and defaults for all other fields."""
    fields = kind.Request.model_fields
    given = {"recipe": RECIPE, "networks": (RECIPE,)}
    lacking = [name for name, field in fields.items() if field.is_required() and name not in given]
    assert not lacking, f"give the fields {', '.join(lacking)} of Request defaults, with which it can be tried"
    return kind.Request(**{name: value for name, value in given.items() if name in fields})


def examples(kind: ModuleType, ids: Sequence[int] = IDS) -> Batch:
    """The images and labels of some examples of the split that the kind uses."""
    request = asked(kind)
    images, labels = data.take(kind_of(request).split(request, None), ids)
    return Batch(tuple(ids), images, labels)


def given(kind: ModuleType) -> dict[str, object]:
    """The artifacts that the request needs, made in memory."""
    return _given(kind.__name__, kind)


@cache
def _given(_: str, kind: ModuleType) -> dict[str, object]:
    images, labels = data.take(data.load("blobs", "test"), IDS)
    return prepared(kind_of(asked(kind)).needs(asked(kind)), {}, Batch(IDS, images, labels))


def steps(kind: ModuleType) -> list[Progress | Product]:
    """All that making a whole artifact yields: its progress, then the product."""
    return list(kind_of(asked(kind)).make_whole(asked(kind), given(kind), None, "cpu"))


def arrays(kind: ModuleType, ids: Sequence[int] = IDS) -> Mapping[str, np.ndarray]:
    """What the kind makes: the arrays of a whole artifact, or the columns of some examples."""
    if not kind.PER_EXAMPLE:
        product = steps(kind)[-1]
        assert isinstance(product, Product)
        return product.arrays
    made = kind_of(asked(kind)).make_rows(asked(kind), given(kind), examples(kind, ids))
    return {name: as_array(values) for name, values in made.items()}


def same(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray], tolerance: float = 0) -> None:
    """Asserts that two sets of arrays are equal, up to a tolerance."""
    assert first.keys() == second.keys()
    for name in first:
        assert first[name].dtype == second[name].dtype, name
        np.testing.assert_allclose(first[name], second[name], rtol=tolerance, atol=tolerance, err_msg=name)


def test_a_kind_has_what_the_contract_names(kind: ModuleType) -> None:
    """It has a docstring, a cost, checked requests, and needs that are artifacts too."""
    assert kind.__doc__
    found = kind_of(asked(kind))
    assert found.module is kind
    assert all(isinstance(count, int) and what for what, count in found.cost(asked(kind)).items())
    for need in found.needs(asked(kind)).values():
        kind_of(need)
    found.check(asked(kind), None)


def test_requests_are_frozen_closed_and_come_back_from_text(kind: ModuleType) -> None:
    """A request is a frozen record of known fields, and JSON keeps all of it."""
    request = asked(kind)
    assert type(request).model_validate_json(request.model_dump_json()) == request
    with pytest.raises(ValidationError, match="Extra inputs"):
        kind.Request(**{**dict(request), "no_such_setting": 1})
    with pytest.raises(ValidationError, match="frozen"):
        setattr(request, next(iter(kind.Request.model_fields)), None)


def test_the_identity_is_json_and_that_of_the_request(kind: ModuleType) -> None:
    """The identity can be written as JSON, and equal requests have equal ones."""
    found, again = (kind.identity(asked(kind), None) for _ in range(2))
    assert json.loads(json.dumps(found)) == json.loads(json.dumps(again))


def test_the_same_is_made_again(kind: ModuleType) -> None:
    """Random numbers drawn in between change nothing, and making draws none of the shared ones."""
    first = arrays(kind)
    torch.manual_seed(7)
    random.seed(7)
    before = torch.get_rng_state(), random.getstate()
    same(first, arrays(kind))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]


def test_whole_things_tell_of_their_steps_and_end_in_a_product(kind: ModuleType) -> None:
    """Making a whole artifact yields growing progress and, at the end, the product."""
    if kind.PER_EXAMPLE:
        pytest.skip("made by example")
    *progress, product = steps(kind)
    assert isinstance(product, Product)
    counts = [step.done for step in progress if isinstance(step, Progress)]
    assert counts == sorted(counts)
    assert all(isinstance(step, Progress) and step.done <= step.total for step in progress)
    assert json.dumps(product.facts)
    assert all(json.dumps(dict(attachment.notes)) for attachment in product.attachments.values())


@pytest.mark.parametrize(
    "pieces", [[[i] for i in IDS], [IDS[:7], IDS[7:]], [IDS[::-1]]], ids=["one", "two", "reversed"]
)
def test_rows_do_not_depend_on_the_chunks(kind: ModuleType, pieces: list[Sequence[int]]) -> None:
    """Rows are the same however the examples are grouped and ordered, to 1e-5."""
    if not kind.PER_EXAMPLE:
        pytest.skip("made whole")
    together = arrays(kind)
    assert all(len(values) == len(IDS) for values in together.values())
    order = np.argsort([i for piece in pieces for i in piece])
    apart = [arrays(kind, piece) for piece in pieces]
    joined = {name: np.concatenate([piece[name] for piece in apart])[order] for name in together}
    same({name: values[np.argsort(IDS)] for name, values in together.items()}, joined, 1e-5)


def test_what_is_kept_is_what_is_loaded(kind: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is loaded is the same from memory and from disk."""
    store, found, request = Store(tmp_path_factory.mktemp("kept")), kind_of(asked(kind)), asked(kind)
    if kind.PER_EXAMPLE:
        made = arrays(kind)
        store.write_table("k/rows/part-a.parquet", as_rows(made, IDS, {"ids": json.dumps(IDS), "device": "cpu"}))
        kept, memory = opened(shared_rows(store, "k", IDS), None), Saved(made, ids=np.asarray(IDS))
    else:
        product = steps(kind)[-1]
        assert isinstance(product, Product)
        facts = json.loads(json.dumps(product.facts))
        size = write_whole(store, "k", product.arrays)
        kept, memory = opened(shared_whole(store, "k", facts, size), None), Saved(product.arrays, product.facts)
    same(kept.arrays, memory.arrays)
    assert type(found.load(request, kept, "cpu")) is type(found.load(request, memory, "cpu"))


def test_making_writes_into_nothing_it_was_given(kind: ModuleType) -> None:
    """The request and the networks are as they were before."""
    networks = {name: thing for name, thing in given(kind).items() if isinstance(thing, nn.Module)}
    states = {name: {key: value.clone() for key, value in net.state_dict().items()} for name, net in networks.items()}
    request = asked(kind).model_dump_json()
    arrays(kind)
    assert asked(kind).model_dump_json() == request
    for name, network in networks.items():
        assert not network.training
        assert all(torch.equal(value, states[name][key]) for key, value in network.state_dict().items())


def test_functions_take_what_the_engine_gives(kind: ModuleType) -> None:
    """The functions of the module take as many arguments as the engine passes."""
    for name, count in {"identity": 2, "load": 3, "make": 3 if kind.PER_EXAMPLE else 4}.items():
        assert len(inspect.signature(getattr(kind, name)).parameters) == count, name

"""Every task keeps the same promises."""

from __future__ import annotations

import copy
import fnmatch
import inspect
import pkgutil
import random
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor, nn

import tasks
from tasks.parts.artifacts import classifier
from tasks.parts.artifacts.common.kind import kind_of
from tasks.parts.contract import Batch, TaskConfig, hook, prepared, requests
from tasks.parts.data import load as data
from tasks.parts.dotted import flatten, is_setting
from tasks.parts.finite import NotFinite
from tasks.parts.models.build import Classifier
from tasks.parts.training import training
from tasks.parts.training.recipes import Recipe

BLOBS = [
    Recipe(dataset="blobs", network="linear", epochs=4),
    Recipe(dataset="blobs", network="mlp", network_options={"width": 24}, epochs=4),
]
IDS = [3, 0, 14, 27, 41, 8, 55, 19, 20]

QUICK: dict[str, dict[str, object]] = {
    "tasks.adversarial_search": {"attack": {"norm": "L2", "steps": 8}, "radii": [0.1, 0.3, 0.6], "black_box": 30},
    "tasks.transfer": {
        "networks": [{"network": "mlp"}, {"network": "linear"}],
        **{"members": 2, "attack": {"epsilon": 0.2, "steps": 5}, "samples": 6},
    },
}
"""Settings of tasks whose defaults take long."""

every_network = pytest.mark.parametrize("recipe", BLOBS, ids=lambda recipe: recipe.network)


def config_of(task: ModuleType, **settings: object) -> TaskConfig:
    """The task's default settings, quick ones where the defaults take long, with changes."""
    return task.Config(**QUICK.get(task.__name__, {}), **settings)


def trained(recipe: Recipe) -> Classifier:
    """The trained network of a recipe as a task gets it: in evaluation mode, without gradients."""
    return _trained(recipe.model_dump_json())


@cache
def _trained(text: str) -> Classifier:
    recipe = Recipe.model_validate_json(text)
    split = data.load(recipe.dataset, "train")
    model = training.untrained(recipe, split)
    for _ in training.epochs(recipe, model, split):
        pass
    model.zero_grad()
    return model.requires_grad_(False)


def examples(ids: Sequence[int] = IDS) -> Batch:
    """The images and labels of some test examples."""
    images, labels = data.take(data.load("blobs", "test"), ids)
    return Batch(tuple(ids), images, labels)


def made(task: ModuleType, config: TaskConfig, batch: Batch) -> dict[str, object]:
    """The artifacts that the task needs, made in memory."""
    needs = requests(task.needs(config))
    networks = {name: trained(need.recipe) for name, need in needs.items() if isinstance(need, classifier.Request)}
    return prepared(needs, networks, batch)


def measured(task: ModuleType, config: TaskConfig, ids: Sequence[int] = IDS) -> pd.DataFrame:
    """The rows that the task measures at some examples."""
    batch = examples(ids)
    return pd.DataFrame(task.measure(config, made(task, config, batch), batch))


def may_be_missing(task: ModuleType) -> set[str]:
    """The columns that may have no value."""
    declared = hook(task, "MAY_BE_MISSING")
    return set(task.COLUMNS) - {"id", "label"} if declared is None else set(declared)


def shared_generators() -> list[bytes]:
    """The states of the process's own random generators."""
    return [
        torch.get_rng_state().numpy().tobytes(),
        repr(np.random.get_state()).encode(),
        repr(random.getstate()).encode(),
    ]


# ------------------------------------------------------------------------------------------- tasks


def test_a_task_has_what_the_contract_names(task: ModuleType) -> None:
    """It has a docstring, settings, columns with labels, and the three functions."""
    assert task.__doc__
    assert issubclass(task.Config, TaskConfig)
    for function, count in ((task.needs, 1), (task.measure, 3), (task.summarise, 2)):
        assert len(inspect.signature(function).parameters) == count
    assert all(isinstance(name, str) and name.isidentifier() for name in task.COLUMNS)
    assert all(isinstance(label, str) and label.strip() for label in task.COLUMNS.values())
    assert "id" in task.COLUMNS  # rows of two tasks are joined by it
    assert may_be_missing(task) <= set(task.COLUMNS) - {"id", "label"}


def test_scalars_that_are_means_are_those_of_their_scores(task: ModuleType) -> None:
    """The mean of a scalar's scores is the scalar itself."""
    config = config_of(task, recipe=BLOBS[0])
    rows = measured(task, config)
    summary, scores = task.summarise(config, rows), hook(task, "scores")(config, rows)
    assert set(scores) <= set(summary)
    for name, values in scores.items():
        assert set(values.index) <= set(IDS)
        assert values.mean() == pytest.approx(summary[name], nan_ok=True)


def test_shares_lie_between_0_and_1(task: ModuleType) -> None:
    """All columns and scalars that the task declares as shares are between 0 and 1."""
    config = config_of(task, recipe=BLOBS[0])
    rows = measured(task, config)
    numbers = {name: rows[name] for name in rows} | task.summarise(config, rows)
    for pattern in hook(task, "SHARES"):
        for name in fnmatch.filter(numbers, pattern):
            values = np.asarray(numbers[name], dtype=float)
            assert np.all(np.isnan(values) | ((values >= 0) & (values <= 1))), name


def groups(config: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """A settings class, and the settings classes of its fields, at any depth."""
    yield config
    for field in config.model_fields.values():
        if inspect.isclass(field.annotation) and issubclass(field.annotation, BaseModel):
            yield from groups(field.annotation)


def test_settings_are_frozen_closed_and_told(task: ModuleType) -> None:
    """Settings are frozen, known fields, each with a default and a description."""
    for group in groups(task.Config):
        default = group()
        for name, field in group.model_fields.items():
            assert not field.is_required(), (group, name)
            assert field.description, (group, name)
            with pytest.raises(ValidationError, match="frozen"):
                setattr(default, name, getattr(default, name))
        with pytest.raises(ValidationError, match="Extra inputs"):
            group(no_such_setting=1)


def test_settings_come_back_from_text(task: ModuleType) -> None:
    """JSON keeps all settings."""
    config = config_of(task, recipe=BLOBS[1], seed=3)
    assert type(config).model_validate_json(config.model_dump_json()) == config


def test_the_fields_that_the_settings_name_exist(task: ModuleType) -> None:
    """`performance` and `replicates` name settings of the task."""
    assert task.Config.performance <= set(task.Config.model_fields)
    assert is_setting(task.Config, task.Config.replicates)
    assert isinstance(flatten(task.Config().model_dump())[task.Config.replicates], int)


def test_needs_are_classifiers_of_the_data_and_what_is_made_of_these(task: ModuleType) -> None:
    """Needs are artifacts, and classifiers among them are trained by the recipe."""
    needs = requests(task.needs(task.Config(recipe=BLOBS[0])))
    assert needs
    assert all(isinstance(name, str) and name for name in needs)
    recipes = [need.recipe for need in needs.values() if isinstance(need, classifier.Request)]
    assert all(recipe.dataset == BLOBS[0].dataset and recipe.epochs == BLOBS[0].epochs for recipe in recipes)
    for need in needs.values():
        kind_of(need)


@every_network
def test_columns_and_summary(task: ModuleType, recipe: Recipe) -> None:
    """Rows have the declared columns and examples, and all numbers are finite."""
    config = config_of(task, recipe=recipe)
    columns = task.measure(config, made(task, config, examples()), examples())
    assert set(columns) == set(task.COLUMNS)
    rows = pd.DataFrame(columns)
    assert set(rows["id"]) == set(IDS)
    labels = data.load("blobs", "test").labels
    assert "label" not in rows or (rows["label"] == labels[rows["id"]]).all()
    for name, column in rows.items():
        assert name in may_be_missing(task) or column.notna().all(), name
        assert not column.isin([np.inf, -np.inf]).any(), name
    summary = task.summarise(config, rows)
    assert summary
    for name, value in summary.items():
        assert np.isfinite(float(value)), name


@every_network
def test_rows_do_not_depend_on_the_chunks(task: ModuleType, recipe: Recipe) -> None:
    """Rows are the same however the examples are grouped and ordered: floats to 1e-5."""
    config = config_of(task, recipe=recipe)
    together = measured(task, config)
    order = {example: place for place, example in enumerate(IDS)}
    for pieces in ([[i] for i in IDS], [IDS[:7], IDS[7:]], [IDS[::-1]]):
        rows = pd.concat([measured(task, config, piece) for piece in pieces])
        rows = rows.sort_values("id", key=lambda ids: ids.map(order), kind="stable", ignore_index=True)
        pd.testing.assert_frame_equal(rows, together, rtol=1e-5, atol=1e-5)
    for performance in task.Config.performance:
        faster = config.model_copy(update={performance: 5})
        pd.testing.assert_frame_equal(measured(task, faster), together, rtol=1e-5, atol=1e-5)


def test_rows_depend_on_the_seed_and_on_nothing_global(task: ModuleType) -> None:
    """Global random states change no row and are not changed; the seed changes rows."""
    config = config_of(task, recipe=BLOBS[1])
    torch.manual_seed(1)
    rows = measured(task, config)
    torch.manual_seed(2)
    np.random.seed(2)
    random.seed(2)
    before = shared_generators()
    pd.testing.assert_frame_equal(measured(task, config), rows, check_exact=True)
    assert shared_generators() == before
    if task.__name__.startswith("tasks."):  # a user's own task may draw nothing
        assert not measured(task, config.model_copy(update={"seed": 1})).equals(rows)


def test_measuring_writes_into_nothing_it_was_given(task: ModuleType) -> None:
    """Settings, images, labels and networks are as they were before."""
    config, batch = config_of(task, recipe=BLOBS[1]), examples()
    given = made(task, config, batch)
    settings, images, labels = config.model_dump_json(), batch.images.clone(), batch.labels.clone()
    states = {name: {key: value.clone() for key, value in tensors(thing).items()} for name, thing in given.items()}
    task.measure(config, given, batch)
    assert config.model_dump_json() == settings
    assert torch.equal(batch.images, images)
    assert torch.equal(batch.labels, labels)
    assert set(given) == set(states)
    for name, thing in given.items():
        assert all(
            torch.equal(value.nan_to_num(), states[name][key].nan_to_num()) for key, value in tensors(thing).items()
        )
        if isinstance(thing, nn.Module):
            assert not thing.training
            assert all(p.grad is None and not p.requires_grad for p in thing.parameters())


def tensors(thing: object) -> dict[str, Tensor]:
    """The tensors of a network, of adversarial examples, or of anything else that a kind loads."""
    if isinstance(thing, Tensor):
        return {"": thing}
    found = dict(thing.state_dict()) if isinstance(thing, nn.Module) else getattr(thing, "__dict__", {})
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_a_network_that_is_not_finite_is_no_measurement(task: ModuleType, number: float) -> None:
    """The task fails, even if the adversarial examples were found with a sound network."""
    config, batch = config_of(task, recipe=BLOBS[1]), examples()
    given = made(task, config, batch)
    if not any(isinstance(thing, nn.Module) for thing in given.values()):
        pytest.skip("asks no network")
    for name, thing in given.items():
        if isinstance(thing, nn.Module):
            given[name] = broken = copy.deepcopy(thing)
            list(broken.parameters())[-1].fill_(number)
    with pytest.raises(NotFinite, match="the network returns numbers that are not finite"):
        task.measure(config, given, batch)


def test_summarising_writes_into_nothing_it_was_given(task: ModuleType) -> None:
    """The rows are as they were before."""
    config = config_of(task, recipe=BLOBS[1])
    rows = measured(task, config)
    before = rows.copy(deep=True)
    task.summarise(config, rows)
    pd.testing.assert_frame_equal(rows, before, check_exact=True)


def test_a_task_is_a_file_of_its_own(task: ModuleType) -> None:
    """A task imports parts, never another task."""
    there = [module.name for module in pkgutil.iter_modules(tasks.__path__) if not module.ispkg]
    names = {name for name in there if task.__name__.startswith("tasks.") and f"tasks.{name}" != task.__name__}
    source = Path(inspect.getfile(task)).read_text()
    assert not [name for name in names if f"tasks.{name}" in source or f"from tasks import {name}" in source]

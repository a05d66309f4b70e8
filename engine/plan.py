"""What a sweep has to do: each trial with its identity, what it needs, and what of that exists already."""

from __future__ import annotations

import hashlib
import importlib.util
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from engine.source import SpecError
from engine.spec import Spec, Trial
from engine.store import Store, content_hash, parts_of
from tasks.parts import data, models
from tasks.parts.contract import TaskConfig
from tasks.parts.recipes import Recipe
from tasks.parts.settings import UserError

Status = Literal["done", "failed", "begun", "new"]


@dataclass(frozen=True)
class Artifact:
    """Something to make once: a classifier by its recipe. `folder` is where it lives in the store."""

    kind: str
    key: str
    recipe: Recipe

    @property
    def folder(self) -> str:
        return f"artifacts/{self.kind}/{self.key}"


@dataclass(frozen=True)
class Planned:
    """A trial to run: its identity, where its results live, the examples it measures, and what it needs, by name."""

    trial: Trial
    key: str
    folder: str
    ids: tuple[int, ...]
    needs: dict[str, Artifact]
    classes: tuple[str, ...]


def plan(spec: Spec) -> list[Planned]:
    """Resolves every trial and checks all that can be checked before the work: data, networks, weights, examples.

    Raises:
        SpecError: with the line of the setting at fault.
    """
    planned = []
    for trial in spec.trials:
        try:
            planned.append(_planned(spec, trial))
        except UserError as error:
            raise spec.error(error) from None
    twice = [key for key, count in Counter(item.key for item in planned).items() if count > 1]
    if twice:
        labels = [item.trial.label for item in planned if item.key == twice[0]]
        raise SpecError(f"{spec.source.file}: the trials {labels[0]} and {labels[1]} are the same")
    return planned


def status(planned: Planned, store: Store) -> Status:
    """How far a trial is."""
    if store.exists(f"{planned.folder}/trial.json"):
        return "done" if store.read_json(f"{planned.folder}/trial.json")["status"] == "done" else "failed"
    return "begun" if store.names(f"{planned.folder}/rows") else "new"


def missing(planned: Planned, store: Store) -> list[int]:
    """The examples of a trial that no stored part of rows covers."""
    covered: set[int] = set()
    for _, ids in parts_of(store, f"{planned.folder}/rows"):
        covered.update(ids)
    return [example for example in planned.ids if example not in covered]


def exists(artifact: Artifact, store: Store) -> bool:
    return store.exists(f"{artifact.folder}/artifact.json")  # written last


def recipe_identity(recipe: Recipe, root: str | None) -> dict[str, Any]:
    """The recipe with names that stand for content outside of it replaced by that content's fingerprint."""
    identity = recipe.model_dump(mode="json")
    identity["dataset"] = data.fingerprint(recipe.dataset, root=root)
    if ":" in recipe.network:
        identity["network"] = [recipe.network, _source_hash(recipe.network)]
    if recipe.weights not in ("none", "DEFAULT"):
        identity["weights"] = _file_hash(recipe.weights, Path(recipe.weights).stat().st_mtime_ns)
    return identity


def _planned(spec: Spec, trial: Trial) -> Planned:
    config, root = trial.config, spec.data_root
    split, ids = _examples(config, root)
    if hasattr(spec.task, "check"):
        spec.task.check(config, split)
    identity = config.model_dump(mode="json", exclude=set(config.performance))
    identity["recipe"] = recipe_identity(config.recipe, root)
    key = content_hash([spec.sweep.task, identity])
    needs = {
        name: Artifact("classifier", content_hash(["classifier", recipe_identity(recipe, root)]), recipe)
        for name, recipe in spec.task.needs(config).items()
    }
    return Planned(trial, key, f"{spec.name}/trials/{key}", ids, needs, split.classes)


def _examples(config: TaskConfig, root: str | None) -> tuple[data.Split, tuple[int, ...]]:
    recipe = config.recipe
    data.check(recipe.dataset, root=root)
    models.check(recipe.network, weights=recipe.weights, options=recipe.network_options)
    split = data.load(recipe.dataset, config.split, root=root, image_size=recipe.image_size, classes=recipe.classes)
    return split, tuple(int(i) for i in data.choose(split, config.examples, config.classes))


@lru_cache
def _file_hash(path: str, _modified: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


@lru_cache
def _source_hash(name: str) -> str:
    """Of the file that defines `package.module:function`."""
    found = importlib.util.find_spec(name.partition(":")[0])
    return _file_hash(found.origin, Path(found.origin).stat().st_mtime_ns) if found and found.origin else ""

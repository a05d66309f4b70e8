"""What a sweep has to do: each trial with its identity, what it needs, and what of that exists already."""

from __future__ import annotations

import json
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch

from engine.plan.identity import of_classifier, of_examples, of_recipe, of_task
from engine.store.store import Damaged, Store, content_hash, parts_of
from engine.sweepfile.load import Spec, Trial
from tasks.parts.artifacts.adversarial_examples import Adversarial
from tasks.parts.attacks.common import checks
from tasks.parts.contract import Need, TaskConfig
from tasks.parts.data import load as data
from tasks.parts.finite import NotFinite
from tasks.parts.models import build as models
from tasks.parts.models import spaces
from tasks.parts.settings import UserError
from tasks.parts.training import adversarial_augmentation
from tasks.parts.training.recipes import Recipe

Status = Literal["done", "stopped", "failed", "begun", "new"]
WEIGHTS = "weights.pt"
"""A trained network's state, in its folder; `bytes` in artifact.json is its size."""


@dataclass(frozen=True)
class Artifact:
    """Something to make once: a classifier by its recipe, or adversarial examples. `folder` is where it lives in the store.

    `needs` are the artifacts it is made of, in order.
    """

    key: str
    of: Need
    needs: tuple[Artifact, ...] = ()

    @property
    def kind(self) -> str:
        return "classifier" if isinstance(self.of, Recipe) else "adversarial"

    @property
    def folder(self) -> str:
        return f"artifacts/{self.kind}/{self.key}"

    def chain(self) -> Iterator[Artifact]:
        """Itself, after all that it is made of."""
        for artifact in self.needs:
            yield from artifact.chain()
        yield self


@dataclass(frozen=True)
class Planned:
    """A trial to run: its identity, where its results live, the examples it measures, and what it needs, by name."""

    trial: Trial
    key: str
    folder: str
    ids: tuple[int, ...]
    needs: dict[str, Artifact]
    classes: tuple[str, ...]

    @property
    def classifier(self) -> Artifact | None:
        """The network that the trial is about; None where it is about several."""
        networks = [artifact for artifact in self.needs.values() if artifact.kind == "classifier"]
        return networks[0] if len(networks) == 1 else None

    def artifacts(self) -> dict[str, Artifact]:
        """All that must exist, by key, each after what it is made of."""
        return {artifact.key: artifact for need in self.needs.values() for artifact in need.chain()}


def plan(spec: Spec) -> list[Planned]:
    """Resolves every trial and checks all that can be checked before the work: data, networks, weights, examples.

    Raises:
        SpecError: with the line of the setting at fault.
    """
    planned: dict[str, Planned] = {}
    for trial in spec.trials:
        item = plan_one(spec, trial)
        if item.key not in planned:
            planned[item.key] = item
        elif not spec.sweep.search:  # a search may draw a point again: it is run once
            section = "grid" if spec.sweep.grid else "seeds"
            labels = f"{planned[item.key].trial.label} and {trial.label}"
            raise spec.source.error(section, f"the trials {labels} are the same")
    return list(planned.values())


def plan_one(spec: Spec, trial: Trial) -> Planned:
    """One trial, resolved and checked."""
    try:
        return _planned(spec, trial)
    except UserError as error:
        raise (
            spec.source.error("task", error.message) if error.field == "task" else spec.error(error, trial)
        ) from None


def status(planned: Planned, store: Store) -> Status:
    """How far a trial is; one that has ended and lacks rows of an example is only begun."""
    told = trial_record(planned, store)
    if told is None:
        return "begun" if store.names(f"{planned.folder}/rows") else "new"
    if told["status"] == "done":
        return "done" if _has_rows(planned, told, store) else "begun"
    return "stopped" if told["status"] == "stopped" else "failed"


def trial_record(planned: Planned, store: Store) -> dict[str, Any] | None:
    """What a trial that has ended says of itself; None where there is nothing, or nothing whole."""
    return store.record(f"{planned.folder}/trial.json", "status")


def outdated(planned: Sequence[Planned], store: Store) -> int:
    """How many of these trials, of which there is nothing yet, have been measured with the same settings under another key.

    Something has changed that is no setting: the data, a file of weights, code of the user's own, or a `VERSION` of ours.
    """
    known = {item.folder.rpartition("/")[0]: {item.key for item in planned} for item in planned}
    before = []
    for folder, keys in known.items():
        others = (key for key in store.names(folder) if key not in keys)
        records = (store.record(f"{folder}/{key}/trial.json", "config") for key in others)
        before += [record["config"] for record in records if record and record.get("status") == "done"]
    return sum(item.trial.config.model_dump(mode="json") in before for item in planned) if before else 0


def _has_rows(planned: Planned, told: Mapping[str, Any], store: Store) -> bool:
    """Whether the rows of all examples of a trial are there: one listing where it has told of its `parts`, else a look into each."""
    parts, there = told.get("parts"), store.sizes(f"{planned.folder}/rows")
    if isinstance(parts, dict) and parts and parts.items() <= there.items():
        return True
    return not missing(planned.folder, planned.ids, store)


def missing(folder: str, ids: Sequence[int], store: Store, *, mend: bool = False) -> list[int]:
    """The examples that no part of rows in the folder of a trial, or of adversarial examples, covers.

    Args:
        mend: parts that cannot be read are set aside.
    """
    covered: set[int] = set()
    for _, there in parts_of(store, f"{folder}/rows", mend=mend):
        covered.update(there)
    return [example for example in ids if example not in covered]


def exists(artifact: Artifact, store: Store, ids: Sequence[int] = ()) -> bool:
    """Whether an artifact is there and whole; adversarial examples of these ids."""
    if artifact.kind == "adversarial":
        return store.record(f"{artifact.folder}/artifact.json") is not None and not missing(artifact.folder, ids, store)
    about = store.record(f"{artifact.folder}/artifact.json", "history")  # written last
    if about is None:
        return False
    path = f"{artifact.folder}/{WEIGHTS}"
    size = store.size(path)
    why = "missing" if size is None else f"cut ({size} bytes)"
    if size is not None and (size == about["bytes"] if "bytes" in about else store.is_zip(path)):
        return True
    store.tell(Damaged(path, store.location(path), why))
    return False


def _planned(spec: Spec, trial: Trial) -> Planned:
    config, root = trial.config, spec.data_root
    with _told("task", f"{spec.sweep.task}: needs", own_code=True):
        asked = dict(spec.task.needs(config))
    needs = {name: _needed(name, need, config, root) for name, need in asked.items()}
    split, ids = _examples(config, root)
    if hasattr(spec.task, "check"):
        with _told("task", f"{spec.sweep.task}: check", own_code=True):
            spec.task.check(config, split)
    identity = config.model_dump(mode="json", exclude=set(config.performance))
    identity["recipe"] = of_recipe(config.recipe, root)
    made = {name: need.key for name, need in needs.items()}  # by content, which the settings may name by a path
    key = content_hash([of_task(spec.task), identity, made])
    return Planned(trial, key, f"{spec.name}/trials/{key}", ids, needs, split.classes)


def _needed(name: str, need: Need, config: TaskConfig, root: str | None) -> Artifact:
    try:
        return _artifact(need, root)
    except UserError as error:
        recipes = (need,) if isinstance(need, Recipe) else need.networks
        at_recipe = (error.field or "").startswith("recipe") and config.recipe not in recipes
        if at_recipe and "networks" in type(config).model_fields:
            raise UserError(f"{name}: {error.message}", "networks") from None  # where this recipe is written
        raise


def _artifact(need: Need, root: str | None) -> Artifact:
    if isinstance(need, Adversarial):
        of = tuple(_artifact(recipe, root) for recipe in need.networks)
        need.attack.try_options()
        _check_space(need, root)
        for recipe in need.networks:
            _check_searchable(recipe, need, root)
        key = content_hash([of_examples(need), [artifact.key for artifact in of]])
        return Artifact(key, need, of)
    _check_recipe(need, root)
    base = () if need.finetune_from is None else (_artifact(need.finetune_from, root),)
    recipe = need.effective()  # the network of a recipe with an augmentation of probability 0 is that of the plain one
    return Artifact(content_hash(of_classifier(recipe, root)), _anywhere(recipe), base)


def _anywhere(recipe: Recipe) -> Recipe:
    """The recipe with its weights file by its full path: workers have a working folder of their own."""
    if recipe.weights in ("none", "DEFAULT"):
        return recipe
    return recipe.model_copy(update={"weights": str(Path(recipe.weights).expanduser().absolute())})


def _examples(config: TaskConfig, root: str | None) -> tuple[data.Split, tuple[int, ...]]:
    recipe = config.recipe
    with _told("recipe.dataset", recipe.dataset, _own_data(recipe)):
        split = _split(recipe, config.split, root)
    chosen = json.dumps([config.examples, config.classes])
    return split, _ids(recipe.dataset, config.split, root, recipe.image_size, json.dumps(recipe.classes), chosen)


def _check_recipe(recipe: Recipe, root: str | None) -> None:
    """Raises `UserError` unless data, weights and network of a classifier are there and fit each other."""
    with _told("recipe.dataset", recipe.dataset, _own_data(recipe)):
        data.check(recipe.dataset, root=root)
        split = _split(recipe, "test", root)
        if recipe.train_examples is not None:
            data.choose(_split(recipe, "train", root), recipe.train_examples, field="recipe.train_examples")
    with _told("recipe.weights", recipe.weights):
        models.check(recipe.network, weights=recipe.weights, options=recipe.network_options)
    weights = "none" if recipe.weights == "DEFAULT" else recipe.weights  # nothing is downloaded yet
    options = json.dumps(recipe.network_options)
    with _told("recipe.network", recipe.network, own_code=":" in recipe.network):
        _fit(recipe.network, options, weights, recipe.freeze_backbone, split.shape, len(split.classes))
    if recipe.adversarial_augmentation.space != "pixel":
        adversarial_augmentation.check(recipe, _in_memory(recipe, root))


def _check_space(need: Adversarial, root: str | None) -> None:
    """Raises `UserError` where a search is for a layer that its network does not have."""
    kind, stage = spaces.parse(need.attack.space)
    if kind != "hidden" or stage is None:
        return
    recipe = need.networks[0]
    try:
        models.hidden_stage(_in_memory(recipe, root), stage)
    except UserError as error:
        raise UserError(error.message, "attack.space") from None


def _check_searchable(recipe: Recipe, need: Adversarial, root: str | None) -> None:
    """Raises `UserError` where a network of the user's own, or weights from a file, cannot be searched with: see `checks.check_network`."""
    if ":" not in recipe.network and recipe.weights in ("none", "DEFAULT"):
        return  # our networks return logits, which have gradients
    with _told("recipe.network", recipe.network, own_code=":" in recipe.network):
        split = _split(recipe, need.split, root)
        images, labels = data.take(split, split.ids[: checks.PROBES])
        options, content = json.dumps(recipe.network_options), of_recipe(recipe, root)["weights"]
        model = _searchable(recipe.network, options, recipe.weights, content, split.shape, len(split.classes))
        try:
            checks.check_network(model, images, labels, follows=need.attack.capabilities.gradients)
        except (UserError, NotFinite) as error:
            raise UserError(f"{recipe.network}: {error}", "recipe.network") from None


@lru_cache(maxsize=4)
def _searchable(
    network: str, options: str, weights: str, _content: str, shape: tuple[int, int, int], classes: int
) -> models.Classifier:
    """The network as it will be, as far as that can be told before the training.

    Untrained weights are moved a little: a network may well begin with zeros, through which no gradient flows, and not stay there.
    """
    model = models.build(network, shape, classes, weights=weights, options=json.loads(options)).eval()
    if weights == "none":
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model


def _in_memory(recipe: Recipe, root: str | None) -> models.Classifier:
    """The recipe's network with weights of some kind, for its layers can be told only of such a one."""
    split = _split(recipe, "test", root)
    return _with_weights(recipe.network, json.dumps(recipe.network_options), split.shape, len(split.classes))


@lru_cache(maxsize=4)
def _with_weights(network: str, options: str, shape: tuple[int, int, int], classes: int) -> models.Classifier:
    return models.build(network, shape, classes, options=json.loads(options)).eval()


def _own_data(recipe: Recipe) -> bool:
    """Whether the data set is read by code of the user's own."""
    return ":" in recipe.dataset and recipe.dataset.partition(":")[0] not in data.names()


@lru_cache
def _ids(dataset: str, split: str, root: str | None, size: int | None, classes: str, chosen: str) -> tuple[int, ...]:
    """The examples to measure; trials that measure the same share one tuple."""
    there = data.load(dataset, split, root=root, image_size=size, classes=json.loads(classes))
    return tuple(int(i) for i in data.choose(there, *json.loads(chosen)))


def _split(recipe: Recipe, split: str, root: str | None) -> data.Split:
    return data.load(recipe.dataset, split, root=root, image_size=recipe.image_size, classes=recipe.classes)


@lru_cache
def _fit(network: str, options: str, weights: str, freeze: bool, shape: tuple[int, int, int], classes: int) -> None:
    """Raises `UserError` unless the network can be built for such images and the weights fit it.

    Networks whose code we know are built without memory for their weights, in some milliseconds.
    """
    with torch.device("cpu" if ":" in network else "meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # weights that are copied to nowhere
        models.build(network, shape, classes, weights=weights, freeze_backbone=freeze, options=json.loads(options))


@contextmanager
def _told(field: str, name: str, own_code: bool = False) -> Iterator[None]:
    """What the file system refuses, and what code of the user's own raises, as a `UserError`."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if own_code:
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(last.filename).name}, line {last.lineno}"
            raise UserError(f"{name} failed: {type(error).__name__}: {error} ({where})", field) from error
        if isinstance(error, OSError):
            raise UserError(f"{name}: {error.strerror or error}", field) from error
        raise

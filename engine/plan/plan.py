"""The plan of a sweep: its trials, what each needs, and what of that exists already."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from engine.plan.identity import of_artifact, of_task
from engine.store.arrays import ARRAYS
from engine.store.damaged import Damaged
from engine.store.naming import content_hash
from engine.store.records import read_trial
from engine.store.row_parts import parts_of
from engine.store.store import Store
from engine.sweepfile.load import Spec, Trial
from tasks.parts.artifacts.common.kind import Kind, kind_of
from tasks.parts.contract import TaskConfig, hook, requests
from tasks.parts.data import load as data
from tasks.parts.own_code import explained
from tasks.parts.settings import Settings, UserError, below
from tasks.parts.training.identity import of_recipe
from tasks.parts.training.recipes import Recipe

Status = Literal["done", "stopped", "failed", "begun", "new"]


@dataclass(frozen=True)
class Artifact:
    """A thing to make once, such as a trained network.

    Attributes:
        kind: what kind of thing it is.
        request: what was asked for.
        key: a hash of what decides its numbers.
        ids: of a kind by example: the examples whose rows are wanted; empty for a whole thing.
        needs: the artifacts it is made of, by name.
        cost: the work of making it, in words of several; of a kind by example: of one.
    """

    kind: Kind
    request: Settings
    key: str
    ids: tuple[int, ...]
    needs: dict[str, Artifact]
    cost: Mapping[str, int]

    @property
    def folder(self) -> str:
        """Where it lives in the store."""
        return f"artifacts/{self.kind.name}/{self.key}"

    def chain(self) -> Iterator[Artifact]:
        """All that it is made of, and itself last."""
        for artifact in self.needs.values():
            yield from artifact.chain()
        yield self


@dataclass(frozen=True)
class Planned:
    """A trial to run.

    Attributes:
        trial: its settings.
        key: a hash of what decides its numbers.
        folder: where its results live in the store.
        ids: the examples that it measures.
        needs: the artifacts that it needs, by name.
        classes: the names of the classes.
        about: the name of the whole artifact that it is about; None: the only one, if there is one.
    """

    trial: Trial
    key: str
    folder: str
    ids: tuple[int, ...]
    needs: dict[str, Artifact]
    classes: tuple[str, ...]
    about: str | None = None

    @property
    def subject(self) -> Artifact | None:
        """The whole artifact that the trial is about; None where it is about several."""
        if self.about is not None:
            return self.needs[self.about]
        whole = [artifact for artifact in self.needs.values() if not artifact.kind.per_example]
        return whole[0] if len(whole) == 1 else None

    def artifacts(self) -> dict[str, Artifact]:
        """All artifacts that must exist, by key, each after what it is made of."""
        return {artifact.key: artifact for need in self.needs.values() for artifact in need.chain()}


def plan(spec: Spec) -> list[Planned]:
    """Resolves and checks every trial of a sweep.

    All is checked that can be checked before the work: data, networks, weights, examples.

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
    """Resolves and checks one trial."""
    try:
        return _planned(spec, trial)
    except UserError as error:
        raise (
            spec.source.error("task", error.message) if error.field == "task" else spec.error(error, trial)
        ) from None


def status(planned: Planned, store: Store) -> Status:
    """How far a trial is.

    One that has ended but lacks the rows of an example is only begun.
    """
    record = read_trial(store, planned.folder)
    if record is None:
        return "begun" if store.names(f"{planned.folder}/rows") else "new"
    if record.status == "done":
        return "done" if _has_rows(planned, record.parts, store) else "begun"
    return record.status


def outdated(planned: Sequence[Planned], store: Store) -> int:
    """How many of these new trials were measured before, with the same settings.

    They have another key since something has changed that is no setting: the data, a file of
    weights, code of the user's own, or a `VERSION` of ours.
    """
    known = {item.folder.rpartition("/")[0]: {item.key for item in planned} for item in planned}
    before = []
    for folder, keys in known.items():
        others = (key for key in store.names(folder) if key not in keys)
        records = (read_trial(store, f"{folder}/{key}") for key in others)
        before += [record.config for record in records if record and record.status == "done"]
    return sum(item.trial.config.model_dump(mode="json") in before for item in planned) if before else 0


def _has_rows(planned: Planned, parts: Mapping[str, int], store: Store) -> bool:
    """Whether the rows of all examples of a trial are there.

    One listing tells where its record has `parts`, else a look into each part.
    """
    if parts and parts.items() <= store.sizes(f"{planned.folder}/rows").items():
        return True
    return not missing(planned.folder, planned.ids, store)


def missing(folder: str, ids: Sequence[int], store: Store, *, mend: bool = False) -> list[int]:
    """The examples whose rows are missing from a folder.

    Args:
        folder: of a trial, or of an artifact by example.
        ids: all examples whose rows are wanted.
        store: of all results.
        mend: parts that cannot be read are set aside.
    """
    covered: set[int] = set()
    for _, there in parts_of(store, f"{folder}/rows", mend=mend):
        covered.update(there)
    return [example for example in ids if example not in covered]


def exists(artifact: Artifact, store: Store) -> bool:
    """Whether an artifact is there and whole; of one by example, all its rows."""
    record = f"{artifact.folder}/artifact.json"  # written last, of a whole thing
    if artifact.kind.per_example:
        return store.record(record) is not None and not missing(artifact.folder, artifact.ids, store)
    about = store.record(record, "bytes")
    if about is None:
        return False
    path = f"{artifact.folder}/{ARRAYS}"
    size = store.size(path)
    if size is not None and size == about["bytes"]:
        return True
    store.tell(Damaged(path, store.location(path), "missing" if size is None else f"cut ({size} bytes)"))
    return False


def _planned(spec: Spec, trial: Trial) -> Planned:
    config, root = trial.config, spec.data_root
    with explained("task", f"{spec.sweep.task}: needs", own_code=True):
        asked = requests(spec.task.needs(config))
    split, ids = _examples(config, root)
    with explained("task", f"{spec.sweep.task}: check_settings", own_code=True):
        hook(spec.task, "check_settings")(config, root)
    made: list[Artifact] = []
    needs = {name: _needed(name, need, config, ids, root, made) for name, need in asked.items()}
    with explained("task", f"{spec.sweep.task}: check", own_code=True):
        hook(spec.task, "check")(config, split)
    identity = config.model_dump(mode="json", exclude={*config.performance, *config.unused})
    with below("recipe"):
        identity["recipe"] = of_recipe(config.recipe, root)
    # What is needed counts by its content; the settings may name it by a path.
    keys = {name: need.key for name, need in needs.items()}
    key = content_hash([of_task(spec.task), identity, keys])
    return Planned(trial, key, f"{spec.name}/trials/{key}", ids, needs, split.classes, hook(spec.task, "SUBJECT"))


def _needed(
    name: str, need: Settings, config: TaskConfig, ids: tuple[int, ...], root: str | None, made: list[Artifact]
) -> Artifact:
    try:
        return _artifact(need, ids, root, (), made)
    except UserError as error:
        at_recipe = (error.field or "").startswith("recipe") and config.recipe not in _recipes(need)
        if at_recipe and "networks" in type(config).model_fields:
            # The recipe is written among the networks.
            raise UserError(f"{name}: {error.message}", "networks") from None
        raise


def _artifact(
    request: Settings, ids: tuple[int, ...], root: str | None, within: tuple[Settings, ...], made: list[Artifact]
) -> Artifact:
    """The artifact of a request, checked.

    Args:
        request: what is asked for.
        ids: the examples of whatever needs it.
        root: of the data sets.
        within: the requests that need it.
        made: what is checked already of whole things, which do not depend on the examples; grows.
    """
    kind = kind_of(request)
    what = f"the artifact kind {kind.name}"
    if request in within:
        raise UserError(f"{what}: what it needs, needs it in turn", "task")
    if (known := next((artifact for artifact in made if artifact.request == request), None)) is not None:
        return known
    with explained("task", what, own_code=not kind.ours):
        asked, ids = kind.needs(request), _rows_of(kind, request, ids, root)
    for need in asked.values():
        of = kind_of(need)
        if of.per_example and not kind.per_example and not of.own_examples:
            raise UserError(f"{what} is whole, and {of.name} depends on the trial", "task")
    needs = {name: _artifact(need, ids, root, (*within, request), made) for name, need in asked.items()}
    with explained("task", what, own_code=not kind.ours):
        kind.check(request, root)
        key = content_hash([of_artifact(kind, request, root), [need.key for need in needs.values()]])
        artifact = Artifact(kind, request, key, ids if kind.per_example else (), needs, kind.cost(request))
    if not any(of.kind.per_example for of in artifact.chain()):
        made.append(artifact)
    return artifact


def _rows_of(kind: Kind, request: Settings, ids: tuple[int, ...], root: str | None) -> tuple[int, ...]:
    """The examples whose rows are wanted; `ids` are those of whatever needs the artifact."""
    if not kind.own_examples:
        return ids
    chosen = kind.examples(request, ids, root)
    others = set(chosen).difference(kind.split(request, root).ids.tolist())
    if others or not chosen:
        which = f"the example {min(others)}, which is not in its split" if others else "no examples"
        raise UserError(f"the artifact kind {kind.name} asks for {which}", "task")
    return chosen


def _recipes(request: Settings) -> list[Recipe]:
    """The recipes that a request names."""
    values = [each for _, value in request for each in (value if isinstance(value, tuple) else (value,))]
    return [value for value in values if isinstance(value, Recipe)]


def _examples(config: TaskConfig, root: str | None) -> tuple[data.Split, tuple[int, ...]]:
    recipe = config.recipe
    with below("recipe"), explained("dataset", recipe.dataset, own_code=data.is_own_code(recipe.dataset)):
        split = data.load(recipe.dataset, config.split, root=root, image_size=recipe.image_size, classes=recipe.classes)
    chosen = json.dumps([config.examples, config.classes])
    return split, _ids(recipe.dataset, config.split, root, recipe.image_size, json.dumps(recipe.classes), chosen)


@lru_cache
def _ids(dataset: str, split: str, root: str | None, size: int | None, classes: str, chosen: str) -> tuple[int, ...]:
    """The examples to measure; trials that measure the same share one tuple."""
    images = data.load(dataset, split, root=root, image_size=size, classes=json.loads(classes))
    return tuple(int(i) for i in data.choose(images, *json.loads(chosen)))

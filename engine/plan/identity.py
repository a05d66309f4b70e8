"""What decides numbers: the identity of a task, a recipe and adversarial examples, from which their keys are made.

An identity holds settings and data by their content, and the `VERSION` of the code that makes the numbers: of the task, the attack and the
kind of artifact. A version is raised by hand when numbers change on purpose (`tests/golden` notices when they change without), so
that a docstring, a label or another layout of the code measures nothing anew. Code of the user's own is told by its
source (`tasks.parts.user_code`).
"""

from __future__ import annotations

import hashlib
import importlib
from functools import cache, lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from tasks.parts import user_code
from tasks.parts.artifacts import adversarial_examples
from tasks.parts.artifacts.adversarial_examples import Adversarial
from tasks.parts.attacks.common import libraries
from tasks.parts.data import load as data
from tasks.parts.training import training
from tasks.parts.training.recipes import Recipe

ATTACKS = "tasks.parts.attacks"


def of_task(task: ModuleType) -> list[Any]:
    """A task of ours by its version, one of the user's own by its source."""
    ours = task.__name__.startswith("tasks.") and hasattr(task, "VERSION")
    return [task.__name__, task.VERSION if ours else _source_hash(task.__name__)]


def of_classifier(recipe: Recipe, root: str | None) -> list[Any]:
    """A trained network.

    Args:
        root: of the data sets.
    """
    return ["classifier", training.VERSION, of_recipe(recipe, root)]


def of_examples(wanted: Adversarial) -> list[Any]:
    """Adversarial examples, but for the networks, which have identities of their own."""
    return ["adversarial", adversarial_examples.VERSION, _of_attack(wanted.attack.name), wanted.identity()]


def of_recipe(recipe: Recipe, root: str | None) -> dict[str, Any]:
    """The recipe with names that stand for content outside of it replaced by that content's fingerprint."""
    identity = recipe.model_dump(mode="json")
    identity["dataset"] = data.fingerprint(recipe.dataset, root=root)
    if ":" in recipe.network:
        identity["network"] = [recipe.network, _source_hash(recipe.network.partition(":")[0])]
    if recipe.weights not in ("none", "DEFAULT"):
        file = Path(recipe.weights).expanduser()
        identity["weights"] = _file_hash(str(file), file.stat().st_mtime_ns)
    if recipe.finetune_from is not None:
        identity["finetune_from"] = of_recipe(recipe.finetune_from, root)
    return identity


@cache
def _of_attack(name: str) -> dict[str, int]:
    """The versions of an attack and of those that it is made of, by name.

    >>> sorted(_of_attack("bisection"))
    ['apgd', 'bisection']
    """
    if ":" in name:
        return {name: libraries.VERSION}
    module = importlib.import_module(f"{ATTACKS}.{name}")
    versions = {name: module.VERSION}
    for part in vars(module).values():
        made_by = getattr(part, "__module__", "")
        folder, _, other = made_by.rpartition(".")
        if folder == ATTACKS and other != name:
            versions |= _of_attack(other)
    return versions


@lru_cache
def _file_hash(path: str, _modified: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


@cache
def _source_hash(module: str) -> str:
    """Remembered: this process has imported the module as it was."""
    return user_code.source_hash(module)

"""What decides a trained network, as JSON, from which its key is made."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from tasks.parts.data import load as data
from tasks.parts.training.recipes import Recipe
from tasks.parts.user_code import is_own, module_of, source_hash


def of_recipe(recipe: Recipe, root: str | None) -> dict[str, object]:
    """The recipe's settings, with a fingerprint in place of each name of something outside of it.

    Args:
        recipe: of the network.
        root: of the data sets.
    """
    identity = recipe.model_dump(mode="json")
    identity["dataset"] = data.fingerprint(recipe.dataset, root=root)
    if is_own(recipe.network):
        identity["network"] = [recipe.network, source_hash(module_of(recipe.network))]
    if recipe.weights not in ("none", "DEFAULT"):
        file = Path(recipe.weights).expanduser()
        identity["weights"] = _file_hash(str(file), file.stat().st_mtime_ns)
    if recipe.finetune_from is not None:
        identity["finetune_from"] = of_recipe(recipe.finetune_from, root)
    return identity


@lru_cache
def _file_hash(path: str, _modified: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]

"""Are adversarial examples shared between classifiers? Those found at each network of a pool, scored on all of them.

The networks differ in architecture, recipe and seed. For each of them (`source`) adversarial examples are searched; each is then classified
by every network (`target`). Beside the single networks stand the joint searches, which fool all networks but one at once and are scored on
that one, and images moved as far at random. Noise around the found image says how flat the source is there: does that predict transfer?

Rows: one for each example, source and target.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import torch
from pydantic import Field, model_validator
from scipy.stats import spearmanr
from torch import Tensor

from tasks.parts.artifacts import adversarial_examples
from tasks.parts.artifacts.common.attack_functions import is_of_library
from tasks.parts.artifacts.common.attack_settings import Attack, check_classes
from tasks.parts.batching import batch_size, in_batches
from tasks.parts.contract import Batch, Needs, TaskConfig
from tasks.parts.data import load as data
from tasks.parts.dotted import flatten, merged
from tasks.parts.measures.flatness import Cell, statistics
from tasks.parts.messages import validated
from tasks.parts.noise.random_control import randomly_moved
from tasks.parts.rows import as_array, spread
from tasks.parts.self_checks import found_again, weaker_at_random
from tasks.parts.settings import NonNegative, UserError
from tasks.parts.training.recipes import INHERITED, LEARNING_RATES, Recipe

VERSION = 1
"""Raised by hand when its numbers change on purpose."""

COLUMNS = {
    "id": "example (index in the split)",
    "label": "true class",
    "source": "network, or networks, at which the search was made",
    "target": "network that classifies what was found",
    "joint": "the search fooled several networks at once",
    "held_out": "the target had no part in the search",
    "source_correct": "image is classified correctly by the source (by all of them)",
    "target_correct": "image is classified correctly by the target",
    "found": "the search succeeded at the source (at all of them)",
    "distance": "distance of the found image (pixel units, the attack's norm)",
    "fooled": "the target misclassifies the found image",
    "flatness": "flatness at the source (share of noisy copies of the found image that keep its class)",
    "shared": "networks that misclassify the found image",
}
SHARES = (
    *("joint", "held_out", "source_correct", "target_correct", "found", "fooled", "flatness"),
    *("accuracy", "white_box", "transfer", "transfer_random", "transfer_joint"),
)
"""Row columns and scalars that lie between 0 and 1."""
MAY_BE_MISSING = frozenset({"flatness"})
"""Where several networks were searched at, or none."""
TYPES = {**dict.fromkeys(["id", "label", "shared"], np.int64), **dict.fromkeys(["source", "target"], np.str_)}
IMAGES = ("dataset", "image_size", "classes")
"""What the networks have in common: the images."""
RANDOM = "random"


class Config(TaskConfig):
    """Settings of `transfer`."""

    networks: Annotated[list[dict[str, Any]], Field(min_length=1)] = Field(
        default=[{"network": "convnet"}, {"network": "mlp"}],
        description="for each kind of network, the settings that differ from `recipe`",
    )
    members: Annotated[int, Field(gt=0)] = Field(
        default=3, description="networks of each kind, with the recipe's seed and the next ones"
    )
    attack: Attack = Field(default=Attack(stop="last"), description="how adversarial examples are found")
    joint: bool = Field(
        default=True, description="also search at all networks but one, and score on that one; three networks or more"
    )
    noise: NonNegative = Field(
        default=0.1, description="standard deviation of the noise around found images (pixel units)"
    )
    samples: Annotated[int, Field(ge=2)] = Field(default=64, description="noisy copies of each found image")

    @model_validator(mode="after")
    def _pool(self) -> Config:
        if self.attack.space != "pixel":
            raise UserError("networks share no hidden space; take pixel", "attack.space")
        if self.jointly and is_of_library(self.attack.name):
            raise UserError(f"{self.attack.name} faces one network only; set joint: false", "joint")
        pool = self.pool()
        if len(pool) < 2:
            raise UserError("two networks at least are compared; add one, or members", "networks")
        for number, settings in enumerate(self.networks):
            for name in IMAGES:
                if name in settings:
                    raise UserError("all networks see the same images; give it in recipe", f"networks.{number}.{name}")
        return self

    def pool(self) -> dict[str, Recipe]:
        """The networks by name.

        >>> list(Config(members=2).pool())
        ['convnet, seed 0', 'convnet, seed 1', 'mlp, seed 0', 'mlp, seed 1']
        """
        found: dict[str, Recipe] = {}
        for number, settings in enumerate(self.networks):
            for member in range(self.members):
                seed = settings.get("seed", self.recipe.seed)
                seed = seed + member if type(seed) is int else seed  # else the recipe refuses it
                recipe = _changed(self.recipe, {**settings, "seed": seed}, f"networks.{number}")
                given = [(path.rpartition(".")[2], value) for path, value in flatten(settings).items()]
                words = [str(v) if k == "network" else f"{k} {v}" for k, v in given if k != "seed"]
                words += [f"seed {recipe.seed}"] if self.members > 1 or "seed" in settings else []
                name = ", ".join(words) or recipe.network
                if name in found:
                    raise UserError(f"the network {name} is there twice", f"networks.{number}")
                found[name] = recipe
        return found

    @property
    def jointly(self) -> bool:
        """Whether there are joint searches."""
        return self.joint and len(self.networks) * self.members > 2


def _changed(recipe: Recipe, settings: Mapping[str, Any], where: str = "networks") -> Recipe:
    """The recipe with other settings, nested ones too; what the recipe left to be chosen is chosen anew.

    So are the options of another network, and what `finetune_from` has from the recipe around it.
    """
    values = recipe.model_dump(exclude_unset=True)
    if "optimiser" in settings and recipe.learning_rate == LEARNING_RATES[recipe.optimiser]:
        values.pop("learning_rate", None)
    if settings.get("network", recipe.network) != recipe.network:
        values.pop("network_options", None)
    if isinstance(base := values.get("finetune_from"), dict):
        same = {name for name in INHERITED if name in base and base[name] == getattr(recipe, name)}
        values["finetune_from"] = {name: value for name, value in base.items() if name not in same}
    try:
        return validated(Recipe, merged(values, settings), "a recipe")
    except UserError as error:
        raise error.below(where) from None


def needs(config: Config) -> Needs:
    pool = config.pool()
    sources: dict[str, tuple[Recipe, ...]] = {name: (recipe,) for name, recipe in pool.items()}
    if config.jointly:
        sources |= {f"all but {left}": tuple(recipe for name, recipe in pool.items() if name != left) for left in pool}
    searches = {
        f"found at {name}": adversarial_examples.Request(
            networks=networks, attack=config.attack, split=config.split, seed=config.seed, batch=config.batch
        )
        for name, networks in sources.items()
    }
    return {**pool, **searches}


def check(config: Config, split: data.Split) -> None:
    """Refuses a target that is no class of the data, or the label of measured examples."""
    check_classes(config.attack, split, config.classes)


def passes(config: Config) -> int:
    """Forward passes for one example at most, the searches aside."""
    count = len(config.networks) * config.members
    return count * (1 + count * (2 if config.jointly else 1) + 1 + config.samples)


def measure(config: Config, given: Mapping[str, Any], batch: Batch) -> dict[str, Any]:
    """One row for each example, source and target.

    Args:
        given: the networks by name, and `found at <source>`, the `AdversarialExamples` of the batch.
        batch: the examples.

    Returns:
        Columns, NumPy arrays of one length, as `COLUMNS` names them.
    """
    images, labels, ids = batch.images, batch.labels, list(batch.ids)
    size = config.batch or batch_size(images[0].numel(), images.device)
    networks = {name: given[name] for name in config.pool()}
    norm = config.attack.norm
    searches = {name.removeprefix("found at "): s for name, s in given.items() if name.startswith("found at ")}
    correct = torch.stack([in_batches(model, images, size).argmax(1) == labels for model in networks.values()], 1)

    typical = torch.stack([searches[name].distance for name in networks], 1)
    typical = typical.sum(1) / (typical > 0).sum(1).clamp_min(1)  # (B,) misclassified images were not moved
    at_random = images + randomly_moved(images, typical, norm, ids=ids, seed=config.seed)
    ever = torch.ones_like(labels, dtype=torch.bool)
    nowhere = torch.full_like(typical, torch.nan, dtype=torch.float64)
    pieces = []
    for source in [*networks, *(name for name in searches if name not in networks), RANDOM]:
        points = at_random if source == RANDOM else searches[source].points
        part = torch.tensor([_takes_part(source, name) for name in networks], device=labels.device)  # (M,)
        wrong = torch.stack([in_batches(model, points, size).argmax(1) != labels for model in networks.values()], 1)
        single = source in networks
        pieces.append(
            {
                "source": np.full(wrong.shape, source),
                "target": np.broadcast_to(np.array(list(networks)), wrong.shape),
                "joint": np.full(wrong.shape, not single and source != RANDOM),
                "held_out": ~part.expand(wrong.shape),
                "source_correct": (correct | ~part).all(1),
                "target_correct": correct,
                "found": ever if source == RANDOM else searches[source].success,
                "distance": (typical if source == RANDOM else searches[source].distance).double(),
                "fooled": wrong,
                "flatness": _flatness(config, networks[source], points, ids, size) if single else nowhere,
                "shared": wrong.sum(1),
            }
        )
    return _columns(ids, labels, pieces, len(networks))


def _takes_part(source: str, network: str) -> bool:
    """Whether a network was searched at.

    >>> _takes_part("all but mlp", "convnet"), _takes_part("all but mlp", "mlp"), _takes_part("random", "mlp")
    (True, False, False)
    """
    return source == network or (source.startswith("all but ") and source != f"all but {network}")


def _flatness(config: Config, model: Any, points: Tensor, ids: list[int], size: int) -> Tensor:
    """How often noisy copies of each point keep the class that the model gives to it, (B,)."""
    at_points = in_batches(model, points, size).argmax(1)
    around = statistics(
        model,
        [Cell(row, "additive", config.noise) for row in range(len(points))],
        points,
        ids,
        at_points[:, None].expand(-1, 3),
        samples=config.samples,
        tolerance=None,
        clip=True,
        seed=config.seed,
        batch=size,
    )
    return (around.stays / around.samples).double()


def _columns(ids: list[int], labels: Tensor, pieces: list[dict[str, Any]], targets: int) -> dict[str, Any]:
    """Joins the sources' pieces, of (B,) or (B, M), to columns in the order (example, source, target)."""
    axes = {"example": len(ids), "source": len(pieces), "target": targets}

    def stacked(name: str) -> tuple[Any, ...]:
        each = [as_array(piece[name]) for piece in pieces]
        return np.stack(each, 1), "example", "source", *(["target"] if each[0].ndim > 1 else [])

    columns = {"id": (np.array(ids), "example"), "label": (labels, "example")} | {
        name: stacked(name) for name in pieces[0]
    }
    found = spread(axes, columns)
    return {name: found[name].astype(TYPES[name]) if name in TYPES else found[name] for name in COLUMNS}


def summarise(config: Config, rows: pd.DataFrame) -> dict[str, float]:
    """How often found images fool a network that had no part in the search.

    Counted are examples that source and target classify correctly, and for which the search succeeded. `transfer` is that of single
    networks, `transfer_joint` that of joint searches, `transfer_random` the control's; `white_box` is the success at the source itself.
    `flatness_correlation` is Spearman's rank correlation, over found images, between the flatness at the source and the share of the
    other networks that are fooled.
    """
    scalars = {name: float(values.mean()) for name, values in scores(config, rows).items()}
    images = (
        _elsewhere(rows, "single")
        .groupby(["id", "source"])
        .agg(flatness=("flatness", "first"), fooled=("fooled", "mean"))
    )
    if images["flatness"].nunique() > 1 and images["fooled"].nunique() > 1:
        scalars["flatness_correlation"] = float(spearmanr(images["flatness"], images["fooled"]).statistic)
    return scalars


def scores(config: Config, rows: pd.DataFrame) -> dict[str, pd.Series]:
    """What the trial's scalars are the means of, by example: several values each, of which some count; none where nothing does."""
    searched = rows[(rows["source"] == rows["target"]) & rows["source_correct"]]
    found = {
        "accuracy": rows.drop_duplicates(["id", "target"]).set_index("id")["target_correct"],
        "white_box": searched.set_index("id")["found"],
        "transfer": _elsewhere(rows, "single").set_index("id")["fooled"],
        "transfer_random": _elsewhere(rows, "random").set_index("id")["fooled"],
    }
    if config.jointly:
        found["transfer_joint"] = _elsewhere(rows, "joint").set_index("id")["fooled"]
    return {name: values for name, values in found.items() if len(values)}


def _elsewhere(rows: pd.DataFrame, kind: Literal["single", "joint", "random"]) -> pd.DataFrame:
    """Found images of one kind of search on networks that had no part in it, where source and target are right unmoved."""
    fair = rows[rows["source_correct"] & rows["target_correct"] & rows["found"] & rows["held_out"]]
    random = fair["source"] == RANDOM
    return fair[random if kind == "random" else fair["joint"] if kind == "joint" else ~fair["joint"] & ~random]


def checks(config: Config, rows: pd.DataFrame) -> dict[str, str | None]:
    """What must hold for the numbers to mean anything."""
    own = rows[~rows["held_out"]]
    together = own.groupby(["id", "source"]).agg(fooled=("fooled", "all"), found=("found", "first"))
    wrong = int((together["fooled"] != together["found"]).sum()) if config.attack.target is None else 0
    summary = summarise(config, rows)
    mine = rows[(rows["source"] == rows["target"]) & rows["source_correct"]]
    moved, random = float(mine["fooled"].mean()) if len(mine) else 0.0, summary.get("transfer_random", 0.0)
    return found_again(wrong, len(together)) | weaker_at_random(random, moved)

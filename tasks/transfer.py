"""Whether adversarial examples of one classifier fool others: each network of a pool against all.

The networks differ in architecture, recipe and seed. Each of them in turn is attacked (`source`),
and every network classifies what was found (`target`). Two things stand beside the single networks:
joint attacks, which fool all networks but one at once and are scored on that one, and images moved
as far at random. Noise around the found image says how flat the source is there: does that predict
transfer? Attacks may move in the latent space of an autoencoder that all have in common; networks
are then scored on the decoded images.

Rows: one for each example, source and target.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal, Self

import pandas as pd
import torch
from pydantic import Field, model_validator
from scipy.stats import spearmanr
from torch import Tensor, nn

from tasks.parts.artifacts.common.attack_functions import is_of_library
from tasks.parts.artifacts.common.attack_settings import Attack
from tasks.parts.artifacts.common.attack_spaces import IMAGES, decoded, encoded, space_of
from tasks.parts.artifacts.common.kind import Given
from tasks.parts.attack_task import LatentAttackConfig
from tasks.parts.batching import in_batches
from tasks.parts.columns import EXAMPLE
from tasks.parts.contract import Batch, Needs
from tasks.parts.data.load import Split
from tasks.parts.dotted import flatten, merged
from tasks.parts.measures.flatness import Cell, statistics
from tasks.parts.messages import validated
from tasks.parts.noise.random_control import randomly_moved
from tasks.parts.rows import Columns, means, spread
from tasks.parts.self_checks import Outcome, found_again, weaker_at_random
from tasks.parts.settings import NonNegative, UserError
from tasks.parts.training.recipes import INHERITED, LEARNING_RATES, Recipe

VERSION = 1
COLUMNS = {
    "id": EXAMPLE["id"],
    "label": EXAMPLE["label"],
    "source": "network, or networks, that were attacked",
    "target": "network that classifies what was found",
    "joint": "the attack fooled several networks at once",
    "held_out": "the target had no part in the attack",
    "source_correct": "image is classified correctly by the source (by all of them); of an attack in latent space so is"
    " its reconstruction",
    "target_correct": "image is classified correctly by the target",
    "found": "the attack succeeded at the source (at all of them)",
    "distance": "distance of the found image (pixel units; in latent space: of its typical magnitude; the attack's"
    " norm)",
    "fooled": "the target misclassifies the found image",
    "flatness": "flatness at the source (share of noisy copies of the found image that keep its class)",
    "shared": "networks that misclassify the found image",
}
SHARES = (
    *("joint", "held_out", "source_correct", "target_correct", "found", "fooled", "flatness"),
    *("accuracy", "white_box", "transfer", "transfer_random", "transfer_joint"),
)
MAY_BE_MISSING = frozenset({"flatness"})  # where several networks were attacked, or none
RANDOM = "random"
"""The source of the images that were moved at random."""


class Config(LatentAttackConfig):
    """Settings of `transfer`."""

    pixels_only: ClassVar[str] = "networks share no hidden space"

    networks: Annotated[list[dict[str, object]], Field(min_length=1)] = Field(
        default=[{"network": "convnet"}, {"network": "mlp"}],
        description="for each kind of network, the settings that differ from `recipe`",
    )
    members: Annotated[int, Field(gt=0)] = Field(
        default=3, description="networks of each kind, with the recipe's seed and the next ones"
    )
    attack: Attack = Field(default=Attack(stop="last"), description="how adversarial examples are found")
    joint: bool = Field(
        default=True, description="also attack all networks but one, and score on that one; three networks or more"
    )
    noise: NonNegative = Field(
        default=0.1, description="standard deviation of the noise around found images (pixel units)"
    )
    samples: Annotated[int, Field(ge=2)] = Field(default=64, description="noisy copies of each found image")

    @model_validator(mode="after")
    def _comparable(self) -> Self:
        if self.jointly and is_of_library(self.attack.name):
            raise UserError(f"{self.attack.name} faces one network only; set joint: false", "joint")
        if len(self.pool()) < 2:
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

    def sources(self) -> dict[str, list[str]]:
        """The names of the networks that each attack is made on: one, or all but one.

        >>> Config(members=1, networks=[{"network": "mlp"}, {"network": "linear"}]).sources()
        {'mlp': ['mlp'], 'linear': ['linear']}
        """
        pool = list(self.pool())
        left_out = pool if self.jointly else []
        return {name: [name] for name in pool} | {
            f"all but {left}": [name for name in pool if name != left] for left in left_out
        }

    @property
    def jointly(self) -> bool:
        """Whether there are joint attacks."""
        return self.joint and len(self.networks) * self.members > 2


def _changed(recipe: Recipe, settings: Mapping[str, object], where: str) -> Recipe:
    """The recipe with other settings, nested ones too.

    What the recipe left to be chosen is chosen anew. So are the options of another network, and
    what `finetune_from` has from the recipe around it.
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
    """The networks of the pool, and `found at <source>`: the adversarial examples of a source.

    `autoencoder at <source>` is the one in whose latent space they were found.
    """
    pool = config.pool()
    found = {source: config.adversarial([pool[name] for name in names]) for source, names in config.sources().items()}
    coders = {f"autoencoder at {source}": asked.coder for source, asked in found.items() if asked.coder is not None}
    return {**pool, **{f"found at {source}": asked for source, asked in found.items()}, **coders}


def check(config: Config, split: Split) -> None:
    """Refuses a target of the attack that is no class of the data, or is measured itself."""
    config.check_attack(split)


def passes(config: Config) -> int:
    """Forward passes for one example at most, the attacks aside."""
    count = len(config.networks) * config.members
    return count * (1 + count * (2 if config.jointly else 1) + 1 + config.samples)


def measure(config: Config, given: Given, batch: Batch) -> Columns:
    """Rows in the order (example, source, target), as `COLUMNS` names their columns.

    `given` holds what `needs` names.
    """
    images, labels = batch.images, batch.labels
    size = config.batch_for(images)
    attacked = config.sources()
    networks = {name: given[name] for name in config.pool()}
    found = {source: given[f"found at {source}"] for source in attacked}
    spaces = {
        source: space_of(config.attack, [networks[name] for name in names], given.get(f"autoencoder at {source}"))
        for source, names in attacked.items()
    }
    adversarial = {source: decoded(spaces[source], each.points, size) for source, each in found.items()}

    def wrong(points: Tensor) -> Tensor:  # (B, M)
        return torch.stack([in_batches(model, points, size).argmax(1) != labels for model in networks.values()], 1)

    correct = ~wrong(images)
    typical = torch.stack([found[name].distance for name in networks], 1)
    typical = typical.sum(1) / (typical > 0).sum(1).clamp_min(1)  # (B,) misclassified images were not moved
    space = spaces[next(iter(networks))]
    start = encoded(space, images, size)
    norm, seed = config.attack.norm, config.seed
    at_random = start + randomly_moved(start, typical, norm, ids=batch.ids, seed=seed, box=space.box)
    at_random = decoded(space, at_random, size)
    fooled = torch.stack([wrong(points) for points in (*adversarial.values(), at_random)], 1)
    part = torch.tensor([[name in names for name in networks] for names in (*attacked.values(), [])])  # (S, M)
    part = part.to(labels.device)
    success = [*(each.success for each in found.values()), torch.ones_like(labels, dtype=torch.bool)]
    distance = [*(each.distance for each in found.values()), typical]
    began = torch.stack([*(each.had_to_move for each in found.values()), success[-1]], 1)
    source_correct = (correct[:, None] | ~part).all(2) & (began if config.coder else torch.ones_like(began))
    flatness = torch.full((len(labels), len(part)), torch.nan, dtype=torch.float64, device=labels.device)
    for place, (name, model) in enumerate(networks.items()):
        flatness[:, place] = _flatness(config, model, batch.ids, adversarial[name], size)
    return spread(
        {"example": len(labels), "source": len(part), "target": len(networks)},
        {
            "id": (list(batch.ids), "example"),
            "label": (labels, "example"),
            "source": ([*attacked, RANDOM], "source"),
            "target": (list(networks), "target"),
            "joint": ([*(len(names) > 1 for names in attacked.values()), False], "source"),
            "held_out": (~part, "source", "target"),
            "source_correct": (source_correct, "example", "source"),
            "target_correct": (correct, "example", "target"),
            "found": (torch.stack(success, 1), "example", "source"),
            "distance": (torch.stack(distance, 1).double(), "example", "source"),
            "fooled": (fooled, "example", "source", "target"),
            "flatness": (flatness, "example", "source"),
            "shared": (fooled.sum(2), "example", "source"),
        },
    )


def _flatness(config: Config, model: nn.Module, ids: Sequence[int], points: Tensor, size: int) -> Tensor:
    """The share of noisy copies of each point that keep the class that the model gives it, (B,)."""
    at_points = in_batches(model, points, size).argmax(1)
    around = statistics(
        model,
        [Cell(row, "additive", config.noise) for row in range(len(points))],
        points,
        ids,
        at_points[:, None].expand(-1, 3),
        samples=config.samples,
        seed=config.seed,
        batch=size,
    )
    return (around.stays / around.samples).double()


def summarise(config: Config, rows: pd.DataFrame) -> dict[str, float]:
    """How often found images fool a network that had no part in the attack.

    Counted are examples that source and target classify correctly, and for which the attack
    succeeded. `transfer` is that of single networks, `transfer_joint` that of joint attacks,
    `transfer_random` the control's; `white_box` is the success at the source itself.
    `flatness_correlation` is Spearman's rank correlation, over found images, between the flatness
    at the source and the share of the other networks that are fooled.
    """
    scalars = means(scores(config, rows))
    by_image = _elsewhere(rows, "single").groupby(["id", "source"])
    images = by_image.agg(flatness=("flatness", "first"), fooled=("fooled", "mean"))
    if images["flatness"].nunique() > 1 and images["fooled"].nunique() > 1:
        scalars["flatness_correlation"] = float(spearmanr(images["flatness"], images["fooled"]).statistic)
    return scalars


def scores(config: Config, rows: pd.DataFrame) -> dict[str, pd.Series]:
    """The values by example whose means are the trial's scalars; an example may have several."""
    found = {
        "accuracy": rows.drop_duplicates(["id", "target"]).set_index("id")["target_correct"],
        "white_box": _at_source(rows).set_index("id")["found"],
        "transfer": _elsewhere(rows, "single").set_index("id")["fooled"],
        "transfer_random": _elsewhere(rows, "random").set_index("id")["fooled"],
    }
    if config.jointly:
        found["transfer_joint"] = _elsewhere(rows, "joint").set_index("id")["fooled"]
    return {name: values for name, values in found.items() if len(values)}


def _at_source(rows: pd.DataFrame) -> pd.DataFrame:
    """What a single network that was attacked makes of the images that it classified correctly."""
    return rows[(rows["source"] == rows["target"]) & rows["source_correct"]]


def _elsewhere(rows: pd.DataFrame, kind: Literal["single", "joint", "random"]) -> pd.DataFrame:
    """What networks that had no part in an attack of one kind make of the images that it found.

    Source and target classify the image itself correctly.
    """
    fair = rows[rows["source_correct"] & rows["target_correct"] & rows["found"] & rows["held_out"]]
    random = fair["source"] == RANDOM
    return fair[{"random": random, "joint": fair["joint"], "single": ~fair["joint"] & ~random}[kind]]


def checks(config: Config, rows: pd.DataFrame) -> Outcome:
    """What must hold for the numbers to mean anything."""
    together = rows[~rows["held_out"]].groupby(["id", "source"]).agg(fooled=("fooled", "all"), found=("found", "first"))
    wrong = int((together["fooled"] != together["found"]).sum()) if config.attack.target is None else 0
    own, at_random = _at_source(rows)["fooled"], means(scores(config, rows)).get("transfer_random", 0.0)
    held = weaker_at_random(at_random, float(own.mean()) if len(own) else 0.0)
    return found_again(wrong, len(together)) | held

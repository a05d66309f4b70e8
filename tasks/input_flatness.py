"""How flat a classifier is around genuine, adversarial and randomly moved images.

An example has three centres: the image itself (`genuine`), its adversarial example (`adversarial`),
and the image moved as far in a random direction (`random`), which is the control. Noise of each
kind and each radius of a ladder is drawn around each centre; all see the same noise directions.
Measured are mean probabilities of classes, how often the centre's class persists, and the loss.

The attack may move in pixels or in the latent space of an autoencoder, and so does its control.
What they find is decoded, and the noise goes around images. With `space` the noise itself is in
latent or hidden space: centres are then points there, the attack moves there too, and all lengths
are in units of its typical magnitude.

Rows: one for each example, kind of noise, condition (centre) and radius; radius 0 is the centre.
"""

from __future__ import annotations

from itertools import product
from typing import Annotated, Literal, Self

import numpy as np
import pandas as pd
import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from tasks.parts.artifacts.adversarial_examples import AdversarialExamples
from tasks.parts.artifacts.common.attack_spaces import check_space, decoded, encoded, space_of
from tasks.parts.artifacts.common.kind import Given
from tasks.parts.attack_task import LatentAttackConfig, adversarial_pictures
from tasks.parts.batching import in_batches
from tasks.parts.columns import EXAMPLE, Column
from tasks.parts.contract import Batch, Needs
from tasks.parts.data.load import Split
from tasks.parts.geometry.balls import norm_of
from tasks.parts.measures.flatness import Cell, at_centres, statistics
from tasks.parts.measures.ladder import mean_height
from tasks.parts.models.spaces import of, parse
from tasks.parts.noise.input_noise import Kind
from tasks.parts.noise.random_control import randomly_moved
from tasks.parts.rows import Columns, Values, example_columns, means, spread
from tasks.parts.self_checks import Outcome, found_again, weaker_at_random
from tasks.parts.settings import NonNegative, Probability, Several, UserError

VERSION = 1
COLUMNS = {
    **EXAMPLE,
    "condition": Column("centre of the noise", values=("genuine", "adversarial", "random")),
    "found": "the attack succeeded",
    "start_correct": "reconstruction, at which an attack in latent space begins, is classified correctly; else missing",
    "distance": "distance of the centre from the genuine image (pixel units, the attack's norm)",
    "centre": "class predicted at the centre",
    "kind": "kind of noise",
    "radius": Column(
        "noise radius (pixel units; multiplicative: relative)",
        by_kind={
            "additive": "noise radius (pixel units)",
            "sphere": "distance from the centre (pixel units)",
            "multiplicative": "noise radius (relative to the pixel)",
        },
    ),
    "samples": "noise samples",
    "p_true": "mean probability of the true class",
    "p_true_se": "standard error of p_true",
    "p_true_low": "lower end of the 95 % interval of p_true",
    "p_true_high": "upper end of the 95 % interval of p_true",
    "p_centre": "mean probability of the class predicted at the centre",
    "p_centre_se": "standard error of p_centre",
    "p_target": "mean probability of the target class",
    "p_target_se": "standard error of p_target",
    "accuracy": "share of samples given the true class",
    "persistence": "share of samples that keep the centre's class",
    "loss_mean": "mean cross-entropy (nats)",
    "loss_max": "largest cross-entropy (nats)",
}
SHARES = (
    *("correct", "found", "p_true", "p_centre", "p_target", "accuracy", "persistence"),
    *("attack_success", "flatness_*"),
)
MAY_BE_MISSING = frozenset({"p_target", "p_target_se", "start_correct"})
"""What is followed with a target class only, and what an attack in latent space alone has."""
SUBJECT = "classifier"
TYPES = {
    **dict.fromkeys(["id", "label", "predicted", "centre", "samples"], np.int64),
    **dict.fromkeys(["correct", "found"], np.bool_),
    **dict.fromkeys(["condition", "kind"], np.str_),
    "distance": np.float32,
}
"""Types of the columns that are not float64, for a chunk without rows that is joined to others."""
show = adversarial_pictures


class Config(LatentAttackConfig):
    """Settings of `input_flatness`."""

    space: str = Field(
        default="pixel",
        title="space of the noise",
        description="pixel, latent or hidden:<stage>; in another than pixel the attack moves there too, radii are in"
        " units of its typical magnitude and nothing is clipped",
    )
    conditions: Several[Literal["genuine", "adversarial", "random"]] = Field(
        default=["genuine", "adversarial", "random"], description="centres of the noise"
    )
    kinds: Several[Kind] = Field(default=["additive"], description="kinds of noise, as in `noise`")
    radii: Several[NonNegative] = Field(
        default=[0.02, 0.04, 0.08, 0.12, 0.16, 0.24, 0.32, 0.48],
        description="ladder of noise radii (pixel units; multiplicative: relative); 0, the centre itself, is always added",
    )
    samples: int = Field(default=64, ge=2, description="noise samples at each radius")
    tolerance: Annotated[Probability, Field(gt=0)] | None = Field(
        default=None,
        description="sample until the 95 % interval of p_true is narrower than this, instead of a fixed number",
    )
    max_samples: int = Field(default=4096, ge=2, description="noise samples at each radius at most, with a tolerance")
    clip: bool = Field(default=True, description="noisy images are clipped to [0, 1]")
    target: int | None = Field(default=None, ge=0, description="class whose probability is followed as p_target")
    only_correct: bool = Field(default=False, description="leave out examples that are misclassified to begin with")

    @field_validator("space")
    @classmethod
    def _space(cls, space: str) -> str:
        kind, stage = parse(space)
        return "pixel" if kind == "pixel" or stage == 0 else "latent" if kind == "latent" else f"hidden:{stage}"

    @model_validator(mode="after")
    def _centres_in_space(self) -> Self:
        allowed = dict.fromkeys(("pixel", "latent") if self.space == "pixel" else (self.space,))
        if self.attack.space not in allowed and (self.attacks or self.space == "pixel"):
            around = "images" if self.space == "pixel" else f"points of {self.space}"
            raise UserError(f"noise goes around {around}; take {' or '.join(allowed)}", "attack.space")
        return self

    @property
    def latent_by(self) -> str | None:
        """The setting that asks for the latent space; None where none does."""
        of_attack = super().latent_by if self.attacks else None
        return "space" if self.space == "latent" else of_attack

    @property
    def unused(self) -> frozenset[str]:
        """The autoencoder, where nothing moves in its latent space; and the space of pixels."""
        return super().unused | ({"space"} if self.space == "pixel" else frozenset())

    @property
    def attacks(self) -> bool:
        """Whether a centre is an adversarial example, or as far away as one."""
        return not {"adversarial", "random"}.isdisjoint(self.conditions)

    @property
    def most_samples(self) -> int:
        """Noise samples around a centre at each radius, at most."""
        return self.max_samples if self.tolerance else self.samples


def needs(config: Config) -> Needs:
    """The classifier, adversarial examples for conditions, the autoencoder of a latent space."""
    attacked = {"adversarial": config.adversarial()} if config.attacks else {}
    coder = {} if config.coder is None else {"autoencoder": config.coder}
    return {"classifier": config.recipe, **attacked, **coder}


def check(config: Config, split: Split) -> None:
    """Refuses a space that the network lacks, and targets that are no classes or are measured."""
    if config.attacks:
        config.check_attack(split)
    check_space(config.space, config.recipe, split)
    if config.target is not None and config.target >= len(split.classes):
        raise UserError(f"{config.target} is no class; the classes are 0 to {len(split.classes) - 1}", "target")


def passes(config: Config) -> int:
    """Forward passes for one example at most: the image, the centres, the noise around them."""
    noisy = len(config.kinds) * sum(radius > 0 for radius in config.radii) * config.most_samples
    return 1 + len(config.conditions) * (1 + noisy)


def measure(config: Config, given: Given, batch: Batch) -> Columns:
    """Rows in the order (example, kind, condition, radius), as `COLUMNS` names their columns.

    `given` holds what `needs` names.
    """
    adversarial, size = given.get("adversarial"), config.batch_for(batch.images)
    space = of(config.space, given["classifier"], given.get("autoencoder"))
    start = encoded(space, batch.images, size)  # the images, where the noise is in pixels
    logits = in_batches(space.classify, start, size)
    predicted = logits.argmax(1)
    if config.target is not None and config.target >= logits.shape[1]:
        raise UserError(f"no class {config.target}; the classifier has the classes 0..{logits.shape[1] - 1}", "target")
    if config.only_correct:
        kept = (predicted == batch.labels).nonzero().flatten()
        batch, predicted, start = batch[kept], predicted[kept], start[kept]
        adversarial = None if adversarial is None else adversarial[kept]
    if not len(batch.ids):
        return {name: np.empty(0, TYPES.get(name, np.float64)) for name in COLUMNS}

    centres, found = _centres(config, given, batch, start, adversarial)  # (B, N, ...), (B, N)
    examples, conditions = found.shape
    points = centres.flatten(0, 1)
    distance = norm_of((centres - start[:, None]).flatten(0, 1), config.attack.norm)
    logits = in_batches(space.classify, points, size)
    labels, at_centre = batch.labels.repeat_interleave(conditions), logits.argmax(1)  # (B * N,) each
    classes = torch.stack([labels, at_centre, torch.full_like(labels, config.target or 0)], 1)
    radii = sorted({radius for radius in config.radii if radius > 0})
    grid = product(range(examples), config.kinds, range(conditions), radii)
    shape, ones = points.shape[1:], (1,) * (4 - points.ndim)  # noise has channels and positions, if only one
    noisy = statistics(
        lambda moved: space.classify(moved.reshape(-1, *shape)),
        [Cell(example * conditions + condition, kind, radius) for example, kind, condition, radius in grid],
        points.reshape(-1, *shape, *ones),
        np.repeat(batch.ids, conditions).tolist(),
        classes,
        samples=config.most_samples,
        tolerance=config.tolerance,
        clip=config.clip and config.space == "pixel",
        seed=config.seed,
        batch=size,
    )
    still = at_centres(logits, classes)

    axes = {"example": examples, "kind": len(config.kinds), "condition": conditions, "radius": len(radii) + 1}

    def cells(around: Tensor, at_centre: Tensor) -> Values:
        """What was measured at the centre, of radius 0, beside what was measured around it."""
        first = at_centre.reshape(examples, 1, conditions, 1).expand(-1, len(config.kinds), -1, -1)
        return torch.cat([first, around.reshape(*first.shape[:3], len(radii))], -1), *axes

    columns: dict[str, Values] = {
        **example_columns(batch, predicted),
        "condition": (config.conditions, "condition"),
        "found": (found, "example", "condition"),
        "start_correct": (torch.full_like(found[:, 0], torch.nan, dtype=torch.float64), "example"),
        "distance": (distance, "example", "condition"),
        "centre": (at_centre, "example", "condition"),
        "kind": (config.kinds, "kind"),
        "radius": ([0.0, *radii], "radius"),
        "samples": cells(noisy.samples, still.samples),
        "accuracy": cells(noisy.hits / noisy.samples, still.hits / still.samples),
        "persistence": cells(noisy.stays / noisy.samples, still.stays / still.samples),
        "loss_mean": cells(noisy.loss / noisy.samples, still.loss / still.samples),
        "loss_max": cells(noisy.largest_loss, still.largest_loss),
        "p_true_low": cells(noisy.bounds[:, 0], still.mean[:, 0]),
        "p_true_high": cells(noisy.bounds[:, 1], still.mean[:, 0]),
    }
    for place, name in enumerate(["p_true", "p_centre", "p_target"]):
        columns[name] = cells(noisy.mean[:, place], still.mean[:, place])
        columns[f"{name}_se"] = cells(noisy.standard_error[:, place], still.standard_error[:, place])
    if adversarial is not None and config.attack.space == "latent":
        columns["start_correct"] = (adversarial.had_to_move.double(), "example")
    if config.target is None:
        columns |= {"p_target": (np.nan,), "p_target_se": (np.nan,)}
    rows = spread(axes, columns)
    return {name: rows[name] for name in COLUMNS}


def _centres(
    config: Config, given: Given, batch: Batch, start: Tensor, adversarial: AdversarialExamples | None
) -> tuple[Tensor, Tensor]:
    """The centres (B, N, ...), and whether the attack that led to them succeeded (B, N).

    `start` are the genuine ones. `adversarial` is None where no condition wants it.
    """
    centres, size = {"genuine": start}, config.batch_for(batch.images)
    found = {"genuine": torch.ones_like(batch.labels, dtype=torch.bool)}
    if adversarial is not None:
        norm, distance = config.attack.norm, adversarial.distance
        attacked = space_of(config.attack, [given["classifier"]], given.get("autoencoder"))
        begin = encoded(attacked, batch.images, size)
        at_random = begin + randomly_moved(begin, distance, norm, ids=batch.ids, seed=config.seed, box=attacked.box)
        centres |= {"adversarial": adversarial.points, "random": at_random}
        if config.space != config.attack.space:  # noise around images
            centres |= {name: decoded(attacked, centres[name], size) for name in ("adversarial", "random")}
        found |= {"adversarial": adversarial.success, "random": adversarial.success}
    chosen = config.conditions
    return torch.stack([centres[name] for name in chosen], 1), torch.stack([found[name] for name in chosen], 1)


def summarise(config: Config, rows: pd.DataFrame) -> dict[str, float]:
    """Accuracy, the attack's success, and the flatness around each kind of centre.

    Flatness is the area under the curve of persistence against the radius, from 0 to the largest,
    divided by that radius, and averaged over examples: 1 where no noise changes anything. Around
    adversarial images and their random controls it is that of the examples that were classified
    correctly and then fooled. Of an attack in latent space, the image and its reconstruction both
    must have been.
    """
    return means(scores(config, rows))


def scores(config: Config, rows: pd.DataFrame) -> dict[str, pd.Series]:
    """The values by example whose means are the trial's scalars."""
    found = {"accuracy": rows.drop_duplicates("id").set_index("id")["correct"]}
    if config.attack.space == "latent":
        rows = rows.assign(correct=rows["correct"] & rows["start_correct"].ne(0))
    attacked = rows[(rows["condition"] == "adversarial") & rows["correct"]].drop_duplicates("id")
    if len(attacked):
        found["attack_success"] = attacked.set_index("id")["found"]
    for condition, kind in product(config.conditions, config.kinds):  # kinds have radii in different units
        around = rows[(rows["condition"] == condition) & (rows["kind"] == kind)]
        if condition != "genuine":  # where the attack failed there is no adversarial image to be around
            around = around[around["found"] & around["correct"]]
        curves = around.pivot(index="id", columns="radius", values="persistence")
        name = f"flatness_{condition}" + (f"_{kind}" if len(config.kinds) > 1 else "")
        found[name] = pd.Series(mean_height(curves.columns, curves), index=curves.index)
    return found


def checks(config: Config, rows: pd.DataFrame) -> Outcome:
    """What must hold for the numbers around adversarial images to mean anything."""
    centres = rows.drop_duplicates(["id", "condition"])
    adversarial = centres[centres["condition"] == "adversarial"]
    if adversarial.empty:
        return {}
    target = config.attack.target
    fooled = adversarial["centre"] != adversarial["label"] if target is None else adversarial["centre"] == target
    held = found_again(int((fooled != adversarial["found"]).sum()), len(adversarial))
    random = centres[(centres["condition"] == "random") & centres["correct"]]
    if len(random):
        held |= weaker_at_random((random["centre"] != random["label"]).mean(), random["found"].mean())
    return held

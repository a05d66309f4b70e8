"""How flat a classifier is around genuine, adversarial and randomly moved images.

Around each centre, noise of each kind and each radius of a ladder is drawn, and the probabilities of the true class, of the class
predicted at the centre and of a chosen target class are averaged, with how often the class persists and what the loss does. Centres of
an example: the image itself (`genuine`), the end of an adversarial search (`adversarial`), and the image moved as far in a random
direction (`random`), the control. All of them, at all radii, see the same noise directions.

Rows: one for each example, condition, kind and radius; radius 0 is the centre itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import torch
from pydantic import Field, model_validator
from torch import Tensor

from tasks.parts.artifacts import adversarial_examples
from tasks.parts.artifacts.adversarial_examples import AdversarialExamples
from tasks.parts.artifacts.common.attack_settings import Attack, check_classes
from tasks.parts.batching import batch_size, in_batches
from tasks.parts.columns import Column
from tasks.parts.contract import Batch, Needs, TaskConfig
from tasks.parts.data import load as data
from tasks.parts.geometry.balls import norm_of
from tasks.parts.measures.flatness import Cell, Statistics, at_centres, statistics
from tasks.parts.measures.ladder import mean_height
from tasks.parts.noise.input_noise import Kind
from tasks.parts.noise.random_control import randomly_moved
from tasks.parts.rows import spread
from tasks.parts.self_checks import found_again, weaker_at_random
from tasks.parts.settings import NonNegative, Probability, Several, UserError

VERSION = 1
"""Raised by hand when its numbers change on purpose."""

COLUMNS = {
    "id": "example (index in the split)",
    "label": "true class",
    "predicted": "class predicted at the genuine image",
    "correct": "genuine image is classified correctly",
    "condition": Column("centre of the noise", values=("genuine", "adversarial", "random")),
    "found": "adversarial search succeeded",
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
"""Row columns and scalars that lie between 0 and 1."""
MAY_BE_MISSING = frozenset({"p_target", "p_target_se"})
"""Without a target class."""

TYPES = {
    **dict.fromkeys(["id", "label", "predicted", "centre", "samples"], np.int64),
    **dict.fromkeys(["correct", "found"], np.bool_),
    **dict.fromkeys(["condition", "kind"], np.str_),
    "distance": np.float32,
}
"""Of the columns that are not float64: a chunk without rows must have them too, to be joined to the others."""

Condition = Literal["genuine", "adversarial", "random"]


class Config(TaskConfig):
    """Settings of `input_flatness`."""

    conditions: Several[Condition] = Field(
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
    attack: Attack = Field(default=Attack(), description="how adversarial centres are found")

    @model_validator(mode="after")
    def _images(self) -> Config:
        if self.attack.space != "pixel":
            raise UserError("noise goes around images; take pixel", "attack.space")
        return self

    @property
    def searched(self) -> bool:
        """Whether any centre is the end of a search, or as far away as one."""
        return bool({"adversarial", "random"} & set(self.conditions))


def needs(config: Config) -> Needs:
    classifier: Needs = {"classifier": config.recipe}
    if not config.searched:
        return classifier
    wanted = adversarial_examples.Request(
        networks=(config.recipe,), attack=config.attack, split=config.split, seed=config.seed, batch=config.batch
    )
    return {**classifier, "adversarial": wanted}


def check(config: Config, split: data.Split) -> None:
    """Refuses a target that is no class of the data.

    Raises:
        UserError: with the field `target`.
    """
    if config.searched:
        check_classes(config.attack, split, config.classes)
    if config.target is not None and config.target >= len(split.classes):
        raise UserError(f"{config.target} is no class; the classes are 0 to {len(split.classes) - 1}", "target")


def passes(config: Config) -> int:
    """Forward passes for one example at most."""
    cells = len(config.conditions) * len(config.kinds) * sum(radius > 0 for radius in config.radii)
    noisy = cells * (config.max_samples if config.tolerance else config.samples)
    return 1 + len(config.conditions) + noisy  # the image, the centres, the noise around them


def measure(config: Config, given: Mapping[str, Any], batch: Batch) -> dict[str, Any]:
    """One row for each example, condition, kind and radius.

    Args:
        given: `classifier`, a module from [0, 1] images (B, C, H, W) to logits, in evaluation mode; `adversarial`, the
            `AdversarialExamples` of the batch, where a condition wants it.
        batch: the examples.

    Returns:
        Columns, NumPy arrays of one length, as `COLUMNS` names them.
    """
    model, searched = given["classifier"], given.get("adversarial")
    images, labels, ids = batch.images, batch.labels, list(batch.ids)
    size = config.batch or batch_size(images[0].numel(), images.device)
    logits = in_batches(model, images, size)
    predicted = logits.argmax(1)
    if config.target is not None and config.target >= logits.shape[1]:
        raise UserError(f"no class {config.target}; the classifier has the classes 0..{logits.shape[1] - 1}", "target")
    if config.only_correct:
        kept = (predicted == labels).nonzero().flatten()
        images, labels, predicted, ids = images[kept], labels[kept], predicted[kept], [ids[i] for i in kept.tolist()]
        searched = None if searched is None else searched[kept]
    if not ids:
        return {name: np.empty(0, TYPES.get(name, np.float64)) for name in COLUMNS}

    centres, found, distance = _centres(config, images, searched, ids)  # (B * conditions, ...), condition fastest
    conditions = len(config.conditions)
    example = torch.arange(len(ids), device=images.device).repeat_interleave(conditions)
    logits = in_batches(model, centres, size)
    at_centre = logits.argmax(1)
    target = torch.full_like(at_centre, config.target or 0)
    classes = torch.stack([labels[example], at_centre, target], 1)

    radii = sorted({radius for radius in config.radii if radius > 0})
    cells = [
        Cell(row, kind, radius)
        for start in range(0, len(centres), conditions)
        for kind in config.kinds
        for row in range(start, start + conditions)
        for radius in radii
    ]
    noisy = statistics(
        model,
        cells,
        centres,
        [ids[i] for i in example.tolist()],
        classes,
        samples=config.max_samples if config.tolerance else config.samples,
        tolerance=config.tolerance,
        clip=config.clip,
        seed=config.seed,
        batch=size,
    )
    still = at_centres(logits, classes)
    return _columns(config, ids, labels, predicted, found, distance, at_centre, radii, noisy, still)


def _centres(
    config: Config, images: Tensor, searched: AdversarialExamples | None, ids: list[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """The centres (B * conditions, C, H, W), whether their search succeeded, and how far they are from the images."""
    norm = config.attack.norm
    centres = {"genuine": images}
    success = {"genuine": torch.ones(len(ids), dtype=torch.bool, device=images.device)}
    if searched is not None:
        moved = randomly_moved(images, searched.distance, norm, ids=ids, seed=config.seed)
        centres |= {"adversarial": searched.points, "random": images + moved}
        success |= {"adversarial": searched.success, "random": searched.success}
    every = torch.stack([centres[name] for name in config.conditions], 1)  # (B, conditions, C, H, W)
    found = torch.stack([success[name] for name in config.conditions], 1).flatten()
    return every.flatten(0, 1), found, norm_of((every - images[:, None]).flatten(0, 1), norm)


def _columns(
    config: Config,
    ids: list[int],
    labels: Tensor,
    predicted: Tensor,
    found: Tensor,
    distance: Tensor,
    at_centre: Tensor,
    radii: list[float],
    noisy: Statistics,
    still: Statistics,
) -> dict[str, Any]:
    """The rows in the order (example, kind, condition, radius)."""
    axes = {
        "example": len(ids),
        "kind": len(config.kinds),
        "condition": len(config.conditions),
        "radius": len(radii) + 1,
    }
    around = [axes["example"], axes["kind"], axes["condition"], len(radii)]

    def cells(of_noisy: Tensor, of_still: Tensor) -> tuple[Any, ...]:
        """What was measured at the centre, of radius 0, beside what was measured around it."""
        centre = of_still.reshape(axes["example"], 1, axes["condition"], 1).expand(-1, axes["kind"], -1, -1)
        return torch.cat([centre, of_noisy.reshape(around)], -1), *axes

    columns: dict[str, tuple[Any, ...]] = {
        "id": (np.array(ids, dtype=np.int64), "example"),
        "label": (labels, "example"),
        "predicted": (predicted, "example"),
        "correct": (predicted == labels, "example"),
        "condition": (config.conditions, "condition"),
        "found": (found, "example", "condition"),
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
    if config.target is None:
        columns |= dict.fromkeys(["p_target", "p_target_se"], (np.array(np.nan),))
    rows = spread(axes, columns)
    return {name: rows[name] for name in COLUMNS}


def summarise(config: Config, rows: pd.DataFrame) -> dict[str, float]:
    """Accuracy on the measured examples, how many searches succeeded, and the flatness around each kind of centre.

    Flatness is the area under the curve of persistence, averaged over examples, against the radius, from 0 to the largest, divided by
    that radius: 1 where no noise changes anything. Around adversarial images and their random controls it is that of the examples that
    were classified correctly and then fooled.
    """
    return {name: float(values.mean()) for name, values in scores(config, rows).items()}


def scores(config: Config, rows: pd.DataFrame) -> dict[str, pd.Series]:
    """What the trial's scalars are the means of, by example."""
    found = {"accuracy": rows.drop_duplicates("id").set_index("id")["correct"]}
    searched = rows[(rows["condition"] == "adversarial") & rows["correct"]].drop_duplicates("id")
    if len(searched):
        found["attack_success"] = searched.set_index("id")["found"]
    for condition in config.conditions:
        around = rows[rows["condition"] == condition]
        if condition != "genuine":  # where the search failed there is no adversarial image to be around
            around = around[around["found"] & around["correct"]]
        for kind in config.kinds:  # their radii are in different units
            curves = around[around["kind"] == kind].pivot(index="id", columns="radius", values="persistence")
            name = f"flatness_{condition}" + (f"_{kind}" if len(config.kinds) > 1 else "")
            found[name] = pd.Series(mean_height(curves.columns, curves), index=curves.index)
    return found


def checks(config: Config, rows: pd.DataFrame) -> dict[str, str | None]:
    """What must hold for the numbers around adversarial images to mean anything."""
    centres = rows.drop_duplicates(["id", "condition"])
    adversarial = centres[centres["condition"] == "adversarial"]
    if adversarial.empty:
        return {}
    there = adversarial["centre"]
    reached = there != adversarial["label"] if config.attack.target is None else there == config.attack.target
    wrong = int((reached != adversarial["found"]).sum())
    held = found_again(wrong, len(adversarial))
    random = centres[(centres["condition"] == "random") & centres["correct"]]
    if len(random):
        held |= weaker_at_random((random["centre"] != random["label"]).mean(), random["found"].mean())
    return held

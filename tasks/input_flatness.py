"""How flat a classifier is around genuine, adversarial and randomly moved images.

Around each centre, noise of each kind and each radius of a ladder is drawn, and the probabilities of the true class, of the class
predicted at the centre and of a chosen target class are averaged, with how often the class persists and what the loss does. Centres of
an example: the image itself (`genuine`), the end of an adversarial search (`adversarial`; Madry et al. 2018), and the image moved as far
in a random direction (`random`), the control. All of them, at all radii, see the same noise directions.

Rows: one for each example, condition, kind and radius; radius 0 is the centre itself.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import torch
from pydantic import Field
from torch import Tensor

from tasks.parts import data
from tasks.parts.attacks.pgd import Loss, pgd
from tasks.parts.batching import batch_size, in_batches
from tasks.parts.contract import Batch, TaskConfig
from tasks.parts.flatness import Cell, Statistics, at_centres, statistics
from tasks.parts.geometry import norm_of, within_box
from tasks.parts.noise import Kind
from tasks.parts.randomness import normal
from tasks.parts.recipes import Recipe
from tasks.parts.search import Found
from tasks.parts.settings import NonNegative, Positive, Probability, Settings, UserError

COLUMNS = {
    "id": "example (index in the split)",
    "label": "true class",
    "predicted": "class predicted at the genuine image",
    "correct": "genuine image is classified correctly",
    "condition": "centre of the noise",
    "found": "adversarial search succeeded",
    "distance": "distance of the centre from the genuine image (pixel units, the attack's norm)",
    "centre": "class predicted at the centre",
    "kind": "kind of noise",
    "radius": "noise radius (pixel units; multiplicative: relative)",
    "samples": "noise samples",
    "p_true": "mean probability of the true class",
    "p_true_se": "standard error of p_true",
    "p_centre": "mean probability of the class predicted at the centre",
    "p_centre_se": "standard error of p_centre",
    "p_target": "mean probability of the target class",
    "p_target_se": "standard error of p_target",
    "accuracy": "share of samples given the true class",
    "persistence": "share of samples that keep the centre's class",
    "loss_mean": "mean cross-entropy (nats)",
    "loss_max": "largest cross-entropy (nats)",
    "interval": "width of the 95 % interval of p_true",
}

TYPES = {
    **dict.fromkeys(["id", "label", "predicted", "centre", "samples"], np.int64),
    **dict.fromkeys(["correct", "found"], np.bool_),
    **dict.fromkeys(["condition", "kind"], np.str_),
    "distance": np.float32,
}
"""Of the columns that are not float64: a chunk without rows must have them too, to be joined to the others."""

Condition = Literal["genuine", "adversarial", "random"]


class Attack(Settings):
    """The search that finds the adversarial centres: PGD with restarts, which stops at an example as soon as it is fooled."""

    norm: Literal["Linf", "L2"] = Field(default="Linf", description="of the perturbation")
    epsilon: Positive = Field(
        default=0.15, title="attack radius (pixel units)", description="largest norm of the perturbation (pixel units)"
    )
    steps: int = Field(default=20, gt=0, description="gradient steps a restart")
    step_size: Positive | None = Field(default=None, description="pixel units; 2.5 epsilon / steps where null")
    restarts: int = Field(default=1, gt=0, description="independent starts; the first starts at the image itself")
    loss: Loss = Field(default="ce", description="what is maximised: cross-entropy or logit margin")


class Config(TaskConfig):
    """Settings of `input_flatness`."""

    conditions: Annotated[list[Condition], Field(min_length=1)] = Field(
        default=["genuine", "adversarial", "random"], description="centres of the noise"
    )
    kinds: Annotated[list[Kind], Field(min_length=1)] = Field(
        default=["additive"], description="kinds of noise, as in `noise`"
    )
    radii: Annotated[list[NonNegative], Field(min_length=1)] = Field(
        default=[0.02, 0.04, 0.08, 0.12, 0.16, 0.24, 0.32, 0.48],
        description="ladder of noise radii (pixel units; multiplicative: relative); 0, the centre itself, is always added",
    )
    samples: int = Field(default=64, gt=0, description="noise samples at each radius")
    tolerance: Annotated[Probability, Field(gt=0)] | None = Field(
        default=None,
        description="sample until the 95 % interval of p_true is narrower than this, instead of a fixed number",
    )
    max_samples: int = Field(default=4096, gt=0, description="noise samples at each radius at most, with a tolerance")
    clip: bool = Field(default=True, description="noisy images are clipped to [0, 1]")
    target: int | None = Field(default=None, ge=0, description="class whose probability is followed as p_target")
    only_correct: bool = Field(default=False, description="leave out examples that are misclassified to begin with")
    attack: Attack = Field(default=Attack(), description="how adversarial centres are found")


def needs(config: Config) -> dict[str, Recipe]:
    return {"classifier": config.recipe}


def check(config: Config, split: data.Split) -> None:
    """Refuses a target that is no class of the data.

    Raises:
        UserError: with the field `target`.
    """
    if config.target is not None and config.target >= len(split.classes):
        raise UserError(f"{config.target} is no class; the classes are 0 to {len(split.classes) - 1}", "target")


def passes(config: Config) -> int:
    """Forward passes for one example at most."""
    cells = len(config.conditions) * len(config.kinds) * sum(radius > 0 for radius in config.radii)
    search = config.attack.restarts * (config.attack.steps + 1)
    return cells * (config.max_samples if config.tolerance else config.samples) + search


def measure(config: Config, made: dict[str, Any], batch: Batch) -> dict[str, Any]:
    """One row for each example, condition, kind and radius.

    Args:
        made: `classifier`, a module from [0, 1] images (B, C, H, W) to logits, in evaluation mode.
        batch: the examples.

    Returns:
        Columns, NumPy arrays of one length, as `COLUMNS` names them.
    """
    model = made["classifier"]
    images, labels, ids = batch.images, batch.labels, list(batch.ids)
    size = config.batch or batch_size(images[0].numel(), images.device)
    logits = in_batches(model, images, size)
    predicted = logits.argmax(1)
    if config.target is not None and config.target >= logits.shape[1]:
        raise UserError(f"no class {config.target}; the classifier has the classes 0..{logits.shape[1] - 1}", "target")
    if config.only_correct:
        kept = (predicted == labels).nonzero().flatten()
        images, labels, predicted, ids = images[kept], labels[kept], predicted[kept], [ids[i] for i in kept.tolist()]
    if not ids:
        return {name: np.empty(0, TYPES.get(name, np.float64)) for name in COLUMNS}

    centres, found, distance = _centres(
        config, model, images, labels, ids, size
    )  # (B * conditions, ...), condition fastest
    conditions = len(config.conditions)
    example = torch.arange(len(ids), device=images.device).repeat_interleave(conditions)
    at_centre = in_batches(model, centres, size).argmax(1)
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
    still = at_centres(model, centres, classes, size)
    return _columns(config, ids, labels, predicted, found, distance, at_centre, radii, noisy, still)


def _centres(
    config: Config, model: Any, images: Tensor, labels: Tensor, ids: list[int], size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The centres (B * conditions, C, H, W), whether their search succeeded, and how far they are from the images."""
    attack = config.attack
    delta = {"genuine": torch.zeros_like(images)}
    success = {"genuine": torch.ones(len(ids), dtype=torch.bool, device=images.device)}
    if {"adversarial", "random"} & set(config.conditions):
        outcome: Found = pgd(
            model,
            images,
            labels,
            epsilon=attack.epsilon,
            norm=attack.norm,
            steps=attack.steps,
            step_size=attack.step_size,
            restarts=attack.restarts,
            loss=attack.loss,
            ids=ids,
            seed=config.seed,
            batch=size,
        )
        straight = normal(config.seed, "random control", ids, images.shape[1:]).to(images)
        straight = straight.sign() if attack.norm == "Linf" else straight
        delta |= {
            "adversarial": outcome.perturbation,
            "random": within_box(images, straight, outcome.distance, attack.norm),
        }
        success |= {"adversarial": outcome.success, "random": outcome.success}
    deltas = torch.stack([delta[name] for name in config.conditions], 1)  # (B, conditions, C, H, W)
    found = torch.stack([success[name] for name in config.conditions], 1).flatten()
    return (images[:, None] + deltas).flatten(0, 1), found, norm_of(deltas.flatten(0, 1), attack.norm)


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
    examples, kinds, conditions, ladder = len(ids), len(config.kinds), len(config.conditions), len(radii)
    shape = (examples, kinds, conditions, ladder + 1)

    def cells(of_noisy: Tensor, of_still: Tensor) -> Any:
        """Joins what was measured at the centre to what was measured around it."""
        centre = of_still.reshape(examples, 1, conditions, 1).expand(-1, kinds, -1, -1)
        return torch.cat([centre, of_noisy.reshape(examples, kinds, conditions, ladder)], -1).flatten().cpu().numpy()

    def spread(values: Any, axes: tuple[int, ...]) -> Any:
        """Repeats what does not vary along the other axes of the rows."""
        values = values.cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
        lengths = [length if axis in axes else 1 for axis, length in enumerate(shape)]
        return np.broadcast_to(values.reshape(lengths), shape).reshape(-1)

    columns = {
        "id": spread(np.array(ids, dtype=np.int64), (0,)),
        "label": spread(labels, (0,)),
        "predicted": spread(predicted, (0,)),
        "correct": spread(predicted == labels, (0,)),
        "condition": spread(config.conditions, (2,)),
        "found": spread(found, (0, 2)),
        "distance": spread(distance, (0, 2)),
        "centre": spread(at_centre, (0, 2)),
        "kind": spread(config.kinds, (1,)),
        "radius": spread([0.0, *radii], (3,)),
        "samples": cells(noisy.samples, still.samples),
    }
    for axis, name in enumerate(["p_true", "p_centre", "p_target"]):
        columns[name] = cells(noisy.mean[:, axis], still.mean[:, axis])
        columns[f"{name}_se"] = cells(noisy.standard_error[:, axis], still.standard_error[:, axis])
    if config.target is None:
        columns["p_target"] = columns["p_target_se"] = np.full(len(columns["id"]), np.nan)
    columns |= {
        "accuracy": cells(noisy.hits / noisy.samples, still.hits / still.samples),
        "persistence": cells(noisy.stays / noisy.samples, still.stays / still.samples),
        "loss_mean": cells(noisy.loss / noisy.samples, still.loss / still.samples),
        "loss_max": cells(noisy.largest_loss, still.largest_loss),
        "interval": cells(noisy.interval, torch.zeros_like(still.interval)),
    }
    return {name: columns[name] for name in COLUMNS}


def summarise(config: Config, rows: pd.DataFrame) -> dict[str, float]:
    """Accuracy on the measured examples, how many searches succeeded, and per condition the flatness.

    Flatness is the mean probability of the class predicted at the centre, averaged over examples, kinds and the radii of the ladder: 1
    where no noise changes anything. Around adversarial images and their random controls it is that of the examples that were classified
    correctly and then fooled.
    """
    once = rows.drop_duplicates("id")
    noisy = rows[rows["radius"] > 0]
    scalars = {"accuracy": float(once["correct"].mean())}
    searched = rows[(rows["condition"] == "adversarial") & rows["correct"]].drop_duplicates("id")
    if len(searched):
        scalars["attack_success"] = float(searched["found"].mean())
    for condition in config.conditions:
        around = noisy[noisy["condition"] == condition]
        if condition != "genuine":  # where the search failed there is no adversarial image to be around
            around = around[around["found"] & around["correct"]]
        scalars[f"flatness_{condition}"] = float(around["p_centre"].mean())
    return scalars

"""Everything a classifier is judged by, example by example: accuracy, calibration, and what noise, a search and corruptions do to them.

Each image is classified as it is (`clean`), with Gaussian noise at a ladder of radii (`noise`), at the end of an adversarial search of a
given radius (`attack`), and after everyday damage in several severities (`corruption`, with numbers that cannot be compared to those on
CIFAR-10-C). The noise directions are those of `input_flatness`, so that the two tasks can be compared sample by sample.

Rows: one for each example, condition, change and level of its ladder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple, get_args

import numpy as np
import pandas as pd
import torch
from pydantic import Field, model_validator
from torch import Tensor

from tasks.parts.artifacts import adversarial_examples
from tasks.parts.artifacts.common.attack_settings import Attack, check_classes
from tasks.parts.batching import batch_size, in_batches
from tasks.parts.contract import Batch, Needs, TaskConfig
from tasks.parts.data import load as data
from tasks.parts.measures.calibration import BINS, expected_calibration_error
from tasks.parts.measures.flatness import Cell, statistics
from tasks.parts.measures.ladder import mean_height
from tasks.parts.noise.corruptions import Corruption, corrupted
from tasks.parts.randomness import BLOCK
from tasks.parts.rows import spread
from tasks.parts.self_checks import loss_rises
from tasks.parts.settings import Positive, Several, UserError

VERSION = 1
"""Raised by hand when its numbers change on purpose."""

COLUMNS = {
    "id": "example (index in the split)",
    "label": "true class",
    "predicted": "class predicted at the clean image",
    "correct": "clean image is classified correctly",
    "condition": "what is done to the image: clean, noise, attack or corruption",
    "change": "which noise, attack or corruption",
    "level": "place on the ladder of radii or severities, the weakest is 1; 0 is the clean image",
    "strength": "radius of noise or attack (pixel units), severity of a corruption (1 to 5)",
    "accuracy": "accuracy (share of copies of the image given the true class)",
    "persistence": "persistence (share of copies that keep the class of the clean image)",
    "p_true": "mean probability of the true class",
    "confidence": "mean probability of the predicted class",
    "loss": "mean cross-entropy (nats)",
}

SHARES = (
    *("correct", "accuracy", "persistence", "p_true", "confidence"),
    *(
        "ece",
        "robust_accuracy",
        "noise_accuracy",
        "flatness_genuine",
        "corruption_accuracy",
        "corruption_ece",
        "accuracy_*",
    ),
)
"""Row columns and scalars that lie between 0 and 1."""
MAY_BE_MISSING: frozenset[str] = frozenset()

Condition = Literal["clean", "noise", "attack", "corruption"]


class Config(TaskConfig):
    """Settings of `evaluation`."""

    conditions: Several[Condition] = Field(
        default=["clean", "noise", "attack", "corruption"],
        description="what is done to the images; they are always classified as they are, too",
    )
    attack: Attack = Field(default=Attack(), description="the search, at a fixed radius among pixels")
    radii: Several[Positive] = Field(
        default=[0.05, 0.1, 0.2, 0.3, 0.4], description="ladder of noise radii, standard deviation (pixel units)"
    )
    samples: int = Field(default=16, ge=1, le=BLOCK, description="noisy copies of each image at each radius")
    corruptions: Several[Corruption] = Field(
        default=list(get_args(Corruption)), description="everyday damage to the images, as in `corruptions`"
    )
    severities: Several[Annotated[int, Field(ge=1, le=5)]] = Field(
        default=[1, 3, 5], description="of each corruption, from 1 to 5"
    )

    @model_validator(mode="after")
    def _searchable(self) -> Config:
        if self.attack.space != "pixel":
            raise UserError("images are judged; take pixel", "attack.space")
        if not self.attack.fixed_radius:
            raise UserError(
                f"{self.attack.name} has no radius, it searches for the smallest perturbation; take pgd or apgd",
                "attack.name",
            )
        return self


class Judged(NamedTuple):
    """What became of B examples under one change: all (B,), float64."""

    condition: str
    change: str
    level: int
    strength: float
    accuracy: Tensor
    persistence: Tensor
    p_true: Tensor
    confidence: Tensor
    loss: Tensor


def needs(config: Config) -> Needs:
    classifier: Needs = {"classifier": config.recipe}
    if "attack" not in config.conditions:
        return classifier
    wanted = adversarial_examples.Request(
        networks=(config.recipe,), attack=config.attack, split=config.split, seed=config.seed, batch=config.batch
    )
    return {**classifier, "adversarial": wanted}


def check(config: Config, split: data.Split) -> None:
    """Refuses a target that is no class of the data, or the label of measured examples."""
    if "attack" in config.conditions:
        check_classes(config.attack, split, config.classes)


def passes(config: Config) -> int:
    """Forward passes for one example, the search aside."""
    each = {
        "noise": len(config.radii) * config.samples,
        "attack": 1,
        "corruption": len(config.corruptions) * len(config.severities),
    }
    return 1 + sum(each.get(condition, 0) for condition in config.conditions)


def measure(config: Config, given: Mapping[str, Any], batch: Batch) -> dict[str, Any]:
    """One row for each example, condition, change and level.

    Args:
        given: `classifier`, a module from [0, 1] images (B, C, H, W) to logits, in evaluation mode; `adversarial`, the
            `AdversarialExamples` of the batch, where the images are attacked.
        batch: the examples.

    Returns:
        Columns, NumPy arrays of one length, as `COLUMNS` names them.
    """
    model, images, labels = given["classifier"], batch.images, batch.labels
    size = config.batch or batch_size(images[0].numel(), images.device)
    clean = in_batches(model, images, size)  # (B, K)
    predicted = clean.argmax(1)
    judged = [Judged("clean", "none", 0, 0.0, *_judged(clean[:, None], labels, predicted))]
    if "noise" in config.conditions:
        judged += _noisy(config, model, batch, predicted, size)
    if "attack" in config.conditions:
        at_end = in_batches(model, given["adversarial"].points, size)
        radius = config.attack.resolve().radius
        assert radius is not None  # checked by the settings
        outcome = _judged(at_end[:, None], labels, predicted)
        judged.append(Judged("attack", config.attack.name, 1, radius, *outcome))
    if "corruption" in config.conditions:
        for change in config.corruptions:
            for level, severity in enumerate(sorted(config.severities), 1):
                damaged = corrupted(change, images, severity, ids=batch.ids, seed=config.seed)
                outcome = _judged(in_batches(model, damaged, size)[:, None], labels, predicted)
                judged.append(Judged("corruption", change, level, float(severity), *outcome))

    columns: dict[str, tuple[Any, ...]] = {
        "id": (np.asarray(batch.ids), "example"),
        "label": (labels, "example"),
        "predicted": (predicted, "example"),
        "correct": (predicted == labels, "example"),
    }
    for column in ("condition", "change", "level", "strength"):
        columns[column] = ([getattr(one, column) for one in judged], "change")
    for column in ("accuracy", "persistence", "p_true", "confidence", "loss"):
        columns[column] = (torch.stack([getattr(one, column) for one in judged]), "change", "example")
    rows = spread({"example": len(labels), "change": len(judged)}, columns)
    return {column: rows[column] for column in COLUMNS}


def _judged(logits: Tensor, labels: Tensor, predicted: Tensor) -> tuple[Tensor, ...]:
    """Means over the copies of each image: accuracy, persistence, p_true, confidence and loss, of logits (B, S, K)."""
    log_p = logits.double().log_softmax(-1)  # the loss of a confident network is 0 in single precision
    given = logits.argmax(-1)  # (B, S)
    true = log_p.gather(2, labels[:, None, None].expand(-1, logits.shape[1], 1))[..., 0]
    outcome = [given == labels[:, None], given == predicted[:, None], true.exp(), log_p.amax(-1).exp(), -true]
    return tuple(values.double().mean(1) for values in outcome)


def _noisy(config: Config, model: Any, batch: Batch, predicted: Tensor, size: int) -> Iterator[Judged]:
    """The images with additive Gaussian noise, clipped to [0, 1]: the noise of `input_flatness`."""
    radii, examples = sorted(config.radii), len(batch.labels)
    around = statistics(
        model,
        [Cell(row, "additive", radius) for row in range(examples) for radius in radii],
        batch.images,
        batch.ids,
        torch.stack([batch.labels, predicted, predicted], 1),
        samples=config.samples,
        seed=config.seed,
        batch=size,
        confidence=True,
    )
    assert around.confidence is not None
    sums = (around.hits, around.stays, around.p[:, 0], around.confidence, around.loss)
    means = [(values / config.samples).reshape(examples, len(radii)) for values in sums]
    for place, radius in enumerate(radii):
        yield Judged("noise", "gaussian", place + 1, radius, *(values[:, place] for values in means))


def summarise(config: Config, rows: pd.DataFrame) -> dict[str, float]:
    """Accuracy, calibration and loss of the clean images, and what is left of the accuracy.

    `ece` has 15 bins of equal width. `robust_accuracy` is the accuracy under the search. `noise_accuracy` and `corruption_accuracy` are
    means over radii, and over corruptions and severities. `flatness_genuine` is that of `input_flatness`: the area under the curve of
    persistence against the noise radius from 0 to the largest, divided by that radius.
    """
    means = {name: float(values.mean()) for name, values in scores(config, rows).items()}
    errors = {}
    for condition, judged in rows[rows["condition"].isin(["clean", "corruption"])].groupby("condition"):
        errors[condition] = expected_calibration_error(judged["confidence"], judged["accuracy"], BINS)
    scalars = {"accuracy": means.pop("accuracy"), "nll": means.pop("nll"), "ece": errors["clean"], **means}
    return scalars | ({"corruption_ece": errors["corruption"]} if "corruption" in errors else {})


def scores(config: Config, rows: pd.DataFrame) -> dict[str, pd.Series]:
    """What the trial's scalars are the means of, by example; calibration errors are none."""
    by_condition = {str(name): group.set_index("id") for name, group in rows.groupby("condition")}
    clean = by_condition["clean"]
    found = {"accuracy": clean["accuracy"], "nll": clean["loss"]}
    if "attack" in by_condition:
        found["robust_accuracy"] = by_condition["attack"]["accuracy"]
    if "noise" in by_condition:
        noise = by_condition["noise"]
        curves = noise.reset_index().pivot(index="id", columns="strength", values="persistence")
        radii = np.array([0.0, *curves.columns])
        heights = np.concatenate([np.ones((len(curves), 1)), curves.to_numpy()], axis=1)
        found["noise_accuracy"] = noise["accuracy"]
        found["flatness_genuine"] = pd.Series(mean_height(radii, heights), index=curves.index)
    if "corruption" in by_condition:
        damaged = by_condition["corruption"]
        found["corruption_accuracy"] = damaged["accuracy"]
        for change, group in damaged.groupby("change", sort=False):
            found[f"accuracy_{change}"] = group["accuracy"]
    return found


def checks(config: Config, rows: pd.DataFrame) -> dict[str, str | None]:
    """What must hold for the numbers to mean anything."""
    each = rows[rows["condition"] == "clean"].set_index("id")
    attacked = rows[rows["condition"] == "attack"].set_index("id").reindex(each.index)
    held: dict[str, str | None] = {}
    if attacked["accuracy"].notna().all() and config.attack.target is None:
        recovered = int(((each["accuracy"] == 0) & (attacked["accuracy"] > 0)).sum())
        held["the search makes no misclassified image correct"] = f"it does {recovered}" if recovered else None
        correct = each["accuracy"] > 0
        flat = int((attacked["loss"] <= each["loss"])[correct].sum())
        held |= loss_rises(flat, int(correct.sum()))
    noise = rows[rows["condition"] == "noise"].groupby("strength")["persistence"].mean()
    if len(noise) > 1:
        held["stronger noise changes more classes"] = (
            f"a class is kept by {noise.iloc[0]:.1%} at the smallest radius, by {noise.iloc[-1]:.1%} at the largest"
            if noise.iloc[-1] > noise.iloc[0] + 0.02
            else None
        )
    return held

"""How accurate, calibrated and robust a classifier is, example by example.

Each image is classified as it is (`clean`), with Gaussian noise at a ladder of radii (`noise`),
after an attack of a given radius (`attack`), and after everyday damage in several severities
(`corruption`; the numbers cannot be compared to those on CIFAR-10-C). The noise directions are
those of `input_flatness`, so that the two tasks can be compared sample by sample.

Rows: one for each example, condition, change and level of its ladder.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Annotated, ClassVar, Literal, NamedTuple, Self, get_args

import pandas as pd
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from tasks.parts.artifacts.common.kind import Given
from tasks.parts.attack_task import AttackConfig
from tasks.parts.batching import in_batches
from tasks.parts.columns import EXAMPLE
from tasks.parts.contract import Batch, Needs
from tasks.parts.data.load import Split
from tasks.parts.measures.calibration import BINS, expected_calibration_error
from tasks.parts.measures.flatness import Cell, statistics
from tasks.parts.measures.ladder import mean_height
from tasks.parts.noise.corruptions import Corruption, corrupted
from tasks.parts.randomness import BLOCK
from tasks.parts.rows import Columns, example_columns, means, spread
from tasks.parts.self_checks import Outcome, loss_rises
from tasks.parts.settings import Positive, Several, UserError

VERSION = 1
COLUMNS = {
    **EXAMPLE,
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
    *("correct", "accuracy", "persistence", "p_true", "confidence", "ece", "robust_accuracy"),
    *("noise_accuracy", "flatness_genuine", "corruption_accuracy", "corruption_ece", "accuracy_*"),
)
MAY_BE_MISSING: frozenset[str] = frozenset()


class Config(AttackConfig):
    """Settings of `evaluation`."""

    pixels_only: ClassVar[str] = "images are judged"

    conditions: Several[Literal["clean", "noise", "attack", "corruption"]] = Field(
        default=["clean", "noise", "attack", "corruption"],
        description="what is done to the images; they are always classified as they are, too",
    )
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
    def _fixed_radius(self) -> Self:
        if not self.attack.fixed_radius:
            smallest = "has no radius, it searches for the smallest perturbation"
            raise UserError(f"{self.attack.name} {smallest}; take pgd or apgd", "attack.name")
        return self


class Judged(NamedTuple):
    """What becomes of B images under one change; from `accuracy` on (B,), float64."""

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
    """The classifier, and adversarial examples where images are attacked."""
    attacked: Needs = {"adversarial": config.adversarial()} if "attack" in config.conditions else {}
    return {"classifier": config.recipe, **attacked}


def check(config: Config, split: Split) -> None:
    """Refuses a target of the attack that is no class of the data, or is measured itself."""
    if "attack" in config.conditions:
        config.check_attack(split)


def passes(config: Config) -> int:
    """Forward passes for one example, the attack aside."""
    each = {
        "noise": len(config.radii) * config.samples,
        "attack": 1,
        "corruption": len(config.corruptions) * len(config.severities),
    }
    return 1 + sum(each.get(condition, 0) for condition in config.conditions)


def measure(config: Config, given: Given, batch: Batch) -> Columns:
    """Rows in the order (example, change and level), as `COLUMNS` names their columns.

    `given` holds the `classifier` and, where images are attacked, the `adversarial` examples.
    """
    model, images, labels = given["classifier"], batch.images, batch.labels
    size = config.batch_for(images)
    clean = in_batches(model, images, size)  # (B, K)
    predicted = clean.argmax(1)

    def judged(condition: str, change: str, level: int, strength: float, logits: Tensor) -> Judged:
        log_p = logits.double().log_softmax(1)  # the loss of a confident network is 0 in single precision
        classes, true = logits.argmax(1), log_p.gather(1, labels[:, None])[:, 0]
        outcome = classes == labels, classes == predicted, true.exp(), log_p.amax(1).exp(), -true
        return Judged(condition, change, level, strength, *(values.double() for values in outcome))

    changes = [judged("clean", "none", 0, 0.0, clean)]
    if "noise" in config.conditions:
        changes += _noisy(config, model, batch, predicted)
    if "attack" in config.conditions:
        radius = config.attack.resolve().radius
        assert radius is not None  # checked by the settings
        logits = in_batches(model, given["adversarial"].points, size)
        changes.append(judged("attack", config.attack.name, 1, radius, logits))
    if "corruption" in config.conditions:
        for change, (level, severity) in product(config.corruptions, enumerate(sorted(config.severities), 1)):
            damaged = corrupted(change, images, severity, ids=batch.ids, seed=config.seed)
            changes.append(judged("corruption", change, level, float(severity), in_batches(model, damaged, size)))

    columns = example_columns(batch, predicted)
    for name in ("condition", "change", "level", "strength"):
        columns[name] = ([getattr(one, name) for one in changes], "change")
    for name in ("accuracy", "persistence", "p_true", "confidence", "loss"):
        columns[name] = (torch.stack([getattr(one, name) for one in changes]), "change", "example")
    return spread({"example": len(labels), "change": len(changes)}, columns)


def _noisy(config: Config, model: nn.Module, batch: Batch, predicted: Tensor) -> Iterator[Judged]:
    """The images with additive Gaussian noise, clipped to [0, 1]: the noise of `input_flatness`."""
    radii, examples = sorted(config.radii), len(batch.labels)
    sums = statistics(
        model,
        [Cell(row, "additive", radius) for row in range(examples) for radius in radii],
        batch.images,
        batch.ids,
        torch.stack([batch.labels, predicted, predicted], 1),
        samples=config.samples,
        seed=config.seed,
        batch=config.batch_for(batch.images),
        confidence=True,
    )
    assert sums.confidence is not None
    each = [sums.hits, sums.stays, sums.p[:, 0], sums.confidence, sums.loss]
    shares = torch.stack(each).reshape(len(each), examples, len(radii)) / config.samples
    for place, radius in enumerate(radii):
        yield Judged("noise", "gaussian", place + 1, radius, *shares[..., place])


def summarise(config: Config, rows: pd.DataFrame) -> dict[str, float]:
    """Accuracy, loss and calibration of the clean images, and the accuracy under each change.

    `nll` is the mean cross-entropy, and `ece` the expected calibration error in 15 bins of equal
    width. `robust_accuracy` is the accuracy after the attack. `noise_accuracy` and
    `corruption_accuracy` are means over radii, and over corruptions and severities.
    `flatness_genuine` is that of `input_flatness`: the area under the curve of persistence against
    the noise radius from 0 to the largest, divided by that radius.
    """
    scalars = means(scores(config, rows))
    errors = {
        str(condition): expected_calibration_error(judged["confidence"], judged["accuracy"], BINS)
        for condition, judged in rows[rows["condition"].isin(["clean", "corruption"])].groupby("condition")
    }
    first = {"accuracy": scalars.pop("accuracy"), "nll": scalars.pop("nll"), "ece": errors["clean"]}
    return first | scalars | ({"corruption_ece": errors["corruption"]} if "corruption" in errors else {})


def scores(config: Config, rows: pd.DataFrame) -> dict[str, pd.Series]:
    """The values by example whose means are the trial's scalars; a calibration error is no mean."""
    by_condition = {str(name): group.set_index("id") for name, group in rows.groupby("condition")}
    clean = by_condition["clean"]
    found = {"accuracy": clean["accuracy"], "nll": clean["loss"]}
    if "attack" in by_condition:
        found["robust_accuracy"] = by_condition["attack"]["accuracy"]
    if "noise" in by_condition:
        noise = by_condition["noise"]
        curves = noise.reset_index().pivot(index="id", columns="strength", values="persistence")
        curves.insert(0, 0.0, 1.0)  # the image itself keeps its class
        found["noise_accuracy"] = noise["accuracy"]
        found["flatness_genuine"] = pd.Series(mean_height(curves.columns, curves), index=curves.index)
    if "corruption" in by_condition:
        damaged = by_condition["corruption"]
        found["corruption_accuracy"] = damaged["accuracy"]
        for change, group in damaged.groupby("change", sort=False):
            found[f"accuracy_{change}"] = group["accuracy"]
    return found


def checks(config: Config, rows: pd.DataFrame) -> Outcome:
    """What must hold for the numbers to mean anything."""
    clean = rows[rows["condition"] == "clean"].set_index("id")
    attacked = rows[rows["condition"] == "attack"].set_index("id").reindex(clean.index)
    held: Outcome = {}
    if attacked["accuracy"].notna().all() and config.attack.target is None:
        correct = clean["accuracy"] > 0
        recovered = int((attacked["accuracy"] > 0)[~correct].sum())
        held["the attack makes no misclassified image correct"] = f"it does {recovered}" if recovered else None
        held |= loss_rises(int((attacked["loss"] <= clean["loss"])[correct].sum()), int(correct.sum()))
    noise = rows[rows["condition"] == "noise"].groupby("strength")["persistence"].mean()
    if len(noise) > 1:
        held["stronger noise changes more classes"] = (
            f"a class is kept by {noise.iloc[0]:.1%} at the smallest radius, by {noise.iloc[-1]:.1%} at the largest"
            if noise.iloc[-1] > noise.iloc[0] + 0.02
            else None
        )
    return held

"""How far adversarial examples are: which images a search fools at each radius of a ladder, and what that costs.

The search is any attack (`tasks/parts/attacks`), among pixels or in a hidden space, and optionally
faces another noisy network at each step. One that searches within a radius does so for the ladder
as a whole (`curve`); one that searches for the smallest perturbation says it for every radius. So
the first knows the smallest perturbation that it finds only as lying between two radii, a bracket,
the second knows its length: `distance_low` and `distance_high`.

Beside the search stand its controls: the image moved as far in a random direction, and a search
without gradients (Square Attack) at the largest radius of the ladder at which the search itself
failed. What was found is classified again from its stored form.

Rows: one for each example and radius. In a hidden space, radii and distances are in units of that space's typical magnitude.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
from pydantic import Field, model_validator
from torch import Tensor

from tasks.parts.artifacts import adversarial_examples
from tasks.parts.artifacts.adversarial_examples import AdversarialExamples, space_of
from tasks.parts.artifacts.common.attack_settings import Attack, check_classes
from tasks.parts.attacks.square import square
from tasks.parts.batching import batch_size, in_batches
from tasks.parts.contract import Batch, Needs, TaskConfig
from tasks.parts.data import load as data
from tasks.parts.geometry.balls import norm_of
from tasks.parts.losses import cross_entropy, verdict
from tasks.parts.models.spaces import Space
from tasks.parts.noise.random_control import randomly_moved
from tasks.parts.rows import as_array, spread
from tasks.parts.self_checks import Outcome, found_again, loss_rises, weaker_at_random
from tasks.parts.settings import Positive, Several, UserError

VERSION = 1
"""Raised by hand when its numbers change on purpose."""

COLUMNS = {
    "id": "example (index in the split)",
    "label": "true class",
    "predicted": "class predicted at the image",
    "correct": "image is classified correctly",
    "radius": "radius of the search (pixel units)",
    "found": "a perturbation of at most this radius succeeds",
    "distance": "distance of the point found, or nearest to success (pixel units); not the smallest where an attack has a radius",
    "distance_low": "the smallest perturbation that the attack finds is longer (pixel units): the largest radius at which it failed,"
    " 0 if it failed at none; of a search for the smallest its very length, as is distance_high; missing where that found none",
    "distance_high": "the smallest perturbation that the attack finds is at most as long (pixel units): the smallest radius at which"
    " it succeeded, or the length of the point found there if that is less; missing where it found none",
    "forwards": "forward passes of the search",
    "backwards": "backward passes of the search, its gradient steps",
    "loss_start": "loss of the search at the image: cross-entropy (nats), towards a target its negative",
    "loss_end": "loss of the search at the point that was found",
    "verified": "the stored point is as near, and classified, as the search said",
    "fooled_random": "the image moved as far as the radius at random succeeds as well",
    "fooled_black_box": "a search without gradients succeeds at this radius; missing where it was not tried",
    "unseen": "share of noisy networks, not met in the search, that the point fools; missing without weight noise",
}
SHARES = (
    *("correct", "found", "verified", "fooled_random", "fooled_black_box", "unseen"),
    *("accuracy", "robust_accuracy*", "attack_success"),
)
"""Row columns and scalars that lie between 0 and 1; `unseen` is of both."""
MAY_BE_MISSING = frozenset({"distance_low", "distance_high", "fooled_black_box", "unseen"})
"""Where nothing was found; where no black box was tried; without weight noise."""
LADDERS: dict[str, list[float]] = {
    "Linf": [0.01, 0.02, 0.04, 0.08, 0.12, 0.16, 0.2, 0.3],
    "L2": [0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0],
    "L1": [0.5, 1, 2, 3, 4, 6, 8, 12],
    "L0": [1, 2, 4, 6, 8, 12, 16, 24],
}
BLACK_BOX_SHARE = 0.1
"""Share of the images that withstood the search of which the black box may fool more before a self-check fails."""


class Config(TaskConfig):
    """Settings of `adversarial_search`."""

    attack: Attack = Field(default=Attack(), description="the search")
    radii: Several[Positive] | None = Field(
        default=None,
        description="ladder of radii (pixel units; in a hidden space: of its typical magnitude); where null the attack's radius"
        f" alone if one is given, else by norm: {LADDERS}",
    )
    black_box: Annotated[int, Field(ge=0)] = Field(
        default=200,
        description="queries of the search without gradients for an example (pixels, L-inf and L2); 0: none",
    )

    @model_validator(mode="after")
    def _resolve(self) -> Config:
        attack = self.attack
        if self.radii is not None and attack.epsilon is not None and self.radii != [attack.epsilon]:
            raise UserError("radii are given; leave one of the two out", "attack.epsilon")
        if self.radii is None:
            object.__setattr__(self, "radii", [attack.epsilon] if attack.epsilon else LADDERS[attack.norm])
        if len(self.radii or []) > 1 and attack.stop not in (None, "first"):
            raise UserError("along a ladder each search ends at the first success; give one radius", "attack.stop")
        return self

    @property
    def ladder(self) -> list[float]:
        assert self.radii is not None  # resolved
        return sorted(self.radii)


def needs(config: Config) -> Needs:
    attack, ladder = config.attack, tuple(config.ladder)
    if len(ladder) == 1 and attack.fixed_radius:
        attack = attack.model_copy(update={"epsilon": ladder[0]})
    radii = ladder if len(ladder) > 1 else None
    wanted = adversarial_examples.Request(
        networks=(config.recipe,), attack=attack, radii=radii, split=config.split, seed=config.seed, batch=config.batch
    )
    return {"classifier": config.recipe, "adversarial": wanted}


def check(config: Config, split: data.Split) -> None:
    """Refuses a target that is no class of the data, or the label of measured examples."""
    check_classes(config.attack, split, config.classes)


def passes(config: Config) -> int:
    """Forward passes for one example at most, the search aside."""
    return 3 + len(config.ladder) + config.black_box


def measure(config: Config, given: Mapping[str, Any], batch: Batch) -> dict[str, Any]:
    """One row for each example and radius.

    Args:
        given: `classifier`, a module from [0, 1] images (B, C, H, W) to logits, in evaluation mode; `adversarial`, the
            `AdversarialExamples` of the batch.
        batch: the examples.

    Returns:
        Columns, NumPy arrays of one length, as `COLUMNS` names them.
    """
    model, searched, labels = given["classifier"], given["adversarial"], batch.labels
    size = config.batch or batch_size(batch.images[0].numel(), batch.images.device)
    space = space_of(config.attack, [model])
    targets = None if config.attack.target is None else torch.full_like(labels, config.attack.target)
    begin = in_batches(space.encode, batch.images, size).clone()
    logits, at_end = in_batches(space.classify, begin, size), in_batches(space.classify, searched.points, size)
    predicted = logits.argmax(1)

    radii = torch.tensor(config.ladder, device=begin.device)
    found = searched.radius[:, None] <= radii * (1 + 1e-6)  # (B, R)
    moved = [_random(config, space, begin, batch.ids, radius) for radius in radii]
    random = torch.stack([verdict(in_batches(space.classify, x, size), labels, targets)[1] for x in moved], 1)
    length = norm_of(searched.points - begin, config.attack.norm)
    as_said = (verdict(at_end, labels, targets)[1] == searched.success) & (
        length <= searched.distance * (1 + 1e-3) + 1e-5
    )
    low, high = _brackets(config, searched, found)
    of_example = {
        "id": np.asarray(batch.ids, dtype=np.int64),
        "label": labels,
        "predicted": predicted,
        "correct": predicted == labels,
        "distance": searched.distance,
        "distance_low": low,
        "distance_high": high,
        "forwards": searched.forwards,
        "backwards": searched.backwards,
        "loss_start": _loss(logits, labels, targets),
        "loss_end": _loss(at_end, labels, targets),
        "verified": as_said,
        "unseen": searched.unseen.double(),
    }
    of_cell = {
        "found": found,
        "fooled_random": random,
        "fooled_black_box": _black_box(config, model, batch, predicted == labels, found, size),
    }
    columns = spread(
        {"example": len(labels), "radius": len(radii)},
        {name: (values, "example") for name, values in of_example.items()}
        | {name: (values, "example", "radius") for name, values in of_cell.items()}
        | {"radius": (config.ladder, "radius")},
    )
    return {name: columns[name] for name in COLUMNS}


def _brackets(config: Config, searched: AdversarialExamples, found: Tensor) -> tuple[Tensor, Tensor]:
    """Between which lengths the smallest perturbation lies that the attack finds.

    A search for the smallest perturbation has found it: both are its length. An attack within a
    radius failed at one radius of the ladder and succeeded at the next. Its smallest perturbation
    is longer than the first, and no longer than the second or than the point that it found there.

    Args:
        found: (B, R) whether the search succeeds at each radius, ascending.

    Returns:
        Low and high, (B,) each, float64, NaN where there is none; both are 0 where the image was
        misclassified to begin with.
    """
    distance = searched.distance.double()
    if not config.attack.fixed_radius:
        smallest = torch.where(searched.success, distance, torch.nan)
        return smallest, smallest
    ends = torch.tensor([0, *config.ladder, torch.nan], dtype=torch.float64, device=found.device)
    failed = (~found).sum(1)  # found is monotone along the ladder
    return ends[failed], torch.minimum(ends[failed + 1], distance)


def _loss(logits: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
    logits = logits.double()  # that of a confident network is 0 in single precision
    return cross_entropy(logits, labels) if targets is None else -cross_entropy(logits, targets)


def _random(config: Config, space: Space, begin: Tensor, ids: Sequence[int], radius: Tensor) -> Tensor:
    """The points moved at random, as far as the radius, (B, ...)."""
    norm = config.attack.norm
    return begin + randomly_moved(begin, radius.expand(len(begin)), norm, ids=ids, seed=config.seed, box=space.box)


def _black_box(config: Config, model: Any, batch: Batch, correct: Tensor, found: Tensor, size: int) -> np.ndarray:
    """Whether Square Attack succeeds, (B, R), at the largest radius at which the search failed; NaN at the others."""
    outcome = np.full(found.shape, np.nan)
    attack = config.attack
    norm = attack.norm
    tried = (correct & ~found[:, 0]).nonzero().flatten()
    if attack.space != "pixel" or attack.target is not None or not config.black_box or not len(tried):
        return outcome
    if norm != "Linf" and norm != "L2":
        return outcome
    last = (~found).sum(1)[tried] - 1  # (T,) found is monotone along the ladder
    radii = torch.tensor(config.ladder, device=found.device, dtype=batch.images.dtype)
    blind = square(
        model,
        batch.images[tried],
        batch.labels[tried],
        epsilon=radii[last],
        norm=norm,
        queries=config.black_box,
        ids=[int(batch.ids[row]) for row in tried.tolist()],
        seed=config.seed,
        batch=size,
    )
    outcome[tried.cpu().numpy(), last.cpu().numpy()] = as_array(blind.success)
    return outcome


def summarise(config: Config, rows: pd.DataFrame) -> dict[str, float]:
    """Accuracy, robust accuracy (correct, and not found) at each radius and on their average, and what a search costs.

    How far away adversarial examples are is a median over the correctly classified examples, of
    which those not fooled within the largest radius count as infinitely far. Attacks that search
    for the smallest perturbation have `median_distance`. Those within a radius have
    `median_distance_low` and `median_distance_high`, between which it lies: the medians of the
    largest radius at which they failed and of the smallest at which they succeeded. The lengths of
    the points that they found play no part: they tell how an attack steps, not how near points are.
    """
    scalars = {name: float(values.mean()) for name, values in scores(config, rows).items()}
    ends = rows[(rows["radius"] == rows["radius"].max()) & rows["correct"]]
    if ends.empty:
        return scalars
    if config.attack.fixed_radius:
        return scalars | _median_bracket(rows)
    return scalars | {"median_distance": float(np.median(np.where(ends["found"], ends["distance"], np.inf)))}


def scores(config: Config, rows: pd.DataFrame) -> dict[str, pd.Series]:
    """What the trial's scalars are the means of, by example; medians are none."""
    rows = rows.set_index("id")
    standing = (rows["correct"] & ~rows["found"]).groupby(rows["radius"])
    each = rows[rows["radius"] == rows["radius"].min()]
    searched = each[each["correct"]]
    found = {"accuracy": each["correct"], "robust_accuracy": rows["correct"] & ~rows["found"]}
    if standing.ngroups > 1:
        found |= {f"robust_accuracy_{radius:g}": values for radius, values in standing}
    if len(searched):
        found["attack_success"] = rows.loc[(rows["radius"] == rows["radius"].max()) & rows["correct"], "found"]
        found["passes"] = searched["forwards"] + searched["backwards"]
    if searched["unseen"].notna().any():
        found["unseen"] = searched["unseen"]
    return found


def _median_bracket(rows: pd.DataFrame) -> dict[str, float]:
    """The radii of the ladder between which the median of the smallest perturbation lies."""
    ladder = np.array([0.0, *sorted(rows["radius"].unique()), np.inf])
    correct = rows[rows["correct"]]
    high = correct["radius"].where(correct["found"], np.inf).groupby(correct["id"]).min().to_numpy()
    low = ladder[np.searchsorted(ladder, high) - 1]
    return {"median_distance_low": float(np.median(low)), "median_distance_high": float(np.median(high))}


def checks(config: Config, rows: pd.DataFrame) -> dict[str, str | None]:
    """What must hold for the numbers to mean anything."""
    rows = rows.sort_values(["id", "radius"])
    each = rows.drop_duplicates("id")
    falls = (rows.groupby("id")["found"].diff() < 0).sum()
    wrong = int((~each["verified"]).sum())
    success = rows[rows["found"]]
    too_far = int((success["distance"] > success["radius"] * (1 + 1e-5) + 1e-6).groupby(success["id"]).any().sum())
    tried = rows["fooled_black_box"].dropna()
    correct = rows[rows["correct"]]
    at_random, by_search = correct["fooled_random"].mean(), correct["found"].mean()
    moved = each[each["correct"] & (each["distance"] > 0)]
    flat = int((moved["loss_end"] <= moved["loss_start"]).sum())
    held: Outcome = {
        "success never falls with the radius": f"it falls {falls} times" if falls else None,
        **found_again(wrong, len(each)),
        "no perturbation is longer than the radius at which it succeeds": f"{too_far} are" if too_far else None,
        **weaker_at_random(at_random, by_search),
        **loss_rises(flat, len(moved)),
    }
    if len(tried):
        fooled = int(tried.sum())
        held["the black box is not stronger"] = (
            f"it fools {fooled} of {len(tried)} images that withstood the search: its gradients may be masked"
            if fooled > max(1, BLACK_BOX_SHARE * len(tried))
            else None
        )
    return held

"""Which images an attack fools at each radius of a ladder, and at what cost.

Any attack will do (`tasks/parts/attacks`), on pixels, in a hidden space or in the latent space of
an autoencoder, with or without a fresh noisy network at each step. An attack with a fixed radius is
tried along the ladder (`security_curve`). It brackets the smallest perturbation that it finds
between two radii, `distance_low` and `distance_high`. An attack that minimises the perturbation
knows its length, and so answers for every radius; both columns are then that length.

There are two controls: the image moved as far in a random direction, and an attack without
gradients (Square Attack) at the largest radius of the ladder at which the attack itself failed.
What was found is classified again from its stored form.

Rows: one for each example and radius. In a hidden or latent space, radii and distances are in units
of that space's typical magnitude. An attack in latent space begins at the reconstruction of the
image, which is what is classified correctly or not.
"""

from __future__ import annotations

from typing import Annotated, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor, nn

from tasks.parts.artifacts.adversarial_examples import AdversarialExamples
from tasks.parts.artifacts.common.attack_spaces import decoded, encoded, space_of
from tasks.parts.artifacts.common.kind import Given
from tasks.parts.attack_task import LatentAttackConfig, adversarial_pictures
from tasks.parts.attacks.square import square
from tasks.parts.batching import in_batches
from tasks.parts.columns import EXAMPLE
from tasks.parts.contract import Batch, Needs
from tasks.parts.data.load import Split
from tasks.parts.geometry.balls import norm_of
from tasks.parts.losses import objective, verdict
from tasks.parts.noise.random_control import randomly_moved
from tasks.parts.rows import Columns, as_array, example_columns, means, spread
from tasks.parts.self_checks import Outcome, found_again, loss_rises, weaker_at_random
from tasks.parts.settings import Positive, Several, UserError

VERSION = 1
COLUMNS = {
    **EXAMPLE,
    "radius": "radius of the attack (pixel units)",
    "found": "a perturbation of at most this radius succeeds",
    "distance": "distance of the point found, or nearest to success (pixel units);"
    " not the smallest where an attack has a radius",
    "distance_low": "the smallest perturbation that the attack finds is longer (pixel units): the largest radius at"
    " which it failed, 0 if it failed at none; its very length if the attack minimises it; missing where that"
    " found none",
    "distance_high": "the smallest perturbation that the attack finds is at most as long (pixel units): the smallest"
    " radius at which it succeeded, or the length of the point found there if that is less; missing where it found"
    " none",
    "forwards": "forward passes of the attack",
    "backwards": "backward passes of the attack, its gradient steps",
    "loss_start": "loss of the attack at the image: cross-entropy (nats), towards a target its negative",
    "loss_end": "loss of the attack at the point that was found",
    "verified": "the stored point is as near, and classified, as the attack said",
    "fooled_random": "the image moved as far as the radius at random succeeds as well",
    "fooled_black_box": "an attack without gradients succeeds at this radius; missing where it was not tried",
    "unseen": "share of noisy networks, not met in the attack, that the point fools; missing without weight noise",
    "image_distance": "distance of the decoded point from the image (pixel units, the attack's norm); missing unless"
    " the attack is in latent space",
    "off_manifold": "distance of the decoded point from its own reconstruction (pixel units, L2); missing unless the"
    " attack is in latent space",
}
SUBJECT = "classifier"
SHARES = (
    *("correct", "found", "verified", "fooled_random", "fooled_black_box", "unseen"),
    *("accuracy", "robust_accuracy*", "attack_success"),
)
MAY_BE_MISSING = frozenset(
    {"distance_low", "distance_high", "fooled_black_box", "unseen", "image_distance", "off_manifold"}
)
LADDERS: dict[str, list[float]] = {
    "Linf": [0.01, 0.02, 0.04, 0.08, 0.12, 0.16, 0.2, 0.3],
    "L2": [0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0],
    "L1": [0.5, 1, 2, 3, 4, 6, 8, 12],
    "L0": [1, 2, 4, 6, 8, 12, 16, 24],
}
BLACK_BOX_SHARE = 0.1
"""Share of the images that withstood the attack of which the black box may fool more."""

show = adversarial_pictures


class Config(LatentAttackConfig):
    """Settings of `adversarial_search`."""

    radii: Several[Positive] | None = Field(
        default=None,
        description="ladder of radii (pixel units; in another space: of its typical magnitude); where null the"
        f" attack's radius alone if one is given, else by norm: {LADDERS}",
    )
    black_box: Annotated[int, Field(ge=0)] = Field(
        default=200,
        description="queries of the attack without gradients for an example (pixels, L-inf and L2); 0: none",
    )

    @model_validator(mode="after")
    def _resolve(self) -> Self:
        attack = self.attack
        if self.radii is not None and attack.epsilon is not None and self.radii != [attack.epsilon]:
            raise UserError("radii are given; leave one of the two out", "attack.epsilon")
        if self.radii is None:
            object.__setattr__(self, "radii", [attack.epsilon] if attack.epsilon else LADDERS[attack.norm])
        if len(self.ladder) > 1 and attack.stop not in (None, "first"):
            raise UserError("along a ladder the attack ends at the first success; give one radius", "attack.stop")
        return self

    @property
    def ladder(self) -> list[float]:
        """The radii, ascending."""
        return sorted(self.radii or [])


def needs(config: Config) -> Needs:
    """The classifier, adversarial examples along the ladder, the autoencoder of a latent space."""
    attack, ladder = config.attack, config.ladder
    if len(ladder) > 1:
        wanted = config.adversarial(radii=ladder)
    else:
        fixed = {"epsilon": ladder[0]} if attack.fixed_radius else {}
        wanted = config.adversarial(attack=attack.model_copy(update=fixed))
    coder = {} if config.coder is None else {"autoencoder": config.coder}
    return {"classifier": config.recipe, "adversarial": wanted, **coder}


def check(config: Config, split: Split) -> None:
    """Refuses a target that is no class of the data, or is measured itself."""
    config.check_attack(split)


def passes(config: Config) -> int:
    """Forward passes for one example at most, the attack aside."""
    return 3 + len(config.ladder) + config.black_box


def measure(config: Config, given: Given, batch: Batch) -> Columns:
    """Rows in the order (example, radius), as `COLUMNS` names their columns.

    `given` holds what `needs` names.
    """
    model, adversarial, labels = given["classifier"], given["adversarial"], batch.labels
    size, norm, target = config.batch_for(batch.images), config.attack.norm, config.attack.target
    space = space_of(config.attack, [model], given.get("autoencoder"))
    targets = None if target is None else torch.full_like(labels, target)

    def fooled(points: Tensor) -> Tensor:
        return verdict(in_batches(space.classify, points, size), labels, targets)[1]

    start = encoded(space, batch.images, size)
    in_pixels = torch.full_like(adversarial.distance, torch.nan)
    if space.name == "latent":
        in_pixels = norm_of(decoded(space, adversarial.points, size) - batch.images, norm)
    at_start, at_end = (in_batches(space.classify, points, size) for points in (start, adversarial.points))
    predicted = at_start.argmax(1)
    length = norm_of(adversarial.points - start, norm)
    as_near = length <= adversarial.distance * (1 + 1e-3) + 1e-5
    radii = torch.tensor(config.ladder, device=start.device)
    found = adversarial.radius[:, None] <= radii * (1 + 1e-6)  # (B, R)
    at_random = [
        start + randomly_moved(start, radius.expand(len(start)), norm, ids=batch.ids, seed=config.seed, box=space.box)
        for radius in radii
    ]
    low, high = _brackets(config, adversarial, found)
    # The loss of a confident network is 0 in single precision.
    loss_start, loss_end = (objective("ce", logits.double(), labels, targets) for logits in (at_start, at_end))
    return spread(
        {"example": len(labels), "radius": len(radii)},
        {
            **example_columns(batch, predicted),
            "radius": (config.ladder, "radius"),
            "found": (found, "example", "radius"),
            "distance": (adversarial.distance, "example"),
            "distance_low": (low, "example"),
            "distance_high": (high, "example"),
            "forwards": (adversarial.forwards, "example"),
            "backwards": (adversarial.backwards, "example"),
            "loss_start": (loss_start, "example"),
            "loss_end": (loss_end, "example"),
            "verified": ((verdict(at_end, labels, targets)[1] == adversarial.success) & as_near, "example"),
            "fooled_random": (torch.stack([fooled(points) for points in at_random], 1), "example", "radius"),
            "fooled_black_box": (_black_box(config, model, batch, predicted, found), "example", "radius"),
            "unseen": (adversarial.unseen.double(), "example"),
            "image_distance": (in_pixels.double(), "example"),
            "off_manifold": (adversarial.off_manifold.double(), "example"),
        },
    )


def _brackets(config: Config, adversarial: AdversarialExamples, found: Tensor) -> tuple[Tensor, Tensor]:
    """The lengths between which the smallest perturbation lies that the attack finds.

    An attack that minimises the perturbation has found it: both are its length. An attack with a
    fixed radius failed at one radius of the ladder and succeeded at the next. Its smallest
    perturbation is longer than the first, and no longer than the second or than the point that it
    found there.

    Args:
        config: the task's settings.
        adversarial: what the attack found for B examples.
        found: (B, R) whether the attack succeeds at each radius, ascending.

    Returns:
        Low and high, (B,) each, float64, NaN where there is none. Both are 0 where the image was
        misclassified to begin with.
    """
    distance = adversarial.distance.double()
    if not config.attack.fixed_radius:
        smallest = torch.where(adversarial.success, distance, torch.nan)
        return smallest, smallest
    ends = torch.tensor([0, *config.ladder, torch.nan], dtype=torch.float64, device=found.device)
    failed = (~found).sum(1)  # found is monotone along the ladder
    return ends[failed], torch.minimum(ends[failed + 1], distance)


def _black_box(config: Config, model: nn.Module, batch: Batch, predicted: Tensor, found: Tensor) -> NDArray[np.float64]:
    """Whether Square Attack succeeds at the largest radius at which the attack failed, (B, R).

    NaN at the other radii.
    """
    outcome = np.full(found.shape, np.nan)
    attack, norm = config.attack, config.attack.norm
    tried = ((predicted == batch.labels) & ~found[:, 0]).nonzero().flatten()
    if attack.space != "pixel" or attack.target is not None or not config.black_box or not len(tried):
        return outcome
    if norm != "Linf" and norm != "L2":  # the norms of the square attack
        return outcome
    last = (~found).sum(1)[tried] - 1  # (T,) found is monotone along the ladder
    radii = torch.tensor(config.ladder, device=found.device, dtype=batch.images.dtype)
    some = batch[tried]
    blind = square(
        model,
        some.images,
        some.labels,
        epsilon=radii[last],
        norm=norm,
        queries=config.black_box,
        ids=some.ids,
        seed=config.seed,
        batch=config.batch_for(batch.images),
    )
    outcome[tried.cpu().numpy(), last.cpu().numpy()] = as_array(blind.success)
    return outcome


def summarise(config: Config, rows: pd.DataFrame) -> dict[str, float]:
    """Accuracy, robust accuracy, the attack's success and cost, and a median distance.

    An example is robust at a radius if it is classified correctly and the attack fails there. The
    robust accuracy is that at each radius, and on their average.

    How far away adversarial examples are is a median over the correctly classified examples, of
    which those not fooled within the largest radius count as infinitely far. Attacks that minimise
    the perturbation have `median_distance`. Attacks with a fixed radius have `median_distance_low`
    and `median_distance_high`, between which it lies: the medians of the largest radius at which
    they failed and of the smallest at which they succeeded. The lengths of the points that they
    found play no part: they tell how an attack steps, not how near points are.
    """
    scalars = means(scores(config, rows))
    correct = rows[rows["correct"]]
    if correct.empty:
        return scalars
    if not config.attack.fixed_radius:
        ends = correct[correct["radius"] == rows["radius"].max()]
        return scalars | {"median_distance": float(np.median(np.where(ends["found"], ends["distance"], np.inf)))}
    ladder = np.array([0.0, *sorted(rows["radius"].unique()), np.inf])
    high = correct["radius"].where(correct["found"], np.inf).groupby(correct["id"]).min().to_numpy()
    low = ladder[np.searchsorted(ladder, high) - 1]
    return scalars | {"median_distance_low": float(np.median(low)), "median_distance_high": float(np.median(high))}


def scores(config: Config, rows: pd.DataFrame) -> dict[str, pd.Series]:
    """The values by example whose means are the trial's scalars; medians are no means."""
    rows = rows.set_index("id")
    robust = rows["correct"] & ~rows["found"]
    by_radius = robust.groupby(rows["radius"])
    each = rows[rows["radius"] == rows["radius"].min()]
    attacked = each[each["correct"]]
    found = {"accuracy": each["correct"], "robust_accuracy": robust}
    if by_radius.ngroups > 1:
        found |= {f"robust_accuracy_{radius:g}": values for radius, values in by_radius}
    if len(attacked):
        found["attack_success"] = rows.loc[(rows["radius"] == rows["radius"].max()) & rows["correct"], "found"]
        found["passes"] = attacked["forwards"] + attacked["backwards"]
    if attacked["unseen"].notna().any():
        found["unseen"] = attacked["unseen"]
    return found


def checks(config: Config, rows: pd.DataFrame) -> Outcome:
    """What must hold for the numbers to mean anything."""
    rows = rows.sort_values(["id", "radius"])
    each, correct, success = rows.drop_duplicates("id"), rows[rows["correct"]], rows[rows["found"]]
    falls = (rows.groupby("id")["found"].diff() < 0).sum()
    too_far = success["distance"] > success["radius"] * (1 + 1e-5) + 1e-6
    longer = success.loc[too_far, "id"].nunique()
    moved = each[each["correct"] & (each["distance"] > 0)]
    held: Outcome = {
        "success never falls with the radius": f"it falls {falls} times" if falls else None,
        **found_again(int((~each["verified"]).sum()), len(each)),
        "no perturbation is longer than the radius at which it succeeds": f"{longer} are" if longer else None,
        **weaker_at_random(correct["fooled_random"].mean(), correct["found"].mean()),
        **loss_rises(int((moved["loss_end"] <= moved["loss_start"]).sum()), len(moved)),
    }
    tried = rows["fooled_black_box"].dropna()
    if len(tried):
        fooled = int(tried.sum())
        held["the black box is not stronger"] = (
            f"it fools {fooled} of {len(tried)} images that withstood the attack: its gradients may be masked"
            if fooled > max(1, BLACK_BOX_SHARE * len(tried))
            else None
        )
    return held

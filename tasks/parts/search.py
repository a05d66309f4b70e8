"""What every adversarial search returns."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Found:
    """The outcome of a search around B images.

    Attributes:
        perturbation: (B, C, H, W), image + perturbation in [0, 1]; the best try where the search failed; zero where the image was
            misclassified to begin with. In another space (B, ...), without a box.
        success: (B,) bool: the perturbed image is not given its label (or is given the target).
        distance: (B,) norm of the perturbation, in the search's norm, pixel units, not quantised.
        forwards, backwards: (B,) how many forward and backward passes each example took.
    """

    perturbation: Tensor
    success: Tensor
    distance: Tensor
    forwards: Tensor
    backwards: Tensor

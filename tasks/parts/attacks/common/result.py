"""What every adversarial search returns, and how many points it looks at in one pass."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from tasks.parts.batching import batch_size


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


def pass_size(points: Tensor) -> int:
    """How many of the points (N, ...) a search takes in one pass where it is not told.

    Its passes go backwards too and are followed by a step, so that on a CPU small images want larger batches than forward passes
    alone; what a pass keeps for the way back sets the limit.
    """
    numbers = points.shape[1:].numel()
    usual = batch_size(numbers, points.device)
    return max(usual, min(512, 2**17 // numbers // 8 * 8)) if points.device.type == "cpu" else usual

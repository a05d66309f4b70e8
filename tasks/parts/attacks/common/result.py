"""What every attack returns, and how many points it evaluates in one pass."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from tasks.parts.batching import batch_size
from tasks.parts.geometry.balls import PIXELS, Box, Norm, norm_of


@dataclass(frozen=True)
class AttackResult:
    """The outcome of an attack on B images, or on B points (B, ...) of another space.

    Attributes:
        images: (B, C, H, W) the perturbed images, in [0, 1]; where the attack failed, its best try;
            where an image was misclassified to begin with, the image itself.
        perturbation: (B, C, H, W) what leads from each image to its perturbed one. The two differ
            from their sum by rounding at most.
        success: (B,) bool: the perturbed image is not given its label (or is given the target).
        distance: (B,) norm of the perturbation, in the attack's norm, pixel units, not quantised.
        forwards, backwards: (B,) how many forward and backward passes each example took.
    """

    images: Tensor
    perturbation: Tensor
    success: Tensor
    distance: Tensor
    forwards: Tensor
    backwards: Tensor

    @staticmethod
    def of(
        images: Tensor,
        perturbation: Tensor,
        success: Tensor,
        *,
        norm: Norm,
        forwards: Tensor,
        backwards: Tensor,
        box: Box = PIXELS,
    ) -> AttackResult:
        """The result of perturbations (B, ...) of images (B, ...) in the box."""
        moved = (images + perturbation).clamp(*box)  # adding may round out of the box
        return AttackResult(moved, perturbation, success, norm_of(perturbation, norm), forwards, backwards)


def pass_size(points: Tensor) -> int:
    """How many of the points (N, ...) an attack takes in one pass where it is not told.

    Its passes go backwards too and are followed by a step, so that on a CPU small images want
    larger batches than forward passes alone; what a pass keeps for the way back sets the limit.
    """
    numbers = points.shape[1:].numel()
    usual = batch_size(numbers, points.device)
    return max(usual, min(512, 2**17 // numbers // 8 * 8)) if points.device.type == "cpu" else usual

"""Training on the worst image found in a ball around each: adversarial training and TRADES.

    pgd      cross_entropy(f(x'), y)
             where x' climbs the cross-entropy from a random point of the ball
    trades   cross_entropy(f(x), y) + beta KL(f(x) || f(x'))
             where x' climbs that divergence from beside x

Madry, Makelov, Schmidt, Tsipras and Vladu 2018, "Towards deep learning models resistant to
adversarial attacks"; Zhang, Yu, Jiao, Xing, El Ghaoui and Jordan 2019, "Theoretically principled
trade-off between robustness and accuracy". f are class probabilities. The images are searched in
evaluation mode (`projected_gradient`), and are constants for the training's own backward pass.
TRADES runs the clean and the moved images through the network as two batches, so that batch
normalisation sees each by itself.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div

from tasks.parts.geometry.balls import PIXELS, Ball, ascent_direction, clipped, per_example
from tasks.parts.training.projected_gradient import climb, gradient_at, without_trace
from tasks.parts.training.recipes import Robust

BESIDE = 1e-3
"""Standard deviation (pixel units) of the random start of TRADES.

At the image itself the divergence has no gradient.
"""


def loss(
    settings: Robust,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    generator: torch.Generator,
    label_smoothing: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """The loss of a batch, and its logits (B, K).

    The logits are of the moved images with `pgd`, of the clean ones with `trades`.

    Args:
        settings: of the robust training, which is on.
        model: in training mode.
        images: (B, C, H, W) in [0, 1].
        labels: (B,) true classes.
        generator: a CPU generator, for the start of the search.
        label_smoothing: of the cross-entropy.
    """
    worst = worst_images(settings, model, images, labels, generator)
    if settings.method == "pgd":
        logits = model(worst)
        return cross_entropy(logits, labels, label_smoothing=label_smoothing), logits
    logits = model(images)
    return trades(logits, model(worst), labels, settings.beta, label_smoothing), logits


def trades(logits: Tensor, moved: Tensor, labels: Tensor, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """The TRADES loss (a number, nats) of the logits (B, K) of images and of the moved images."""
    divergence = kl_div(moved.log_softmax(1), logits.log_softmax(1), reduction="batchmean", log_target=True)
    return cross_entropy(logits, labels, label_smoothing=label_smoothing) + beta * divergence


def worst_images(
    settings: Robust, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator
) -> Tensor:
    """The worst images (B, C, H, W) that are found in the balls, in [0, 1], detached.

    `model` keeps its mode, statistics and gradients.
    """
    step_size = settings.step_size or 2.5 * settings.epsilon / settings.steps
    start = _start(settings, images, generator)
    with without_trace(model, images.device):
        if settings.method == "trades":
            with torch.no_grad():
                clean = model(images).log_softmax(1)

        def height(logits: Tensor) -> Tensor:
            if settings.method == "pgd":
                return cross_entropy(logits, labels, reduction="none")
            return kl_div(logits.log_softmax(1), clean, reduction="none", log_target=True).sum(1)

        delta = climb(
            lambda points: gradient_at(model, points, height)[1],
            images,
            clipped(images, start, PIXELS),
            steps=settings.steps,
            epsilon=images.new_full((1,), settings.epsilon),
            step_size=step_size,
            norm=settings.norm,
            box=PIXELS,
        )
    return (images + delta).clamp_(0, 1)


def _start(settings: Robust, images: Tensor, generator: torch.Generator) -> Tensor:
    """Where the search begins, as a perturbation.

    It is uniform in the ball for `pgd`, normal and close to the image for `trades`.
    """
    if settings.method == "trades":
        return BESIDE * torch.randn(images.shape, generator=generator).to(images)
    return settings.epsilon * _in_ball(images, settings.norm, generator)


def _in_ball(images: Tensor, norm: Ball, generator: torch.Generator) -> Tensor:
    """Points uniform in the unit ball, shaped like the images."""
    if norm == "Linf":
        return (torch.rand(images.shape, generator=generator) * 2 - 1).to(images)
    directions = ascent_direction(torch.randn(images.shape, generator=generator).to(images), "L2")
    share = torch.rand(len(images), generator=generator) ** (1 / images[0].numel())
    return directions * per_example(share.to(images), directions)

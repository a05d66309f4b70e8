"""What changes the images of a training batch: random crops, flips and input noise."""

from __future__ import annotations

import torch
from torch import Tensor

from tasks.parts.noise.input_noise import direction, moved
from tasks.parts.randomness import torch_generator
from tasks.parts.training.recipes import InputNoise, Recipe


def augmented(recipe: Recipe, images: Tensor, epoch: int, step: int) -> Tensor:
    """The batch (B, C, H, W) with the recipe's crops, flips and input noise.

    Each of them has random numbers of its own, keyed by the recipe's seed, the epoch and the step.
    """
    if recipe.augmentation.crop:
        generator = torch_generator(recipe.seed, "crop", epoch, step)
        images = random_crop(images, recipe.augmentation.crop, generator)
    if recipe.augmentation.flip:
        images = random_flip(images, torch_generator(recipe.seed, "flip", epoch, step))
    if not recipe.input_noise.active:
        return images
    return with_input_noise(images, recipe.input_noise, torch_generator(recipe.seed, "input noise", epoch, step))


def random_crop(images: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """A random crop of each image, of its own size, after padding it with zeros.

    Args:
        images: (B, C, H, W).
        padding: pixels on each side.
        generator: a CPU generator.
    """
    count, _, height, width = images.shape
    offsets = torch.randint(0, 2 * padding + 1, (2, count), generator=generator).to(images.device)
    rows = offsets[0][:, None] + torch.arange(height, device=images.device)  # (B, H)
    columns = offsets[1][:, None] + torch.arange(width, device=images.device)  # (B, W)
    padded = torch.nn.functional.pad(images, [padding] * 4).permute(0, 2, 3, 1)  # (B, H + 2p, W + 2p, C)
    example = torch.arange(count, device=images.device)[:, None, None]
    return padded[example, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def random_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image mirrored left to right with probability 1/2; a CPU generator."""
    mirrored = torch.rand(len(images), generator=generator).to(images.device) < 0.5
    return torch.where(mirrored[:, None, None, None], images.flip(-1), images)


def with_input_noise(images: Tensor, noise: InputNoise, generator: torch.Generator) -> Tensor:
    """The batch with noise on each example with the given probability, clipped to [0, 1].

    Args:
        images: (B, C, H, W) in [0, 1].
        noise: its kind, radius and probability.
        generator: a CPU generator; nothing is drawn where radius or probability is 0.
    """
    if noise.radius == 0 or noise.probability == 0:
        return images
    chosen = torch.rand(len(images), generator=generator) < noise.probability
    normal = torch.randn(images.shape, generator=generator)
    noisy = moved(images, noise.radius, direction(normal.to(images), noise.kind), noise.kind, clip=True)
    return torch.where(chosen.to(images.device)[:, None, None, None], noisy, images)

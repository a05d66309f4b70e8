"""Corruptions: everyday damage to images, each in five severities.

They are for an average over ways of failing that no training was aimed at. The idea is that of
Hendrycks and Dietterich (2019, "Benchmarking neural network robustness to common corruptions and
perturbations"); the corruptions and their severities are this project's own. Lengths are shares of
the image's side, so that they mean the same on 8 x 8 digits and on photographs. **Accuracies under
them cannot be compared to those on CIFAR-10-C or ImageNet-C.**

| name | what | severity 1 to 5 |
|---|---|---|
| blur | Gaussian blur, the edge repeated outwards | standard deviation 0.015 to 0.09 of the side |
| pixelation | means over a coarser grid | 0.8 to 0.3 of the pixels along a side |
| translation | moved in a random direction | 0.03 to 0.2 of the side |
| rotation | turned to a random side about the centre | 5 to 30 degrees |
| contrast | distance of each pixel from the image's mean | times 0.7 to 0.1 |
| brightness | added to each pixel | 0.1 to 0.5 |
| shot_noise | photons counted, Poisson | 50 to 3 for a pixel of 1 |
| salt_and_pepper | pixels black or white, all channels alike | share 0.01 to 0.2 |

Translation and rotation interpolate bilinearly, with the edge repeated. Random numbers are keyed by
(seed, example) and shared between severities: a pixel that is salt at severity 1 is salt at
severity 5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tasks.parts.randomness import generator, uniform

Corruption = Literal[
    "blur", "pixelation", "translation", "rotation", "contrast", "brightness", "shot_noise", "salt_and_pepper"
]

SEVERITIES: dict[Corruption, tuple[float, float, float, float, float]] = {
    "blur": (0.015, 0.025, 0.04, 0.06, 0.09),
    "pixelation": (0.8, 0.65, 0.5, 0.4, 0.3),
    "translation": (0.03, 0.06, 0.1, 0.15, 0.2),
    "rotation": (5.0, 10.0, 15.0, 22.0, 30.0),
    "contrast": (0.7, 0.5, 0.35, 0.2, 0.1),
    "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),
    "shot_noise": (50.0, 25.0, 12.0, 6.0, 3.0),
    "salt_and_pepper": (0.01, 0.03, 0.06, 0.1, 0.2),
}
"""The strength of each corruption at the severities 1 to 5, in the units of the table above."""


def corrupted(name: Corruption, images: Tensor, severity: int, *, ids: Sequence[int], seed: int) -> Tensor:
    """The images after one corruption.

    Args:
        name: of the corruption, see the table.
        images: (B, C, H, W) in [0, 1].
        severity: 1 to 5.
        ids: the examples' ids, which key the random numbers.
        seed: keys them too.

    Returns:
        (B, C, H, W) in [0, 1].

    >>> corrupted("brightness", torch.zeros(1, 1, 2, 2), 3, ids=[0], seed=0)[0, 0].tolist()
    [[0.30000001192092896, 0.30000001192092896], [0.30000001192092896, 0.30000001192092896]]
    """
    assert 1 <= severity <= 5
    strength = SEVERITIES[name][severity - 1]
    match name:
        case "blur":
            moved = blur(images, strength)
        case "pixelation":
            moved = pixelation(images, strength)
        case "translation":
            angle = 2 * math.pi * uniform(seed, "translation", ids, ()).double()  # (B,)
            moved = _resampled(images, 0 * angle, strength * angle.cos(), strength * angle.sin())
        case "rotation":
            side = torch.where(uniform(seed, "rotation", ids, ()).double() < 0.5, -1.0, 1.0)
            moved = _resampled(images, side * math.radians(strength), 0 * side, 0 * side)
        case "contrast":
            mean = images.mean((1, 2, 3), keepdim=True)
            moved = mean + strength * (images - mean)
        case "brightness":
            moved = images + strength
        case "shot_noise":
            moved = shot_noise(images, strength, ids=ids, seed=seed)
        case "salt_and_pepper":
            lots = uniform(seed, "salt and pepper", ids, (1, *images.shape[2:])).to(images)
            moved = torch.where(lots < strength / 2, 0.0, torch.where(lots > 1 - strength / 2, 1.0, images))
    return moved.clamp(0, 1)


def blur(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of images (B, C, H, W); `sigma` is a share of the shorter side.

    The edge is repeated outwards.
    """
    sigma = sigma * min(images.shape[2:])  # pixels
    reach = max(1, math.ceil(3 * sigma))
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=torch.float64) / sigma) ** 2)
    weights = (weights / weights.sum()).to(images)
    flat = F.pad(images.flatten(0, 1)[:, None], (reach, reach, reach, reach), mode="replicate")  # (B C, 1, H', W')
    across = F.conv2d(flat, weights[None, None, None, :])
    return F.conv2d(across, weights[None, None, :, None]).reshape(images.shape)


def pixelation(images: Tensor, share: float) -> Tensor:
    """Images (B, C, H, W), each pixel the mean over its cell of a coarser grid.

    The grid has this share of the pixels along each side, at least one.
    """
    height, width = images.shape[2:]
    coarse = F.adaptive_avg_pool2d(images, (max(1, round(height * share)), max(1, round(width * share))))
    return F.interpolate(coarse, size=(height, width), mode="nearest-exact")


def shot_noise(images: Tensor, photons: float, *, ids: Sequence[int], seed: int) -> Tensor:
    """Each pixel x becomes Poisson(photons x) / photons. Images (B, C, H, W)."""
    rates = photons * images.double().cpu().numpy()
    counted = [
        generator(seed, "shot noise", int(example)).poisson(rate) for example, rate in zip(ids, rates, strict=True)
    ]
    return torch.from_numpy(np.stack(counted) / photons).to(images)


def _resampled(images: Tensor, angle: Tensor, across: Tensor, down: Tensor) -> Tensor:
    """Images (B, C, H, W) turned by `angle` (B,) radians and moved.

    `across` and `down` (B,) are shares of the width and of the height.
    """
    height, width = images.shape[2:]
    ratio = height / width  # the coordinates of `affine_grid` run from -1 to 1 along either side
    cosine, sine = angle.cos(), angle.sin()
    rows = [
        torch.stack([cosine, -sine * ratio, -2 * across], 1),
        torch.stack([sine / ratio, cosine, -2 * down], 1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1).to(images), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)

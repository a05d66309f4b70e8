"""Three kinds of input noise, all from one standard normal direction n.

| kind | perturbed image | unit of the radius |
|---|---|---|
| additive | x + radius * n | pixel units, the standard deviation of each pixel |
| multiplicative | x * (1 + radius * n) | relative to each pixel |
| sphere | x + radius * n / ||n|| | pixel units, the L2 distance |

There is one n for each (example, replicate). Every kind and every radius uses it, so curves over
radii, and comparisons between kinds, networks and conditions, are paired.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Kind = Literal["additive", "multiplicative", "sphere"]


def direction(normal: Tensor, kind: Kind) -> Tensor:
    """The direction of the noise, from normal numbers (..., C, H, W).

    For the sphere it has unit L2 length over (C, H, W), else it is the numbers themselves.
    """
    if kind != "sphere":
        return normal
    return normal / normal.flatten(-3).norm(dim=-1)[..., None, None, None]


def moved(
    images: Tensor, radius: Tensor | float, along: Tensor, kind: Kind, *, clip: bool, out: Tensor | None = None
) -> Tensor:
    """The images with noise of a given radius.

    Args:
        images: (..., C, H, W).
        radius: see the table; a number, or a tensor that broadcasts with the images.
        along: what `direction` gave; broadcasts with the images.
        kind: of the noise.
        clip: into [0, 1].
        out: where to put the result.

    >>> moved(torch.full((1, 1, 1), 0.5), 0.1, torch.ones(1, 1, 1), "multiplicative", clip=True)
    tensor([[[0.5500]]])
    """
    scale = (
        radius * images
        if kind == "multiplicative"
        else torch.as_tensor(radius, dtype=images.dtype, device=images.device)
    )
    result = torch.addcmul(images, scale, along, out=out)
    return result.clamp_(0, 1) if clip else result

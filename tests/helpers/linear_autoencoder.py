"""Principal components as an autoencoder: linear, orthonormal, and so known in closed form."""

from __future__ import annotations

import torch
from torch import Tensor


class Principal:
    """Codes are the first principal components of some images (N, C, H, W)."""

    def __init__(self, images: Tensor, components: int):
        flat = images.double().flatten(1)
        self.shape = images.shape[1:]
        self.mean = flat.mean(0)
        self.directions = torch.linalg.svd(flat - self.mean, full_matrices=False).Vh[:components]  # (components, C H W)
        self.magnitude = float(self.encode(images).double().square().mean().sqrt())

    def encode(self, images: Tensor) -> Tensor:
        return ((images.flatten(1).double() - self.mean) @ self.directions.T).to(images.dtype)

    def decode(self, latent: Tensor) -> Tensor:
        return (latent @ self.directions.to(latent.dtype) + self.mean.to(latent.dtype)).reshape(-1, *self.shape)

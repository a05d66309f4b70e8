"""Autoencoders of MNIST's pixels beside principal component analysis.

    python tests/benchmarks/autoencoders.py --data folder [--examples 60000] [--epochs 20]

Each kind has a code of 16 numbers (`topk`: 16 active features). The error is the mean squared error
of a test image's 784 pixels, beside that of the first 16 principal components, which scikit-learn
computes from the same training images. The last line is the published anchor: a variational
autoencoder of images that are 0 or 1 has a negative evidence lower bound of about 89.8 nats, after
many more epochs than here.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from torch import Tensor

from tasks.parts.autoencoders.common import training
from tasks.parts.autoencoders.common.autoencoder import Autoencoder
from tasks.parts.autoencoders.common.build import build, names
from tasks.parts.autoencoders.common.recipe import AutoencoderRecipe
from tasks.parts.data import load as data

BOTTLENECK = 16


class Images:
    """Images in memory, as a bank of representations."""

    def __init__(self, images: Tensor):
        self.images = images

    def take(self, rows: NDArray[np.int64], device: str | torch.device) -> Tensor:
        """Some of them."""
        return self.images[torch.from_numpy(rows)].to(device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("INPUTSCAPE_TEST_DATA"), help="data root with MNIST")
    parser.add_argument("--examples", type=int, default=60_000, help="training images")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--kinds", nargs="+", default=list(names()))
    options = parser.parse_args()
    split = data.load("mnist", "train", root=options.data)
    images, _ = data.take(split, data.choose(split, options.examples))
    test, _ = data.take(data.load("mnist", "test", root=options.data), range(10_000))
    components = PCA(BOTTLENECK).fit(images.flatten(1).numpy())
    reference = float(
        np.square(components.inverse_transform(components.transform(test.flatten(1))) - test.flatten(1).numpy()).mean()
    )
    print(f"{options.examples} training images, {options.epochs} epochs, a code of {BOTTLENECK}")
    print(f"{'':20} {'error':>9} {'of PCA':>8}  {'seconds':>8}")
    print(f"{'PCA (scikit-learn)':20} {reference:9.5f} {1:8.3f}")
    for kind in options.kinds:
        started = time.perf_counter()
        recipe = AutoencoderRecipe(kind=kind, bottleneck=BOTTLENECK, epochs=options.epochs)
        autoencoder = trained(recipe, images)
        error = float(
            torch.cat([(autoencoder(some) - some).square().flatten(1).mean(1) for some in batches(test)]).mean()
        )
        facts = training.facts(autoencoder, Images(images), np.arange(min(len(images), 10_000)))
        told = ", ".join(f"{name} {value:.3g}" for name, value in facts.items())
        seconds = time.perf_counter() - started
        print(f"{kind:20} {error:9.5f} {error / reference:8.3f}  {seconds:8.0f}  {told}", flush=True)
    if "vae" in options.kinds:
        binary = {"likelihood": "bernoulli", "depth": 2, "width": 512}
        recipe = AutoencoderRecipe(
            kind="vae", bottleneck=BOTTLENECK, epochs=options.epochs, standardise="none", options=binary
        )
        flat = trained(recipe, (images > 0.5).float().flatten(1))
        details = [flat.coder.details((x > 0.5).float().flatten(1), list(range(len(x))), 0) for x in batches(test)]
        nats = float(torch.cat([one["rate"] + one["distortion"] for one in details]).mean())
        print(f"vae of binary images: {nats:.1f} nats (published: about 89.8)")


def trained(recipe: AutoencoderRecipe, images: Tensor) -> Autoencoder:
    """An autoencoder of images (N, ...)."""
    autoencoder, rows = build(recipe, images.shape[1:]), np.arange(len(images))
    for _ in training.epochs(recipe, autoencoder, Images(images), rows, rows[:0]):
        pass
    return autoencoder.requires_grad_(False)


def batches(images: Tensor) -> Iterator[Tensor]:
    """Images in batches that fit into memory."""
    return iter(images.split(1000))


if __name__ == "__main__":
    main()

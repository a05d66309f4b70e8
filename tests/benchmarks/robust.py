"""Adversarially trained networks of our own for the attack benchmarks.

    python tests/benchmarks/robust.py --data folder --cache folder

They are small convolutional networks. The one on CIFAR-10 is what a recipe makes, in twenty minutes
on one core. The one on MNIST is trained as by Madry, Makelov, Schmidt, Tsipras and Vladu 2018,
"Towards deep learning models resistant to adversarial attacks": every step is taken on images moved
by PGD from a random start in the L-inf ball. The ball's radius grows to its full size over the
first third of the training, without which so small a network learns nothing; this takes about ten
minutes. The weights are kept in the folder given.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tasks.parts.attacks.apgd import apgd
from tasks.parts.data import load as data
from tasks.parts.models import build as models
from tasks.parts.models.classifier import Classifier
from tasks.parts.training import training
from tasks.parts.training.recipes import Recipe

EPSILON = 0.3
STEPS = 7
EPOCHS = 6
BATCH = 128

CIFAR10 = Recipe(
    dataset="cifar10",
    network="convnet",
    network_options={"width": 48},
    epochs=12,
    batch_size=BATCH,
    optimiser="adam",
    learning_rate=2e-3,
    schedule="one_cycle",
    weight_decay=0.0,
    augmentation={"flip": True},
    robust={"method": "pgd", "epsilon": 8 / 255, "steps": 4},
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("INPUTSCAPE_TEST_DATA"), help="data root with MNIST")
    parser.add_argument("--cache", required=True, help="folder for the weights")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for dataset, network, epsilon in (("mnist", mnist, EPSILON), ("cifar10", cifar10, CIFAR10.robust.epsilon)):
        model, test = network(options.cache, options.data), data.load(dataset, "test", root=options.data)
        images, labels = data.take(test, data.choose(test, 500))
        found = apgd(model, images, labels, epsilon=epsilon, steps=50)
        accuracy, held = training.score(model, test)[1], 1 - found.success.double().mean()
        print(
            f"{dataset}: accuracy {accuracy:.4f}, robust within {epsilon:.3f} (Auto-PGD, {len(images)} images) {held:.3f}"
        )


def mnist(cache: str | Path, root: str | None) -> Classifier:
    """The network on MNIST, in evaluation mode and without gradients of its weights.

    It is read from the folder `cache` if it is there.
    """
    model = models.build("convnet", (1, 28, 28), 10, generator_seed=0)
    place = Path(cache) / f"mnist_convnet_linf_{EPSILON}_{EPOCHS}_epochs.pt"
    return _kept(model, place, lambda: train(model, data.load("mnist", "train", root=root)))


def cifar10(cache: str | Path, root: str | None) -> Classifier:
    """The network on CIFAR-10, likewise."""
    split = data.load("cifar10", "train", root=root)
    model = training.untrained(CIFAR10, split)

    def train() -> None:
        for epoch in training.epochs(CIFAR10, model, split):
            print(
                f"epoch {epoch['epoch']}: {epoch['accuracy']:.3f} right within {CIFAR10.robust.epsilon:.3f}", flush=True
            )

    return _kept(model, Path(cache) / f"cifar10_convnet_linf_8_of_255_{CIFAR10.epochs}_epochs.pt", train)


def _kept(model: Classifier, place: Path, train: Callable[[], None]) -> Classifier:
    if not place.exists():
        train()
        place.parent.mkdir(parents=True, exist_ok=True)
        torch.save(model.state_dict(), place)
    model.load_state_dict(torch.load(place, weights_only=True))
    return model.eval().requires_grad_(False)


def train(model: Classifier, split: data.Split) -> None:
    draw = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(model.parameters(), 2e-3)
    total = EPOCHS * math.ceil(len(split) / BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, total)
    done, begun = 0, time.perf_counter()
    for epoch in range(EPOCHS):
        right = 0.0
        for positions in torch.randperm(len(split), generator=draw).split(BATCH):
            images = data.gather(split, positions.numpy())
            labels = torch.tensor(split.labels[positions.numpy()])
            epsilon = EPSILON * min(1.0, 3 * (done + 1) / total)
            logits = model(moved(model, images, labels, epsilon, draw))
            optimiser.zero_grad()
            cross_entropy(logits, labels).backward()
            optimiser.step()
            schedule.step()
            done += 1
            right += float((logits.argmax(1) == labels).sum())
        print(
            f"epoch {epoch + 1}: {right / len(split):.3f} right within {epsilon:.2f}, {time.perf_counter() - begun:.0f} s",
            flush=True,
        )


def moved(model: nn.Module, images: Tensor, labels: Tensor, epsilon: float, draw: torch.Generator) -> Tensor:
    """The images after PGD in the L-inf ball, from a random start."""
    points = (images + epsilon * (2 * torch.rand(images.shape, generator=draw) - 1)).clamp(0, 1)
    for _ in range(STEPS):
        points.requires_grad_(True)
        (gradient,) = torch.autograd.grad(cross_entropy(model(points), labels), points)
        points = points.detach() + 2.5 * epsilon / STEPS * gradient.sign()
        points = images + (points - images).clamp(-epsilon, epsilon)
        points = points.clamp(0, 1)
    return points


if __name__ == "__main__":
    main()

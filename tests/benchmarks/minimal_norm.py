"""How small the perturbations of DDN and FMN are beside those of foolbox, at equal numbers of passes.

    python tests/benchmarks/minimal_norm.py --weights cifar10_resnet20.th --images folder --examples 32 --steps 100

foolbox is not among the project's dependencies: without it, only the project's own rows are printed. Distances are over the examples
that are classified correctly, each success checked again here; foolbox gets as many steps as ours take forward passes. In foolbox
3.3.4 the projection of the L2 FMN returns what it is given, so that its row says nothing about the method.
"""

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from tasks.parts import data, models, training
from tasks.parts.attacks.ddn import ddn
from tasks.parts.attacks.fmn import fmn
from tasks.parts.batching import in_batches
from tasks.parts.geometry import Norm, norm_of

NORMS: tuple[Norm, ...] = ("Linf", "L2", "L1", "L0")
HALVINGS = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True, help="state dict of a CIFAR ResNet-20")
    parser.add_argument("--images", required=True, help="folder with test/<class>/* images of CIFAR-10")
    parser.add_argument("--examples", type=int, default=32)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, images, labels = _problem(options)
    passes = options.steps + 2 + HALVINGS
    print(f"{len(images)} images, {passes} forward passes, torch {torch.__version__}, {options.device}\n")
    print("norm   attack          found   median     mean       seconds")

    def row(norm: Norm, name: str, search: Callable[[], Tensor]) -> None:
        start = time.perf_counter()
        delta = search()
        seconds = time.perf_counter() - start
        there = model(images + delta).argmax(1) != labels
        distance = norm_of(delta, norm)[there]
        print(
            f"{norm:5}  {name:14}  {int(there.sum()):3}/{len(images):<3} {distance.median():<10.4g} {distance.mean():<10.4g}"
            f" {seconds:.1f}",
            flush=True,
        )

    how = {"steps": options.steps, "halvings": HALVINGS}
    peers = _foolbox(model, passes)
    for norm in NORMS:
        row(norm, "fmn", lambda norm=norm: fmn(model, images, labels, norm=norm, **how).perturbation)
        if norm == "L2":
            row(norm, "ddn", lambda: ddn(model, images, labels, **how).perturbation)
            row(norm, "ddn, margin", lambda: ddn(model, images, labels, loss="margin", **how).perturbation)
        for name, attack in peers.get(norm, {}).items():
            row(norm, name, lambda attack=attack: attack(images, labels) - images)


def _foolbox(model: nn.Module, passes: int) -> dict[str, dict[str, Callable[[Tensor, Tensor], Tensor]]]:
    """Norm -> name -> images and labels to adversarial images; empty without foolbox."""
    try:
        foolbox = importlib.import_module("foolbox")
    except ImportError:
        print("foolbox is not installed: the project's own attacks alone\n")
        return {}
    peer = foolbox.PyTorchModel(model, bounds=(0, 1), device=next(model.parameters()).device)
    attacks = foolbox.attacks
    named = {
        "Linf": {"foolbox fmn": attacks.LInfFMNAttack(steps=passes)},
        "L2": {"foolbox fmn": attacks.L2FMNAttack(steps=passes), "foolbox ddn": attacks.DDNAttack(steps=passes)},
        "L1": {"foolbox fmn": attacks.L1FMNAttack(steps=passes)},
        "L0": {"foolbox fmn": attacks.L0FMNAttack(steps=passes)},
    }
    return {
        norm: {name: lambda x, y, attack=attack: attack.run(peer, x, y) for name, attack in some.items()}
        for norm, some in named.items()
    }


def _problem(options: argparse.Namespace) -> tuple[nn.Module, Tensor, Tensor]:
    """A ResNet-20 and images, balanced over the classes, that it classifies correctly."""
    mean, std = training.IMAGENET
    model = models.build("resnet20", (3, 32, 32), 10, weights=options.weights, mean=mean, std=std)
    model = model.to(options.device).eval().requires_grad_(False)
    test = data.load("cifar10", "test", root=options.images)
    ids = [int(i) for i in data.choose(test, 2 * options.examples)]
    images, labels = data.take(test, ids, device=options.device)
    right = (in_batches(model, images, 64).argmax(1) == labels).nonzero().flatten()[: options.examples]
    return model, images[right], labels[right]


if __name__ == "__main__":
    main()

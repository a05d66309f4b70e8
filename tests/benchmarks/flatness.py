"""How much of the bare network's speed `input_flatness` keeps.

    python tests/benchmarks/flatness.py --weights cifar10_resnet20.th --images test-images-folder

It also shows what the plain loop costs, and what adaptive sampling saves. One process, one thread.
Speeds are noisy forward passes a second; rounds of what is compared are interleaved, and ratios are
of medians.
"""

from __future__ import annotations

import argparse
import statistics as st
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

import tasks.input_flatness as task
from tasks.parts.batching import in_batches
from tasks.parts.contract import Batch, prepared
from tasks.parts.data import load as data
from tasks.parts.models import build as models
from tasks.parts.training import training
from tasks.parts.training.recipes import Recipe

ROUNDS = 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", help="state dict of a CIFAR ResNet-20 (random weights without)")
    parser.add_argument("--images", help="folder with test/<class>/* images of CIFAR-10 (random images without)")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    digits, batch = _digits(options.device)
    resnet, cifar = _resnet(options)
    print(f"device {options.device}, torch {torch.__version__}\n")
    print("network            passes/s, bare at its best batch    input_flatness   ratio   plain loop: times slower")
    speed("convnet, digits", digits, batch, examples=100, batches=[128, 256, 512, 1024])
    speed(
        "resnet20, CIFAR-10",
        resnet,
        cifar,
        examples=4,
        batches=[16, 32, 64, 128, 512] if options.device != "cpu" else [16, 32, 64],
    )
    print("\ncentres                tolerance   largest interval   passes, fixed   passes, adaptive   saving")
    for conditions in (["genuine"], ["genuine", "adversarial", "random"]):
        for tolerance in (0.1, 0.05, 0.02):
            adaptive(digits, batch, conditions, tolerance)


def speed(name: str, model: nn.Module, batch: Batch, examples: int, batches: list[int]) -> None:
    few = Batch(batch.ids[:examples], batch.images[:examples], batch.labels[:examples])
    config = task.Config(conditions=["genuine"], samples=64)
    passes = examples * len(config.radii) * config.samples
    loop_passes = max(1, examples // 20) * len(config.radii) * config.samples
    several: dict[str, list[float]] = {}
    made = prepared(task.needs(config), model, few)
    flat = torch.rand(max(batches) * 2, *few.images.shape[1:], device=few.images.device)
    for _ in range(ROUNDS):
        for size in batches:
            repeats = max(1, passes // size // 2)
            _note(
                several,
                f"bare {size}",
                repeats * size,
                lambda size=size, n=repeats: [_bare(model, flat[:size]) for _ in range(n)],
            )
        _note(several, "ours", passes, lambda: task.measure(config, made, few))
        _note(several, "loop", loop_passes, lambda: plain_loop(model, few, config, max(1, examples // 20)))
    median = {key: st.median(values) for key, values in several.items()}
    best = max((key for key in median if key.startswith("bare")), key=lambda key: median[key])
    print(
        f"{name:18} {median[best]:>12,.0f} at {best.removeprefix('bare '):4} {'':14} {median['ours']:>12,.0f} "
        f"{median['ours'] / median[best]:>10.2f} {median['ours'] / median['loop']:>14.1f}"
    )


def plain_loop(model: nn.Module, batch: Batch, config: task.Config, examples: int) -> None:
    """The loop that one writes first: over images, radii and trials."""
    with torch.inference_mode():
        for image, label in zip(batch.images[:examples], batch.labels[:examples], strict=True):
            for radius in config.radii:
                total = 0.0
                for _ in range(config.samples):
                    noisy = (image + radius * torch.randn_like(image)).clamp(0, 1)
                    total += float(model(noisy[None]).softmax(1)[0, label])


def adaptive(model: nn.Module, batch: Batch, conditions: list[task.Condition], tolerance: float) -> None:
    """Passes of the adaptive sampler, and of a fixed number for every cell.

    Both reach the same largest interval.
    """
    config = task.Config(conditions=conditions, tolerance=tolerance, max_samples=20_000)
    rows = task.measure(config, prepared(task.needs(config), model, batch), batch)
    noisy = rows["radius"] > 0
    width = rows["p_true_high"] - rows["p_true_low"]
    largest, spent, most = width[noisy].max(), rows["samples"][noisy].sum(), rows["samples"][noisy].max()
    fixed = most * noisy.sum()
    name = "genuine" if len(conditions) == 1 else "all three conditions"
    print(f"{name:20} {tolerance:11} {largest:18.4f} {fixed:15,} {spent:18,} {fixed / spent:8.1f}")


def _bare(model: nn.Module, images: Tensor) -> Tensor:
    with torch.inference_mode():
        return model(images)


def _note(several: dict[str, list[float]], key: str, passes: int, function: Callable[[], object]) -> None:
    start = time.perf_counter()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    several.setdefault(key, []).append(passes / (time.perf_counter() - start))


def _digits(device: str) -> tuple[nn.Module, Batch]:
    train, test = data.load("digits", "train"), data.load("digits", "test")
    recipe = Recipe()
    model = training.untrained(recipe, train)
    for _ in training.epochs(recipe, model, train, device):
        pass
    ids = data.choose(test, 100)
    images, labels = data.take(test, ids, device=device)
    return model.requires_grad_(False), Batch([int(i) for i in ids], images, labels)


def _resnet(options: argparse.Namespace) -> tuple[nn.Module, Batch]:
    mean, std = training.IMAGENET
    model = models.build("resnet20", (3, 32, 32), 10, weights=options.weights or "none", mean=mean, std=std)
    model = model.to(options.device).eval().requires_grad_(False)
    if options.images:
        test = data.load("cifar10", "test", root=options.images)
        ids = [int(i) for i in data.choose(test, 16)]
        images, labels = data.take(test, ids, device=options.device)
    else:
        ids, images = list(range(16)), torch.rand(16, 3, 32, 32, device=options.device)
        labels = in_batches(model, images, 16).argmax(1)
    return model, Batch(ids, images, labels)


if __name__ == "__main__":
    main()

"""What a step of an attack in latent space costs over decoding, a forward pass and a backward pass.

    python tests/benchmarks/latent_step.py --cpu-time

For digits and for images of 3 x 32 x 32: untrained networks, each with a linear and a convolutional
autoencoder. PGD within a radius too small for any success, so that all examples go through all
steps. The seconds of a step are the difference between a long and a short run, and so without
encoding the images and judging the result. Beside it the bare loop over the same batches: decode,
classify, cross-entropy, gradient. One process; rounds are interleaved, and ratios are of medians.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from problems import interleaved
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tasks.parts.artifacts.adversarial_examples import run_attack
from tasks.parts.artifacts.common.attack_settings import Attack
from tasks.parts.autoencoders.common import build as autoencoders
from tasks.parts.autoencoders.common.autoencoder import Autoencoder
from tasks.parts.autoencoders.common.recipe import AutoencoderRecipe
from tasks.parts.batching import batch_size
from tasks.parts.models import build as models

SHORT, LONG = 5, 25
PROBLEMS = {"convnet, digits": ("convnet", (1, 8, 8)), "resnet20, 32 x 32": ("resnet20", (3, 32, 32))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=1, help="of the size that suits the device")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cpu-time", action="store_true", help="count the time of this process alone")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(
        f"{options.batches} batch(es), {options.device}, {options.threads} threads, torch {torch.__version__}\n",
        flush=True,
    )
    print("network              autoencoder   ms a step, bare   ms a step, attack   ratio")
    for name, kind, model, autoencoder, images in problems(options):
        contenders = contenders_of(model, autoencoder, images)
        for contender in contenders.values():
            contender()
        timed = interleaved(contenders, options.rounds, time.process_time if options.cpu_time else time.perf_counter)
        step = {
            who: statistics.median(
                (long - short) / (LONG - SHORT)
                for long, short in zip(timed[f"{who} {LONG}"].seconds, timed[f"{who} {SHORT}"].seconds, strict=True)
            )
            for who in ("bare", "attack")
        }
        ratio = step["attack"] / step["bare"]
        print(f"{name:20} {kind:11} {1e3 * step['bare']:17.2f} {1e3 * step['attack']:19.2f} {ratio:7.3f}", flush=True)


def problems(options: argparse.Namespace) -> Iterator[tuple[str, str, nn.Module, Autoencoder, Tensor]]:
    for name, (network, shape) in PROBLEMS.items():
        model = models.build(network, shape, 10).to(options.device).eval().requires_grad_(False)
        count = options.batches * batch_size(math.prod(shape), torch.device(options.device))
        images = torch.rand((count, *shape), generator=torch.Generator().manual_seed(0)).to(options.device)
        for kind in ("linear", "plain"):
            autoencoder = autoencoders.build(AutoencoderRecipe(kind=kind, bottleneck=16), shape).to(options.device)
            autoencoder.eval().requires_grad_(False).magnitude.fill_(1.0)
            autoencoder.mean.fill_(0.5)  # untrained, it would decode to what is clamped away
            yield name, kind, model, autoencoder, images


def contenders_of(model: nn.Module, autoencoder: Autoencoder, images: Tensor) -> dict[str, Callable[[], object]]:
    with torch.no_grad():
        labels = model(autoencoder(images).clamp(0, 1)).argmax(1)

    def bare(steps: int) -> None:
        with torch.no_grad():
            codes = autoencoder.encode(images)
        batch = batch_size(images[0].numel(), images.device)
        for points, classes in zip(codes.split(batch), labels.split(batch), strict=True):
            for _ in range(steps):
                moved = points.detach().requires_grad_(True)
                loss = cross_entropy(model(autoencoder.decode(moved).clamp(0, 1)), classes, reduction="sum")
                torch.autograd.grad(loss, moved)

    def attack(steps: int) -> None:
        how = Attack(norm="L2", epsilon=1e-6, steps=steps, space="latent", stop="last")
        run_attack(how, [model], images, labels, range(len(images)), autoencoder=autoencoder)

    return {
        f"{who.__name__} {steps}": lambda who=who, steps=steps: who(steps)
        for who in (bare, attack)
        for steps in (SHORT, LONG)
    }


if __name__ == "__main__":
    main()

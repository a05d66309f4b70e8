"""What the benchmarks of attacks share: networks with images, and how time is taken.

Needs, below the data root: CIFAR-10 and MNIST as `tasks.parts.data.load` reads them, and for the
undefended networks the files `cifar10_resnet20.th` and `cifar10_resnet56.th`, in the data root, in
`models/` in it, or in the folder given as --weights. The defended networks are those of `robust`.
"""

from __future__ import annotations

import argparse
import importlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Generic, NamedTuple, TypeVar

import robust
import torch
from torch import Tensor, nn

from tasks.parts.data import load as data
from tasks.parts.models import build as models
from tasks.parts.training import training

RADII = {
    "resnet20": 8 / 255,
    "resnet56": 8 / 255,
    "robust_mnist": robust.EPSILON,
    "robust_cifar10": robust.CIFAR10.robust.epsilon,
}
"""The L-inf radius of each network."""


class Problem(NamedTuple):
    """A network with images (N, C, H, W), their labels (N,), and an L-inf radius."""

    name: str
    model: nn.Module
    images: Tensor
    labels: Tensor
    epsilon: float


def parser(description: str | None, examples: int) -> argparse.ArgumentParser:
    """The arguments that all of these benchmarks have."""
    found = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--data", default=os.environ.get("INPUTSCAPE_TEST_DATA"), help="data root; INPUTSCAPE_TEST_DATA")
    found.add_argument(
        "--weights", help="folder of cifar10_resnet20.th and cifar10_resnet56.th; the data root, or models/ in it"
    )
    found.add_argument(
        "--cache", default=Path(tempfile.gettempdir(), "inputscape-benchmarks"), help="folder for the robust networks"
    )
    found.add_argument("--networks", nargs="+", choices=list(RADII), default=list(RADII))
    found.add_argument("--examples", type=int, default=examples, help="images of each network")
    found.add_argument("--device", default="cpu")
    found.add_argument("--threads", type=int, default=1)
    found.add_argument(
        "--cpu-time", action="store_true", help="count the time of this process alone: on a busy machine"
    )
    return found


def problems(options: argparse.Namespace) -> Iterator[Problem]:
    """Each network that is asked for, with test images balanced over the classes."""
    if not options.data:
        sys.exit("give --data or set INPUTSCAPE_TEST_DATA")
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    print(
        f"{options.examples} images, {device}, {options.threads} threads, torch {torch.__version__}, "
        f"{'time of the process' if options.cpu_time else 'wall clock'}\n",
        flush=True,
    )
    for name in options.networks:
        test = data.load("mnist" if name == "robust_mnist" else "cifar10", "test", root=options.data)
        if name == "robust_mnist":
            model = robust.mnist(options.cache, options.data)
        elif name == "robust_cifar10":
            model = robust.cifar10(options.cache, options.data)
        else:
            mean, std = training.IMAGENET
            model = models.build(name, (3, 32, 32), 10, weights=str(_weights(options, name)), mean=mean, std=std)
        images, labels = data.take(test, data.choose(test, options.examples), device=device)
        yield Problem(name, model.to(device).eval().requires_grad_(False), images, labels, RADII[name])


def peer_module(name: str, package: str) -> ModuleType | None:
    """A module that a benchmark compares with.

    None, which is said, where it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        print(f"without {package}: {error}")
        return None


Result = TypeVar("Result")


class Timed(NamedTuple, Generic[Result]):
    """Seconds of each round, and what the last one gave."""

    seconds: list[float]
    result: Result

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def clock(options: argparse.Namespace) -> Callable[[], float]:
    """The clock that is asked for, in seconds."""
    return time.process_time if options.cpu_time else time.perf_counter


def interleaved(
    contenders: Mapping[str, Callable[[], Result]], rounds: int, now: Callable[[], float]
) -> dict[str, Timed[Result]]:
    """Times each contender in every round, so that other work of the machine meets all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    results: dict[str, Result] = {}
    for _ in range(rounds):
        for name, contender in contenders.items():
            begun = now()
            results[name] = contender()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds[name].append(now() - begun)
    return {name: Timed(seconds[name], results[name]) for name in contenders}


def right(model: nn.Module, points: Tensor, labels: Tensor) -> Tensor:
    """Which points (N, C, H, W) are given their label, (N,)."""
    with torch.inference_mode():
        return torch.cat([model(piece) for piece in points.split(256)]).argmax(1) == labels


def in_pieces(attack: Callable[[Tensor, Tensor], Tensor], images: Tensor, labels: Tensor, batch: int) -> Tensor:
    """The adversarial images of an attack that takes one batch at a time."""
    return torch.cat([attack(x, y) for x, y in zip(images.split(batch), labels.split(batch), strict=True)])


def _weights(options: argparse.Namespace, name: str) -> Path:
    file = f"cifar10_{name}.th"
    folders = [Path(options.weights)] if options.weights else [Path(options.data, "models"), Path(options.data)]
    found = next((folder / file for folder in folders if (folder / file).exists()), None)
    return found or sys.exit(f"no {file} in {' or '.join(map(str, folders))}")

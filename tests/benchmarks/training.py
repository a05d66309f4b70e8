"""What an epoch with adversarial augmentation, or of robust training, costs.

    python tests/benchmarks/training.py --network resnet20 --dataset cifar10 --device cuda

It is compared with a plain epoch, and with the bare passes that it needs:

needed   the time of a plain epoch, and of the forward and backward passes of the attack alone: a
         loop over batches of as many examples as are drawn to be moved in the batches of an epoch,
         through the same layers, with gradients to the points only, and nothing else
ratio    an augmented epoch over what is needed; at most 1.15

Rounds of the three are interleaved; ratios are medians over the rounds of times taken in one round.
One thread.
"""

from __future__ import annotations

import argparse
import statistics as st
import time
from collections.abc import Callable

import torch
from pydantic import JsonValue
from torch import Tensor

from tasks.parts.data import load as data
from tasks.parts.training import training
from tasks.parts.training.adversarial_augmentation import random_numbers, stage, tail
from tasks.parts.training.recipes import Recipe

AUGMENTED: list[dict[str, JsonValue]] = [
    {"probability": 0.25},
    {"probability": 0.5},
    {"probability": 1},
    {"probability": 1, "steps": 5},
    {"probability": 1, "norm": "L2", "direction": "away"},
    {"probability": 0.5, "only": "correct"},
    {"probability": 0.5, "only": "correct", "steps": 5},
    {"probability": 1, "direction": "random"},
    {"probability": 1, "direction": "random", "equal_cost": False},
    {"probability": 0.5, "space": "hidden"},
    {"probability": 1, "space": "hidden"},
    {"probability": 1, "space": "hidden", "steps": 5},
]
ROBUST: list[dict[str, JsonValue]] = [{"method": "pgd", "steps": 5}, {"method": "trades", "steps": 5}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="convnet")
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--root", help="where the data sets are")
    parser.add_argument("--examples", type=int, default=1297, help="training examples an epoch")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--stage", help="the hidden layer (the one in the middle without)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    split = data.load(options.dataset, "train", root=options.root)
    base = {
        "dataset": options.dataset,
        "network": options.network,
        "batch_size": options.batch,
        "train_examples": min(options.examples, len(split)),
        "epochs": 2,
    }
    names = training.untrained(Recipe(**base), split).stages
    middle = options.stage or names[len(names) // 2 - 1]
    print(
        f"{options.network} on {options.dataset}, device {options.device}, torch {torch.__version__}; hidden: {middle}\n"
    )
    print("setting                                                     ms an epoch   over plain   over needed")
    for settings in AUGMENTED:
        chosen = {"epsilon": 0.1} | settings
        if chosen.get("space") == "hidden":
            chosen["space"] = f"hidden:{middle}"
        row(settings, Recipe(**base, adversarial_augmentation=chosen), Recipe(**base), split, options)
    for settings in ROBUST:
        row(settings, Recipe(**base, robust=settings | {"epsilon": 0.1}), Recipe(**base), split, options)


def row(
    settings: dict[str, JsonValue], recipe: Recipe, plain: Recipe, split: data.Split, options: argparse.Namespace
) -> None:
    functions = [
        lambda: epoch(plain, split, options.device),
        lambda: epoch(recipe, split, options.device),
        lambda: bare(recipe, split, options.device),
    ]
    for function in functions:
        function()
    rounds = [[timed(function) for function in functions] for _ in range(options.rounds)]
    name = ", ".join(f"{key} {value}" for key, value in settings.items())
    cost = st.median(ours for _, ours, _ in rounds)
    over_plain = st.median(ours / one for one, ours, _ in rounds)
    over_needed = st.median(ours / (one + search) for one, ours, search in rounds)
    print(f"{name:60} {1000 * cost:10.1f} {over_plain:12.2f} {over_needed:13.2f}", flush=True)


def epoch(recipe: Recipe, split: data.Split, device: str) -> Callable[[], object]:
    """The second epoch of a training, ready to run: layers are found once, in the first."""
    going = training.epochs(recipe, training.untrained(recipe, split), split, device)
    next(going)
    return lambda: next(going)


def bare(recipe: Recipe, split: data.Split, device: str) -> Callable[[], object]:
    """The passes of the attack alone, ready to run.

    Of TRADES also the passes of the loss's second batch.
    """
    model = training.untrained(recipe, split).to(device)
    settings, robust = recipe.adversarial_augmentation, recipe.robust
    k = stage(settings, model)
    images, labels = data.take(split, data.choose(split, recipe.batch_size), device=device)
    with torch.no_grad():
        points = model.eval().head(images, k)
    examples = recipe.train_examples or 0
    batches = [min(recipe.batch_size, examples - begin) for begin in range(0, examples, recipe.batch_size)]
    share = 1.0 if robust.active else settings.probability
    who = random_numbers(recipe.seed, epoch=1).who
    moved = [int((torch.rand(batch, generator=who) < share).sum()) for batch in batches]
    steps = robust.steps if robust.active else settings.steps
    backward = settings.direction != "random" or settings.equal_cost

    def passes() -> None:
        classify = tail(model, k)
        for count in moved if backward else ():
            for _ in range(steps):
                search_pass(classify, points[:count], labels[:count])
        if robust.active and robust.method == "trades":
            with torch.no_grad():
                for batch in batches:
                    classify(images[:batch])
            model.train()
            for batch in batches:
                torch.nn.functional.cross_entropy(model(images[:batch]), labels[:batch]).backward()

    return passes


def search_pass(classify: Callable[[Tensor], Tensor], points: Tensor, labels: Tensor) -> None:
    points = points.detach().requires_grad_(True)
    torch.autograd.grad(classify(points).gather(1, labels[:, None]).sum(), points)


def clock() -> float:
    """Seconds of the processor, or of the clock where a GPU works.

    Other processes disturb those of the processor less.
    """
    return time.perf_counter() if torch.cuda.is_available() else time.process_time()


def timed(prepare: Callable[[], Callable[[], object]]) -> float:
    run = prepare()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = clock()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock() - start


if __name__ == "__main__":
    main()

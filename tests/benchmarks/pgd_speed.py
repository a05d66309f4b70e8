"""How fast PGD in L-inf is beside other packages' with 20 steps.

    python tests/benchmarks/pgd_speed.py --data folder --examples 512

The packages are foolbox, torchattacks and ART; those that are not installed are left out. It also
shows what robust accuracy each leaves. One process; the same network (without gradients of its
weights), images and radius, each beginning at the image. Ours is run with the 20 steps of the
others, of the same size, and with half as many that fall along a cosine: compared are times at a
robust accuracy that is not above theirs. Each package gets the images in batches of several sizes
and is credited with its fastest; ours chooses its own. Rounds are interleaved, ratios are of
medians.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType

import torch
from problems import Problem, clock, in_pieces, interleaved, parser, peer_module, problems, right
from torch import Tensor, nn

from tasks.parts.attacks.pgd import pgd

STEPS = 20
FEWER = 10


def main() -> None:
    arguments = parser(__doc__, examples=256)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--batches", type=int, nargs="+", default=[16, 64, 256], help="of the other packages")
    options = arguments.parse_args()
    for problem in problems(options):
        model, images, labels, epsilon = problem[1:]
        contenders: dict[str, Callable[[], Tensor]] = {
            f"ours, {STEPS} steps": partial(ours, problem, step_size=2.5 * epsilon / STEPS),
            f"ours, {FEWER} falling steps": partial(ours, problem, steps=FEWER, schedule="cosine"),
        }
        mine = list(contenders)
        for name, attack in theirs(problem):
            for batch in options.batches:
                if batch < 2 * len(images):
                    contenders[f"{name} {batch}"] = partial(in_pieces, attack, images, labels, batch)
        for contender in contenders.values():
            contender()  # once before, for whatever is set up at first use
        timed = interleaved(contenders, options.rounds, clock(options))
        clean = right(model, images, labels).double().mean()
        print(f"{problem.name}: accuracy {clean:.3f}, L-inf radius {epsilon:.4f}, PGD-{STEPS}")
        print("attack, batch             robust accuracy   seconds (median)")
        held = {}
        for name, each in timed.items():
            points = each.result
            assert (points - images).abs().max() <= epsilon * (1 + 1e-4)
            held[name] = float(right(model, points, labels).double().mean())
            print(f"{name:25} {held[name]:15.4f} {each.median:18.3f}")
        others = [name for name in timed if name not in mine]
        for name in mine if others else ():
            fastest = min(others, key=lambda other: timed[other].median)
            ratio = timed[fastest].median / timed[name].median
            above = held[name] - min(held[other] for other in others)
            print(
                f"{name}: {ratio:.2f} times as fast as {fastest}, robust accuracy {100 * above:+.2f} points from the lowest of the others"
            )
        print(flush=True)


def ours(problem: Problem, **how: object) -> Tensor:
    _, model, images, labels, epsilon = problem
    return (images + pgd(model, images, labels, epsilon=epsilon, **{"steps": STEPS} | how).perturbation).clamp(0, 1)


def theirs(problem: Problem) -> Iterator[tuple[str, Callable[[Tensor, Tensor], Tensor]]]:
    _, model, images, _, epsilon = problem
    size = 2.5 * epsilon / STEPS
    if foolbox := peer_module("foolbox", "foolbox"):
        network = foolbox.PyTorchModel(model, bounds=(0, 1), device=images.device)
        attack = foolbox.attacks.LinfPGD(abs_stepsize=size, steps=STEPS, random_start=False)
        yield "foolbox", lambda x, y: attack.run(network, x, y, epsilon=epsilon)
    if torchattacks := peer_module("torchattacks", "torchattacks"):
        yield "torchattacks", torchattacks.PGD(model, eps=epsilon, alpha=size, steps=STEPS, random_start=False)
    if evasion := peer_module("art.attacks.evasion", "adversarial-robustness-toolbox"):
        yield "ART", _art(evasion, model, images, epsilon, size)


def _art(
    evasion: ModuleType, model: nn.Module, images: Tensor, epsilon: float, size: float
) -> Callable[[Tensor, Tensor], Tensor]:
    classification = peer_module("art.estimators.classification", "adversarial-robustness-toolbox")
    classifier = classification.PyTorchClassifier(
        model,
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(images.shape[1:]),
        nb_classes=10,
        clip_values=(0.0, 1.0),
        device_type="gpu" if images.is_cuda else "cpu",
    )

    def attack(x: Tensor, y: Tensor) -> Tensor:
        search = evasion.ProjectedGradientDescentPyTorch(
            classifier, norm="inf", eps=epsilon, eps_step=size, max_iter=STEPS, batch_size=len(x), verbose=False
        )
        return torch.from_numpy(search.generate(x.cpu().numpy(), y.cpu().numpy())).to(x)

    return attack


if __name__ == "__main__":
    main()

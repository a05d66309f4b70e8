"""The robust accuracy that `auto` leaves and its time, beside standard AutoAttack.

    python tests/benchmarks/auto.py --data folder --networks robust_mnist --examples 256

AutoAttack (Croce and Hein 2020) is its authors' package, `pyautoattack`. Where that is not
installed it is ART's, whose attacks are variants of its own. One process, the same network, images
and L-inf radius. AutoAttack gets the images in batches of --batch, and both leave an image alone
once it is fooled. What they return is checked again here, within the radius.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

import torch
from problems import Problem, clock, interleaved, parser, peer_module, problems, right
from torch import Tensor, nn

from tasks.parts.attacks.auto import auto


def main() -> None:
    arguments = parser(__doc__, examples=128)
    arguments.add_argument("--batch", type=int, default=64, help="of AutoAttack")
    arguments.add_argument("--rounds", type=int, default=1)
    options = arguments.parse_args()
    for problem in problems(options):
        name, model, images, labels, epsilon = problem
        contenders: dict[str, Callable[[], Tensor]] = {"auto": partial(ours, problem)} | theirs(problem, options.batch)
        timed = interleaved(contenders, options.rounds, clock(options))
        print(f"{name}: accuracy {right(model, images, labels).double().mean():.4f}, L-inf radius {epsilon:.4f}")
        print("attack                     robust accuracy   seconds   times auto")
        for attack, each in timed.items():
            delta = (each.result - images).clamp(-epsilon, epsilon)
            robust = right(model, (images + delta).clamp(0, 1), labels).double().mean()
            print(f"{attack:26} {robust:15.4f} {each.median:9.1f} {each.median / timed['auto'].median:12.2f}")
        print(flush=True)


def ours(problem: Problem) -> Tensor:
    _, model, images, labels, epsilon = problem
    return (images + auto(model, images, labels, epsilon=epsilon).perturbation).clamp(0, 1)


def theirs(problem: Problem, batch: int) -> dict[str, Callable[[], Tensor]]:
    _, model, images, labels, epsilon = problem
    if package := peer_module("pyautoattack", "pyautoattack"):
        logging.getLogger("auto-attack").setLevel(logging.WARNING)

        def authors() -> Tensor:
            attack = package.AutoAttack(model, norm="Linf", eps=epsilon, seed=0, device=images.device)
            return attack.run_standard_evaluation(images, labels, batch_size=batch)[0]

        return {"AutoAttack standard": authors}
    evasion = peer_module("art.attacks.evasion", "adversarial-robustness-toolbox")
    if evasion is None:
        return {}
    classification = peer_module("art.estimators.classification", "adversarial-robustness-toolbox")

    def toolbox() -> Tensor:
        classifier = classification.PyTorchClassifier(
            model,
            loss=nn.CrossEntropyLoss(),
            input_shape=tuple(images.shape[1:]),
            nb_classes=10,
            clip_values=(0.0, 1.0),
            device_type="gpu" if images.is_cuda else "cpu",
        )
        attack = evasion.AutoAttack(classifier, norm="inf", eps=epsilon, eps_step=2 * epsilon, batch_size=batch)
        return torch.from_numpy(attack.generate(images.cpu().numpy(), labels.cpu().numpy())).to(images)

    return {"AutoAttack of ART": toolbox}


if __name__ == "__main__":
    main()

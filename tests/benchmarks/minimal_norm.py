"""How small the perturbations of our minimum-norm attacks are, beside those of others.

    python tests/benchmarks/minimal_norm.py --data folder --examples 64 --steps 100

The others are foolbox and adv-lib, at equal numbers of forward passes. For each attack, over the
images that are classified correctly, there are: the median distance; the median, over the images,
of the distance over the best of the other packages' (at equal passes); and the share of images at
which it is within 1 % of the best known. That is the least of all attacks of the table and of the
longer runs (--long). `nearest` is many attacks, each at up to twice the steps: it is beside them
for the best known, and --long gives the others as much.

Every success is checked again here; a failure counts as infinite. Passes are counted as the network
sees them, with what pads a batch. BB (Brendel and Bethge 2019) begins at the nearest image of
another class, which costs no pass. The packages that are not installed are left out. In foolbox
3.3.4 the projection of the L2 FMN returns what it is given, so that its row says nothing about the
method.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any, get_args

import torch
from problems import Problem, clock, parser, peer_module, problems, right
from torch import Tensor, nn

from tasks.parts.attacks.alma import alma
from tasks.parts.attacks.bisection import bisection
from tasks.parts.attacks.common.result import AttackResult
from tasks.parts.attacks.ddn import ddn
from tasks.parts.attacks.fmn import fmn
from tasks.parts.attacks.nearest import nearest
from tasks.parts.geometry.balls import Ball, Norm, norm_of

HALVINGS = 12
WITHIN = 1.01
Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]


def main() -> None:
    arguments = parser(__doc__, examples=32)
    arguments.add_argument("--steps", type=int, default=100)
    arguments.add_argument(
        "--long", type=int, default=0, help="passes of further runs, for the best known distances; 0: none"
    )
    arguments.add_argument(
        "--skip", nargs="*", default=[], help="leaves out the attacks whose name has such a part, as BB"
    )
    arguments.add_argument("--norms", nargs="+", default=["L2", "Linf"], choices=["Linf", "L2", "L1", "L0"])
    options = arguments.parse_args()
    for problem in problems(options):
        kept = right(problem.model, problem.images, problem.labels).nonzero().flatten()
        # No batch needs padding, which would be counted.
        kept = kept[: len(kept) // 16 * 16 or len(kept)]
        problem = problem._replace(images=problem.images[kept], labels=problem.labels[kept])
        for norm in options.norms:
            compare(problem, norm, options)


def compare(problem: Problem, norm: Norm, options: argparse.Namespace) -> None:
    passes = options.steps + 2 + HALVINGS
    attacks = {name: (name, attack) for name, attack in ours(norm, options.steps).items()}
    attacks |= {name: ("", attack) for name, attack in theirs(norm, passes).items()}
    attacks = {name: each for name, each in attacks.items() if not any(part in name for part in options.skip)}
    counted, now = Passes(problem.model), clock(options)
    distances: dict[str, Tensor] = {}
    rows = []
    for name, (_, attack) in attacks.items():
        counted.rows = 0
        begun = now()
        distances[name] = measured(problem, norm, attack, counted)
        rows.append((name, counted.rows / len(problem.images), now() - begun))
    rivals = [distance for name, distance in distances.items() if not attacks[name][0]]
    best_theirs = torch.stack(rivals).amin(0) if rivals else None
    known = torch.stack(list(distances.values())).amin(0)
    if options.long:
        more = ours(norm, options.long) | theirs(norm, options.long)
        more = {name: attack for name, attack in more.items() if "BB" not in name and name != "nearest"}
        known = torch.stack([known, *(measured(problem, norm, attack, counted) for attack in more.values())]).amin(0)
    print(f"{problem.name}, {norm}: {len(problem.images)} images")
    print(
        "attack                passes   seconds   found   median distance   over theirs   within 1 % of the best known"
    )
    for name, count, seconds in rows:
        distance = distances[name]
        over = "" if best_theirs is None or not attacks[name][0] else f"{float((distance / best_theirs).median()):.4f}"
        found, close = distance.isfinite().double().mean(), (distance <= known * WITHIN).double().mean()
        print(
            f"{name:20} {count:7.1f} {seconds:9.1f} {found:7.3f} {float(distance.median()):17.5f} {over:>13} {close:12.3f}"
        )
    print(f"best of theirs {'' if best_theirs is None else f'{float(best_theirs.median()):48.5f}'}")
    print(f"best known {float(known.median()):52.5f}\n", flush=True)


def measured(problem: Problem, norm: Norm, attack: Attack, counted: Passes) -> Tensor:
    """The distance of each image's perturbation, infinite where it does not succeed, (N,)."""
    points = attack(counted, problem.images, problem.labels).detach().clamp(0, 1)
    fooled = ~right(problem.model, points, problem.labels)
    return torch.where(fooled, norm_of(points - problem.images, norm), torch.inf)


class Passes(nn.Module):
    """Counts the rows that go forwards."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model, self.rows = model, 0
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        self.rows += len(x)
        return self.model(x)


def ours(norm: Norm, steps: int) -> dict[str, Attack]:
    def of(attack: Callable[..., AttackResult], **how: object) -> Attack:
        how = {"steps": steps, "halvings": HALVINGS} | how
        return lambda model, x, y: x + attack(model, x, y, **how).perturbation

    found = {"fmn": of(fmn, norm=norm)}
    # A walk of about a sixth of the steps in each of ten attacks, of which many end early.
    if norm in get_args(Ball):
        found |= {"bisection": of(bisection, norm=norm, steps=steps // 6)}
    found["nearest"] = lambda model, x, y: x + nearest(model, x, y, norm=norm, steps=2 * steps).perturbation
    if norm == "L2":
        found |= {"alma": of(alma), "ddn": of(ddn), "ddn, margin": of(ddn, loss="margin")}
    return found


def theirs(norm: Norm, passes: int) -> dict[str, Attack]:
    return _foolbox(norm, passes) | _adv_lib(norm, passes)


def _foolbox(norm: Norm, passes: int) -> dict[str, Attack]:
    foolbox = peer_module("foolbox", "foolbox")
    if foolbox is None:
        return {}
    attacks = foolbox.attacks
    fmns = {
        "Linf": attacks.LInfFMNAttack,
        "L2": attacks.L2FMNAttack,
        "L1": attacks.L1FMNAttack,
        "L0": attacks.L0FMNAttack,
    }

    def run(attack: Any, model: nn.Module, x: Tensor, y: Tensor, **how: object) -> Tensor:
        return attack.run(foolbox.PyTorchModel(model, bounds=(0, 1), device=x.device), x, y, **how)

    def bethge(model: Passes, x: Tensor, y: Tensor) -> Tensor:
        kind = {"Linf": "Linfinity"}.get(norm, norm)
        attack = getattr(attacks, f"{kind}BrendelBethgeAttack")(steps=passes - 11)
        return run(attack, model, x, y, starting_points=other_class(x, y))

    found: dict[str, Attack] = {"foolbox FMN": partial(run, fmns[norm](steps=passes)), "foolbox BB": bethge}
    if norm == "L2":
        found["foolbox DDN"] = partial(run, attacks.DDNAttack(steps=passes))
    if peer_module("numba", "numba, so without BB") is None:
        del found["foolbox BB"]
    return found


def other_class(images: Tensor, labels: Tensor) -> Tensor:
    """For each image the nearest, in L2, of those with another label."""
    distance = torch.cdist(images.flatten(1), images.flatten(1))
    distance[labels[:, None] == labels[None]] = torch.inf
    return images[distance.argmin(1)]


def _adv_lib(norm: Norm, passes: int) -> dict[str, Attack]:
    attacks = peer_module("adv_lib.attacks", "adv-lib")
    if attacks is None:
        return {}
    order = {"Linf": float("inf"), "L2": 2, "L1": 1, "L0": 0}[norm]
    found: dict[str, Attack] = {"adv-lib FMN": lambda model, x, y: attacks.fmn(model, x, y, norm=order, steps=passes)}
    if norm == "L2":
        smoothing = {
            "\N{GREEK SMALL LETTER ALPHA}": 0.5 if passes < 500 else 0.9
        }  # as the paper has it for 100 and for 1000 steps
        found["adv-lib ALMA"] = lambda model, x, y: attacks.alma(
            model, x, y, num_steps=passes, distance="l2", init_lr_distance=1.0, **smoothing
        )
        found["adv-lib DDN"] = lambda model, x, y: attacks.ddn(model, x, y, steps=passes, levels=None)
    return found


if __name__ == "__main__":
    main()

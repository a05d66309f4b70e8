"""What a security curve over 8 radii costs beside an attack at one of them.

    python tests/benchmarks/curve.py --data folder --examples 128

The radii go up in equal steps, over the range in which the robust accuracy falls: to 1/255 for the
undefended networks, to the radius of their training for the robust ones. Each attack is told what
those at the neighbouring radii found. For each attack and radius it prints the seconds and passes
of the curve over those of an attack at that radius alone, and the robust accuracy by both. On an
undefended network the largest radius is the cheapest: a few steps fool all images. A pass is a
forward one; a backward counts twice.
"""

from __future__ import annotations

from functools import partial

from problems import clock, interleaved, parser, problems

from tasks.parts.attacks.apgd import apgd
from tasks.parts.attacks.common.result import AttackResult
from tasks.parts.attacks.common.security_curve import security_curve
from tasks.parts.attacks.pgd import pgd

RADII = 8
ATTACKS = {"pgd": (pgd, {"steps": 20}), "apgd": (apgd, {"steps": 50})}


def main() -> None:
    arguments = parser(__doc__, examples=64)
    arguments.add_argument("--rounds", type=int, default=3)
    options = arguments.parse_args()
    for name, model, images, labels, largest in problems(options):
        epsilon = largest if name.startswith("robust") else 1 / 255
        radii = [epsilon * (i + 1) / RADII for i in range(RADII)]
        for attack, (function, how) in ATTACKS.items():
            alone = {
                f"{radius:.5f}": partial(function, model, images, labels, epsilon=radius, **how) for radius in radii
            }
            curve = partial(security_curve, function, model, images, labels, radii, **how)
            timed = interleaved({"curve": curve} | alone, options.rounds, clock(options))
            found, smallest = timed["curve"].result
            print(f"{name}, {attack}: {passes(found):.1f} passes an image for {RADII} radii")
            print(" radius   seconds over its own   passes over its own   robust accuracy   by its own")
            for own, radius in zip(alone, radii, strict=True):
                one = timed[own].result
                print(
                    f"{own:>7} {timed['curve'].median / timed[own].median:22.2f} {passes(found) / passes(one):21.2f} "
                    f"{float((smallest > radius).double().mean()):17.3f} {float((~one.success).double().mean()):12.3f}"
                )
            mean = sum(timed[own].median for own in alone) / RADII
            print(f"   mean {timed['curve'].median / mean:22.2f}\n", flush=True)


def passes(found: AttackResult) -> float:
    """The mean over images."""
    return float((found.forwards + 2 * found.backwards).double().mean())


if __name__ == "__main__":
    main()

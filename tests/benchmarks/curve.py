"""What a security curve over 8 radii costs beside a search at its largest radius alone.

    python tests/benchmarks/curve.py --data folder --examples 128

The radii go up in equal steps, over the range in which the robust accuracy falls: to 1/255 for the undefended networks, to the radius of
its training for the robust one. Each search is told what those at the neighbouring radii found. For each attack: times the seconds of the
one radius, forward passes an image of the curve and of the one radius, and the robust accuracy at each radius.
"""

from __future__ import annotations

from functools import partial

from problems import clock, interleaved, parser, problems

from tasks.parts.attacks.apgd import apgd
from tasks.parts.attacks.pgd import pgd
from tasks.parts.curve import security_curve

RADII = 8
ATTACKS = {"pgd": (pgd, {"steps": 20}), "apgd": (apgd, {"steps": 50})}


def main() -> None:
    arguments = parser(__doc__, examples=64)
    arguments.add_argument("--rounds", type=int, default=3)
    options = arguments.parse_args()
    for name, model, images, labels, largest in problems(options):
        epsilon = largest if name == "robust" else 1 / 255
        radii = [epsilon * (i + 1) / RADII for i in range(RADII)]
        for attack, (function, how) in ATTACKS.items():
            timed = interleaved(
                {
                    "curve": partial(security_curve, function, model, images, labels, radii, **how),
                    "one": partial(function, model, images, labels, epsilon=epsilon, **how),
                },
                options.rounds,
                clock(options),
            )
            (found, smallest), one = timed["curve"].result, timed["one"].result
            print(f"{name}, {attack}: {RADII} radii up to {epsilon:.4f} beside that one")
            passes = [float(each.forwards.double().mean()) for each in (found, one)]
            print(
                f"  {timed['curve'].median / timed['one'].median:.2f} times the seconds; {passes[0]:.1f} passes an image, "
                f"{passes[0] / passes[1]:.2f} times the {passes[1]:.1f} of the one radius"
            )
            held = [float((smallest > radius).double().mean()) for radius in radii]
            alone = float((~one.success).double().mean())
            print(
                f"  robust accuracy {' '.join(f'{each:.3f}' for each in held)}; of the one radius alone {alone:.3f}\n",
                flush=True,
            )


if __name__ == "__main__":
    main()

"""How often the intervals of a report hold the truth, over simulated sweeps.

    python tests/benchmarks/coverage.py [--repeats 2000]

Each repeat trains some networks ("seeds") and measures each on the same images. The true mean is
known. Numbers vary by seed, by image, and by both; shares are hits of images whose probability
varies so on the logit scale. Beside `crossed_mean` stand what people use instead: Student's t over
the seeds, and the bootstrap over seeds and examples (percentiles). Wanted is at least 0.93 of 95 %
intervals from three seeds on.
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy import special

from analysis.stats import SHARE, Bounds, Floats, crossed_mean, over_seeds, resample_weights

SPREADS = {  # standard deviations by seed, by image, and by both
    "seeds alone": (1.0, 0.0, 0.0),
    "seeds dominate": (0.5, 0.5, 0.5),
    "seeds and images": (0.1, 1.0, 0.5),
    "images alone": (0.0, 1.0, 0.0),
    "both together": (0.0, 0.2, 1.0),
}
SHARES = (0.5, 0.9, 0.97)
RESAMPLES = 300


def drawn(spread: tuple[float, float, float], seeds: int, images: int, rng: np.random.Generator) -> Floats:
    """(S, N): what each seed's network gives to each image, around 0."""
    return sum(
        (
            s * rng.normal(size=shape)
            for s, shape in zip(spread, [(seeds, 1), (1, images), (seeds, images)], strict=True)
        ),
        start=np.zeros((seeds, images)),
    )


def expected_share(share: float, spread: tuple[float, float, float]) -> float:
    """The mean of the logistic function of a normal number (Gauss-Hermite quadrature)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    sd = np.sqrt(sum(s**2 for s in spread))
    return float((special.expit(special.logit(share) + sd * nodes) * weights).sum() / weights.sum())


def bootstrapped(values: Floats, rng: np.random.Generator) -> tuple[float, float]:
    """The percentile interval of the bootstrap over seeds and examples (Owen, 2007)."""
    of_seeds, of_images = (resample_weights(count, RESAMPLES, rng) for count in values.shape)
    means = np.einsum("bs,sn,bn->b", of_seeds, values, of_images) / (of_seeds.sum(1) * of_images.sum(1))
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def covered(
    share: float | None, spread: tuple[float, float, float], seeds: int, images: int, repeats: int
) -> dict[str, float]:
    """The share of repeats whose interval holds the truth, by kind of interval.

    Also the mean width of ours.
    """
    rng = np.random.default_rng(0)
    truth = 0.0 if share is None else expected_share(share, spread)
    bounds: Bounds = None if share is None else SHARE
    hits = dict.fromkeys(("ours", "t over seeds", "bootstrap"), 0)
    width = 0.0
    for _ in range(repeats):
        values = drawn(spread, seeds, images, rng)
        if share is not None:
            values = (rng.random(values.shape) < special.expit(special.logit(share) + values)).astype(float)
        ours = crossed_mean(values[:, :, None], bounds=bounds)
        student = over_seeds(values.mean(1))
        ends = {"ours": (ours.low[0], ours.high[0]), "t over seeds": (student.low[0], student.high[0])}
        ends["bootstrap"] = bootstrapped(values, rng)
        for kind, (low, high) in ends.items():
            hits[kind] += bool(low <= truth <= high)
        width += float(ours.high[0] - ours.low[0])
    return {kind: count / repeats for kind, count in hits.items()} | {"width": width / repeats}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--images", type=int, default=200)
    given = parser.parse_args()
    print(f"{'numbers':14} {'what varies':17} seeds    ours  t over seeds  bootstrap  width of ours")
    for share in (None, *SHARES):
        for name, spread in SPREADS.items():
            for seeds in (3, 5):
                told = covered(share, spread, seeds, given.images, given.repeats)
                what = "any number" if share is None else f"share {share:g}"
                line = f"{what:14} {name:17} {seeds:5}   {told['ours']:.3f}         {told['t over seeds']:.3f}"
                print(f"{line}      {told['bootstrap']:.3f}          {told['width']:.3f}", flush=True)


if __name__ == "__main__":
    main()

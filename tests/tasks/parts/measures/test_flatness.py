"""Statistics in noise balls have their closed forms, and adaptive sampling keeps its promises.

There is a slow twin in float64 too. A linear model of two classes with margin m and weight
difference d keeps its class under
  additive noise N(0, s^2)     with probability Phi(m / (s |d|)),
  multiplicative noise         with probability Phi(m / (s |d * x|)),
  a point on the sphere of r   with probability P(B < (1 + m / (r |d|)) / 2),
                               B ~ Beta((D - 1) / 2, (D - 1) / 2), in D dimensions,
and its probability of the true class is the sigmoid of the noisy margin.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.integrate import quad
from scipy.special import expit
from torch import Tensor, nn

from tasks.parts.measures.flatness import ROUND, Cell, Statistics, at_centres, statistics
from tasks.parts.measures.wilson import Z
from tasks.parts.randomness import BLOCK, normal

KINDS = ["additive", "multiplicative", "sphere"]
SHAPE = (1, 4, 4)
D = math.prod(SHAPE)


class Recorder:
    """A model that keeps what it is asked; padding repeats a row, so the distinct rows are what was
    drawn.
    """

    def __init__(self, model: Callable[[Tensor], Tensor]):
        self.model, self.asked = model, list[Tensor]()

    def __call__(self, x: Tensor) -> Tensor:
        self.asked.append(x.clone())
        return self.model(x)

    @property
    def rows(self) -> int:
        return sum(map(len, self.asked))

    def distinct(self) -> set[bytes]:
        return {row.numpy().tobytes() for x in self.asked for row in x}


def linear(seed: int = 0, classes: int = 2) -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(D, classes))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))
    return model.requires_grad_(False)


def network(seed: int = 0, classes: int = 4) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Flatten(), nn.Linear(D, 16), nn.ReLU(), nn.Linear(16, classes))
    with torch.no_grad():
        model[3].weight.mul_(5)
    return model.requires_grad_(False)


def images(count: int, seed: int = 0) -> Tensor:
    return torch.rand((count, *SHAPE), generator=torch.Generator().manual_seed(seed))


def some_cells(centres: int, radii: Sequence[float] = (0.1, 0.5), kinds: Sequence[str] = KINDS) -> list[Cell]:
    return [Cell(row, kind, radius) for row in range(centres) for kind in kinds for radius in radii]


# -------------------------------------------------------------------------------------------------
# closed forms


def margin_law(model: nn.Module, x: Tensor, kind: str, radius: float) -> tuple[float, float, stats.rv_continuous]:
    """The noisy margin of class 0 is m + scale * (a number of this law)."""
    weight, bias = model[1].weight.double(), model[1].bias.double()
    difference = (weight[0] - weight[1]).numpy()
    point = x.double().flatten().numpy()
    m = float(difference @ point + bias[0] - bias[1])
    match kind:
        case "additive":
            return m, radius * np.linalg.norm(difference), stats.norm()
        case "multiplicative":
            return m, radius * np.linalg.norm(difference * point), stats.norm()
    half = (D - 1) / 2
    return m, radius * np.linalg.norm(difference), stats.beta(half, half, loc=-1, scale=2)


@pytest.mark.parametrize("radius", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("kind", KINDS)
def test_linear_model(kind: str, radius: float) -> None:
    """All means within 4.5 standard errors of what numerical integration gives; the standard error
    itself within 10 %.
    """
    model, x, n = linear(), images(1, seed=3), 4096
    m, scale, law = margin_law(model, x, kind, radius)
    with torch.no_grad():
        model[1].bias[0] += 0.7 * scale * law.std() - m  # seven tenths of a standard deviation from the boundary
    m, scale, law = margin_law(model, x, kind, radius)

    def expected(function: Callable[[float], float]) -> float:
        low, high = law.support()
        return quad(lambda u: function(m + scale * u) * law.pdf(u), max(low, -9), min(high, 9), limit=200)[0]

    found = statistics(
        model, [Cell(0, kind, radius)], x, [11], torch.tensor([[0, 0, 1]]), samples=n, clip=False, seed=1
    )
    keeps = 1 - law.cdf(-m / scale)
    assert 0.6 < keeps < 0.999
    within = 4.5 * math.sqrt(keeps * (1 - keeps) / n)
    assert float(found.stays / n) == pytest.approx(keeps, abs=within)
    assert torch.equal(found.hits, found.stays)

    p = expected(expit)
    spread = math.sqrt(expected(lambda t: expit(t) ** 2) - p**2)
    assert float(found.mean[0, 0]) == pytest.approx(p, abs=4.5 * spread / math.sqrt(n))
    assert float(found.standard_error[0, 0]) == pytest.approx(spread / math.sqrt(n), rel=0.1)
    assert float(found.mean[0, 2]) == pytest.approx(
        1 - float(found.mean[0, 0]), abs=1e-6
    )  # the target is the other class

    loss = expected(lambda t: np.logaddexp(0, -t))
    loss_spread = math.sqrt(expected(lambda t: np.logaddexp(0, -t) ** 2) - loss**2)
    assert float(found.loss / n) == pytest.approx(loss, abs=4.5 * loss_spread / math.sqrt(n))


def test_the_true_class_and_the_class_at_the_centre_are_told_apart() -> None:
    """Around a point of class 0 that is labelled 1, accuracy is what persistence is not."""
    model, x = linear(), images(1, seed=3)
    with torch.no_grad():
        model[1].bias[0] += 1 - margin_law(model, x, "additive", 1)[0]
    found = statistics(model, [Cell(0, "additive", 0.5)], x, [0], torch.tensor([[1, 0, 0]]), samples=200, clip=False)
    assert 0 < float(found.hits) < float(found.stays)
    assert float(found.hits + found.stays) == 200
    assert float(found.mean[0, 0] + found.mean[0, 1]) == pytest.approx(1)
    assert found.mean[0, 2] == found.mean[0, 1]


# -------------------------------------------------------------------------------------------------
# slow twin


@pytest.mark.parametrize("clip", [True, False])
def test_slow_twin(clip: bool) -> None:
    """One loop over cells and one over replicates, in float64, with the same keyed directions."""
    model, x, ids = network(), images(3), [7, 2, 40]
    classes = torch.tensor([[0, 1, 2], [3, 3, 0], [1, 2, 1]])
    cells, samples, seed = some_cells(3), 40, 5
    found = statistics(model, cells, x, ids, classes, samples=samples, clip=clip, seed=seed)
    exact = network().double()
    for k, (row, kind, radius) in enumerate(cells):
        p, hits, stays, losses = [], 0, 0, []
        true, centre, target = classes[row].tolist()
        for replicate in range(samples):
            n = normal(seed, "flatness", [ids[row]], (BLOCK, *SHAPE), replicate // BLOCK)[0, replicate % BLOCK].double()
            point = x[row].double()
            if kind == "additive":
                point = point + radius * n
            elif kind == "multiplicative":
                point = point * (1 + radius * n)
            else:
                point = point + radius * n / n.norm()
            logits = exact((point.clip(0, 1) if clip else point)[None])[0]
            share = logits.exp() / logits.exp().sum()
            p.append([share[true], share[centre], share[target]])
            hits += int(logits.argmax()) == true
            stays += int(logits.argmax()) == centre
            losses.append(-float(share[true].log()))
        p = np.array(p)
        assert int(found.samples[k]) == samples
        assert found.mean[k].numpy() == pytest.approx(p.mean(0), abs=1e-5)
        assert found.standard_error[k].numpy() == pytest.approx(p.std(0, ddof=1) / math.sqrt(samples), abs=1e-5)
        assert (int(found.hits[k]), int(found.stays[k])) == (hits, stays)
        assert float(found.loss[k]) / samples == pytest.approx(np.mean(losses), abs=1e-5)
        assert float(found.largest_loss[k]) == pytest.approx(max(losses), abs=1e-5)


def test_at_centres() -> None:
    model, x, classes = network(), images(11), torch.tensor([[0, 1, 3]] * 11)
    found = at_centres(model(x).detach(), classes)
    logits = network().double()(x.double())
    share = logits.softmax(1)
    assert found.samples.tolist() == [1] * 11
    assert found.mean.numpy() == pytest.approx(share[:, [0, 1, 3]].numpy(), abs=1e-6)
    assert torch.equal(found.standard_error, torch.zeros(11, 3, dtype=torch.float64))
    assert found.loss.numpy() == pytest.approx(-share[:, 0].log().numpy(), abs=1e-5)
    assert torch.equal(found.largest_loss, found.loss)
    assert torch.equal(found.hits, (logits.argmax(1) == 0).double())
    assert torch.equal(found.stays, (logits.argmax(1) == 1).double())


# -------------------------------------------------------------------------------------------------
# who shares what noise


def noisy_images(cells: Sequence[Cell], ids: Sequence[int], samples: int, seed: int = 0) -> Tensor:
    """The noisy images of each cell (K, samples, *SHAPE), taken from what the model is asked."""
    x, classes = images(len(ids)), torch.zeros(len(ids), 3, dtype=torch.long)
    drawn = []
    for cell in cells:
        model = Recorder(network())
        statistics(model, [cell], x, ids, classes, samples=samples, clip=False, seed=seed)
        assert len(model.asked) == -(-samples // BLOCK)  # a call for each block; the last may be padded
        drawn.append(torch.cat(model.asked)[:samples])
    return torch.stack(drawn)


def test_more_samples_extend_fewer() -> None:
    few, many = noisy_images(some_cells(1), [4], 40), noisy_images(some_cells(1), [4], 64)
    assert torch.equal(few, many[:, :40])


def test_all_radii_kinds_and_centres_of_an_example_see_the_same_directions() -> None:
    """Recovered from the noisy images; two centres carry the same id."""
    x, cells = images(3), some_cells(3)
    noisy = noisy_images(cells, [4, 4, 9], 3)
    for k, (row, kind, radius) in enumerate(cells):
        n = normal(0, "flatness", [[4, 4, 9][row]], (BLOCK, *SHAPE), 0)[0, :3]
        along = {
            "additive": n,
            "multiplicative": x[row] * n,
            "sphere": n / n.flatten(1).norm(dim=1)[:, None, None, None],
        }
        assert torch.allclose((noisy[k] - x[row]) / radius, along[kind], atol=1e-5)


def test_seeds_and_examples_have_noise_of_their_own() -> None:
    cells = [Cell(0, "additive", 0.1)]
    one, again = noisy_images(cells, [4], 2), noisy_images(cells, [4], 2)
    assert torch.equal(one, again)
    others = [one, noisy_images(cells, [5], 2), noisy_images(cells, [4], 2, seed=1), one.flip(1)]
    assert len({other.numpy().tobytes() for other in others}) == 4


# -------------------------------------------------------------------------------------------------
# in any company


@pytest.mark.parametrize("tolerance", [None, 0.15])
def test_a_cell_is_the_same_in_any_company_and_batch(tolerance: float | None) -> None:
    model, x, ids = network(), images(5), [3, 1, 4, 15, 9]
    classes = torch.tensor([[0, 1, 2]] * 5)

    def of(rows: Sequence[int], batch: int | None = None) -> tuple[Statistics, set[bytes]]:
        asked = Recorder(model)
        found = statistics(
            asked,
            some_cells(len(rows)),
            x[list(rows)],
            [ids[i] for i in rows],
            classes[list(rows)],
            samples=80,
            tolerance=tolerance,
            batch=batch,
            confidence=True,
        )
        return found, asked.distinct()

    together, asked = of(range(5))
    per = len(some_cells(1))
    alone = [of([i]) for i in range(5)]
    assert set().union(*(one for _, one in alone)) == asked
    for rows, batch in (([4, 2, 0, 1, 3], None), (range(5), 1), (range(5), 33), (range(5), 4096)):
        found, other = of(rows, batch)
        assert other == asked
        order = torch.cat([torch.arange(i * per, (i + 1) * per) for i in rows])
        for field in vars(together):
            assert torch.allclose(
                getattr(found, field).double(), getattr(together, field)[order].double(), rtol=1e-5
            ), field
    for i, (found, _) in enumerate(alone):
        for field in vars(together):
            wanted = getattr(together, field)[i * per : (i + 1) * per]
            assert torch.allclose(getattr(found, field).double(), wanted.double(), rtol=1e-5), field


# -------------------------------------------------------------------------------------------------
# adaptive sampling


def totals_of(p: Tensor) -> Statistics:
    """As if p (K, n) had been measured."""
    totals = Statistics.empty(len(p), torch.device("cpu"))
    totals.samples[:] = p.shape[1]
    totals.p[:] = p.sum(1)[:, None]
    totals.p_squared[:] = p.square().sum(1)[:, None]
    return totals


@pytest.mark.parametrize("n", [1, 10, 32, 4000])
def test_interval_of_shares_is_wilsons(n: int) -> None:
    """Against its definition: it ends at the shares q where (p - q)^2 = z^2 q (1 - q) / n."""
    assert pytest.approx(stats.norm.ppf(0.975)) == Z
    for successes in sorted({0, 1, n // 3, n}):
        p, c = successes / n, Z**2 / n
        found = totals_of(torch.cat([torch.ones(1, successes), torch.zeros(1, n - successes)], 1).double())
        low, high = sorted(np.roots([1 + c, -(2 * p + c), p**2]).real)
        assert float(found.interval) == pytest.approx(high - low, rel=1e-6)


def test_interval_of_steadier_numbers_is_narrower_and_never_zero() -> None:
    """Towards z times the standard error, from above but for Wilson's factor n / (n + z^2)."""
    n = 4096
    spread = torch.linspace(0, 0.5, 6, dtype=torch.float64)
    p = 0.5 + spread[:, None] * torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(n // 2)
    width = totals_of(p).interval
    assert (width.diff() > 0).all()
    assert float(width[0]) == pytest.approx(Z**2 / (n + Z**2), rel=1e-6)
    assert float(width[-1]) == pytest.approx(Z / math.sqrt(n + Z**2), rel=1e-6)
    assert float(width[2]) == pytest.approx(2 * Z * 0.2 / math.sqrt(n), rel=0.01)


def coverage(law: stats.rv_continuous, n: int, wilsons_centre: bool) -> float:
    """Share of 2000 repetitions in which the interval holds the truth."""
    totals = totals_of(torch.tensor(law.rvs((2000, n), random_state=np.random.default_rng(n)), dtype=torch.float64))
    centre = (totals.p[:, 0] + Z**2 / 2) / (n + Z**2) if wilsons_centre else totals.mean[:, 0]
    return float(((centre - law.mean()).abs() <= totals.interval / 2).double().mean())


@pytest.mark.parametrize("n", [32, 96, 512])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_coverage_of_shares(share: float, n: int) -> None:
    """Around Wilson's centre; around the share itself a little less, where events are few."""
    assert coverage(stats.bernoulli(share), n, True) >= 0.93
    assert coverage(stats.bernoulli(share), n, False) >= 0.85


@pytest.mark.parametrize("n", [32, 96, 512])
@pytest.mark.parametrize(
    "law",
    [stats.uniform(), stats.beta(0.1, 0.1), stats.beta(0.05, 1), stats.beta(20, 2), stats.beta(200, 2)],
    ids=lambda law: f"{law.dist.name}{law.args}",
)
def test_coverage_of_probabilities(law: stats.rv_continuous, n: int) -> None:
    """Around the mean, as rows give it."""
    assert coverage(law, n, False) >= (0.91 if n == 32 else 0.93)


def test_coverage_where_sampling_stopped_by_itself() -> None:
    """600 examples at one point of a linear model: stopping at a width does not make the interval
    miss the truth.
    """
    model, x = linear(), images(1, seed=3)
    with torch.no_grad():
        model[1].bias[0] += 1.0 - margin_law(model, x, "additive", 0.5)[0]
    m, scale, law = margin_law(model, x, "additive", 0.5)
    truth = quad(lambda u: expit(m + scale * u) * law.pdf(u), -9, 9)[0]
    found = statistics(
        model,
        [Cell(row, "additive", 0.5) for row in range(600)],
        x.expand(600, *SHAPE),
        range(600),
        torch.tensor([[0, 0, 0]] * 600),
        samples=4096,
        tolerance=0.15,
        clip=False,
    )
    assert found.samples.unique().numel() > 1
    assert float(((found.mean[:, 0] - truth).abs() <= found.interval / 2).double().mean()) >= 0.93


@pytest.mark.parametrize("most", [4096, 100])
def test_adaptive_sampling_stops_at_the_tolerance_and_has_the_numbers_of_fixed_sampling(most: int) -> None:
    model, x, ids, tolerance = network(), images(4), [0, 1, 2, 3], 0.02
    classes = torch.tensor([[0, 1, 2]] * 4)
    cells = some_cells(4, (0.02, 0.3, 2.0))
    found = statistics(model, cells, x, ids, classes, samples=most, tolerance=tolerance, confidence=True)
    assert ((found.interval <= tolerance) | (found.samples == most)).all()
    assert (found.samples == most).any() == (most == 100)
    assert found.samples.unique().numel() > 1 or most == 100
    for k, cell in enumerate(cells):
        n = int(found.samples[k])
        assert n == most or n % ROUND == 0
        fixed = statistics(model, [cell], x, ids, classes, samples=n, confidence=True)
        for field in vars(found):
            assert torch.allclose(getattr(fixed, field)[0].double(), getattr(found, field)[k].double(), rtol=1e-5), (
                field
            )
        if n > ROUND:  # and one round fewer would not have done
            before = statistics(model, [cell], x, ids, classes, samples=(n - 1) // ROUND * ROUND)
            assert float(before.interval) > tolerance


@pytest.mark.usefixtures("eight_rows")
def test_adaptive_sampling_asks_no_more_than_it_counts() -> None:
    model, x = Recorder(network()), images(4)
    cells = some_cells(4, (0.02, 0.3, 2.0))
    found = statistics(model, cells, x, range(4), torch.zeros(4, 3, dtype=torch.long), samples=4096, tolerance=0.02)
    assert model.rows == int(found.samples.sum())  # whole rounds: no padding


def test_no_cells_and_no_examples() -> None:
    found = statistics(network(), [], images(2), [0, 1], torch.zeros(2, 3, dtype=torch.long), samples=8)
    assert found.samples.shape == (0,)
    assert found.mean.shape == (0, 3)

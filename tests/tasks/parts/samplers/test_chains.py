"""MALA and pCN against closed forms, quadrature, and their transition densities written down."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from tasks.parts.finite import NotFinite
from tasks.parts.samplers import mala, pcn
from tasks.parts.samplers.common.chains import Chains, prior_starts
from tasks.parts.samplers.common.diagnostics import diagnosed
from tasks.parts.samplers.common.target import Goal, Target
from tasks.parts.samplers.mala import at as at_mala
from tasks.parts.samplers.mala import step as step_mala
from tasks.parts.samplers.pcn import at as at_pcn
from tasks.parts.samplers.pcn import step as step_pcn
from tasks.parts.settings import UserError

SAMPLERS = [mala, pcn]
both = pytest.mark.parametrize("sampler", SAMPLERS, ids=["mala", "pcn"])
Sampler = Callable[..., Chains]


def constant(z: Tensor) -> Tensor:
    return z @ z.new_zeros(z.shape[1], 3)


def ends(z: Tensor) -> Tensor:
    """Three classes along the sum of the coordinates."""
    along = z.sum(1, keepdim=True)
    return torch.cat([2 * along, 0 * along + 0.5, -(along**2)], 1)


def zeros(count: int) -> Tensor:
    return torch.zeros(count, dtype=torch.long)


def double(*shape: int, value: float = 0.0) -> Tensor:
    return torch.full(shape, value, dtype=torch.float64)


MIXTURE = torch.tensor([[1.5, 0.0], [-1.0, 1.0], [-0.5, -1.5]], dtype=torch.float64)
WEIGHTS = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)


def mixture(z: Tensor) -> Tensor:
    """Logits of the components of a mixture of Gaussians with standard deviation 1."""
    return WEIGHTS.log() - (z[:, None] - MIXTURE).square().sum(2) / 2


@both
@pytest.mark.parametrize("exact", [True, False], ids=["from the prior", "from afar"])
def test_a_constant_classifier_leaves_the_prior(sampler: Sampler, exact: bool) -> None:
    """1,000 examples are 1,000 replications: their means and variances have known errors."""
    count, a, scale = 1000, 2.0, torch.tensor([1.0, 3.0], dtype=torch.float64)
    target = Target(constant, zeros(count), a=a, scale=scale)
    ids = range(count)
    start = prior_starts(target, 2, 2, ids=ids, seed=4).double() if exact else double(count, 2, 2, value=3.0)
    warmup = 0 if exact else 100
    found = sampler(target, start, ids=ids, seed=1, warmup=warmup, samples=10, thin=2, step_size=0.7)
    variance = (scale**2 / a).numpy()
    last = found.samples[:, :, -1].reshape(-1, 2).numpy()  # 2,000 chains, independent of each other
    error = last.std(0) / math.sqrt(len(last))
    assert (np.abs(last.mean(0)) < 4 * error).all()
    assert (np.abs(last.var(0) / variance - 1) < 4 * math.sqrt(2 / len(last))).all()
    assert stats.kstest(last[:, 0] / math.sqrt(variance[0]), "norm").pvalue > 1e-3
    means = found.samples.mean((1, 2))  # of a replication
    assert (means.mean(0).abs() < 4 * means.std(0) / math.sqrt(count)).all()
    squares = found.samples.square().mean((1, 2)) / torch.from_numpy(variance)
    assert ((squares.mean(0) - 1).abs() < 4 * squares.std(0) / math.sqrt(count)).all()
    expected = -a / 2 * (found.samples / scale).square().sum(-1)
    uniform = math.log(1 / 3)
    torch.testing.assert_close(found.log_density, expected + uniform)


def quadrature(target: Target, what: Callable[[Tensor], Tensor]) -> float:
    """The mean of a function of points over a target in two dimensions, on a grid."""
    axis = torch.linspace(-6, 6, 401, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    log_density = -target.a / 2 * grid.square().sum(1)
    log_p = target.classify(grid).log_softmax(1)
    c = int(target.classes[0])
    if target.goal == "class":
        log_density = log_density + target.beta * log_p[:, c]
    elif target.goal == "not_class":
        log_density = log_density + target.beta * torch.log(-torch.expm1(log_p[:, c]))
    else:
        assert target.others is not None
        difference = target.classify(grid)[:, c] - target.classify(grid)[:, int(target.others[0])]
        log_density = log_density - target.beta * difference**2 / (2 * target.tau**2)
    weights = (log_density - log_density.max()).exp()
    return float((weights * what(grid)).sum() / weights.sum())


@both
@pytest.mark.parametrize("goal", ["class", "not_class", "boundary"])
def test_the_posterior_of_a_mixture_is_that_of_quadrature(sampler: Sampler, goal: Goal) -> None:
    count, samples = 10, 3000
    others = zeros(count) + 1 if goal == "boundary" else None
    target = Target(mixture, zeros(count), goal=goal, others=others, a=0.8, beta=1.3, tau=1.5)
    ids = range(count)
    start = prior_starts(target, 2, 4, ids=ids, seed=0).double()
    found = sampler(target, start, ids=ids, seed=2, warmup=200, samples=samples)
    flat = found.samples.flatten(0, 2)

    def mass(z: Tensor) -> Tensor:
        return (mixture(z).argmax(1) == 0).double()

    for what in (mass, lambda z: z.square().sum(1), lambda z: z[:, 0], lambda z: z[:, 1]):
        by_example = what(flat).view(count, -1).mean(1)  # independent of each other
        error = float(by_example.std() / math.sqrt(count))
        assert abs(float(by_example.mean()) - quadrature(target, what)) < 4.5 * error
        assert error < 0.015
    for coordinate in range(2):
        for example in found.samples[..., coordinate]:
            assert diagnosed(example).r_hat < 1.01
    assert not found.failed.any()


@pytest.mark.parametrize(("sampler", "wanted"), [(mala, 0.574), (pcn, 0.25)])
def test_steps_are_adapted_to_the_acceptance_wanted(sampler: Sampler, wanted: float) -> None:
    """On a thin boundary, by example."""
    count = 20
    target = Target(mixture, zeros(count), goal="boundary", others=zeros(count) + 1, tau=0.1)
    found = sampler(target, double(count, 4, 2), ids=range(count), seed=2, warmup=500, samples=500)
    assert float((found.acceptance.mean(1) - wanted).abs().max()) < 0.12
    assert abs(float(found.acceptance.mean()) - wanted) < 0.03


def log_target(x: np.ndarray, a: float, beta: float) -> np.ndarray:
    """Log density of `ends`, of class 0, in one dimension."""
    logits = np.stack([2 * x, 0 * x + 0.5, -(x**2)])
    return -a / 2 * x**2 + beta * (logits[0] - np.logaddexp.reduce(logits, axis=0))


def slope(x: np.ndarray, a: float, beta: float) -> np.ndarray:
    return (log_target(x + 1e-5, a, beta) - log_target(x - 1e-5, a, beta)) / 2e-5


def proposal_density(name: str, x: np.ndarray, y: np.ndarray, size: float, a: float, beta: float) -> np.ndarray:
    """The density of proposing y from x."""
    if name == "mala":
        return stats.norm.pdf(y, x + size**2 / 2 * slope(x, a, beta), size)
    return stats.norm.pdf(y, math.sqrt(1 - size**2) * x, size / math.sqrt(a))


@pytest.mark.parametrize("name", ["mala", "pcn"])
@pytest.mark.parametrize("size", [0.3, 0.9])
def test_detailed_balance_on_a_grid(name: str, size: float) -> None:
    """pi(x) P(x -> y) = pi(y) P(y -> x), with densities of its own and the sampler's acceptance."""
    a, beta = 0.7, 1.3
    axis = np.linspace(-3, 3, 41)
    x, y = (each.ravel() for each in np.meshgrid(axis, axis, indexing="ij"))
    target = Target(ends, zeros(1), a=a, beta=beta)
    at, step = (at_mala, step_mala) if name == "mala" else (at_pcn, step_pcn)

    def flow(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        there = torch.from_numpy(x).view(1, -1, 1)
        drift = x + size**2 / 2 * slope(x, a, beta) if name == "mala" else math.sqrt(1 - size**2) * x
        xi = torch.from_numpy((y - drift) / (size if name == "mala" else size / math.sqrt(a))).view(1, -1, 1)
        proposal, log_ratio = step(target, at(target, there), double(1, value=size), xi)
        np.testing.assert_allclose(proposal.u[0, :, 0].numpy(), y, atol=1e-8)
        accepted = log_ratio[0].clamp_max(0).exp().numpy()
        return np.exp(log_target(x, a, beta)) * proposal_density(name, x, y, size, a, beta) * accepted

    np.testing.assert_allclose(flow(x, y), flow(y, x), rtol=1e-6, atol=1e-12)


@both
def test_one_step_goes_where_the_transition_density_says(sampler: Sampler) -> None:
    name, a, beta, size, x = sampler.__name__, 0.7, 1.3, 0.9, 0.8
    y = np.linspace(-8, 8, 16001)
    here = np.full_like(y, x)
    there, back = (proposal_density(name, *pair, size, a, beta) for pair in ((here, y), (y, here)))
    log_ratio = log_target(y, a, beta) - log_target(here, a, beta)
    accepted = there * np.minimum(1, np.exp(log_ratio) * back / np.maximum(there, 1e-300))
    width, count, chains = y[1] - y[0], 100, 200
    target = Target(ends, zeros(count), a=a, beta=beta)
    start = double(count, chains, 1, value=x)
    found = sampler(target, start, ids=range(count), seed=3, warmup=0, samples=1, step_size=size)
    moved = found.samples[:, :, 0, 0][found.acceptance == 1].numpy()
    share = accepted.sum() * width
    assert abs(len(moved) / (count * chains) - share) < 4 * math.sqrt(share * (1 - share) / (count * chains))
    cumulative = np.cumsum(accepted) * width / share
    assert stats.kstest(moved, lambda value: np.interp(value, y, cumulative)).pvalue > 1e-3


@both
def test_steps_are_adapted_in_the_warm_up_alone(sampler: Sampler) -> None:
    def run(warmup: int, samples: int) -> Chains:
        target = Target(mixture, torch.tensor([0, 1]))
        start = double(2, 3, 2)
        return sampler(target, start, ids=[4, 9], seed=0, warmup=warmup, samples=samples, step_size=0.5)

    short, long, other, fixed = run(60, 20), run(60, 90), run(61, 20), run(0, 20)
    assert torch.equal(short.step_size, long.step_size)
    assert torch.equal(short.samples, long.samples[:, :, :20])
    assert not torch.equal(short.step_size, other.step_size)
    assert short.step_size[0] != short.step_size[1]
    torch.testing.assert_close(fixed.step_size, double(2, value=0.5))


@both
def test_thinning_keeps_one_step_of_many(sampler: Sampler) -> None:
    target, start = Target(mixture, zeros(1)), double(1, 2, 2)
    every = sampler(target, start, ids=[5], seed=0, warmup=30, samples=30)
    third = sampler(target, start, ids=[5], seed=0, warmup=30, samples=10, thin=3)
    assert torch.equal(third.samples, every.samples[:, :, 2::3])
    assert torch.equal(third.log_density, every.log_density[:, :, 2::3])
    assert torch.equal(third.acceptance, every.acceptance)


@both
def test_a_chain_that_never_accepts_is_marked(sampler: Sampler) -> None:
    def needle(z: Tensor) -> Tensor:
        """Class 0 at a point, to which class 1 leaves nothing else."""
        return torch.cat([-1e9 * z.abs().sum(1, keepdim=True), z[:, :1] * 0], 1)

    target, start = Target(needle, zeros(2)), double(2, 3, 2)
    start[1] = 5.0  # from there any step nearer is accepted
    found = sampler(target, start, ids=[0, 1], seed=0, warmup=0, samples=40, step_size=0.05)
    assert found.failed[0].all()
    assert not found.acceptance[0].any()
    assert math.isnan(diagnosed(found.samples[0, :, :, 0]).r_hat)
    if sampler is pcn:
        assert not found.failed[1].any()


@both
def test_rows_do_not_depend_on_the_batch(sampler: Sampler) -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((5, 16), (16, 3)))
    ids, classes = [7, 2, 30, 11, 5, 8, 21], torch.tensor([0, 1, 2, 0, 1, 2, 0])

    def sampled(rows: list[int], batch: int | None) -> Chains:
        target = Target(lambda z: torch.tanh(z @ first) @ second, classes[rows], batch=batch)
        keys = [ids[row] for row in rows]
        start = prior_starts(target, 5, 3, ids=keys, seed=1).double()
        return sampler(target, start, ids=keys, seed=1, warmup=40, samples=20)

    whole = sampled(list(range(7)), None)
    for rows, batch in (([3], None), ([5, 1], 4), ([6, 0, 2], 16)):
        some = sampled(rows, batch)
        torch.testing.assert_close(some.samples, whole.samples[rows], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(some.step_size, whole.step_size[rows], rtol=1e-9, atol=1e-9)
        assert torch.equal(some.acceptance, whole.acceptance[rows])


@both
def test_single_precision_samples_the_same_distribution(sampler: Sampler) -> None:
    count, d = 50, 20
    target = Target(constant, zeros(count))
    start = prior_starts(target, d, 4, ids=range(count), seed=0)
    found = sampler(target, start, ids=range(count), seed=0, warmup=100, samples=400)
    assert found.samples.dtype == torch.float32
    squares = found.samples.double().square().mean((1, 2, 3))
    assert abs(float(squares.mean()) - 1) < 4.5 * float(squares.std()) / math.sqrt(count)
    torch.testing.assert_close(
        found.log_density, math.log(1 / 3) - found.samples.double().square().sum(-1) / 2, rtol=1e-5, atol=1e-5
    )


def test_the_gradient_is_that_of_the_likelihood() -> None:
    u = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scale = torch.tensor([1.0, 2.0, 0.5, 3.0], dtype=torch.float64)
    for goal in get_args(Goal):
        others = torch.tensor([1, 2, 0]) if goal == "boundary" else None
        target = Target(ends, torch.arange(3), goal=goal, others=others, beta=0.4, tau=2.0, scale=scale, batch=3)
        values, gradient = target.likelihood_and_gradient(u)
        torch.testing.assert_close(values, target.log_likelihood(u))
        for k in range(4):
            along = torch.zeros(4, dtype=torch.float64)
            along[k] = 1e-6
            slope = (target.log_likelihood(u + along) - target.log_likelihood(u - along)) / 2e-6
            torch.testing.assert_close(gradient[..., k], slope, rtol=1e-5, atol=1e-6)


def test_a_certain_classifier_keeps_finite_likelihoods() -> None:
    def certain(z: Tensor) -> Tensor:
        return torch.cat([1e4 + 0 * z[:, :1], z[:, 1:2] - 1e4], 1)

    here = double(1, 1, 2)
    assert not Target(certain, zeros(1), goal="class").log_likelihood(here).any()
    against = Target(certain, zeros(1), goal="not_class").log_likelihood(here)
    torch.testing.assert_close(against, double(1, 1, value=-2e4))


@both
def test_numbers_that_are_not_finite_are_a_failure(sampler: Sampler) -> None:
    target = Target(lambda z: constant(z) + torch.nan, zeros(1))
    with pytest.raises(NotFinite):
        sampler(target, double(1, 2, 2), ids=[0], seed=0, samples=3)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"goal": "clas"}, "goal: unknown goal 'clas'; class, not_class, boundary; did you mean class?"),
        ({"a": 0.0}, "a: must be finite and above 0, not 0.0"),
        ({"beta": -1.0}, "beta: must be finite and at least 0, not -1.0"),
        ({"tau": math.nan}, "tau: must be finite and above 0, not nan"),
        ({"scale": 0.0}, "scale: the spread of a space must be finite and above 0"),
        ({"goal": "boundary"}, "others: another class is needed for the boundary, and for no other goal"),
        ({"goal": "boundary", "others": zeros(1)}, "others: a class has no boundary with itself"),
    ],
)
def test_targets_that_do_not_exist_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        Target(constant, zeros(1), **settings)
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("sampler", "settings", "said"),
    [
        (pcn, {"step_size": 1.5}, "step_size: must be finite, above 0 and at most 1, not 1.5"),
        (mala, {"step_size": 0.0}, "step_size: must be finite, above 0, not 0.0"),
        (mala, {"warmup": -1}, "warmup: must be at least 0, not -1"),
        (mala, {"samples": 0}, "samples: must be at least 1, not 0"),
        (mala, {"ids": [0, 1]}, "start: 1 starts, 2 ids and 1 classes; there must be as many"),
    ],
)
def test_bad_numbers_are_refused(sampler: Sampler, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        sampler(Target(constant, zeros(1)), double(1, 2, 2), **{"ids": [0], "seed": 0, "samples": 3, **settings})
    assert str(caught.value) == said


def test_a_class_that_the_network_does_not_have_is_refused() -> None:
    with pytest.raises(UserError, match=r"class 3 is out of range: the network has the classes 0\.\.2"):
        pcn(Target(constant, zeros(1) + 3), double(1, 2, 2), ids=[0], seed=0, samples=3)

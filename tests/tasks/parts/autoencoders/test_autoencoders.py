"""Autoencoders against closed forms.

These are principal components, probabilistic PCA, a planted dictionary and a slow vector quantiser.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from tasks.parts.autoencoders import linear, topk, vqvae
from tasks.parts.autoencoders.common import training
from tasks.parts.autoencoders.common.autoencoder import Autoencoder
from tasks.parts.autoencoders.common.build import build, names
from tasks.parts.autoencoders.common.coder import Step
from tasks.parts.autoencoders.common.recipe import AutoencoderRecipe
from tasks.parts.finite import NotFinite
from tasks.parts.settings import UserError


class Bank:
    """Representations in memory."""

    def __init__(self, values: Tensor):
        self.values = values

    def take(self, rows: np.ndarray, device: str | torch.device) -> Tensor:
        """Some of them."""
        return self.values[torch.from_numpy(rows)].to(device)


def gaussian(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def trained(values: Tensor, held_out: int = 0, **settings: Any) -> tuple[Autoencoder, list[dict[str, float]]]:
    """An autoencoder of some representations (N, *shape), and its epochs; the last are held out."""
    recipe = AutoencoderRecipe(**settings)
    autoencoder = build(recipe, values.shape[1:])
    rows = np.arange(len(values))
    used, validation = rows[: len(rows) - held_out], rows[len(rows) - held_out :]
    epochs = list(training.epochs(recipe, autoencoder, Bank(values), used, validation))
    return autoencoder.requires_grad_(False), epochs


def correlated(count: int, *shape: int) -> Tensor:
    """Gaussian numbers whose principal components differ in variance."""
    size = math.prod(shape)
    mixing = torch.linalg.qr(gaussian(1, size, size)).Q * torch.linspace(3, 0.1, size)
    return (gaussian(2, count, size) @ mixing.T + 5).reshape(count, *shape)


@pytest.mark.parametrize("at_once", [True, False], ids=["covariance", "subspace iteration"])
def test_the_linear_one_leaves_what_the_other_principal_components_hold(
    at_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear, "EXACT", 4096 if at_once else 0)
    x = correlated(300, 3, 4, 2)
    values = torch.linalg.svdvals((x - x.mean(0)).flatten(1).double())
    for bottleneck in (1, 5, 12, 23):
        autoencoder, (epoch,) = trained(x, kind="linear", bottleneck=bottleneck)
        residual = float((autoencoder(x) - x).double().square().sum())
        assert residual == pytest.approx(float(values[bottleneck:].square().sum()), rel=1e-3)
        total = float(values.square().sum())
        assert 1 - epoch["explained_variance"] == pytest.approx(residual / total, rel=1e-3, abs=1e-6)


def test_the_linear_one_removes_noise_as_the_best_linear_map_does() -> None:
    x, noise = correlated(2000, 6), 0.5
    autoencoder, _ = trained(x, kind="linear", bottleneck=6, denoising=noise)
    standardised = autoencoder.standardised(x).double()
    covariance = standardised.T @ standardised / len(x)
    best = covariance @ torch.linalg.inv(covariance + noise**2 * torch.eye(6))
    probes = gaussian(3, 20, 6)
    found = autoencoder.coder.decode(autoencoder.coder.encode(probes))
    torch.testing.assert_close(found.double(), probes.double() @ best.T, rtol=1e-4, atol=1e-4)


def test_a_linear_vae_is_probabilistic_pca() -> None:
    size, bottleneck, sigma = 10, 2, 0.5
    loadings = torch.linalg.qr(gaussian(1, size, bottleneck)).Q * torch.tensor([3.0, 1.5])
    x = gaussian(2, 4000, bottleneck) @ loadings.T + sigma * gaussian(3, 4000, size) + 2
    autoencoder, epochs = trained(
        x,
        kind="vae",
        bottleneck=bottleneck,
        options={"depth": 0, "warm_up": 0.1},
        standardise="none",
        epochs=400,
        batch_size=500,
        learning_rate=2e-2,
    )
    centred = (x - x.mean(0)).double()  # the maximum of the likelihood (Tipping and Bishop 1999)
    variances, vectors = torch.linalg.eigh(centred.T @ centred / len(x))
    left = variances[:-bottleneck].mean()
    w = vectors[:, -bottleneck:] * (variances[-bottleneck:] - left).sqrt()
    m = w.T @ w + left * torch.eye(bottleneck)
    posterior = centred @ w @ torch.linalg.inv(m)
    likelihood = torch.distributions.MultivariateNormal(torch.zeros(size).double(), w @ w.T + left * torch.eye(size))
    exact = float(likelihood.log_prob(centred).mean())

    details = autoencoder.coder.details(x, list(range(len(x))), seed=0)
    bound = -float((details["rate"] + details["distortion"]).double().mean())
    assert bound == pytest.approx(exact, rel=0.01)
    assert bound < exact + 0.01 * abs(exact)
    expected = posterior @ w.T + x.mean(0).double()  # the same however the code is rotated
    difference = (autoencoder(x).double() - expected).norm() / (expected - x.mean(0)).norm()
    assert float(difference) < 0.01
    _, log_sigma = autoencoder.coder.posterior(x)
    determinant = float(torch.linalg.det(left * torch.linalg.inv(m)))
    assert float((2 * log_sigma.double()).sum(1).exp().mean()) == pytest.approx(determinant, rel=0.02)
    assert epochs[-1]["loss"] < epochs[0]["loss"]
    assert autoencoder.coder.facts(lambda: iter([x]))["sigma"] == pytest.approx(sigma, rel=0.02)


def test_a_unit_that_carries_nothing_is_not_active() -> None:
    x = gaussian(1, 2000, 1) @ gaussian(2, 1, 6) + 0.1 * gaussian(3, 2000, 6)  # one dimension, and little noise
    autoencoder, _ = trained(
        x, kind="vae", bottleneck=3, options={"depth": 0}, epochs=40, batch_size=100, learning_rate=1e-2
    )
    facts = autoencoder.coder.facts(lambda: iter([autoencoder.standardised(x)]))
    assert facts["active_units"] == 1


def planted(count: int, size: int, atoms: int, active: int) -> tuple[Tensor, Tensor]:
    """Sparse sums of atoms, and the atoms (atoms, size)."""
    directions = normalize(gaussian(1, atoms, size), dim=1)
    strength = gaussian(2, count, atoms).abs() + 0.5
    chosen = torch.rand(count, atoms, generator=torch.Generator().manual_seed(3)).topk(active, dim=1).indices
    return torch.zeros(count, atoms).scatter(1, chosen, strength.gather(1, chosen)) @ directions, directions


def test_a_sparse_one_recovers_the_atoms_of_a_planted_dictionary() -> None:
    x, atoms = planted(6000, 24, 32, active=2)
    autoencoder, epochs = trained(
        x,
        kind="topk",
        bottleneck=2,
        options={"expansion": 4, "dead_after": 2000},
        standardise="none",
        epochs=40,
        batch_size=100,
        learning_rate=3e-3,
    )
    directions = normalize(autoencoder.coder.directions.detach(), dim=1)
    nearest = (atoms @ directions.T).amax(1)
    assert float(nearest.min()) > 0.95
    assert epochs[-1]["explained_variance"] > 0.97
    assert int((autoencoder.encode(x) > 0).sum(1).max()) <= 2


def quantiser(**options: Any) -> vqvae.Vqvae:
    """A small quantiser in training mode, its codebook in use."""
    torch.manual_seed(0)
    coder = vqvae.build((6,), 4, vqvae.Options(width=8, groups=2, codebook=5, **options))
    coder.counts.fill_(3.0)
    coder.sums.copy_(coder.vectors * 3)
    return coder


def test_the_quantiser_is_a_slow_twin_of_the_paper() -> None:
    coder, decay, commitment = quantiser(revival=0.0), 0.99, 0.25
    x = gaussian(4, 7, 6)
    before = {name: value.clone() for name, value in coder.state_dict().items()}
    z = coder.encoder(x).reshape(7, 2, 2)
    counts, sums, parts = torch.zeros(5), torch.zeros(5, 2), []
    for i in range(7):
        for g in range(2):
            k = min(range(5), key=lambda j: float((z[i, g].detach() - before["vectors"][j]).square().sum()))
            counts[k] += 1
            sums[k] += z[i, g].detach()
            parts.append(before["vectors"][k])
    quantised = torch.stack(parts).reshape(7, 2, 2)
    passed = z + (quantised - z).detach()  # the gradient at the chosen vectors goes to z as it is
    reconstruction = coder.decoder(passed.flatten(1))
    loss = (reconstruction - x).square().mean(1) + commitment * (z - quantised).square().mean((1, 2))
    expected = torch.autograd.grad(loss.sum(), list(coder.parameters()))

    objective = coder.objective(x, x, Step(0.5, torch.Generator().manual_seed(0)))
    torch.testing.assert_close(objective.loss, loss)
    for found, wanted in zip(
        torch.autograd.grad(objective.loss.sum(), list(coder.parameters())), expected, strict=True
    ):
        torch.testing.assert_close(found, wanted)
    new_counts = decay * before["counts"] + (1 - decay) * counts
    new_sums = decay * before["sums"] + (1 - decay) * sums
    torch.testing.assert_close(coder.counts, new_counts)
    torch.testing.assert_close(coder.vectors, new_sums / new_counts[:, None])
    shares = counts / counts.sum()
    entropy = -sum(float(share) * math.log(float(share)) for share in shares if share > 0)
    assert float(objective.numbers["perplexity"]) == pytest.approx(math.exp(entropy))


def test_vectors_that_nothing_is_near_to_are_placed_at_the_encoders_outputs() -> None:
    coder = quantiser()
    coder.counts[1:3] = 0.0
    coder.vectors[1:3] = 100.0
    x = gaussian(4, 7, 6)
    outputs = coder.encoder(x).reshape(-1, 2).detach()
    coder.objective(x, x, Step(0.0, torch.Generator().manual_seed(0)))
    assert float(torch.cdist(coder.vectors[1:3], outputs).amin(1).max()) < 1  # moved by one step of the average at most
    assert set(coder.indices(x).flatten().tolist()) & {1, 2}


def test_a_codebook_is_used_evenly_where_all_of_it_is_needed() -> None:
    x = gaussian(5, 2000, 8)
    autoencoder, _ = trained(
        x, kind="vqvae", bottleneck=8, options={"groups": 4, "codebook": 64, "width": 32}, epochs=10, batch_size=50
    )
    assert autoencoder.coder.facts(lambda: iter([autoencoder.standardised(x)]))["perplexity"] > 32


def test_features_that_were_never_active_are_dead() -> None:
    coder = topk.build((4,), 2, topk.Options(expansion=2, dead_after=10))
    with torch.no_grad():
        coder.encoder[3] = coder.directions[3] = torch.zeros(4)
    x = gaussian(1, 12, 4)
    coder.objective(x, x, Step(0.0, torch.Generator()))
    active = (coder.encode(x) > 0).any(0)
    assert torch.equal(coder.dead, ~active)
    assert bool(coder.dead[3])
    assert coder.facts(lambda: iter([x]))["dead_features"] == pytest.approx(float((~active).float().mean()))


@pytest.mark.parametrize("kind", names())
@pytest.mark.parametrize("shape", [(12,), (2, 8, 8), (3, 5, 7)], ids=str)
def test_every_kind_learns_representations_of_every_shape(kind: str, shape: tuple[int, ...]) -> None:
    size = math.prod(shape)
    x = (gaussian(1, 120, 3) @ gaussian(2, 3, size) + 0.1 * gaussian(3, 120, size)).reshape(120, *shape)
    how: dict[str, Any] = {"kind": kind, "bottleneck": 8, "epochs": 20, "batch_size": 20, "learning_rate": 3e-3}
    autoencoder, epochs = trained(x, 20, **how)
    code = autoencoder.encode(x)
    assert code.shape[0] == len(x)
    torch.testing.assert_close(autoencoder(x), autoencoder.decode(code))
    assert epochs[-1]["explained_variance"] > 0.3
    assert 0 < epochs[-1]["validation_explained_variance"] < 1
    root_mean_square = autoencoder.encode(x[:100]).double().square().mean().sqrt()
    torch.testing.assert_close(autoencoder.magnitude.double(), root_mean_square, rtol=1e-4, atol=0)
    torch.testing.assert_close(autoencoder.center[0], x[:100].mean(0))
    torch.testing.assert_close(autoencoder.variance[0], x[:100].var(0, correction=0))
    again, _ = trained(x, 20, **how)
    assert all(
        torch.equal(a, b) for a, b in zip(autoencoder.state_dict().values(), again.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("standardise", ["whole", "channel", "none"])
def test_representations_are_standardised_and_come_back_in_their_own_units(standardise: str) -> None:
    x = correlated(100, 3, 4, 4) * torch.tensor([1.0, 10.0, 0.1]).view(3, 1, 1) + 3
    autoencoder, _ = trained(x, kind="linear", bottleneck=48, standardise=standardise)
    standardised = autoencoder.standardised(x)
    if standardise == "whole":
        torch.testing.assert_close(standardised.mean(0), torch.zeros(3, 4, 4), rtol=0, atol=1e-4)
        assert float(standardised.square().mean()) == pytest.approx(1, rel=1e-3)
    elif standardise == "channel":
        torch.testing.assert_close(standardised.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-4)
        torch.testing.assert_close(standardised.square().mean((0, 2, 3)), torch.ones(3), rtol=1e-3, atol=0)
    else:
        assert torch.equal(standardised, x)
    torch.testing.assert_close(autoencoder(x), x, rtol=1e-3, atol=1e-3)


def test_training_ends_at_the_best_epoch_when_none_is_better_for_long() -> None:
    x = gaussian(1, 60, 30)  # nothing to learn: what is learnt of some does not hold for the others
    settings: dict[str, Any] = {"kind": "plain", "bottleneck": 20, "schedule": "constant", "learning_rate": 3e-3}
    autoencoder, epochs = trained(x, 30, **settings, batch_size=10, epochs=200, patience=3)
    losses = [epoch["validation_loss"] for epoch in epochs]
    assert len(losses) < 200
    assert losses.index(min(losses)) == len(losses) - 4
    residual = (autoencoder.standardised(autoencoder(x[30:])) - autoencoder.standardised(x[30:])).square().mean()
    assert float(residual) == pytest.approx(min(losses), rel=1e-4)


def test_the_logits_behind_the_reconstruction_count_where_they_are_to() -> None:
    x = correlated(400, 12)
    direction = linear.principal_components(lambda: iter([x]), 12)[1][:, 5].float()  # not of the most variance

    def tail(h: Tensor) -> Tensor:
        height = 5 * (h - x.mean(0)) @ direction
        return torch.stack([height, -height], 1)

    def agreement(weight: float) -> float:
        recipe = AutoencoderRecipe(
            kind="plain", options={"depth": 0}, bottleneck=2, logits_weight=weight, epochs=60, learning_rate=1e-2
        )
        autoencoder, rows = build(recipe, (12,)), np.arange(400)
        list(training.epochs(recipe, autoencoder, Bank(x), rows, rows[:0], tail=tail))
        with torch.no_grad():
            return float((tail(autoencoder(x)).argmax(1) == tail(x).argmax(1)).float().mean())

    assert agreement(0.0) < 0.7
    assert agreement(10.0) > 0.9


def test_training_that_diverges_and_representations_that_are_all_the_same_fail() -> None:
    with pytest.raises(NotFinite, match="diverged in epoch 1"):
        trained(correlated(100, 8), kind="plain", bottleneck=2, optimiser="sgd", learning_rate=1e6, epochs=3)
    with pytest.raises(NotFinite, match="representations of all training images are the same"):
        trained(torch.ones(20, 8), kind="linear", bottleneck=2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"kind": "plane"},
            "kind: unknown autoencoder 'plane'; there are linear, plain, topk, vae, vqvae; did you mean plain?",
        ),
        ({"bottleneck": 13}, "bottleneck: 13 is more than the 12 numbers of a representation"),
        ({"kind": "vqvae", "bottleneck": 9}, "options.groups: a bottleneck of 9 cannot be divided into 8 groups"),
        ({"kind": "topk", "options": {"expansion": 0.5}, "bottleneck": 8}, "options.expansion: there are 6 features"),
        ({"kind": "vae", "options": {"beta": -1}}, "options.beta"),
        ({"kind": "vae", "options": {"likelihood": "bernoulli"}}, "options.likelihood: bernoulli is for pixels"),
        ({"kind": "linear", "options": {"width": 3}}, "options.width"),
    ],
)
def test_what_does_not_fit_is_told_with_its_field(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as told:
        build(AutoencoderRecipe(**settings), (12,))
    assert str(told.value).startswith(message)

"""Weight noise is multiplicative and Gaussian, and gone afterwards without a trace.

It is on all weights but those of normalisation layers.
"""

from __future__ import annotations

import pytest
import torch
from scipy.stats import kstest
from torch import Tensor, nn

from tasks.parts.noise.weight_noise import noisy_parameters, noisy_weights


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)
        )
        model.append(nn.LayerNorm(3))
        for layer in (model[1], model[2], model[6]):
            nn.init.normal_(layer.weight)
            nn.init.normal_(layer.bias)
    return model


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def test_which_parameters_take_noise() -> None:
    model = network()
    named = {id(p): name for name, p in model.named_parameters()}
    assert [named[id(p)] for p in noisy_parameters(model)] == ["0.weight", "0.bias", "5.weight", "5.bias"]
    model[0].requires_grad_(False)
    assert [named[id(p)] for p in noisy_parameters(model)] == ["5.weight", "5.bias"]


def test_within_only_these_are_noisy_and_after_all_are_exactly_as_before() -> None:
    model = network()
    before = state(model)
    with noisy_weights(model, 3, generator()):  # so far away that the difference could not be added back exactly
        for name, p in model.named_parameters():
            assert torch.equal(p, before[name]) == (name.split(".")[0] in "126"), name
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name])


def test_the_noise_is_relative_gaussian_and_independent() -> None:
    model = nn.Linear(100, 100)
    nn.init.uniform_(model.weight, 1, 1000)
    nn.init.zeros_(model.bias)
    own = model.weight.detach().clone()
    with noisy_weights(model, 0.1, generator()):
        n = ((model.weight / own - 1) / 0.1).detach()
        assert not model.bias.any()  # relative to zero
    assert kstest(n.flatten().numpy(), "norm").pvalue > 1e-3
    assert abs(float((n * own).mean() / own.mean())) < 0.05
    wanted = torch.randn(own.shape, generator=generator())
    assert torch.allclose(n, wanted, atol=1e-4)


def test_gradients_are_those_at_the_noisy_weights_and_stay() -> None:
    model, x = nn.Linear(4, 1, bias=False), torch.rand(3, 4)
    own = model.weight.detach().clone()
    with noisy_weights(model, 0.5, generator()):
        noisy = model.weight.detach().clone()
        model(x).square().sum().backward()
    assert torch.equal(model.weight, own)
    wanted = 2 * (x @ noisy.T).T @ x
    assert torch.allclose(model.weight.grad, wanted, rtol=1e-5)


def test_it_is_undone_when_the_step_fails() -> None:
    model = network()
    before = state(model)
    with pytest.raises(RuntimeError, match="of its own"), noisy_weights(model, 0.5, generator()):
        raise RuntimeError("a failure of its own")
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_without_sigma_nothing_is_drawn() -> None:
    model, source = network(), generator()
    before, drawn = state(model), source.get_state()
    with noisy_weights(model, 0, source):
        assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert torch.equal(source.get_state(), drawn)


def test_the_generator_decides() -> None:
    def noisy(seed: int) -> Tensor:
        model = network()
        with noisy_weights(model, 0.1, generator(seed)):
            return model[5].weight.detach().clone()

    assert torch.equal(noisy(1), noisy(1))
    assert not torch.equal(noisy(1), noisy(2))

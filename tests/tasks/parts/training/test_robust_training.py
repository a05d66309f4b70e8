"""Adversarial training and TRADES are the papers' formulas, one example at a time.

A network gets more robust by them.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tasks.parts.attacks.pgd import pgd
from tasks.parts.data import load as data
from tasks.parts.geometry.balls import norm_of
from tasks.parts.models.build import Classifier, build
from tasks.parts.randomness import torch_generator
from tasks.parts.training import training
from tasks.parts.training.recipes import Recipe, Robust
from tasks.parts.training.robust_training import loss, trades, worst_images

SHAPE, CLASSES, COUNT = (1, 4, 4), 3, 20
NETWORK = "test_robust_training:smooth"
BLOBS = {"dataset": "blobs", "network": "mlp", "network_options": {"width": 16}, "epochs": 3, "batch_size": 32}


def smooth(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """No kinks, at which a gradient's sign would hang on the last bit; with what differs between
    the modes.
    """
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(math.prod(shape), 12),
        nn.BatchNorm1d(12),
        nn.Tanh(),
        nn.Dropout(0.3),
        nn.Linear(12, classes),
    )


def network() -> Classifier:
    model = build(NETWORK, SHAPE, CLASSES, mean=(0.4,), std=(0.3,))
    with torch.no_grad():
        model.network[2].running_var.fill_(0.3)
        model.network[2].running_mean.fill_(0.2)
        for parameter in model.parameters():
            parameter.mul_(2)
    return model.train()


def double_of(model: Classifier) -> Classifier:
    copy = build(NETWORK, SHAPE, CLASSES)
    copy.load_state_dict(model.state_dict())
    return copy.double().eval()


def batch() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    images = torch.rand((COUNT, *SHAPE), generator=random)
    images[:, :, 0] = images[:, :, 0].round()
    return images, torch.randint(0, CLASSES, (COUNT,), generator=random)


def generator() -> torch.Generator:
    return torch_generator(5, "test")


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("method", ["pgd", "trades"])
@pytest.mark.parametrize("steps", [{"steps": 1}, {"steps": 4}, {"steps": 3, "step_size": 0.02}], ids=str)
def test_the_search(method: Any, norm: Any, steps: dict[str, Any]) -> None:
    settings = Robust(method=method, norm=norm, epsilon=0.1 if norm == "Linf" else 0.4, **steps)
    model, (images, labels) = network().double(), batch()
    images = images.double()  # near the image the divergence is so flat that float32 has only its first digits
    state = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    found = worst_images(settings, model, images, labels, generator())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not found.requires_grad
    assert found.min() >= 0
    assert found.max() <= 1
    assert (norm_of(found - images, norm) <= settings.epsilon + 1e-6).all()

    draws = generator()
    if method == "trades":
        start = 0.001 * torch.randn(images.shape, generator=draws).double()
    elif norm == "Linf":
        start = 0.1 * (2 * torch.rand(images.shape, generator=draws).double() - 1)
    else:
        start = torch.randn(images.shape, generator=draws).double()
        share = torch.rand(COUNT, generator=draws).double() ** (1 / 16)
        start = torch.stack([0.4 * s * one / one.norm() for s, one in zip(share, start, strict=True)])
    exact = double_of(model)
    step = settings.step_size or 2.5 * settings.epsilon / settings.steps
    for i in range(COUNT):
        image = images[i].double()
        there = (image + start[i]).clamp(0, 1)
        p = exact(image[None])[0].softmax(0).detach()
        for _ in range(settings.steps):
            at = there.clone().requires_grad_(True)
            q = exact(at[None])[0].softmax(0)
            (-q[labels[i]].log() if method == "pgd" else (p * (p / q).log()).sum()).backward()
            slope = at.grad
            assert slope is not None
            if norm == "Linf":
                there = image + (there + step * slope.sign() - image).clamp(-0.1, 0.1)
            else:
                delta = there + step * slope / slope.norm() - image
                there = image + delta * min(1, 0.4 / float(delta.norm()))
            there = there.clamp(0, 1)
        assert torch.allclose(found[i], there, atol=1e-5), i


def test_the_loss_of_trades_is_the_papers() -> None:
    random = torch.Generator().manual_seed(0)
    clean, there = torch.randn((2, COUNT, CLASSES), generator=random)
    labels = batch()[1]
    wanted = 0.0
    for z, moved, label in zip(clean.double(), there.double(), labels.tolist(), strict=True):
        p = [math.exp(a) / sum(math.exp(b) for b in z.tolist()) for a in z.tolist()]
        q = [math.exp(a) / sum(math.exp(b) for b in moved.tolist()) for a in moved.tolist()]
        wanted += -math.log(p[label]) + 5 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert float(trades(clean, there, labels, beta=5)) == pytest.approx(wanted / COUNT, rel=1e-5)
    assert float(trades(clean, clean, labels, beta=5)) == pytest.approx(
        float(nn.functional.cross_entropy(clean, labels)), rel=1e-5
    )


@pytest.mark.parametrize("method", ["pgd", "trades"])
def test_the_loss_of_a_batch(method: Any) -> None:
    """In training mode, of TRADES as two batches; gradients go through the network at both, and not
    through the search.
    """
    settings = Robust(method=method, epsilon=0.1, steps=2, beta=3)
    images, labels = batch()
    model, other = network(), network()
    worst = worst_images(settings, other, images, labels, generator())
    torch.manual_seed(0)
    value, logits = loss(settings, model, images, labels, generator(), label_smoothing=0.1)
    value.backward()
    torch.manual_seed(0)
    if method == "pgd":
        there = other(worst)
        wanted = nn.functional.cross_entropy(there, labels, label_smoothing=0.1)
        assert torch.equal(logits, there)
    else:
        clean, there = other(images), other(worst)
        p, q = clean.softmax(1), there.softmax(1)
        wanted = nn.functional.cross_entropy(clean, labels, label_smoothing=0.1) + 3 * (p * (p / q).log()).sum(1).mean()
        assert torch.equal(logits, clean)
    wanted.backward()
    assert value.item() == pytest.approx(wanted.item(), rel=1e-5)
    for mine, its in zip(model.parameters(), other.parameters(), strict=True):
        assert mine.grad is not None
        assert its.grad is not None
        assert torch.allclose(mine.grad, its.grad, atol=1e-5)
    assert model.network[2].num_batches_tracked == (1 if method == "pgd" else 2)


def train(**settings: Any) -> Classifier:
    recipe = Recipe(**(BLOBS | settings))
    return training.trained(recipe, data.load(recipe.dataset, "train"))


def alike(model: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("network", ["mlp", NETWORK])
def test_off_is_plain_training(network: str) -> None:
    own = {"network": network, "network_options": {}}
    plain = train(**own)
    for off in ({"method": "pgd", "epsilon": 0}, {"method": "trades", "epsilon": 0}, {"method": "trades", "beta": 0}):
        assert alike(train(**own, robust=off), plain)
    for on in ({"method": "pgd"}, {"method": "trades"}):
        assert not alike(train(**own, robust=on), plain)


@pytest.mark.parametrize("method", ["pgd", "trades"])
def test_a_seed_decides_everything(method: str) -> None:
    own = {"network": NETWORK, "network_options": {}, "robust": {"method": method, "steps": 2}}
    torch.manual_seed(1)
    model = train(**own)
    torch.manual_seed(2)
    assert alike(model, train(**own))
    assert not alike(model, train(**own, seed=1))


def test_networks_trained_so_are_more_robust() -> None:
    """On digits, under the attack that they are measured with everywhere else."""
    train_split, test = data.load("digits", "train"), data.load("digits", "test")
    images, labels = data.take(test, data.choose(test, 100))
    robust = {}
    for method in ("none", "pgd", "trades"):
        recipe = Recipe(
            epochs=8, train_examples=600, batch_size=32, robust={"method": method, "epsilon": 0.15, "steps": 3}
        )
        model = training.trained(recipe, train_split).requires_grad_(False)
        robust[method] = 1 - float(pgd(model, images, labels, epsilon=0.15, steps=10).success.double().mean())
        assert training.score(model, test)[1] > 0.9
    assert robust["pgd"] > robust["none"] + 0.2
    assert robust["trades"] > robust["none"] + 0.2

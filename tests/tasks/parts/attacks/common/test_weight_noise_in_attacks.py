"""An attack with weight noise faces the networks that it should.

Also that company does not matter, closed forms, and what is counted.

Of a linear model of two classes, with each weight times 1 + sigma n, the margin at x is normal: its
mean is the reference's, its variance sigma^2 (sum_ij W_ij^2 x_j^2 + sum_i b_i^2).
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy.stats import norm as gaussian
from torch import Tensor, nn

from tasks.parts.artifacts.common import attack_functions, attack_settings
from tasks.parts.attacks.alma import alma
from tasks.parts.attacks.apgd import apgd
from tasks.parts.attacks.auto import auto
from tasks.parts.attacks.class_probability import class_probability
from tasks.parts.attacks.common.result import AttackResult
from tasks.parts.attacks.common.security_curve import security_curve
from tasks.parts.attacks.common.weight_noise import NoisyNetwork, unseen_share, with_weight_noise
from tasks.parts.attacks.ddn import ddn
from tasks.parts.attacks.fmn import fmn
from tasks.parts.attacks.pgd import pgd
from tasks.parts.attacks.square import square
from tasks.parts.data import load as data
from tasks.parts.losses import cross_entropy, joint
from tasks.parts.models import build as models
from tasks.parts.models import spaces
from tasks.parts.models.classifier import Classifier
from tasks.parts.noise.weight_noise import noisy_copy, noisy_weights
from tasks.parts.randomness import torch_generator
from tasks.parts.settings import UserError

SEARCHES: list[tuple[Callable[..., AttackResult], dict[str, Any]]] = [
    (pgd, {"epsilon": 0.12, "steps": 6, "restarts": 2}),
    (apgd, {"epsilon": 0.5, "norm": "L2", "steps": 8, "restarts": 2}),
    (fmn, {"norm": "L2", "steps": 8, "halvings": 4}),
    (ddn, {"steps": 8, "halvings": 4}),
    (alma, {"steps": 8, "halvings": 4}),
    (square, {"epsilon": 0.35, "queries": 15}),
    (class_probability, {"steps": 8, "objective": "log_probability"}),
]
every_search = pytest.mark.parametrize(("attack", "how"), SEARCHES, ids=[attack.__name__ for attack, _ in SEARCHES])


def noisy(
    attack: Callable[..., AttackResult],
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    sigma: float,
    draws: int = 1,
    seed: int = 0,
    unseen: int = 16,
    batch: int | None = None,
    classify: Callable[[Tensor], Tensor] | None = None,
    **arguments: Any,
) -> tuple[AttackResult, Tensor]:
    """A search with weight noise, the seed being the attack's too, and the share of unseen networks
    that its points fool.
    """
    keyed = {"seed": seed} if "seed" in inspect.signature(attack).parameters else {}
    search = with_weight_noise(attack, model, sigma, draws, seed)
    found = search(model if classify is None else classify, images, labels, batch=batch, **keyed, **arguments)
    points, how = (
        images + found.perturbation,
        {"targets": arguments.get("targets"), "batch": batch, "classify": classify},
    )
    return found, unseen_share(model, points, labels, sigma=sigma, draws=unseen, seed=seed, **how)


@pytest.fixture(scope="module")
def digits(convnet: Classifier) -> tuple[Tensor, Tensor]:
    """Some digits, the last two with a label that is not the network's."""
    images, labels = data.take(data.load("digits", "test"), range(12))
    labels[-2:] = (convnet(images[-2:]).argmax(1) + 1) % 10
    assert (convnet(images).argmax(1) == labels).tolist() == [True] * 10 + [False] * 2
    return images, labels


def normalised() -> nn.Module:
    """A small network with batch normalisation, whose parameters are no longer their first ones."""
    model = models.build("resnet20", (3, 8, 8), 4, options={"width": 4}).eval()
    with torch.no_grad():
        for number, p in enumerate(model.parameters()):
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(number)))
    return model.requires_grad_(False)


def linear() -> tuple[nn.Module, Tensor, Tensor]:
    """Two classes and images amid the box."""
    generator = torch.Generator().manual_seed(5)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).requires_grad_(False).eval()
    model[1].weight.copy_(torch.randn(2, 16, generator=generator))
    points = 0.5 + 0.05 * torch.randn(20, 1, 4, 4, generator=generator)
    model[1].bias.copy_(-model[1].weight.sum(1) / 2)
    return model, points, model(points).argmax(1)


def same(found: AttackResult, other: AttackResult) -> bool:
    return all(torch.equal(getattr(found, field), getattr(other, field)) for field in vars(found))


def at_drawn_weights(model: nn.Module, sigma: float, generator: torch.Generator, x: Tensor) -> Tensor:
    """The logits of a copy of the network into which noise is written: the slow twin."""
    twin = copy.deepcopy(model).requires_grad_(True)
    with noisy_weights(twin, sigma, generator):
        return twin(x).detach()


# -------------------------------------------------------------------------------------------------
# noisy networks


def test_each_call_and_draw_has_the_weights_of_its_key_and_the_network_stays_as_it_is() -> None:
    model, x = normalised(), torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    one, three = NoisyNetwork(model, 0.2, seed=4), NoisyNetwork(model, 0.2, 3, seed=4)
    seen = []
    for call in range(2):
        logits = three(x)
        assert logits.shape == (5, 3, 4)
        for draw in range(3):
            wanted = at_drawn_weights(model, 0.2, torch_generator(4, "weights of a search", call, draw), x)
            assert torch.allclose(logits[:, draw], wanted, atol=1e-5)
            seen.append(wanted)
        assert torch.equal(one(x), logits[:, 0])
    assert all(not torch.allclose(a, b, atol=1e-3) for i, a in enumerate(seen) for b in seen[:i])
    assert (one.calls, three.calls) == (2, 2)
    assert not torch.allclose(NoisyNetwork(model, 0.2, seed=5)(x), seen[0], atol=1e-3)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(p.requires_grad for p in model.parameters())
    with torch.inference_mode():
        assert torch.equal(NoisyNetwork(model, 0.2, seed=4)(x), NoisyNetwork(model, 0.2, 3, seed=4)(x)[:, 0])


def test_noise_leaves_normalisation_layers_out_whether_or_not_weights_are_trainable() -> None:
    model = normalised()
    drawn = noisy_copy(model, 0.1, torch.Generator().manual_seed(0))
    names = {name for name, p in model.named_parameters() if p.ndim > 1 or "linear" in name}
    assert set(drawn) == names
    assert all(not torch.equal(value, model.get_parameter(name)) for name, value in drawn.items())


def test_gradients_are_those_of_the_noisy_networks_and_none_flows_through_the_reference() -> None:
    model, x = normalised(), torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1)).requires_grad_(True)
    labels = torch.tensor([0, 1, 2, 3])
    network = NoisyNetwork(model, 0.1, 2, seed=1, with_reference=True)
    logits = network(x)
    assert torch.equal(logits[:, 0], model(x))
    assert logits.shape == (4, 3, 4)
    (gradient,) = torch.autograd.grad(cross_entropy(logits.flatten(0, 1), labels.repeat_interleave(3)).sum(), x)
    wanted = torch.zeros_like(x)
    for draw in range(2):
        twin = copy.deepcopy(model).requires_grad_(True)
        point = x.detach().clone().requires_grad_(True)
        with noisy_weights(twin, 0.1, torch_generator(1, "weights of a search", 0, draw)):
            (one,) = torch.autograd.grad(cross_entropy(twin(point), labels).sum(), point)
        wanted = wanted + one
    assert torch.allclose(gradient, wanted, rtol=1e-3, atol=1e-5)


def test_the_margin_of_a_linear_model_is_normal() -> None:
    model, x, labels = linear()
    sigma, draws = 0.2, 400
    share = unseen_share(model, x, labels, sigma=sigma, draws=draws, seed=3)
    weight, bias = model[1].weight.double(), model[1].bias.double()
    logits = model(x).double()
    margin = logits.gather(1, 1 - labels[:, None])[:, 0] - logits.gather(1, labels[:, None])[:, 0]
    spread = sigma * ((x.double().flatten(1) ** 2) @ (weight**2).sum(0) + (bias**2).sum()).sqrt()
    wanted = torch.from_numpy(gaussian.cdf((margin / spread).numpy()))
    assert float(wanted.min()) > 0.05
    assert float(wanted.max()) < 0.5
    deviation = (share.double() - wanted) / (wanted * (1 - wanted) / draws).sqrt()
    assert float(deviation.abs().max()) < 4
    assert torch.equal(unseen_share(model, x[7:9], labels[7:9], sigma=sigma, draws=draws, seed=3), share[7:9])
    aimed = unseen_share(model, x, labels, targets=1 - labels, sigma=sigma, draws=draws, seed=3, batch=3)
    assert torch.equal(aimed, share)


# -------------------------------------------------------------------------------------------------
# searches


@every_search
def test_without_noise_it_is_the_plain_search(
    attack: Callable[..., AttackResult], how: dict[str, Any], convnet: Classifier, digits: tuple[Tensor, Tensor]
) -> None:
    keyed = {"seed": 3} if attack not in (fmn, ddn, alma) else {}
    plain = attack(convnet, *digits, batch=5, **keyed, **how)
    found, share = noisy(attack, convnet, *digits, sigma=0, draws=3, seed=3, batch=5, **how)
    assert same(found, plain)
    assert share.tolist() == plain.success.float().tolist()


@every_search
def test_the_same_rows_in_any_company_and_batch(
    attack: Callable[..., AttackResult],
    how: dict[str, Any],
    convnet: Classifier,
    digits: tuple[Tensor, Tensor],
) -> None:
    images, labels = digits

    def search(rows: list[int], batch: int | None = None) -> tuple[AttackResult, Tensor]:
        keyed = {"ids": rows} if attack not in (fmn, ddn, alma) else {}
        common = {"sigma": 0.1, "draws": 1 if attack is pgd else 2, "seed": 2, "unseen": 3}
        return noisy(attack, convnet, images[rows], labels[rows], **common, batch=batch, **keyed, **how)

    together, shares = search(list(range(12)))
    assert int(together.success[:10].sum()) > 0
    for pieces, batch in (
        ([[0], [5], [9]], None),
        ([list(range(7)), list(range(7, 12))], None),
        ([[11, 3, 2, 9]], None),
        ([list(range(12))], 5),
    ):
        for rows in pieces:
            found, share = search(rows, batch)
            assert torch.equal(share, shares[rows])
            for field in vars(found):
                assert torch.equal(getattr(found, field), getattr(together, field)[rows]), (field, rows, batch)


@every_search
def test_what_is_said_of_the_points_holds(
    attack: Callable[..., AttackResult], how: dict[str, Any], convnet: Classifier, digits: tuple[Tensor, Tensor]
) -> None:
    images, labels = digits
    before = {name: value.clone() for name, value in convnet.state_dict().items()}
    found, share = noisy(attack, convnet, images, labels, sigma=0.05, draws=1, seed=1, unseen=8, **how)
    moved = images + found.perturbation
    assert moved.min() >= 0
    assert moved.max() <= 1
    assert torch.equal(found.success, convnet(moved).argmax(1) != labels)
    norm = {"pgd": math.inf, "square": math.inf}.get(attack.__name__, 2)
    lengths = torch.linalg.vector_norm(found.perturbation.flatten(1), ord=norm, dim=1)
    assert torch.allclose(found.distance, lengths, atol=1e-6)
    assert not found.perturbation[10:].any()
    assert found.success[10:].all()
    assert found.forwards[10:].tolist() == [1, 1]
    counts = torch.zeros(12)
    for draw in range(8):
        logits = at_drawn_weights(convnet, 0.05, torch_generator(1, "unseen weights", 0, draw), moved)
        counts += logits.argmax(1) != labels
    assert torch.allclose(share, counts / 8, atol=1 / 8 + 1e-6)  # a point on a boundary may be rounded either way
    assert float((share - counts / 8).abs().mean()) < 0.02
    assert all(torch.equal(value, before[name]) for name, value in convnet.state_dict().items())


@pytest.mark.parametrize("draws", [1, 3])
def test_passes_through_single_networks_are_counted(
    draws: int, convnet: Classifier, digits: tuple[Tensor, Tensor]
) -> None:
    images, labels = digits[0][:1], digits[1][:1]
    passes = {"forwards": 0, "backwards": 0}

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = convnet

        def forward(self, x: Tensor) -> Tensor:
            logits = self.network(x)
            passes["forwards"] += 1
            if logits.requires_grad:
                logits.register_hook(self.back)
            return logits

        def back(self, gradient: Tensor) -> None:
            passes["backwards"] += 1

    how: dict[str, Any] = {"epsilon": 0.3, "steps": 5, "stop": "last"}
    found, _ = noisy(pgd, Counting(), images, labels, sigma=0.05, draws=draws, unseen=4, **how)
    assert found.backwards.tolist() == [6 * draws]
    assert found.forwards.tolist() == [1 + 6 * (draws + 1) + 1]
    assert passes["backwards"] == 6 * draws
    assert passes["forwards"] == int(found.forwards) + 4 + 1  # the unseen, and one to see how many networks there are


def test_the_first_step_follows_the_first_noisy_network() -> None:
    model, x = normalised(), torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(2)) * 0.8 + 0.1
    labels = model(x).argmax(1)
    found, _ = noisy(pgd, model, x, labels, sigma=0.2, seed=7, epsilon=1e-4, steps=1, step_size=1e-4, loss="ce")
    twin, point = copy.deepcopy(model).requires_grad_(True), x.clone().requires_grad_(True)
    with noisy_weights(twin, 0.2, torch_generator(7, "weights of a search", 0, 0)):
        (gradient,) = torch.autograd.grad(cross_entropy(twin(point), labels).sum(), point)
    moved = found.perturbation.flatten(1).any(1)
    assert moved.any()
    clear = gradient.abs() > 1e-4 * gradient.abs().amax()
    agree = found.perturbation.sign() == gradient.sign()
    assert agree[moved][clear[moved]].all()


def test_smallest_perturbations_of_a_linear_model_are_never_inside_the_reference() -> None:
    """The reference must be fooled, and the noisy networks too, which costs some length."""
    model, x, labels = linear()
    logits = model(x).double()
    exact = (logits[:, 0] - logits[:, 1]).abs() / (model[1].weight[0] - model[1].weight[1]).double().norm()
    found, share = noisy(fmn, model, x, labels, sigma=0.02, draws=12, seed=0, steps=60)
    assert found.success.all()
    assert (found.distance >= exact - 1e-6).all()
    assert float(((found.distance - exact) / exact).median()) < 1
    nearest = fmn(model, x, labels)
    on_boundary = unseen_share(model, x + nearest.perturbation, labels, sigma=0.02, draws=200)
    assert float(on_boundary.mean()) == pytest.approx(0.5, abs=0.1)  # half of the networks are beyond
    assert float(share.mean()) > 0.7


def test_noisy_points_fool_more_of_the_unseen_networks(convnet: Classifier, digits: tuple[Tensor, Tensor]) -> None:
    images, labels = digits
    how: dict[str, Any] = {"epsilon": 0.25, "steps": 20}
    plain = pgd(convnet, images, labels, **how)
    before = unseen_share(convnet, images + plain.perturbation, labels, sigma=0.3, draws=40, seed=1)
    found, share = noisy(pgd, convnet, images, labels, sigma=0.3, draws=4, seed=1, unseen=40, **how)
    assert plain.success.all()
    assert found.success.all()
    assert float(share.mean()) > float(before.mean()) + 0.05


def test_in_a_hidden_space_only_the_weights_after_it_matter(convnet: Classifier, digits: tuple[Tensor, Tensor]) -> None:
    images, labels = digits
    model = copy.deepcopy(convnet)
    model.magnitudes = spaces.magnitudes(model, images)
    space = spaces.hidden(model, len(model.stages) - 1)
    points = space.encode(images)
    how: dict[str, Any] = {"sigma": 0.1, "seed": 2, "box": space.box, "classify": space.classify}
    found, share = noisy(fmn, model, points, labels, **how)
    assert found.success.all()
    assert found.perturbation.shape == points.shape
    assert 0 < float(share.mean()) < 1
    assert torch.equal(found.success, space.classify(points + found.perturbation).argmax(1) != labels)
    network = NoisyNetwork(model, 0.1, seed=2, classify=space.classify)
    (last,) = [m for m in model.modules() if isinstance(m, nn.Linear)]
    generator = torch_generator(2, "weights of a search", 0, 0)
    drawn = {name.removeprefix("network."): v for name, v in noisy_copy(model, 0.1, generator).items()}
    weight, bias = (next(v for n, v in drawn.items() if v.shape == p.shape) for p in (last.weight, last.bias))
    wanted = (points * space.unit).flatten(1) @ weight.T + bias
    assert torch.allclose(network(points), wanted, atol=1e-4)


def test_several_networks_at_once(convnet: Classifier, digits: tuple[Tensor, Tensor]) -> None:
    images, labels = digits

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = convnet, copy.deepcopy(convnet)
            with torch.no_grad():
                for p in self.other.parameters():
                    p.mul_(1 + 0.2 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([self.one(x), self.other(x)], 1)

    both = Both().eval()
    assert NoisyNetwork(both, 0.1, 3)(images).shape == (12, 6, 10)
    asked: list[tuple[int, ...]] = []

    def loss(logits: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
        asked.append(tuple(logits.shape[1:]))
        return joint("ce", "worst")(logits, labels, targets)

    found, share = noisy(pgd, both, images, labels, sigma=0.1, draws=2, epsilon=0.25, loss=loss)
    assert set(asked) == {(4, 10)}  # two draws of two networks, and not the references
    logits = both(images + found.perturbation)
    assert torch.equal(found.success, (logits.argmax(2) != labels[:, None]).all(1))
    assert int(found.success.sum()) >= 8
    assert share.shape == (12,)


def test_targets_radii_and_starts_go_with_their_examples(convnet: Classifier, digits: tuple[Tensor, Tensor]) -> None:
    images, labels = digits
    targets = (labels + 1 + torch.arange(12) % 5) % 10
    radii = torch.linspace(0.1, 0.4, 12)
    found, share = noisy(
        pgd, convnet, images, labels, sigma=0.05, targets=targets, epsilon=radii, batch=5, unseen=4, start=None
    )
    assert torch.equal(found.success, convnet(images + found.perturbation).argmax(1) == targets)
    assert (found.distance <= radii + 1e-6).all()
    assert int(found.success.sum()) > 0
    for row in (0, 5, 8):
        one = slice(row, row + 1)
        alone, alone_share = noisy(
            pgd,
            convnet,
            images[one],
            labels[one],
            sigma=0.05,
            targets=targets[one],
            epsilon=radii[one],
            ids=[row],
            unseen=4,
        )
        assert torch.equal(alone.perturbation[0], found.perturbation[row])
        assert torch.equal(alone_share[0], share[row])


def test_a_ladder_of_radii_with_weight_noise(convnet: Classifier, digits: tuple[Tensor, Tensor]) -> None:
    """The attack with noise is an attack as every other: the curve knows its arguments, and company
    does not matter.
    """
    images, labels = digits
    attack = with_weight_noise(pgd, convnet, 0.1, 2, seed=1)
    assert inspect.signature(attack) == inspect.signature(pgd)
    assert with_weight_noise(pgd, convnet, 0) is pgd
    radii = [0.02, 0.05, 0.1, 0.2, 0.4]
    found, smallest = security_curve(attack, convnet, images, labels, radii, steps=10)
    assert set(smallest.tolist()) <= {*radii, math.inf}
    assert len(set(smallest.tolist())) > 2
    succeeded = smallest.isfinite()
    assert torch.equal(convnet(images + found.perturbation).argmax(1) != labels, succeeded)
    assert (found.distance[succeeded] <= smallest[succeeded] + 1e-6).all()
    for piece in (slice(0, 1), slice(1, 8)):
        ids = list(range(12))[piece]
        alone, radius = security_curve(attack, convnet, images[piece], labels[piece], radii, steps=10, ids=ids)
        assert torch.equal(radius, smallest[piece])
        assert torch.equal(alone.perturbation, found.perturbation[piece])


def test_no_examples(convnet: Classifier) -> None:
    empty, none = torch.zeros(0, 1, 8, 8), torch.zeros(0, dtype=torch.long)
    found, share = noisy(pgd, convnet, empty, none, sigma=0.1, epsilon=0.1)
    assert found.perturbation.shape == (0, 1, 8, 8)
    assert share.shape == (0,)


@pytest.mark.parametrize(
    ("wrong", "says", "field"),
    [
        ({"sigma": -0.1}, r"sigma of at least 0, not -0\.1", "weight_noise.sigma"),
        ({"sigma": math.nan}, "sigma of at least 0, not nan", "weight_noise.sigma"),
        ({"sigma": 0.1, "draws": 0}, "at least 1 draw a step, not 0", "weight_noise.draws"),
        ({"sigma": 0.1, "unseen": 0}, "at least 1 draw", "weight_noise.draws"),
    ],
)
def test_refused(wrong: dict[str, Any], says: str, field: str, convnet: Classifier) -> None:
    with pytest.raises(UserError, match=says) as caught:
        noisy(pgd, convnet, torch.rand(1, 1, 8, 8), torch.tensor([0]), epsilon=0.1, **wrong)
    assert caught.value.field == field


def test_an_ensemble_of_attacks_is_refused(convnet: Classifier, digits: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(UserError, match=r"auto runs attacks in turn.*pgd, apgd, fmn") as caught:
        noisy(auto, convnet, *digits, sigma=0.1, epsilon=0.1)
    assert caught.value.field == "weight_noise.sigma"
    found, _ = noisy(auto, convnet, *digits, sigma=0, epsilon=0.1, steps=5, queries=10)
    assert found.success[10:].all()


def test_every_attack_was_tried_with_noise() -> None:
    there = set(attack_functions.names())
    with_noise = {name for name in there if attack_settings.Attack(name=name).capabilities.weight_noise}
    assert with_noise == {attack.__name__ for attack, _ in SEARCHES}


def test_a_network_without_weights_is_refused() -> None:
    with pytest.raises(UserError, match="no weights that take noise"):
        NoisyNetwork(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4)), 0.1)

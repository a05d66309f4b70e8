"""Attacks in latent and hidden spaces find the exact distances of linear models."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from linear_autoencoder import Principal
from staged_networks import digits_in_a_plane, noise, residual_network
from torch import Tensor, nn

from tasks.parts.attacks.apgd import apgd
from tasks.parts.attacks.common.result import AttackResult
from tasks.parts.attacks.ddn import ddn
from tasks.parts.attacks.fmn import fmn
from tasks.parts.attacks.pgd import pgd
from tasks.parts.models import spaces
from tasks.parts.models.classifier import Classifier
from tasks.parts.models.spaces import Space

Attack = Callable[..., AttackResult]
WITHIN: list[Attack] = [pgd, apgd]


@pytest.fixture(scope="module")
def resnet() -> Classifier:
    return residual_network()


@pytest.fixture(scope="module")
def digits() -> tuple[Classifier, Tensor, Tensor, Principal]:
    return digits_in_a_plane()


def finds_the_exact_distance(
    space: Space, points: Tensor, labels: Tensor, exact: Tensor, smallest: Sequence[Attack]
) -> None:
    """The smallest perturbations have the exact distance.

    A ball a little larger holds one, and a ball a little smaller holds none.
    """
    for attack in smallest:
        found = attack(space.classify, points, labels, box=space.box)
        assert found.success.all()
        ratio = found.distance / exact
        assert ratio.max() < 1.002, attack.__name__
        assert ratio.min() > 1 - 1e-4, attack.__name__
        assert found.perturbation.shape == points.shape
    for attack in WITHIN:
        for factor, wanted in ((1.01, True), (0.99, False)):
            for row in range(0, len(points), 5):
                one = slice(row, row + 1)
                epsilon = float(exact[row]) * factor
                found = attack(
                    space.classify, points[one], labels[one], epsilon=epsilon, norm="L2", loss="margin", box=space.box
                )
                assert found.success.tolist() == [wanted], (attack.__name__, row, factor)
                assert float(found.distance) <= epsilon * (1 + 1e-5)


def test_the_latent_space_of_principal_components(digits: tuple[Classifier, Tensor, Tensor, Principal]) -> None:
    """The distance is m / |D w|, in the codes' own units.

    Here w is the difference of the weights, D the orthonormal directions, and m the margin of the
    reconstruction.
    """
    classifier, images, labels, autoencoder = digits

    def model(x: Tensor) -> Tensor:  # 1 against 3
        return classifier(x)[:, [1, 3]]

    layer = next(m for m in classifier.modules() if isinstance(m, nn.Linear))
    w = (layer.weight[1] - layer.weight[3]).double() / float(classifier.std)
    space = spaces.latent(model, autoencoder)
    assert space.unit == autoencoder.magnitude
    assert float(space.encode(images).square().mean().sqrt()) == pytest.approx(1, rel=1e-4)

    points = space.encode(images[(labels == 1) | (labels == 3)][:24])
    assert space.decode is not None
    logits = model(space.decode(points)).double()
    classes = logits.argmax(1)
    assert set(classes.tolist()) == {0, 1}
    exact = (logits[:, 0] - logits[:, 1]).abs() / (autoencoder.directions @ w).norm() / space.unit
    # The nearest point of the boundary is decoded to an image inside the box: nothing is clamped.
    way = (autoencoder.directions @ w) / (autoencoder.directions @ w).norm()
    signed = torch.where(classes == 0, -exact, exact)[:, None] * way
    inner = (points.double() + signed) * space.unit @ autoencoder.directions + autoencoder.mean
    assert inner.min() > 0
    assert inner.max() < 1
    finds_the_exact_distance(space, points, classes, exact, [fmn, ddn])


def test_before_a_linear_last_layer(resnet: Classifier) -> None:
    """The distance is m / |w| of the last layer, in units of the features' magnitude."""
    images = noise(400)
    space = spaces.hidden(resnet, len(resnet.stages) - 1)
    points = space.encode(images)
    logits = space.classify(points).double()
    classes, weight = logits.argmax(1), resnet.network.linear.weight.double()
    least = torch.full((len(images),), math.inf, dtype=torch.float64)
    for other in range(4):
        norms = (weight[classes] - weight[other]).norm(dim=1) * space.unit
        margins = logits.gather(1, classes[:, None])[:, 0] - logits[:, other]
        least = torch.where(classes == other, least, torch.minimum(least, margins / norms))
    rows = torch.arange(12)
    assert len(set(classes[rows].tolist())) > 2
    finds_the_exact_distance(space, points[rows], classes[rows], least[rows], [fmn])


def test_an_attack_in_the_middle_of_a_residual_network(resnet: Classifier) -> None:
    space = spaces.hidden(resnet, "layer2.0")
    points = space.encode(noise(6))
    labels = space.classify(points).argmax(1)
    for attack in (fmn, ddn):
        found = attack(space.classify, points, labels, box=space.box)
        assert found.success.all()
        assert torch.equal(found.success, space.classify(points + found.perturbation).argmax(1) != labels)
        shorter = space.classify(points + 0.97 * found.perturbation).argmax(1) == labels
        assert shorter.all()  # the boundary, along the way


# --- residuals


def test_the_residual_is_the_distance_from_the_plane(digits: tuple[Classifier, Tensor, Tensor, Principal]) -> None:
    model, images, _, autoencoder = digits
    directions = autoencoder.directions
    away = images.double().flatten(1) - autoencoder.mean
    wanted = (away - away @ directions.T @ directions).norm(dim=1)
    assert wanted.min() > 0.05
    assert torch.allclose(spaces.off_manifold(autoencoder, images).double(), wanted, atol=1e-5)
    assert torch.allclose(spaces.pixels(model, autoencoder).residual(images).double(), wanted, atol=1e-5)
    space = spaces.latent(model, autoencoder)
    assert space.residual(space.encode(images)).max() < 1e-5  # what was decoded is in the plane


def test_an_attack_in_pixels_leaves_the_plane_by_a_known_distance_and_one_in_its_codes_does_not(
    digits: tuple[Classifier, Tensor, Tensor, Principal],
) -> None:
    """From a point of the plane the shortest way is m w / |w|^2.

    It leads away from the plane by m |w - D^T D w| / |w|^2.
    """
    classifier, images, labels, autoencoder = digits

    def model(x: Tensor) -> Tensor:
        return classifier(x)[:, [1, 3]]

    layer = next(m for m in classifier.modules() if isinstance(m, nn.Linear))
    w = (layer.weight[1] - layer.weight[3]).double()  # normalisation changes its length, not its direction
    away = (w - w @ autoencoder.directions.T @ autoencoder.directions).norm() / w.norm()
    plane = autoencoder.decode(autoencoder.encode(images[(labels == 1) | (labels == 3)][:16])).clamp(0, 1)
    classes = model(plane).argmax(1)
    pixel, latent = spaces.pixels(model, autoencoder), spaces.latent(model, autoencoder)
    assert pixel.residual(plane).max() < 1e-5
    found = fmn(pixel.classify, plane, classes, box=pixel.box)
    ratio = pixel.residual(plane + found.perturbation) / found.distance
    assert torch.allclose(ratio.double(), away.expand(16), rtol=0.01)
    assert away > 0.2
    points = latent.encode(plane)
    onto = fmn(latent.classify, points, classes, box=latent.box)
    assert onto.success.all()
    assert latent.residual(points + onto.perturbation).max() < 1e-5
    assert latent.decode is not None
    further = (latent.decode(points + onto.perturbation) - plane).flatten(1).norm(dim=1)
    assert torch.allclose(further.double() * (1 - away**2).sqrt(), found.distance.double(), rtol=0.01)


def test_far_out_in_the_latent_space_images_are_clamped_and_off_the_plane(
    digits: tuple[Classifier, Tensor, Tensor, Principal],
) -> None:
    model, images, _, autoencoder = digits
    space = spaces.latent(model, autoencoder)
    assert space.decode is not None
    far = 60 * space.encode(images[:8])
    decoded = space.decode(far)
    assert decoded.min() == 0
    assert decoded.max() == 1
    assert torch.equal(space.classify(far), model(decoded))
    again = (decoded.double().flatten(1) - autoencoder.mean) @ autoencoder.directions.T @ autoencoder.directions
    again = (again + autoencoder.mean).clamp(0, 1)
    wanted = (decoded.double().flatten(1) - again).norm(dim=1)
    assert wanted.min() > 0.01
    assert torch.allclose(space.residual(far).double(), wanted, atol=1e-5)

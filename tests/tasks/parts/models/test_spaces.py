"""Spaces: what goes in comes out, units, closed forms of searches in a linear latent space and before a linear last layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from linear_autoencoder import Principal
from torch import Tensor, nn

from tasks.parts.attacks.apgd import apgd
from tasks.parts.attacks.ddn import ddn
from tasks.parts.attacks.fmn import fmn
from tasks.parts.attacks.pgd import pgd
from tasks.parts.data import load as data
from tasks.parts.models import build as models
from tasks.parts.models import spaces
from tasks.parts.models.classifier import Classifier
from tasks.parts.models.spaces import Space
from tasks.parts.settings import UserError
from tasks.parts.training import training
from tasks.parts.training.recipes import Recipe

SHAPE = (3, 8, 8)


def noise(count: int, seed: int = 0, shape: tuple[int, ...] = SHAPE) -> Tensor:
    return torch.rand((count, *shape), generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def resnet() -> Classifier:
    """A residual network whose shortcuts, halvings and batch normalisation all do something."""
    model = models.build("resnet20", SHAPE, 4, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), options={"width": 4})
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.copy_(torch.randn(module.num_features, generator=generator) / 5)
                module.running_var.copy_(0.5 + torch.rand(module.num_features, generator=generator))
        model.network.linear.weight.mul_(4)
        model.eval().requires_grad_(False)
        model.network.linear.bias -= model(noise(40, 1)).median(0).values  # every class is met
    model.magnitudes = spaces.magnitudes(model, noise(40, 1))
    return model


@pytest.fixture(scope="module")
def digits() -> tuple[Classifier, Tensor, Tensor, Principal]:
    """A linear classifier of digits, some of them, and the plane of the first components, in which nothing touches a wall."""
    recipe, train = Recipe(network="linear", epochs=2), data.load("digits", "train")
    model = training.untrained(recipe, train)
    for _ in training.epochs(recipe, model, train):
        pass
    images, labels = data.take(train, range(300))
    grey = 0.4 + 0.2 * images
    return model.requires_grad_(False), grey, labels, Principal(grey, 12)


# --- spaces


def test_in_pixels_a_point_is_the_image(resnet: Classifier) -> None:
    space, x = spaces.pixels(resnet), noise(3)
    assert (space.name, space.box, space.unit) == ("pixel", (0.0, 1.0), 1.0)
    assert torch.equal(space.encode(x), x)
    assert space.decode is not None
    assert torch.equal(space.decode(x), x)
    assert torch.equal(space.classify(x), resnet(x))
    assert space.residual(x).isnan().tolist() == [True] * 3


def test_every_hidden_point_of_an_image_has_its_logits(resnet: Classifier) -> None:
    x = noise(5)
    for k in range(len(resnet.stages) + 1):
        space = spaces.hidden(resnet, k)
        assert torch.allclose(space.classify(space.encode(x)), resnet(x), atol=1e-5), k
        named = spaces.hidden(resnet, resnet.stages[k - 1]) if k else spaces.hidden(resnet, "0")
        assert torch.equal(named.encode(x), space.encode(x))
    assert spaces.hidden(resnet, 0).box == (0.0, 1.0)
    assert spaces.hidden(resnet, 1).box == (-math.inf, math.inf)
    assert spaces.hidden(resnet, "layer1.0").name == "hidden:layer1.0"
    assert spaces.hidden(resnet, 2).decode is None
    assert spaces.hidden(resnet, 2).residual(x).isnan().all()


def test_gradients_reach_hidden_points_and_nothing_is_written_to(resnet: Classifier) -> None:
    for k in (1, 3, len(resnet.stages) - 1):
        space = spaces.hidden(resnet, k)
        points = space.encode(noise(4)).requires_grad_(True)
        before = points.detach().clone()
        (gradient,) = torch.autograd.grad(space.classify(points)[:, 0].sum(), points)
        assert gradient.abs().sum() > 0
        assert torch.equal(points, before)


def test_hidden_points_have_a_root_mean_square_of_one(resnet: Classifier) -> None:
    x = noise(40, 1)
    for k, size in enumerate(resnet.magnitudes, 1):
        assert size == pytest.approx(float(resnet.head(x, k).double().square().mean().sqrt()), rel=1e-5)
        points = spaces.hidden(resnet, k).encode(x)
        assert float(points.square().mean().sqrt()) == pytest.approx(1, rel=1e-5)
        assert spaces.hidden(resnet, k).unit == size


def test_magnitudes_do_not_depend_on_the_batch_and_leave_a_network_without_stages_alone(resnet: Classifier) -> None:
    assert spaces.magnitudes(resnet, noise(40, 1), batch=7) == pytest.approx(resnet.magnitudes, rel=1e-6)

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(192, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x.flatten(1)) if bool(x.sum() > -1) else x  # which cannot be traced

    assert spaces.magnitudes(Classifier(Odd(), SHAPE, 2).eval(), noise(4)) == ()
    with pytest.raises(ValueError, match="no images"):
        spaces.magnitudes(resnet, noise(0))


def test_what_a_hidden_space_needs(resnet: Classifier) -> None:
    bare = models.build("resnet20", SHAPE, 4, options={"width": 4}).eval()
    with pytest.raises(UserError, match=r"hidden:2 is unknown.*spaces\.magnitudes\(model, training images\)") as caught:
        spaces.hidden(bare, 2)
    assert caught.value.field == "space"
    assert spaces.hidden(bare, 0).name == "pixel"
    bare.magnitudes = (1.0, 2.0)
    with pytest.raises(UserError, match=f"2 magnitudes for {len(bare.stages)} stages"):
        spaces.hidden(bare, 2)
    bare.magnitudes = (0.0,) * len(bare.stages)
    with pytest.raises(UserError, match=r"hidden:2 cannot be searched.*0\.0"):
        spaces.hidden(bare, 2)
    with pytest.raises(UserError, match=r"no stage 'layr1\.0'.*did you mean layer1\.0") as caught:
        spaces.hidden(resnet, "layr1.0")
    assert caught.value.field == "space"


# --- names


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("pixel", ("pixel", None)),
        ("latent", ("latent", None)),
        ("hidden:0", ("hidden", 0)),
        ("hidden:12", ("hidden", 12)),
        ("hidden: layer2.0", ("hidden", "layer2.0")),
    ],
)
def test_names(text: str, parsed: tuple[str, Any]) -> None:
    assert spaces.parse(text) == parsed


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("pixels", r"unknown space 'pixels'; pixel, latent or hidden:<k>.*; did you mean pixel\?"),
        ("hiden:3", r"did you mean hidden:3\?"),
        ("hidden", "names no stage"),
        ("hidden:", "names no stage"),
        ("pixel:1", "unknown space"),
        ("latent:2", "unknown space"),
        ("", r"unknown space ''; pixel, latent or hidden:<k> with k the number or the name of a stage$"),
    ],
)
def test_wrong_names(text: str, says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        spaces.parse(text)
    assert caught.value.field == "space"


def test_the_space_of_a_name(resnet: Classifier, digits: tuple[Classifier, Tensor, Tensor, Principal]) -> None:
    x = noise(2)
    assert torch.equal(spaces.of("hidden:3", resnet).encode(x), spaces.hidden(resnet, 3).encode(x))
    assert spaces.of("pixel", resnet).name == "pixel"
    model, grey, _, autoencoder = digits
    assert spaces.of("latent", model, autoencoder).name == "latent"
    wanted = spaces.off_manifold(autoencoder, grey)
    assert torch.equal(spaces.of("pixel", model, autoencoder).residual(grey), wanted)
    with pytest.raises(UserError, match="no autoencoder") as caught:
        spaces.of("latent", resnet)
    assert caught.value.field == "space"


# --- closed forms


Search = Callable[..., Any]
WITHIN: list[Search] = [pgd, apgd]


def finds_the_exact_distance(
    space: Space, points: Tensor, labels: Tensor, exact: Tensor, smallest: Sequence[Search]
) -> None:
    """Smallest perturbations are the exact ones; a ball a little larger holds one, a ball a little smaller holds none."""
    for search in smallest:
        found = search(space.classify, points, labels, box=space.box)
        assert found.success.all()
        ratio = found.distance / exact
        assert ratio.max() < 1.002, search.__name__
        assert ratio.min() > 1 - 1e-4, search.__name__
        assert found.perturbation.shape == points.shape
    for search in WITHIN:
        for factor, wanted in ((1.01, True), (0.99, False)):
            for row in range(0, len(points), 5):
                one = slice(row, row + 1)
                epsilon = float(exact[row]) * factor
                found = search(
                    space.classify, points[one], labels[one], epsilon=epsilon, norm="L2", loss="margin", box=space.box
                )
                assert found.success.tolist() == [wanted], (search.__name__, row, factor)
                assert float(found.distance) <= epsilon * (1 + 1e-5)


def test_the_latent_space_of_principal_components(digits: tuple[Classifier, Tensor, Tensor, Principal]) -> None:
    """With weight difference w and orthonormal directions D, margin m of the reconstruction: m / |D w| in the codes' own units."""
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
    # the nearest point of the boundary is decoded to an image within the box, so that no clamping
    # is in the way
    way = (autoencoder.directions @ w) / (autoencoder.directions @ w).norm()
    signed = torch.where(classes == 0, -exact, exact)[:, None] * way
    inner = (points.double() + signed) * space.unit @ autoencoder.directions + autoencoder.mean
    assert inner.min() > 0
    assert inner.max() < 1
    finds_the_exact_distance(space, points, classes, exact, [fmn, ddn])


def test_before_a_linear_last_layer(resnet: Classifier) -> None:
    """The features' numbers are free: m / |w| of the last layer, in units of the features' magnitude."""
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


def test_a_search_in_the_middle_of_a_residual_network(resnet: Classifier) -> None:
    space = spaces.hidden(resnet, "layer2.0")
    points = space.encode(noise(6))
    labels = space.classify(points).argmax(1)
    for search in (fmn, ddn):
        found = search(space.classify, points, labels, box=space.box)
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


def test_a_search_in_pixels_leaves_the_plane_by_what_is_known_and_one_in_its_codes_does_not(
    digits: tuple[Classifier, Tensor, Tensor, Principal],
) -> None:
    """From a point of the plane the shortest way is m w / |w|^2, of which the plane does not hold m |w - D^T D w| / |w|^2."""
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


def test_a_latent_space_needs_a_unit(digits: tuple[Classifier, Tensor, Tensor, Principal]) -> None:
    model, images, _, autoencoder = digits

    class Bare:
        encode, decode = staticmethod(autoencoder.encode), staticmethod(autoencoder.decode)

    with pytest.raises(UserError, match=r"unit=, as spaces\.magnitude\(autoencoder\.encode") as caught:
        spaces.latent(model, Bare())
    assert caught.value.field == "space"
    unit = spaces.magnitude(autoencoder.encode, images, batch=7)
    assert unit == pytest.approx(autoencoder.magnitude, rel=1e-5)
    assert torch.allclose(spaces.latent(model, Bare(), unit=2.0).encode(images), autoencoder.encode(images) / 2)
    with pytest.raises(UserError, match="cannot be searched"):
        spaces.latent(model, Bare(), unit=0.0)

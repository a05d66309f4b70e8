"""Spaces: points and images, units, names."""

from __future__ import annotations

import math

import pytest
import torch
from linear_autoencoder import Principal
from staged_networks import SHAPE, digits_in_a_plane, noise, residual_network
from torch import Tensor, nn

from tasks.parts.models import build as models
from tasks.parts.models import spaces
from tasks.parts.models.classifier import Classifier
from tasks.parts.settings import UserError


@pytest.fixture(scope="module")
def resnet() -> Classifier:
    return residual_network()


@pytest.fixture(scope="module")
def digits() -> tuple[Classifier, Tensor, Tensor, Principal]:
    return digits_in_a_plane()


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
    with pytest.raises(UserError, match=r"hidden:2 has no unit.*0\.0"):
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
def test_names(text: str, parsed: tuple[str, object]) -> None:
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
    with pytest.raises(UserError, match="has no unit"):
        spaces.latent(model, Bare(), unit=0.0)

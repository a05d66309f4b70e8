"""What tests of networks share: images, networks as if trained, and stages that must add up."""

from __future__ import annotations

import torch
from linear_autoencoder import Principal
from torch import Tensor, nn

from tasks.parts.data import load as data
from tasks.parts.models import build as models
from tasks.parts.models import spaces
from tasks.parts.models.checkpoints import last_layer
from tasks.parts.models.classifier import Classifier
from tasks.parts.training import training
from tasks.parts.training.recipes import Recipe

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
SHAPE = (3, 8, 8)
"""Of the images of the residual network that tests of spaces share."""


def assert_stages_add_up(model: models.Classifier, x: Tensor, step: int = 1) -> None:
    """tail(head(x, k), k) == model(x) for every `step`-th k.

    Spaces are the same by number and by name, and both ends are the images and the logits.
    """
    with torch.no_grad():
        wanted = model(x)
        assert len(set(model.stages)) == len(model.stages)
        assert model.head(x, 0) is x
        for k in range(0, len(model.stages) + 1, step):
            h = model.head(x, k)
            before = h.clone()
            torch.testing.assert_close(model.tail(h, k), wanted, atol=1e-5, rtol=1e-5)
            assert torch.equal(h, before), f"the tail of stage {k} wrote into its input"
        torch.testing.assert_close(model.head(x, len(model.stages)), wanted, atol=1e-5, rtol=1e-5)
        name = model.stages[len(model.stages) // 2]
        assert torch.equal(model.head(x, name), model.head(x, model.stages.index(name) + 1))


def images(*shape: int) -> Tensor:
    """Images of noise, always the same."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def noise(count: int, seed: int = 0, shape: tuple[int, ...] = SHAPE) -> Tensor:
    """Images of noise (count, *shape), the same for one seed."""
    return torch.rand((count, *shape), generator=torch.Generator().manual_seed(seed))


def as_if_trained(model: models.Classifier, x: Tensor) -> models.Classifier:
    """The network in evaluation mode, with the statistics of x in its batch normalisation.

    Its logits are neither all tiny nor all zero.
    """
    torch.manual_seed(2)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
    last = model.network.get_submodule(last_layer(model.network, model.classes))
    nn.init.normal_(last.weight, std=last.weight[0].numel() ** -0.5)
    with torch.no_grad():
        model.train()(x)
        assert model.eval()(x).std(0).max() > 1e-3
    return model


def residual_network() -> Classifier:
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


def digits_in_a_plane() -> tuple[Classifier, Tensor, Tensor, Principal]:
    """A linear classifier of digits, some digits, and the plane of their first components.

    The digits are grey enough for no pixel to reach 0 or 1 in the plane.
    """
    recipe, train = Recipe(network="linear", epochs=2), data.load("digits", "train")
    model = training.untrained(recipe, train)
    for _ in training.epochs(recipe, model, train):
        pass
    images, labels = data.take(train, range(300))
    grey = 0.4 + 0.2 * images
    return model.requires_grad_(False), grey, labels, Principal(grey, 12)

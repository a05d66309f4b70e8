"""torchvision's classification networks, by their names there, for any images and classes."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import torchvision.models
from torch import nn

from tasks.parts.models.checkpoints import last_layer
from tasks.parts.settings import UserError

# Arguments that a recipe decides elsewhere.
_DECIDED = {"self", "weights", "progress", "num_classes", "aux_logits", "init_weights", "image_size", "input_size"}


def names() -> list[str]:
    """The names of the classification networks.

    Networks for detection, segmentation or video are not among them, nor quantised ones.

    >>> {"resnet18", "vit_b_16", "alexnet"} <= set(names())
    True
    """
    return torchvision.models.list_models(module=torchvision.models)


def builder(name: str) -> Callable[..., nn.Module]:
    """The function of torchvision's that makes a network."""
    return torchvision.models.get_model_builder(name)


def options(name: str) -> set[str]:
    """The numeric arguments of a network's function and class, as far as they are options.

    >>> sorted(options("vgg11"))
    ['dropout']
    """
    function = inspect.signature(builder(name))
    network = inspect.signature(function.return_annotation)
    simple = [
        p.name
        for p in [*function.parameters.values(), *network.parameters.values()]
        if p.annotation in (int, float, bool)
    ]
    return set(simple) - _DECIDED


def build(
    name: str, shape: tuple[int, int, int], classes: int, *, pretrained: bool = False, **kwargs: object
) -> nn.Module:
    """A network from normalised images (B, 3, H, W) to logits (B, classes).

    Whoever calls the network for grey images repeats their channel.

    Args:
        name: one of `names()`.
        shape: (channels, height, width) of the images, with 1 or 3 channels.
        classes: the number of classes.
        pretrained: torchvision's default weights, downloaded where torch's cache does not have
            them. The last layer is made anew unless there are 1000 classes.
        kwargs: values of the `options(name)`.

    Raises:
        UserError: another number of channels, a shape the network cannot have, or weights that
            could not be downloaded.
    """
    if shape[0] not in (1, 3):
        raise UserError(f"{name} takes images with 1 or 3 channels, not {shape[0]}", "network")
    if name.startswith("vit_"):
        if shape[1] != shape[2]:
            raise UserError(f"{name} takes square images, not {shape[1]}x{shape[2]}", "network")
        kwargs["image_size"] = shape[1]
    if name.startswith("maxvit"):
        kwargs["input_size"] = shape[1:]
    if not pretrained:
        if name in ("googlenet", "inception_v3"):
            kwargs |= {"aux_logits": False, "init_weights": True}
        return builder(name)(num_classes=classes, **kwargs)
    try:
        network = builder(name)(weights="DEFAULT", progress=False, **kwargs)
    except OSError as error:  # all that urllib raises
        raise UserError(
            f"the weights of {name} could not be downloaded ({error}); put the file into torch's cache "
            "($TORCH_HOME/hub/checkpoints), or name the file instead of DEFAULT",
            "weights",
        ) from error
    for attribute, off in (("aux1", None), ("aux2", None), ("AuxLogits", None), ("aux_logits", False)):
        if hasattr(network, attribute):  # heads that return their own logits in training
            setattr(network, attribute, off)
    if classes != 1000:
        path = last_layer(network, 1000)
        parent, _, attribute = path.rpartition(".")
        setattr(network.get_submodule(parent), attribute, _like(network.get_submodule(path), classes))
    return network


def _like(layer: nn.Module, classes: int) -> nn.Module:
    """A new layer of the same kind with another number of outputs.

    A convolution that makes logits is 1 x 1.
    """
    bias = layer.bias is not None
    if isinstance(layer, nn.Conv2d):
        return nn.Conv2d(layer.in_channels, classes, kernel_size=1, bias=bias)
    assert isinstance(layer, nn.Linear)
    return nn.Linear(layer.in_features, classes, bias=bias)

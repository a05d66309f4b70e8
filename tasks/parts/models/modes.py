"""The modules of a network, and whether they are in training or in evaluation mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Puts the network into evaluation mode. On leaving, every module returns to its own mode."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def all_modules(network: nn.Module) -> list[nn.Module]:
    """The network and all modules in it. A module that is in several places is listed for each.

    The order depends only on how the network is built. This is much cheaper than
    `network.modules()`, which matters where a training step takes a millisecond.
    """
    found = [network]
    for module in found:  # the list grows during the loop
        if module._modules:
            found += [child for child in module._modules.values() if child is not None]
    return found

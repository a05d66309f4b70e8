"""Weights of a network from a file, whoever saved it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from tasks.parts.settings import UserError

_WRAPPERS = ("state_dict", "model", "net")  # keys under which a checkpoint may keep the state dict
# Heads that GoogLeNet and Inception use only in training, and that are never built here.
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
_SHOWN = 5  # names that a message lists


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Loads a file's state dict into a classifier or a bare network, all of it or not at all.

    The file holds the state dict itself, or a mapping with the state dict under `state_dict`,
    `model` or `net`. It may have been saved from a classifier or from a bare network. A prefix
    `module.` or `_orig_mod.` of all names is dropped.

    Args:
        model: the classifier or network.
        path: the file.

    Raises:
        UserError: the file is missing, is no state dict, does not match the model, or holds numbers
            that are not finite. The message lists what is wrong.
    """
    stored = _read(Path(path).expanduser())
    for prefix in ("module.", "_orig_mod.", "module."):
        if all(key.startswith(prefix) for key in stored):
            stored = {key.removeprefix(prefix): value for key, value in stored.items()}
    wanted = model.state_dict()
    # The normalisation of a classifier is no part of a bare network's state dict.
    own = {key: value for key, value in wanted.items() if key in ("mean", "std")}
    outer = own | {f"network.{key}": value for key, value in stored.items()}
    inner = {key.removeprefix("network."): value for key, value in stored.items() if key.startswith("network.")}
    stored = max((stored, outer, inner), key=lambda state: len(state.keys() & wanted.keys() - own.keys()))
    stored = {key: value for key, value in stored.items() if not key.removeprefix("network.").startswith(_AUXILIARY)}

    # Counters of batch normalisation: files from before 2018 lack them, and few networks use them.
    optional = {key for key in wanted if key.endswith("num_batches_tracked")}
    wrong = [
        _listed("missing", sorted(wanted.keys() - stored.keys() - optional)),
        _listed("unexpected", sorted(stored.keys() - wanted.keys())),
        _listed(
            "wrong shape",
            [
                f"{key} ({'x'.join(map(str, stored[key].shape))}, not {'x'.join(map(str, wanted[key].shape))})"
                for key in wanted
                if key in stored and stored[key].shape != wanted[key].shape
            ],
        ),
    ]
    if any(wrong):
        raise UserError(f"{path} does not match the network: {'; '.join(filter(None, wrong))}", "weights")
    if unsound := [key for key, value in stored.items() if not _sound(value, wanted[key])]:
        listed = _listed("not finite (NaN or infinite):", unsound)
        raise UserError(f"{path} has numbers that are {listed}", "weights")
    model.load_state_dict({key: wanted[key] for key in optional} | stored)


def _read(path: Path) -> dict[str, Tensor]:
    """The state dict in a file, without running any code that the file may hold."""
    if not path.is_file():
        raise UserError(f"no such weights file: '{path}'", "weights")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file that is no checkpoint can fail in any way
        raise UserError(f"{path} is not a checkpoint of tensors alone that torch can read", "weights") from error
    for wrapper in _WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(wrapper), Mapping):
            found = found[wrapper]
    if not isinstance(found, Mapping) or not found or not all(isinstance(value, Tensor) for value in found.values()):
        raise UserError(
            f"{path} holds no state dict (names to tensors), neither itself nor under {', '.join(_WRAPPERS)}",
            "weights",
        )
    return {str(key): value for key, value in found.items()}


def _sound(stored: Tensor, own: Tensor) -> bool:
    """Whether all stored numbers are finite in the network's own precision.

    Numbers that are as the network was built with are fine: a mask may hold infinities.
    """
    if not own.is_floating_point():
        return True
    odd = ~stored.to(own.dtype).isfinite()
    return not bool(odd.any()) or (not own.is_meta and torch.equal(stored[odd].to(own), own[odd]))


def _listed(what: str, keys: list[str]) -> str:
    """`missing a, b, c and 7 more`; empty without keys."""
    if not keys:
        return ""
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return f"{what} {', '.join(keys[:_SHOWN])}{more}"


def last_layer(network: nn.Module, classes: int) -> str:
    """The path of the layer that makes the logits.

    It is the last linear layer or convolution with as many outputs as there are classes.

    Raises:
        UserError: there is none.

    >>> last_layer(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), 10)
    '1'
    """
    for path, module in reversed(list(network.named_modules())):
        if getattr(module, "out_features", getattr(module, "out_channels", None)) == classes:
            return path
    raise UserError(f"the network has no linear layer or convolution with {classes} outputs", "freeze_backbone")

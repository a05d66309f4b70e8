"""The attacks of the adversarial robustness toolbox (ART)."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Mapping
from types import ModuleType

import numpy as np
import torch
from torch import Tensor, nn

from tasks.parts.attacks.common.capabilities import Capabilities
from tasks.parts.attacks.common.libraries.shared import RESERVED, LibraryAttack, Run, imported, refusing
from tasks.parts.geometry.balls import Norm
from tasks.parts.settings import UserError

ORDERS: dict[Norm, float] = {"Linf": math.inf, "L2": 2, "L1": 1}
NORM_OF: dict[str, Norm] = {
    "BasicIterativeMethod": "Linf",
    "CarliniL0Method": "L0",
    "CarliniLInfMethod": "Linf",
    "ElasticNet": "L1",
    "PixelAttack": "L0",
    "SaliencyMapMethod": "L0",
    "ThresholdAttack": "Linf",
}
"""The norm of attacks that have none to choose, where it is not L2."""
NAMES = {
    "norm": "norm",
    "epsilon": "eps",
    "targets": "targeted",
    "batch": "batch_size",
    "steps": "max_iter",
    "step_size": "eps_step",
}
"""Our names of arguments, and theirs."""


def classes() -> dict[str, type]:
    """The classes of ART's attacks, by name."""
    quiet = logging.getLogger("art")
    evasion, base = _module("art.attacks.evasion"), _module("art.attacks.attack")
    if quiet.level in (logging.NOTSET, logging.INFO):
        quiet.setLevel(logging.WARNING)  # it tells of every classifier it is given
    return {
        name: each
        for name, each in vars(evasion).items()
        if inspect.isclass(each) and issubclass(each, base.EvasionAttack) and not inspect.isabstract(each)
    }


def described(name: str, kind: type) -> LibraryAttack:
    """What an attack is like, from the signature of its class."""
    defaults = {
        each.name: None if each.default is each.empty else each.default
        for each in list(inspect.signature(kind).parameters.values())[1:]  # the first is the classifier
        if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    }
    names = {ours: theirs for ours, theirs in NAMES.items() if theirs in defaults}
    own = NORM_OF.get(kind.__name__, "L2")
    norms: tuple[Norm, ...] = ("Linf", "L2", "L1") if "norm" in names else (own,)
    capabilities = Capabilities(
        norms, "fixed" if "epsilon" in names else "smallest", spaces=("pixel",), weight_noise=False
    )
    set_by_us = {names.get(each) for each in ("norm", "epsilon", "targets", "batch")}
    options = {option: value for option, value in defaults.items() if option not in set_by_us | RESERVED}
    return LibraryAttack(name, kind, capabilities, options, names)


def prepare(attack: LibraryAttack, norm: Norm, arguments: Mapping[str, object], batch: int) -> Run:
    """The function that runs the attack on a batch."""
    classification = _module("art.estimators.classification")
    theirs, there = attack.names, inspect.signature(attack.type).parameters

    def run(
        network: nn.Module, images: Tensor, classes: Tensor, count: int, radius: float | None, targeted: bool
    ) -> Tensor:
        given = dict(arguments)
        if "norm" in theirs:
            given["norm"] = ORDERS[norm]
        if radius is not None:
            given[theirs["epsilon"]] = radius
            if "step_size" in theirs and theirs["step_size"] not in given:
                share = there[theirs["step_size"]].default / there[theirs["epsilon"]].default
                given[theirs["step_size"]] = radius * share
        if targeted and "targets" not in theirs:
            raise UserError(f"{attack.name} cannot search towards targets", "targets")
        given |= {theirs[ours]: value for ours, value in (("targets", targeted), ("batch", batch)) if ours in theirs}
        if "verbose" in there:
            given["verbose"] = False
        classifier = classification.PyTorchClassifier(
            network,
            loss=nn.CrossEntropyLoss(),
            input_shape=tuple(images.shape[1:]),
            nb_classes=count,
            clip_values=(0.0, 1.0),
            device_type="gpu" if images.is_cuda else "cpu",
        )
        with refusing(attack.name):
            made = attack.type(classifier, **given)
        return torch.from_numpy(made.generate(images.cpu().numpy().astype(np.float32), classes.cpu().numpy()))

    return run


def _module(name: str) -> ModuleType:
    return imported(name, "art", "adversarial-robustness-toolbox")

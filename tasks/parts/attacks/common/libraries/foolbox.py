"""The attacks of foolbox 3."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from types import ModuleType
from typing import get_args

from torch import Tensor, nn

from tasks.parts.attacks.common.capabilities import Capabilities
from tasks.parts.attacks.common.libraries.shared import RESERVED, LibraryAttack, Run, imported, refusing
from tasks.parts.geometry.balls import Norm
from tasks.parts.settings import UserError

ORDERS: dict[float, Norm] = {math.inf: "Linf", 2: "L2", 1: "L1", 0: "L0"}
NAMES = {"norm": "distance", "steps": "steps", "step_size": "abs_stepsize", "epsilon": "epsilon"}
"""Our names of arguments, and theirs."""


def classes() -> dict[str, type]:
    """The classes of foolbox's attacks, by name."""
    attacks, base = _module("foolbox.attacks"), _module("foolbox.attacks.base")
    kinds = (base.FixedEpsilonAttack, base.MinimizationAttack)
    return {
        name: each
        for name, each in vars(attacks).items()
        if inspect.isclass(each) and issubclass(each, kinds) and not inspect.isabstract(each)
    }


def described(name: str, kind: type) -> LibraryAttack:
    """What an attack is like, from the signature of its class."""
    defaults = {
        each.name: None if each.default is each.empty else each.default
        for each in inspect.signature(kind).parameters.values()
        if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    }
    order = getattr(getattr(kind, "distance", None), "p", None)  # a property where an argument chooses it
    norms: tuple[Norm, ...] = get_args(Norm) if order is None else (ORDERS[order],)
    fixed = issubclass(kind, _module("foolbox.attacks.base").FixedEpsilonAttack)
    capabilities = Capabilities(norms, "fixed" if fixed else "smallest", spaces=("pixel",), weight_noise=False)
    names = {ours: theirs for ours, theirs in NAMES.items() if theirs in defaults}
    options = {option: value for option, value in defaults.items() if option not in RESERVED}
    return LibraryAttack(name, kind, capabilities, options, names)


def prepare(attack: LibraryAttack, norm: Norm, arguments: Mapping[str, object], batch: int) -> Run:
    """The function that runs the attack on a batch, which foolbox takes as it is given."""
    foolbox = _module("foolbox")
    if "norm" in attack.names:
        order = next(order for order, each in ORDERS.items() if each == norm)
        arguments = {**arguments, "distance": foolbox.distances.LpDistance(order)}
    with refusing(attack.name):
        made = attack.type(**arguments)

    def run(
        network: nn.Module, images: Tensor, classes: Tensor, count: int, radius: float | None, targeted: bool
    ) -> Tensor:
        model = foolbox.PyTorchModel(network, bounds=(0, 1), device=images.device)
        criteria = foolbox.criteria
        criterion = (criteria.TargetedMisclassification if targeted else criteria.Misclassification)(classes)
        within = {} if radius is None else {"epsilon": radius}
        try:
            return made.run(model, images, criterion, **within)
        except ValueError as error:
            if "criterion" not in str(error):
                raise
            wanted = "cannot search towards targets" if targeted else "searches towards targets only"
            raise UserError(f"{attack.name} {wanted}", "targets") from error

    return run


def _module(name: str) -> ModuleType:
    return imported(name, "foolbox", "foolbox")

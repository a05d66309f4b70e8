"""How an attack is set: its name, its settings, and what the attack of that name has of them.

An attack is a function in `tasks/parts/attacks/`, found by the name of its file; its signature says which settings it has. The attacks of
other packages go by `foolbox:<class>` and `art:<class>` (`libraries`).
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
from pydantic import Field, ValidationInfo, field_validator, model_validator
from torch import nn

from tasks.parts import attacks
from tasks.parts.attacks.common import libraries
from tasks.parts.attacks.common.result import Found
from tasks.parts.attacks.common.weight_noise import IN_TURN
from tasks.parts.data import load as data
from tasks.parts.geometry.balls import Norm
from tasks.parts.losses import How
from tasks.parts.models import spaces
from tasks.parts.settings import NonNegative, Positive, Settings, UserError, as_number

RADII: dict[str, float] = {"Linf": 0.15, "L2": 1.0, "L1": 5.0, "L0": 20.0}
"""The radius of an attack by norm, where none is given."""
COMMON = ("norm", "epsilon", "steps", "step_size", "restarts", "loss", "stop")
"""Settings that are arguments of an attack's function."""
OURS = {"model", "images", "labels", "ids", "seed", "batch", "targets", "box", "start"}
"""Arguments of an attack's function that are not the user's to set, unless they are one of several words."""


class SearchNoise(Settings):
    """Noise on the weights of the network that a search faces, as in `noisy_search`."""

    sigma: NonNegative = Field(default=0.0, title="weight noise in the search", description="relative to each weight")
    draws: int = Field(default=1, gt=0, description="noisy networks in each step, over which the loss is averaged")


class Attack(Settings):
    """A search for adversarial examples; its name alone stands for one with all else by default.

    What is null is as the attack's own function has it.
    """

    name: str = Field(
        default="pgd", title="attack", description="a file in tasks/parts/attacks, foolbox:<class> or art:<class>"
    )
    norm: Norm | None = Field(default=None, title="norm of the attack", description="of the perturbation")
    epsilon: Positive | None = Field(
        default=None,
        title="attack radius (pixel units)",
        description="largest norm of the perturbation (pixel units; in a hidden space: of its typical magnitude), for the attacks at a"
        f" fixed radius; by norm where null: {RADII}",
    )
    steps: int | None = Field(default=None, gt=0, description="gradient steps a restart")
    step_size: Positive | None = Field(default=None, description="of the first step (pixel units)")
    restarts: int | None = Field(default=None, gt=0, description="independent starts")
    loss: str | None = Field(default=None, title="loss of the search", description="what is maximised, as in `losses`")
    stop: str | None = Field(
        default=None,
        title="end of the search",
        description="first: at the first point that succeeds, just beyond the boundary; last: after the last step, deeper in",
    )
    options: dict[str, Any] = Field(default={}, description="further keyword arguments of the attack's function")
    target: int | None = Field(default=None, ge=0, description="class to reach; any but the label where null")
    space: str = Field(default="pixel", title="space of the search", description="pixel or hidden:<stage>")
    weight_noise: SearchNoise = Field(default=SearchNoise(), description="noise on the weights, new at each step")
    joint: How = Field(
        default="mean",
        title="joint search",
        description="how the losses of several networks become one: mean, worst (of the network that is fooled least) or unfooled"
        " (mean over those not fooled yet)",
    )

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, values: Any) -> Any:
        return {"name": values} if isinstance(values, str) else values

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if ":" not in name and name not in names():
            near = difflib.get_close_matches(name, names(), n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"unknown attack (there are {', '.join(names())}, foolbox:<class>, art:<class>{hint})")
        if ":" in name:
            try:
                libraries.check(name)
            except UserError as error:
                raise ValueError(f"{name}: {error.message}") from None
        return name

    @field_validator(*COMMON)
    @classmethod
    def _has(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuses what the attack lacks, and fills in its norm."""
        name = info.data.get("name")
        if name is None:
            return value  # refused already
        there, choices = arguments_of(name), _choices(name).get(info.field_name or "")
        if info.field_name == "norm":
            choices = norms_of(name)
            value = _default_norm(name) if value is None else value
        if value is None:
            return value
        if choices is not None and value not in choices:
            raise UserError(f"{name} has {', '.join(choices)}, not {value}")
        if info.field_name not in ("norm", *there):
            raise ValueError(f"no setting of {name} (it has {', '.join(there)})")
        return value

    @field_validator("options")
    @classmethod
    def _of_the_attack(cls, options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        name = info.data.get("name")
        if name is None:
            return options
        if ":" in name:
            _to_value(libraries.check, name, options)
            return options
        there = [argument for argument in arguments_of(name) if argument not in COMMON]
        options = dict(options)
        for option, value in options.items():
            if option in COMMON:
                raise ValueError(f"{option}: belongs beside options, not into them")
            if option not in there:
                near = difflib.get_close_matches(option, there, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise ValueError(f"{option}: {name} has the options {', '.join(there) or 'none'}{hint}")
            choices = _choices(name).get(option)
            if choices is not None and value not in choices:
                raise ValueError(f"{option}: must be one of {', '.join(map(str, choices))}, not {value}")
            default = arguments_of(name)[option]
            if isinstance(default, float) or default is None:
                value = options[option] = as_number(value)
            if isinstance(value, int | float) and value < 0:
                raise ValueError(f"{option}: must be at least 0, not {value}")
            if isinstance(default, int | float) and (
                isinstance(value, bool) is not isinstance(default, bool)
                or not isinstance(value, int | float)
                or (isinstance(default, int) and not isinstance(value, int))
            ):
                wanted = "a whole number" if isinstance(default, int) else "a number"
                raise ValueError(f"{option}: must be {wanted}, not {value}")
        return options

    @field_validator("space")
    @classmethod
    def _space(cls, space: str) -> str:
        kind, stage = _to_value(spaces.parse, space)
        if kind == "latent":
            raise ValueError("the latent space of an autoencoder is not there yet; take pixel or hidden:<stage>")
        return "pixel" if kind == "pixel" or stage == 0 else f"hidden:{stage}"

    @model_validator(mode="after")
    def _together(self) -> Attack:
        if self.space != "pixel" and ("box" not in parameters_of(self.name)):
            raise ValueError(f"space: {self.name} searches among pixels only")
        if self.weight_noise.sigma and ":" in self.name:
            raise ValueError(f"weight_noise: {self.name} faces one network only")
        if self.weight_noise.sigma and self.name in IN_TURN:
            raise ValueError(
                f"weight_noise: {self.name} is several searches in turn; take one, such as pgd, apgd or fmn"
            )
        if self.target is not None and "targets" not in parameters_of(self.name):
            raise ValueError(f"target: {self.name} has no targets")
        return self

    def try_options(self) -> None:
        """Searches once, among 16 pixels of a linear network, with the options, of which an attack may refuse more than their names.

        Raises:
            UserError: what the attack says.
        """
        if not self.options or ":" in self.name:
            return
        network = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
        with torch.no_grad():
            weight, bias = network[1].parameters()
            weight.copy_(torch.linspace(-1, 1, 64).reshape(4, 16).sin())
            bias.copy_(-weight.sum(1) / 2 + torch.tensor([0.01, 0, 0, 0]))
        grey = torch.full((1, 1, 4, 4), 0.5)
        try:
            function_of(self.name)(network, grey, torch.tensor([0]), **self.arguments())
        except UserError as error:
            name = error.field if error.field in self.options else None
            raise UserError(error.message, f"attack.options.{name}" if name else "attack.options") from None
        except Exception as error:
            told = str(error).strip().splitlines() or [""]
            raise UserError(f"{self.name} cannot search with {self.options}: {told[0]}", "attack.options") from error

    @property
    def fixed_radius(self) -> bool:
        """Whether it searches within a radius; else for the smallest perturbation."""
        return "epsilon" in arguments_of(self.name)

    @property
    def follows_gradient(self) -> bool:
        """Whether it takes gradient steps; one without steps makes do with what the network returns."""
        return "steps" in arguments_of(self.name)

    @property
    def radius(self) -> float | None:
        """The radius of an attack that has one."""
        assert self.norm is not None  # resolved
        return (self.epsilon or RADII[self.norm]) if self.fixed_radius else None

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of the attack's function, without those of a call."""
        given = {name: getattr(self, name) for name in COMMON} | {"epsilon": self.radius}
        there = arguments_of(self.name)
        return {name: value for name, value in given.items() if value is not None and name in there} | self.options


def check_classes(attack: Attack, split: data.Split, classes: Sequence[str | int] | None) -> None:
    """Refuses a target that is no class of the data, or the label of examples that are measured; a loss that needs more classes.

    Args:
        classes: the classes that are measured; all where None.

    Raises:
        UserError: with the field `attack.target` or `attack.loss`.
    """
    least = 3 if attack.target is None else 4
    if attack.loss == "dlr" and len(split.classes) < least:
        raise UserError(
            f"the loss dlr needs {least} classes, there are {len(split.classes)}; take ce or margin", "attack.loss"
        )
    if attack.target is None:
        return
    if attack.target >= len(split.classes):
        raise UserError(f"{attack.target} is no class; the classes are 0 to {len(split.classes) - 1}", "attack.target")
    measured = range(len(split.classes)) if classes is None else data.class_indices(split.classes, classes, "classes")
    if attack.target in measured:
        raise UserError(
            f"{attack.target} is the label of examples that are measured; leave that class out with classes: [...]",
            "attack.target",
        )


@cache
def names() -> list[str]:
    """The attacks on disk."""
    return sorted(module.name for module in pkgutil.iter_modules(attacks.__path__) if not module.ispkg)


def function_of(name: str) -> Callable[..., Found]:
    """The attack's function."""
    if ":" in name:
        return libraries.peer(name)
    return getattr(importlib.import_module(f"tasks.parts.attacks.{name}"), name)


def arguments_of(name: str) -> Mapping[str, Any]:
    """The arguments of an attack that are the user's to set, with their defaults."""
    return {
        argument: default
        for argument, default in parameters_of(name).items()
        if argument not in OURS or argument in _choices(name)
    }


def norms_of(name: str) -> tuple[str, ...]:
    """The norms in which an attack searches; L2 where its function does not ask.

    >>> norms_of("ddn"), norms_of("apgd")
    (('L2',), ('Linf', 'L2'))
    """
    return libraries.find(name).norms if ":" in name else _choices(name).get("norm", ("L2",))


@cache
def versions_of(name: str) -> dict[str, int]:
    """The versions of an attack and of those that it is made of, by name.

    >>> sorted(versions_of("bisection"))
    ['apgd', 'bisection']
    """
    if ":" in name:
        return {name: libraries.VERSION}
    module = importlib.import_module(f"{attacks.__name__}.{name}")
    versions = {name: module.VERSION}
    for part in vars(module).values():
        folder, _, other = getattr(part, "__module__", "").rpartition(".")
        if folder == attacks.__name__ and other != name:
            versions |= versions_of(other)
    return versions


def _default_norm(name: str) -> str:
    default = parameters_of(name).get("norm", norms_of(name)[0])
    return norms_of(name)[0] if default is inspect.Parameter.empty else default


@cache
def parameters_of(name: str) -> Mapping[str, Any]:
    parameters = inspect.signature(function_of(name)).parameters
    return {name: parameter.default for name, parameter in parameters.items()}


@cache
def _choices(name: str) -> Mapping[str, tuple[Any, ...]]:
    """Of each argument that is one of several words, these words."""
    hints = {} if ":" in name else get_type_hints(function_of(name))
    found = {}
    for argument, hint in hints.items():
        literal = next((kind for kind in (hint, *get_args(hint)) if get_origin(kind) is Literal), None)
        if literal is not None:
            found[argument] = get_args(literal)
    return found


def _to_value(check: Callable[..., Any], *arguments: Any) -> Any:
    """A `UserError` as what a validator raises."""
    try:
        return check(*arguments)
    except UserError as error:
        raise ValueError(error.message) from None

"""The settings of an attack: what the user may write, checked against what that attack declares.

The file of an attack declares what it can do (`Capabilities`). The signature of its function says
which settings it has (`attack_functions`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, reduce
from operator import or_
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import torch
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)
from torch import nn

from tasks.parts.artifacts.common.attack_functions import (
    Arguments,
    arguments_of,
    choices_of,
    function_of,
    hints_of,
    is_of_library,
    names,
)
from tasks.parts.attacks.common import libraries
from tasks.parts.attacks.common.capabilities import Capabilities, capabilities_of
from tasks.parts.attacks.common.result import AttackResult
from tasks.parts.data.load import Split, class_indices
from tasks.parts.geometry.balls import Norm
from tasks.parts.losses import How
from tasks.parts.messages import did_you_mean, validated
from tasks.parts.models import spaces
from tasks.parts.settings import NonNegative, Positive, Settings, UserError

RADII: dict[Norm, float] = {"Linf": 0.15, "L2": 1.0, "L1": 5.0, "L0": 20.0}
"""The radius of an attack by norm, if none is given."""
COMMON = ("norm", "epsilon", "steps", "step_size", "restarts", "loss", "stop")
"""Settings that are arguments of an attack's function."""


class AttackNoise(Settings):
    """Noise on the weights of the network that is attacked, as in `attacks/common/weight_noise`."""

    sigma: NonNegative = Field(default=0.0, title="weight noise in the attack", description="relative to each weight")
    draws: int = Field(default=1, gt=0, description="noisy networks in each step, over which the loss is averaged")


class Attack(Settings):
    """How adversarial examples are found. A name alone stands for that attack with its defaults.

    A setting that is null is as the attack's own function has it. `resolve` fills these in.
    """

    name: str = Field(
        default="pgd", title="attack", description="a file in tasks/parts/attacks, foolbox:<class> or art:<class>"
    )
    norm: Norm = Field(
        default=None,
        validate_default=True,
        title="norm of the attack",
        description="of the perturbation; as the attack has it where null",
    )
    epsilon: Positive | None = Field(
        default=None,
        title="attack radius (pixel units)",
        description="largest norm of the perturbation (pixel units; in another space: of its typical magnitude), for"
        f" attacks with a fixed radius; by norm where null: {RADII}",
    )
    steps: int | None = Field(default=None, gt=0, description="gradient steps a restart")
    step_size: Positive | None = Field(default=None, description="of the first step (pixel units)")
    restarts: int | None = Field(default=None, gt=0, description="independent starts")
    loss: str | None = Field(default=None, title="loss of the attack", description="what is maximised, as in `losses`")
    stop: str | None = Field(
        default=None,
        title="end of the attack",
        description="first: at the first point that succeeds, just beyond the boundary; last: after the last step,"
        " deeper in",
    )
    options: dict[str, object] = Field(default={}, description="further keyword arguments of the attack's function")
    target: int | None = Field(default=None, ge=0, description="class to reach; any but the label where null")
    space: str = Field(default="pixel", title="space of the attack", description="pixel, latent or hidden:<stage>")
    weight_noise: AttackNoise = Field(default=AttackNoise(), description="noise on the weights, new at each step")
    joint: How = Field(
        default="mean",
        title="joint attack",
        description="how the losses of several networks become one: mean, worst (of the network that is fooled least)"
        " or unfooled (mean over those not fooled yet)",
    )

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, values: object) -> object:
        return {"name": values} if isinstance(values, str) else values

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if not is_of_library(name) and name not in names():
            known = ", ".join(names())
            hint = did_you_mean(name, names())
            raise UserError(f"unknown attack {name}; there are {known}, foolbox:<class>, art:<class>{hint}")
        with _this_field():
            function_of(name)
        return name

    @field_validator("norm", mode="before")
    @classmethod
    def _default_norm(cls, norm: object, info: ValidationInfo) -> object:
        name = info.data.get("name")
        if norm is not None or name is None:  # a name that is refused has no norms, nor a need of one
            return norm or "L2"
        return arguments_of(name).get("norm") or capabilities_of(function_of(name)).norms[0]

    @field_validator(*COMMON)
    @classmethod
    def _has(cls, value: object, info: ValidationInfo) -> object:
        """Refuses what the attack lacks."""
        name, setting = info.data.get("name"), str(info.field_name)
        if name is None or value is None:
            return value
        norms, arguments = capabilities_of(function_of(name)).norms, arguments_of(name)
        choices = norms if setting == "norm" else choices_of(name).get(setting)
        if choices is not None and value not in choices:
            raise UserError(f"{name} has {', '.join(choices)}, not {value}")
        if setting not in ("norm", *arguments):
            raise UserError(f"no setting of {name} (it has {', '.join(arguments)})")
        return value

    @field_validator("options")
    @classmethod
    def _of_the_attack(cls, options: dict[str, object], info: ValidationInfo) -> dict[str, object]:
        name = info.data.get("name")
        if name is None or not options:
            return options
        if is_of_library(name):
            with _this_field("options"):
                libraries.check(name, options)
            return options
        for option in options:
            if option in COMMON:
                raise UserError("belongs beside options, not into them", option)
        return validated(_options_of(name), options, name).model_dump(exclude_unset=True)

    @field_validator("space")
    @classmethod
    def _space(cls, space: str) -> str:
        with _this_field():
            kind, stage = spaces.parse(space)
        if kind == "latent":
            return "latent"
        return "pixel" if kind == "pixel" or stage == 0 else f"hidden:{stage}"

    @model_validator(mode="after")
    def _together(self) -> Attack:
        can = self.capabilities
        if self.space != "pixel" and "hidden" not in can.spaces:
            raise UserError(f"{self.name} attacks pixels only", "space")
        if self.weight_noise.sigma and is_of_library(self.name):
            raise UserError(f"{self.name} faces one network only", "weight_noise")
        if self.weight_noise.sigma and not can.weight_noise:
            advice = "take one, such as pgd, apgd or fmn"
            raise UserError(f"{self.name} is several attacks in turn; {advice}", "weight_noise")
        if self.target is not None and not can.targets:
            raise UserError(f"{self.name} has no targets", "target")
        return self

    @property
    def capabilities(self) -> Capabilities:
        """What the attack can do."""
        return capabilities_of(function_of(self.name))

    @property
    def fixed_radius(self) -> bool:
        """Whether the attack has a radius; if not, it minimises the perturbation."""
        return self.capabilities.radius == "fixed"

    def resolve(self) -> ResolvedAttack:
        """The function of the attack, with the settings that are null filled in."""
        radius = (self.epsilon or RADII[self.norm]) if self.fixed_radius else None
        allowed = arguments_of(self.name)
        given = {name: getattr(self, name) for name in COMMON} | {"epsilon": radius}
        arguments = {name: value for name, value in given.items() if value is not None and name in allowed}
        return ResolvedAttack(function_of(self.name), self.capabilities, self.norm, radius, arguments | self.options)

    def try_options(self) -> None:
        """Runs the attack once with its options, on 16 pixels and a linear network.

        An attack may refuse values that its signature allows.

        Raises:
            UserError: the attack refuses them; the field is `options`, or below it.
        """
        if not self.options or is_of_library(self.name):
            return
        attack = self.resolve()
        network = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
        with torch.no_grad():
            weight, bias = network[1].parameters()
            weight.copy_(torch.linspace(-1, 1, 64).reshape(4, 16).sin())
            bias.copy_(-weight.sum(1) / 2 + torch.tensor([0.01, 0, 0, 0]))
        grey = torch.full((1, 1, 4, 4), 0.5)
        try:
            attack.function(network, grey, torch.tensor([0]), **attack.arguments)
        except UserError as error:
            name = error.field if error.field in self.options else None
            raise UserError(error.message, f"options.{name}" if name else "options") from None
        except Exception as error:
            first_line = (str(error).strip().splitlines() or [""])[0]
            raise UserError(f"{self.name} cannot run with {self.options}: {first_line}", "options") from error


@dataclass(frozen=True)
class ResolvedAttack:
    """An attack that is ready to run.

    Attributes:
        function: of the attack.
        capabilities: what it can do.
        norm: of the perturbation.
        radius: of an attack with a fixed radius, else None.
        arguments: the keyword arguments of the function that are set, without those of a call.
    """

    function: Callable[..., AttackResult]
    capabilities: Capabilities
    norm: Norm
    radius: float | None
    arguments: Arguments


def check_classes(attack: Attack, split: Split, classes: Sequence[str | int] | None) -> None:
    """Refuses a target or a loss that does not suit the classes of the data.

    Args:
        attack: the settings.
        split: the images that are measured.
        classes: the classes that are measured; all where None.

    Raises:
        UserError: the target is no class, or the label of examples that are measured; or the loss
            needs more classes. The field is `target` or `loss`.
    """
    least = 3 if attack.target is None else 4
    if attack.loss == "dlr" and len(split.classes) < least:
        raise UserError(
            f"the loss dlr needs {least} classes, there are {len(split.classes)}; take ce or margin", "loss"
        )
    if attack.target is None:
        return
    if attack.target >= len(split.classes):
        raise UserError(f"{attack.target} is no class; the classes are 0 to {len(split.classes) - 1}", "target")
    measured = range(len(split.classes)) if classes is None else class_indices(split.classes, classes, "classes")
    if attack.target in measured:
        raise UserError(
            f"{attack.target} is the label of examples that are measured; leave that class out with classes: [...]",
            "target",
        )


class _Options(Settings):
    """The options of an attack."""

    model_config = ConfigDict(arbitrary_types_allowed=True, protected_namespaces=(), validate_default=False)


@cache
def _options_of(name: str) -> type[BaseModel]:
    """The options of an attack as a model: the settings in its signature that are not `COMMON`."""
    options = {option: default for option, default in arguments_of(name).items() if option not in COMMON}
    fields: dict[str, Any] = {
        option: (_bounded(hints_of(name).get(option, object)), default) for option, default in options.items()
    }
    return create_model(name, __base__=_Options, **fields)


def _bounded(hint: object) -> object:
    """An annotation whose numbers are at least 0.

    A fraction such as 8/255 is a float, and 1.0 is no whole number.
    """
    if hint is float:
        return NonNegative
    if hint is int:
        return Annotated[int, Field(strict=True, ge=0)]
    if get_origin(hint) in (Union, UnionType):
        return reduce(or_, map(_bounded, get_args(hint)))
    return hint


@contextmanager
def _this_field(name: str = "") -> Iterator[None]:
    """Names the field of a mistake relative to the field that is validated, which has this name."""
    try:
        yield
    except UserError as error:
        below = error.field or ""
        raise UserError(
            error.message, below.removeprefix(f"{name}.") if below.startswith(f"{name}.") else None
        ) from None

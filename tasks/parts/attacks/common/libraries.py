"""The searches of other packages as attacks of ours: `foolbox:<class>` (foolbox 3: Rauber, Brendel and Bethge 2017) and `art:<class>`
(adversarial-robustness-toolbox: Nicolae et al. 2018).

Theirs run on our network and our images; what they return is projected into the ball that was asked for, clipped into [0, 1], shown to the
network once more, and measured by us. Neither package is a dependency: both come with the extra `peers`, and are imported when one of
their attacks is asked for.

Their random numbers come from the global states of torch, numpy and `random`. These are seeded for every batch from (seed, id of its first
example), and are as they were afterwards: the same chunk gives the same rows, but where theirs draw at random, other chunks or another
batch give others. With `batch=1` each example has random numbers of its own, at the price of speed.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import logging
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from tasks.parts.attacks.common import checks
from tasks.parts.attacks.common.line_search import reached
from tasks.parts.attacks.common.result import Found
from tasks.parts.batching import batch_size
from tasks.parts.geometry.balls import Norm, norm_of, per_example, project
from tasks.parts.randomness import generator
from tasks.parts.settings import UserError

VERSION = 1
"""Raised by hand when its numbers change on purpose."""

NORMS: tuple[Norm, ...] = get_args(Norm)
ORDERS: dict[float, Norm] = {math.inf: "Linf", 2: "L2", 1: "L1", 0: "L0"}

ART_NORM: dict[str, Norm] = {
    "BasicIterativeMethod": "Linf",
    "CarliniL0Method": "L0",
    "CarliniLInfMethod": "Linf",
    "ElasticNet": "L1",
    "PixelAttack": "L0",
    "SaliencyMapMethod": "L0",
    "ThresholdAttack": "Linf",
}
"""What the attacks of ART that have no norm to choose search in, where it is not L2."""

OURS = {
    "epsilon",
    "norm",
    "targets",
    "loss",
    "restarts",
    "stop",
    "tensorboard",
    "summary_writer",
    "verbose",
    "distance",
}
"""Arguments of theirs that would be mistaken for settings of ours, or that we set: no options."""


@dataclass(frozen=True)
class Theirs:
    """What an attack of another package is like.

    Attributes:
        package: "foolbox" or "art".
        type: their class.
        norms: in which it searches, the default first.
        radius: whether it searches within a radius; else for a small perturbation.
        options: the arguments of their constructor that are the user's to set, with their defaults.
        names: of those of their arguments that we set, by our name for them.
    """

    package: str
    type: Any
    norms: tuple[Norm, ...]
    radius: bool
    options: Mapping[str, Any]
    names: Mapping[str, str]


Search = Callable[[nn.Module, Tensor, Tensor, int, float | None, bool], Any]
"""Network, images, classes (labels or targets), number of classes, radius and whether the classes are targets to adversarial images."""


def check(name: str, options: Mapping[str, Any] | None = None) -> None:
    """Refuses an attack that is not there, and options that it does not have.

    Raises:
        UserError: the package is unknown or not installed, it has no such attack, or the attack no such option.
    """
    theirs = find(name)
    for option in options or {}:
        if option in theirs.names.values() and option not in theirs.options:
            ours = next(mine for mine, their in theirs.names.items() if their == option)
            raise UserError(f"{name} is given {option} by {ours}", f"options.{option}")
        if option not in theirs.options:
            known = ", ".join(theirs.options) or "none"
            raise UserError(
                f"{name} has no option {option}; it has {known}{_near(option, theirs.options)}", f"options.{option}"
            )


def peer(name: str, options: Mapping[str, Any] | None = None) -> Callable[..., Found]:
    """An attack of another package as a function like those in `attacks`.

    The function is called with (model, images, labels, *, norm, targets, ids, seed, batch), `epsilon` where theirs searches within a
    radius, `steps` and `step_size` where theirs have them (by whatever name), and the other options of their class by their own
    names; `inspect.signature` shows them with their defaults. It returns `Found`. An image that is misclassified to begin with is not
    shown to theirs. The forward and backward passes are counted as theirs ask for them, with ours before and after, and shared evenly
    among the images of a batch. A step size, where none is given, is to the radius as in the defaults of their class. The function
    raises UserError for what theirs refuse, and for a network that is several at once.

    Args:
        name: `foolbox:<class>` or `art:<class>`, such as `foolbox:LinfPGD`, `foolbox:L2FMNAttack`, `art:AutoProjectedGradientDescent`.
        options: arguments of their constructor, which those of a call override.

    Raises:
        UserError: as `check`.
    """
    check(name, options)
    theirs, fixed = find(name), dict(options or {})

    def attack(
        model: Callable[[Tensor], Tensor],
        images: Tensor,
        labels: Tensor,
        *,
        norm: Norm = theirs.norms[0],
        targets: Tensor | None = None,
        ids: Sequence[int] | None = None,
        seed: int = 0,
        batch: int | None = None,
        epsilon: float | Tensor | None = None,
        steps: int | None = None,
        step_size: float | None = None,
        **further: Any,
    ) -> Found:
        named = {"steps": steps, "step_size": step_size}
        chosen = {our: value for our, value in named.items() if value is not None}
        arguments = _arguments(name, theirs, fixed | further, chosen)
        checks.arguments(name, images, labels, epsilon=epsilon, norm=norm, norms=theirs.norms, targets=targets)
        if theirs.radius and epsilon is None:
            raise UserError(f"{name} searches within a radius: give epsilon", "epsilon")
        if not theirs.radius and epsilon is not None:
            raise UserError(f"{name} searches for a small perturbation and takes no radius", "epsilon")
        ids = range(len(images)) if ids is None else ids
        batch = batch_size(images[0].numel(), images.device) if batch is None else batch
        run = (
            _foolbox(name, theirs, norm, arguments)
            if theirs.package == "foolbox"
            else _art(name, theirs, norm, arguments, batch)
        )
        radii = (
            None
            if epsilon is None
            else torch.as_tensor(epsilon, dtype=images.dtype).expand(len(images)).to(images.device)
        )
        return _searched(name, run, model, images, labels, targets, radii, norm, ids, seed, batch)

    kinds: dict[str, Any] = {"norm": Literal[theirs.norms], "steps": int | None, "step_size": float | None}
    signature = inspect.signature(attack)
    shown = [
        each.replace(annotation=kinds.get(each.name, each.annotation))
        for each in signature.parameters.values()
        if each.kind is not each.VAR_KEYWORD
        and (each.name != "epsilon" or theirs.radius)
        and (each.name not in ("steps", "step_size") or each.name in theirs.names)
    ]
    taken = {each.name for each in shown}
    shown += [
        inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY, default=fixed.get(option, default))
        for option, default in theirs.options.items()
        if option not in taken
    ]
    attack.__dict__["__signature__"] = signature.replace(parameters=shown)
    attack.__annotations__ = {"norm": Literal[theirs.norms], "return": Found}
    attack.__name__ = attack.__qualname__ = name
    return attack


def find(name: str) -> Theirs:
    """The class that `foolbox:<class>` or `art:<class>` names.

    Raises:
        UserError: as `check`.
    """
    package, _, wanted = name.partition(":")
    if package not in ("foolbox", "art"):
        raise UserError(
            f"unknown package {package!r}; allowed: foolbox:<class>, art:<class>{_near(package, ['foolbox', 'art'])}",
            "name",
        )
    known = _foolbox_classes() if package == "foolbox" else _art_classes()
    if wanted not in known:
        raise UserError(
            f"{package} has no attack {wanted!r}{_near(wanted, known) or '; it has ' + ', '.join(sorted(known))}",
            "name",
        )
    type_ = known[wanted]
    defaults = {
        each.name: None if each.default is each.empty else each.default
        for each in list(inspect.signature(type_).parameters.values())[0 if package == "foolbox" else 1 :]
        if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    }
    return _of_foolbox(type_, defaults) if package == "foolbox" else _of_art(type_, defaults)


def _of_foolbox(type_: Any, defaults: dict[str, Any]) -> Theirs:
    base = _imported("foolbox.attacks.base", "foolbox")
    order = getattr(type_.distance, "p", None)  # a property where it is chosen by an argument
    norms = NORMS if order is None else (ORDERS[order],)
    names = {"norm": "distance", "steps": "steps", "step_size": "abs_stepsize", "epsilon": "epsilon"}
    options = {option: value for option, value in defaults.items() if option not in OURS}
    names = {ours: their for ours, their in names.items() if their in defaults}
    return Theirs("foolbox", type_, norms, issubclass(type_, base.FixedEpsilonAttack), options, names)


def _of_art(type_: Any, defaults: dict[str, Any]) -> Theirs:
    names = {
        "norm": "norm",
        "epsilon": "eps",
        "targets": "targeted",
        "batch": "batch_size",
        "steps": "max_iter",
        "step_size": "eps_step",
    }
    names = {ours: their for ours, their in names.items() if their in defaults}
    ours = {names.get(each) for each in ("norm", "epsilon", "targets", "batch")}
    options = {option: value for option, value in defaults.items() if option not in ours | OURS}
    own = ART_NORM.get(type_.__name__, "L2")
    norms: tuple[Norm, ...] = ("Linf", "L2", "L1") if "norm" in names else (own,)
    return Theirs("art", type_, norms, "epsilon" in names, options, names)


def _arguments(name: str, theirs: Theirs, options: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of their constructor that the user has set, by their names."""
    check(name, options)
    arguments = {option: value for option, value in options.items() if value is not None}
    for ours, value in chosen.items():
        if ours not in theirs.names:
            raise UserError(f"{name} has no {ours}; it has {', '.join(theirs.options) or 'no options'}", ours)
        if arguments.get(theirs.names[ours], value) != value:
            raise UserError(f"{name}: {ours} and {theirs.names[ours]} are the same; give one of them", ours)
        arguments[theirs.names[ours]] = value
    return arguments


# ------------------------------------------------------------------------------------------------------------ the packages


def _foolbox_classes() -> dict[str, Any]:
    attacks, base = _imported("foolbox.attacks", "foolbox"), _imported("foolbox.attacks.base", "foolbox")
    kinds = (base.FixedEpsilonAttack, base.MinimizationAttack)
    return {
        name: each
        for name, each in vars(attacks).items()
        if inspect.isclass(each) and issubclass(each, kinds) and not inspect.isabstract(each)
    }


def _art_classes() -> dict[str, Any]:
    quiet = logging.getLogger("art")
    evasion, base = _imported("art.attacks.evasion", "art"), _imported("art.attacks.attack", "art")
    if quiet.level in (logging.NOTSET, logging.INFO):
        quiet.setLevel(logging.WARNING)  # it tells of every classifier it is given
    return {
        name: each
        for name, each in vars(evasion).items()
        if inspect.isclass(each) and issubclass(each, base.EvasionAttack) and not inspect.isabstract(each)
    }


def _foolbox(name: str, theirs: Theirs, norm: Norm, arguments: dict[str, Any]) -> Search:
    foolbox = _imported("foolbox", "foolbox")
    if "norm" in theirs.names:
        order = next(order for order, each in ORDERS.items() if each == norm)
        arguments = arguments | {"distance": foolbox.distances.LpDistance(order)}
    with _refusing(name):
        attack = theirs.type(**arguments)

    def run(
        network: nn.Module, images: Tensor, classes: Tensor, count: int, radius: float | None, targeted: bool
    ) -> Any:
        model = foolbox.PyTorchModel(network, bounds=(0, 1), device=images.device)
        criterion = (foolbox.criteria.TargetedMisclassification if targeted else foolbox.criteria.Misclassification)(
            classes
        )
        within = {"epsilon": radius} if theirs.radius else {}
        try:
            return attack.run(model, images, criterion, **within)
        except ValueError as error:
            if "criterion" not in str(error):
                raise
            wanted = "cannot search towards targets" if targeted else "searches towards targets only"
            raise UserError(f"{name} {wanted}", "targets") from error

    return run


def _art(name: str, theirs: Theirs, norm: Norm, arguments: dict[str, Any], batch: int) -> Search:
    classification = _imported("art.estimators.classification", "art")
    their, there = theirs.names, inspect.signature(theirs.type).parameters
    order = next(order for order, each in ORDERS.items() if each == norm)

    def run(
        network: nn.Module, images: Tensor, classes: Tensor, count: int, radius: float | None, targeted: bool
    ) -> Any:
        given = dict(arguments)
        if "norm" in their:
            given["norm"] = order
        if radius is not None:
            given[their["epsilon"]] = radius
            if "step_size" in their and their["step_size"] not in given:
                given[their["step_size"]] = radius * there[their["step_size"]].default / there[their["epsilon"]].default
        if targeted and "targets" not in their:
            raise UserError(f"{name} cannot search towards targets", "targets")
        given |= {their[mine]: value for mine, value in {"targets": targeted, "batch": batch}.items() if mine in their}
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
        with _refusing(name):
            attack = theirs.type(classifier, **given)
        return torch.from_numpy(attack.generate(images.cpu().numpy().astype(np.float32), classes.cpu().numpy()))

    return run


@contextmanager
def _refusing(name: str) -> Iterator[None]:
    """What their constructor refuses is the user's mistake."""
    try:
        yield
    except Exception as error:
        lines = str(error).strip().splitlines()
        raise UserError(
            f"{name} refuses its options: {lines[0] if lines else type(error).__name__}", "options"
        ) from error


def _imported(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != package:
            raise UserError(f"{package} cannot be imported: {error}", "name") from error
        full = {"foolbox": "foolbox", "art": "adversarial-robustness-toolbox"}[package]
        raise UserError(f"{full} is not installed: pip install 'inputscape[peers]'", "name") from error


def _near(name: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    lower = {each.lower(): each for each in known}
    close = difflib.get_close_matches(name.lower(), list(lower), n=1, cutoff=0.5)
    return f"; did you mean {lower[close[0]]}?" if close else ""


# -------------------------------------------------------------------------------------------------------------- the search


def _searched(
    name: str,
    run: Search,
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    targets: Tensor | None,
    radii: Tensor | None,
    norm: Norm,
    ids: Sequence[int],
    seed: int,
    batch: int,
) -> Found:
    """Theirs, batch by batch of the images that are not misclassified, and of one radius each."""
    best = torch.zeros_like(images)
    forwards = torch.ones(len(images), dtype=torch.long, device=images.device)
    backwards = torch.zeros_like(forwards)
    if not len(images):
        return Found(best, forwards.bool(), norm_of(best, norm), forwards, backwards)
    with torch.no_grad():
        logits = model(images[:1])
    if logits.ndim != 2:
        raise UserError(f"{name} faces one network only, not {logits.shape[1]} at once", "name")
    success = reached(model, images, labels, targets, batch)
    standing = (~success).nonzero().flatten()
    each = images.new_zeros(len(images)) if radii is None else radii
    for radius in each[standing].unique().tolist():
        for rows in standing[each[standing] == radius].split(batch):
            counted = _Counted(model)
            classes = labels[rows] if targets is None else targets[rows]
            with _seeded(seed, name, int(ids[int(rows[0])]), images.device):
                try:
                    points = run(
                        counted,
                        images[rows],
                        classes,
                        logits.shape[1],
                        None if radii is None else radius,
                        targets is not None,
                    )
                except UserError:
                    raise
                except ModuleNotFoundError as error:
                    raise UserError(f"{name} needs the package {error.name}, which is not installed", "name") from error
                except Exception as error:
                    error.add_note(f"in {name}, on the examples {', '.join(str(ids[int(row)]) for row in rows)}")
                    raise
            points = points.detach().to(images)
            points = torch.where(points.isfinite(), points, images[rows])  # theirs mark a failure so, some of them
            delta = points - images[rows]
            if radii is not None:
                delta = project(delta, each[rows], norm)
            best[rows] = (images[rows] + delta).clamp(0, 1) - images[rows]
            forwards[rows] += _shared(counted.forwards, len(rows), images.device) + 1
            backwards[rows] += _shared(counted.backwards, len(rows), images.device)
    if len(standing):
        some = None if targets is None else targets[standing]
        success[standing] = reached(model, images[standing] + best[standing], labels[standing], some, batch)
    return Found(best, success, norm_of(best, norm), forwards, backwards)


def _shared(total: int, among: int, device: torch.device) -> Tensor:
    """`total` passes among so many examples, as evenly as whole numbers allow: (among,).

    >>> _shared(7, 3, torch.device("cpu"))
    tensor([3, 2, 2])
    """
    return total // among + (torch.arange(among, device=device) < total % among).long()


@contextmanager
def _seeded(seed: int, name: str, first: int, device: torch.device) -> Iterator[None]:
    """The global random states decided by the arguments; as they were before at the end."""
    number = int(generator(seed, f"peer {name}", first).integers(2**31))
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002 - it is the state that theirs draw from
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(number)
        np.random.seed(number)  # noqa: NPY002
        random.seed(number)
        try:
            yield
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002
            random.setstate(python_state)


class _Counted(nn.Module):
    """A network as theirs see it: it counts the rows that pass, and lets no gradient reach its parameters."""

    def __init__(self, model: Callable[[Tensor], Tensor]):
        super().__init__()
        self._call = (model,)  # in a tuple, so that it is no part of this module and theirs cannot change its mode
        self.forwards = self.backwards = 0
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += len(x)
        if x.requires_grad and torch.is_grad_enabled():
            return _Pass.apply(x, self)
        with torch.no_grad():
            return self.ask(x)

    def ask(self, x: Tensor) -> Tensor:
        """The logits; NaN of points that are not finite, where some of theirs go and with which the network has nothing to do."""
        lost = ~x.isfinite().flatten(1).all(1)
        logits = self._call[0](torch.where(per_example(lost, x), 0, x))
        return logits.masked_fill(lost[:, None], torch.nan)


class _Pass(torch.autograd.Function):
    """A forward pass whose backward pass ends at the points."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, counted: _Counted) -> Tensor:
        with torch.enable_grad():
            ctx.points = x.detach().requires_grad_(True)
            ctx.logits = counted.ask(ctx.points)
        ctx.counted = counted
        return ctx.logits.detach().clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        ctx.counted.backwards += len(ctx.points)
        (gradient,) = torch.autograd.grad(ctx.logits, ctx.points, gradients[0], retain_graph=True)
        return gradient, None

"""What every attack is held to.

A user's own attack passes the same checks:

    from tasks.parts.attacks.common.conformance import conform
    conform(my_attack)

Each check raises AssertionError with what is wrong. They run on networks of 16 pixels, some of them
linear with distances that are known.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from tasks.parts.attacks.common.capabilities import capabilities_of, contradiction
from tasks.parts.attacks.common.conformance_networks import IDS, Meter, contrasted, smooth, walled
from tasks.parts.attacks.common.result import AttackResult
from tasks.parts.batching import in_batches
from tasks.parts.geometry.balls import Norm, norm_of
from tasks.parts.settings import UserError

Attack = Callable[..., AttackResult]
Arguments = Mapping[str, object]
Check = Callable[[Attack, Arguments], None]

RADII: dict[Norm, float] = {"Linf": 0.12, "L2": 0.4, "L1": 1.2, "L0": 3.0}
"""The radius of an attack at a fixed one, by norm."""
QUICK = {"steps": 8, "restarts": 2, "queries": 80}
"""Arguments that keep an attack short, where it has them."""


def conform(attack: Attack, **arguments: object) -> None:
    """Runs all checks on an attack, in each of its norms.

    Args:
        attack: its function.
        arguments: of the function, in place of `QUICK`.

    Raises:
        AssertionError: what the attack does that no attack may.

    >>> from tasks.parts.attacks import pgd
    >>> conform(pgd)
    """
    for check in CHECKS:
        for case in cases(attack, **arguments):
            check(attack, case)


def cases(attack: Attack, **arguments: object) -> Iterator[Arguments]:
    """The arguments to call an attack with: for each of its norms, a radius if it wants one."""
    there = inspect.signature(attack).parameters
    declared = capabilities_of(attack)
    quick = {**{name: value for name, value in QUICK.items() if name in there}, **arguments}
    for norm in declared.norms:
        radius = {"epsilon": RADII[norm]} if declared.radius == "fixed" else {}
        yield {**radius, **({"norm": norm} if "norm" in there else {}), **quick}


# -------------------------------------------------------------------------------------------------
# the checks


def is_called_like_every_other(attack: Attack, arguments: Arguments) -> None:
    """It is called as (model, images, labels, *, ...), documented, and as it is declared.

    Everything but `epsilon` has a default.
    """
    parameters = list(inspect.signature(attack).parameters.values())
    _same([each.name for each in parameters[:3]], ["model", "images", "labels"], "the first arguments")
    _true(all(each.kind is each.KEYWORD_ONLY for each in parameters[3:]), "the others must be by keyword only")
    without = {each.name for each in parameters[3:] if each.default is each.empty}
    _true(without <= {"epsilon"}, f"{', '.join(without)}: has no default")
    _true(bool(inspect.getdoc(attack)), "it has no docstring")
    _same(contradiction(attack, capabilities_of(attack)), None, "its declaration")


def stays_in_the_box_and_says_what_it_found(attack: Attack, arguments: Arguments) -> None:
    """Its images are in [0, 1] and in the ball, and the result tells of them as they are.

    Distance, success and perturbation are theirs; shapes and types are those of the images given.
    """
    norm = _norm(attack, arguments)
    for dtype in (torch.float32, torch.float64):
        model, images, labels = smooth(dtype), contrasted(dtype), _labels()
        before = images.clone()
        found = _run(attack, model, images, labels, arguments)
        _true(torch.equal(images, before), "it writes into the images that it is given")
        _true(bool((found.images >= 0).all() and (found.images <= 1).all()), "images outside of [0, 1]")
        moved = images + found.perturbation
        rounding = float(torch.finfo(dtype).eps)
        _true(bool((found.images - moved).abs().max() <= rounding), "images are not image + perturbation")
        length = norm_of(found.perturbation, norm)
        _true(torch.allclose(found.distance, length.to(found.distance)), "distance is not the perturbation's norm")
        if isinstance(epsilon := arguments.get("epsilon"), int | float | Tensor):
            furthest, radius = float(length.max()), float(epsilon)
            _true(furthest <= radius * (1 + 1e-5) + 1e-6, f"a perturbation of norm {furthest} at the radius {radius}")
        _same(found.success, _classes(model, moved) != labels, "success")
        _same((found.images.dtype, found.perturbation.dtype), (dtype, dtype), "the type of numbers")
        _same((found.forwards.dtype, found.backwards.dtype), (torch.int64, torch.int64), "the type of counts")
        for name, values in vars(found).items():
            wanted = images.shape if name in ("images", "perturbation") else labels.shape
            _same(values.shape, wanted, f"the shape of {name}")
            _true(not values.requires_grad, f"{name} still has a gradient")


def leaves_misclassified_images_alone(attack: Attack, arguments: Arguments) -> None:
    """Misclassified images succeed where they are, at the price of a look or two."""
    model, images = smooth(), contrasted()
    labels = (_classes(model, images) + 1) % 4
    found = _run(attack, model, images, labels, arguments)
    _true(bool(found.success.all()), "a misclassified image is no success")
    _true(not found.perturbation.any(), "a misclassified image is moved")
    _true(bool((found.forwards <= 2).all()), f"forward passes: {found.forwards.tolist()}, more than two")
    _true(bool((found.backwards <= 1).all()), f"backward passes: {found.backwards.tolist()}, more than one")


def counts_what_it_costs(attack: Attack, arguments: Arguments) -> None:
    """The passes that it counts are those that it takes.

    One example is alone, so that each call is a pass. A further look, at the number of classes, is
    free.
    """
    meter, images = Meter(smooth()), contrasted()[:1]
    found = _run(attack, meter, images, _classes(smooth(), images), {**arguments, "batch": 1}, IDS[:1])
    forwards, backwards = int(found.forwards), int(found.backwards)
    _true(forwards <= meter.forwards <= forwards + 1, f"counts {forwards} forward passes of {meter.forwards}")
    _same(backwards, meter.backwards, "backward passes")
    if not capabilities_of(attack).gradients:
        _same(meter.backwards, 0, "backward passes of an attack without gradients")


def does_not_depend_on_other_examples(attack: Attack, arguments: Arguments) -> None:
    """The results are the same in any batch, order and company.

    Numbers drawn at random hang on the example's id.
    """
    model, images, labels = smooth(), contrasted(), _labels()
    together = _run(attack, model, images, labels, arguments)
    ways = [([7], 1), ([4, 2, 9, 0], 3)]
    for rows, batch in ways:
        ids = [IDS[row] for row in rows]
        found = _run(attack, model, images[rows], labels[rows], {**arguments, "batch": batch}, ids)
        for name, values in vars(found).items():
            _same(values, getattr(together, name)[rows], f"{name} of the examples {rows} in batches of {batch}")


def leaves_everything_as_it_was(attack: Attack, arguments: Arguments) -> None:
    """It changes neither the network nor the generators that others draw from.

    The network keeps its weights, gradients and mode. It works where gradients are off around it,
    too.
    """
    model, images, labels = smooth().requires_grad_(True), contrasted(), _labels()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    generators = _generators()
    with torch.no_grad():
        _run(attack, model, images, labels, arguments)
    _true(_generators() == generators, "it draws from a shared random generator")
    _true(not any(module.training for module in model.modules()), "it puts the network into training mode")
    _true(all(p.grad is None and p.requires_grad for p in model.parameters()), "it leaves gradients in the network")
    unchanged = all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    _true(unchanged, "it changes the network")


def reaches_targets(attack: Attack, arguments: Arguments) -> None:
    """An attack with targets succeeds where it reaches them.

    An image that is there already stays where it is, away from another start.
    """
    if not capabilities_of(attack).targets:
        return
    model, images = smooth(), contrasted()
    targets = (_classes(model, images) + 1 + torch.arange(len(images)) % 3) % 4
    targets[0] = _classes(model, images[:1])
    labels = torch.where(targets == _classes(model, images), (targets + 1) % 4, _classes(model, images))
    found = _run(attack, model, images, labels, {**arguments, "targets": targets})
    _same(found.success, _classes(model, images + found.perturbation) == targets, "success")
    _true(bool(found.success[0]), "an image that has its target already is no success")
    _true(int(found.success.sum()) > 1, "no target is reached")


def finds_known_distances(attack: Attack, arguments: Arguments) -> None:
    """It finds the boundary of a linear model, whose distance is known.

    Half of the pixels are at the wall that they would have to pass.
    """
    declared, norm = capabilities_of(attack), _norm(attack, arguments)
    model, image, label, distances = walled()
    exact = distances[norm]
    long = {name: {"steps": 100, "queries": 400}.get(name, value) for name, value in arguments.items()}
    if declared.radius == "fixed":
        reach = 1.05 if declared.gradients else 1.5
        for factor, fooled in ((reach, True), (0.99, False)):
            found = _run(attack, model, image, label, {**long, "epsilon": exact * factor}, IDS[:1])
            _same(bool(found.success), fooled, f"success at {factor} times the distance of the boundary in {norm}")
        return
    found = _run(attack, model, image, label, long, IDS[:1])
    length = float(found.distance)
    _true(bool(found.success), "the boundary is not found")
    _true(length >= exact * (1 - 1e-5), f"a success at {length}, the boundary is {exact} away")
    if declared.radius == "smallest":
        most = exact + 1 if norm == "L0" else 1.01 * exact
        _true(length <= most, f"the smallest perturbation found is {length}, there is one of {exact}")


def refuses_before_it_works(attack: Attack, arguments: Arguments) -> None:
    """A mistake is told with its argument before the network is asked anything."""

    def untouched(x: Tensor) -> Tensor:
        raise AssertionError("the network is asked although the arguments make no sense")

    images, labels = contrasted(), _labels()
    wrong: list[dict[str, object]] = [{"images": images + 3}, {"labels": labels - 9}]
    wrong += [{"epsilon": 0.0}] if "epsilon" in arguments else []
    wrong += [{"norm": "L7"}] if "norm" in arguments else []
    wrong += [{"targets": labels}] if capabilities_of(attack).targets else []
    for mistake in wrong:
        given = {"images": images, "labels": labels, **arguments, **mistake}
        (field,) = mistake
        try:
            attack(untouched, given.pop("images"), given.pop("labels"), **given)
        except UserError as error:
            _same(error.field, field, "the field of the error")
        else:
            raise AssertionError(f"{attack.__name__} takes {field} that make no sense")


def does_without_examples(attack: Attack, arguments: Arguments) -> None:
    """No examples in, no examples out."""
    found = _run(attack, smooth(), contrasted()[:0], _labels()[:0], arguments, ())
    for name, values in vars(found).items():
        _same(len(values), 0, f"the length of {name}")


CHECKS: tuple[Check, ...] = (
    is_called_like_every_other,
    stays_in_the_box_and_says_what_it_found,
    leaves_misclassified_images_alone,
    counts_what_it_costs,
    does_not_depend_on_other_examples,
    leaves_everything_as_it_was,
    reaches_targets,
    finds_known_distances,
    refuses_before_it_works,
    does_without_examples,
)


# -------------------------------------------------------------------------------------------------
# how they are run


def _labels() -> Tensor:
    """The classes that `smooth` gives the images, but for two."""
    labels = _classes(smooth(), contrasted())
    labels[:2] = (labels[:2] + 1) % 4
    return labels


def _run(
    attack: Attack,
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    arguments: Arguments,
    ids: tuple[int, ...] | list[int] = IDS,
) -> AttackResult:
    keyed = {"ids": list(ids)} if "ids" in inspect.signature(attack).parameters else {}
    return attack(model, images, labels, **keyed, **arguments)


def _norm(attack: Attack, arguments: Arguments) -> Norm:
    norms = capabilities_of(attack).norms
    return next((norm for norm in norms if norm == arguments.get("norm")), norms[0])


def _classes(model: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
    """The classes (B,) as attacks see them.

    On the boundary itself they hang on the last bit, and so on the batch.
    """
    return in_batches(model, points, 64).argmax(1)


def _generators() -> tuple[bytes, ...]:
    """The state of every generator that is shared."""
    numpy_state = repr(np.random.get_state()).encode()  # it is the shared state that is looked at
    return bytes(torch.get_rng_state().tolist()), numpy_state, repr(random.getstate()).encode()


def _true(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)


def _same(came: object, wanted: object, what: str) -> None:
    same = torch.equal(came, wanted) if isinstance(came, Tensor) and isinstance(wanted, Tensor) else came == wanted
    _true(bool(same), f"{what}: {came}, not {wanted}")

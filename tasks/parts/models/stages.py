"""Cutting a network into stages, so that its hidden layers can be entered and left: the ground of every hidden space.

The network is traced with `torch.fx` into the list of its operations. Between two of them it may be cut where exactly
one
value that depends on the images is still needed: never across a shortcut of a residual block, where there are two. Of
these places those are kept at which the call of a module ends, so that operations outside any module (a flatten, a ReLU
function) go with the stage after them. A module that leaves the values as they are (flatten, identity, dropout) ends no
stage.

A stage is a list of operations, not a module: when it runs it looks up modules, parameters and buffers in the network
itself, so training, loading weights or moving to another device is seen at once, and nothing is copied.
"""

from __future__ import annotations

import functools
import inspect
import operator
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from tasks.parts.settings import UserError

_UNCHANGED = (
    nn.Flatten,
    nn.Unflatten,
    nn.Identity,
    nn.modules.dropout._DropoutNd,
)  # what comes out has the same values
_PURE = (
    "torch",
    "_operator",
    "builtins",
    "math",
)  # packages whose functions write into a tensor only if the name says so

Call = tuple[str, int]  # the path of the module called, and the number of the call


@dataclass(frozen=True)
class Step:
    """One operation of a stage.

    Attributes:
        node: the operation.
        spent: the operations whose values nobody needs after it.
        path: where the module lies that it calls with one value and nothing else, as nearly all do: these calls are made without
            the detours that any operation may need; None for another operation.
    """

    node: fx.Node
    spent: tuple[fx.Node, ...]
    path: tuple[str, ...] | None


@dataclass(frozen=True)
class Stage:
    """Consecutive operations of a network from one value to another.

    Attributes:
        name: path of the module whose call ends the stage.
        entry, exit: the operations whose values are the stage's input and output.
        steps: the operations in order.
        chain: where the modules lie, if the stage does nothing but call one on what the other returned: most stages, which so run
            without a table of values; None for another.
        writes: whether an operation of the network may write into its input, so that a caller's tensor must be copied
            first.
    """

    name: str
    entry: fx.Node
    exit: fx.Node
    steps: tuple[Step, ...]
    chain: tuple[tuple[str, ...], ...] | None
    writes: bool


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """The network in evaluation mode for a while; afterwards every module is in the mode in which it was."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def walk(network: nn.Module) -> list[nn.Module]:
    """The network and all modules in it; one in several places comes as often.

    The order is the same as long as the network's make-up is. Much cheaper than `network.modules()`, which counts where a training step
    takes a millisecond.
    """
    found = [network]
    for module in found:  # which grows meanwhile
        if module._modules:
            found += [child for child in module._modules.values() if child is not None]
    return found


def split(network: nn.Module) -> tuple[Stage, ...]:
    """The stages of a network in the training or evaluation mode in which its modules are now.

    Args:
        network: takes images (B, C, H, W) and returns one tensor. A submodule that cannot be traced is kept whole.

    Raises:
        UserError: the network itself cannot be traced; the message says why.

    >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    >>> [stage.name for stage in split(network)]  # the flatten goes with the linear layer
    ['network.0', 'network.1', 'network.3']
    """
    graph, whole = _trace(network)
    nodes = list(graph.nodes)
    start, end = next(node for node in nodes if node.op == "placeholder"), nodes[-1]
    logits = end.args[0]
    if not isinstance(logits, fx.Node):
        raise _unavailable("its forward returns more than one tensor of logits")
    order = [start]  # the operations whose value depends on the images
    dependent = {start}
    for node in nodes[:-1]:
        if any(source in dependent for source in node.all_input_nodes):
            order.append(node)
            dependent.add(node)
    writes = bool(whole) or any(_writes(network, node) for node in order[1:])

    ends: list[tuple[str, int, fx.Node]] = []  # each stage's name, its last operation in `order`, the value it hands on
    first, last = 1, len(order) - 1
    for i, value in _cuts(order, end):
        name = _name(network, order[first : i + 1], order[i + 1] if i < last else end)
        if name is not None:
            ends.append((name, i, value))
            first = i + 1
    if not ends or ends[-1][1] < last:  # operations outside any module are left: they belong to the last stage
        ends[-1:] = [(ends[-1][0] if ends else "output", last, logits)]

    stages: list[Stage] = []
    taken: Counter[str] = Counter()
    first, entry = 1, start
    for name, i, value in ends:
        unique = f"{name}_{taken[name]}" if taken[name] else name  # a module called again: relu, relu_1, relu_2
        steps = _steps(nodes, dependent, order[first : i + 1], value)
        stages.append(Stage(unique, entry, value, steps, _chain(steps, entry, value), writes))
        taken[name] += 1
        first, entry = i + 1, value
    return tuple(stages)


def run(network: nn.Module, stages: Sequence[Stage], value: Tensor) -> Tensor:
    """The value after some consecutive stages of the network, given the value before the first of them."""
    for i, stage in enumerate(stages):
        if i == 0 and stage.writes:
            value = value.clone()
        if stage.chain is not None:
            for path in stage.chain:
                value = _module(network, path)(value)
            continue
        values: dict[fx.Node, Any] = {stage.entry: value}
        for step in stage.steps:
            node = step.node
            if step.path is None:
                values[node] = _execute(network, node, values)
            else:
                values[node] = _module(network, step.path)(values[cast(fx.Node, node.args[0])])
            for old in step.spent:
                del values[old]
        value = values[stage.exit]
    return value


def _module(network: nn.Module, path: tuple[str, ...]) -> Any:
    """As `network.get_submodule`, at a fraction of its cost."""
    module: Any = network
    for name in path:
        module = module._modules[name]
    return module


def verify(network: nn.Module, stages: Sequence[Stage], images: Tensor) -> None:
    """Makes sure that the stages together compute what the network computes, on some normalised images (B, C, H, W).

    Raises:
        UserError: they do not: the network's Python code does something else for tensors than for the tracer.
    """
    with torch.no_grad():
        try:
            wanted = network(images.clone())  # which it may write into
            error = (run(network, stages, images) - wanted).abs().max()
        except (KeyError, TypeError, AttributeError, RuntimeError) as wrong:
            raise _unavailable(f"its traced form does not run ({first_line(wrong)})") from wrong
    if error > 1e-3 * wanted.abs().max():  # relative: an untrained network's logits may be tiny
        raise _unavailable(
            "its traced form gives other logits, so its forward looks at more than the values of tensors"
        )


class _Tracer(fx.Tracer):
    """Marks each operation with the module calls it is in, outermost first; torch.nn modules and `whole` stay whole."""

    def __init__(self, whole: Iterable[str]):
        super().__init__()
        self.whole = set(whole)
        self.calls: list[Call] = []
        self.count = 0

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name in self.whole or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.count += 1
        self.calls.append((self.path_of_module(m), self.count))
        result = super().call_module(m, forward, args, kwargs)
        self.calls.pop()  # not reached after an error: `calls` then tells which module could not be traced
        return result

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        node = super().create_node(*args, **kwargs)
        node.meta["calls"] = tuple(self.calls)
        return node


def _trace(network: nn.Module) -> tuple[fx.Graph, set[str]]:
    """The operations of a network, and the paths of the modules kept whole because tracing failed in them."""
    whole: set[str] = set()
    parameters = list(inspect.signature(network.forward).parameters.values())
    fixed = {p.name: p.default for p in parameters[1:] if p.default is not p.empty}
    while True:
        tracer = _Tracer(whole)
        try:
            return tracer.trace(network, concrete_args=fixed or None), whole
        except Exception as error:  # the user's own code runs here, and may raise anything
            if not tracer.calls or tracer.calls[-1][0] in whole:
                raise _unavailable(f"torch.fx cannot trace it ({first_line(error)})") from error
            whole.add(tracer.calls[-1][0])


def _cuts(order: list[fx.Node], end: fx.Node) -> Iterator[tuple[int, fx.Node]]:
    """Each place i in `order` after which a single tensor is still needed, with the operation that made it."""
    place = {node: i for i, node in enumerate([*order, end])}
    needed_until = [max((place[user] for user in node.users if user in place), default=-1) for node in order]
    live = [0]
    for i in range(1, len(order)):
        live = [j for j in [*live, i] if needed_until[j] > i]
        if len(live) == 1 and live != [0] and not _is_tuple(order[live[0]]):
            yield i, order[live[0]]


def _is_tuple(node: fx.Node) -> bool:
    """Whether something is taken out of a value by its number, as from the pair that an attention layer returns."""
    return any(user.target is operator.getitem and isinstance(user.args[1], int) for user in node.users)


def _name(network: nn.Module, nodes: list[fx.Node], following: fx.Node) -> str | None:
    """The module whose call ends with these operations and holds most of them; the innermost, if several do.

    None where no call ends, or where all that happened leaves the values as they are.
    """
    if all(
        node.op == "call_module" and isinstance(network.get_submodule(str(node.target)), _UNCHANGED) for node in nodes
    ):
        return None
    ended = [call for call in nodes[-1].meta["calls"] if call not in following.meta["calls"]]
    ended = [call for call in ended if not isinstance(network.get_submodule(call[0]), _UNCHANGED)]
    if not ended:
        return None
    held = Counter(call for node in nodes for call in node.meta["calls"])
    _, _, (path, _) = max((held[call], depth, call) for depth, call in enumerate(ended))
    return f"network.{path}" if path.isdigit() else path  # a bare number would read as a position


def _steps(nodes: list[fx.Node], dependent: set[fx.Node], part: list[fx.Node], result: fx.Node) -> tuple[Step, ...]:
    """A part of the operations, with what they need that does not depend on the images (parameters and the like)."""
    wanted = set(part)
    for node in reversed(nodes):
        if node in wanted:
            wanted.update(source for source in node.all_input_nodes if source not in dependent)
    steps: list[Step] = []
    seen: set[fx.Node] = {result}
    for node in reversed([node for node in nodes if node in wanted]):
        spent = [source for source in node.all_input_nodes if source not in seen]
        if node not in seen:
            spent.append(node)  # nobody uses it at all
        seen.update(node.all_input_nodes, [node])
        alone = (
            node.op == "call_module" and not node.kwargs and len(node.args) == 1 and isinstance(node.args[0], fx.Node)
        )
        steps.append(Step(node, tuple(spent), tuple(str(node.target).split(".")) if alone else None))
    return tuple(reversed(steps))


def _chain(steps: Sequence[Step], entry: fx.Node, result: fx.Node) -> tuple[tuple[str, ...], ...] | None:
    """The paths of the modules called, if each takes only what the one before returned, from the stage's entry to its result."""
    paths = [step.path for step in steps if step.path is not None]
    returned = [entry, *(step.node for step in steps)]
    linked = all(step.node.args == (before,) for step, before in zip(steps, returned, strict=False))
    return tuple(paths) if len(paths) == len(steps) and linked and returned[-1] is result else None


def _execute(network: nn.Module, node: fx.Node, values: dict[fx.Node, Any]) -> Any:
    args = fx.node.map_arg(node.args, values.__getitem__)
    kwargs = fx.node.map_arg(node.kwargs, values.__getitem__)
    target: Any = node.target
    match node.op:
        case "call_module":
            return network.get_submodule(target)(*args, **kwargs)
        case "call_function":
            return target(*args, **kwargs)
        case "call_method":
            return getattr(args[0], target)(*args[1:], **kwargs)
        case "get_attr":
            return functools.reduce(getattr, target.split("."), network)
        case _:  # a further argument of forward, at its default
            return args[0] if args else None


def _writes(network: nn.Module, node: fx.Node) -> bool:
    """Whether an operation may write into its input."""
    if node.kwargs.get("inplace"):
        return True
    if node.op == "call_module":
        return any(getattr(module, "inplace", False) for module in network.get_submodule(str(node.target)).modules())
    if node.op == "call_method":
        return str(node.target).endswith("_") and not str(node.target).endswith("__")
    name, package = getattr(node.target, "__name__", ""), (getattr(node.target, "__module__", None) or "torch")
    if package == "_operator":
        return name.startswith("i") and name not in ("index", "indexOf", "invert", "is_", "is_not")
    return name.endswith("_") or package.partition(".")[0] not in _PURE


def _unavailable(why: str) -> UserError:
    return UserError(f"hidden spaces are unavailable for this network: {why}")


def first_line(error: BaseException) -> str:
    """The first line of an error's message, with its type."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"

"""A network cut into stages, so that its hidden layers can be entered and left.

The network is traced with `torch.fx` into a list of operations. It may be cut between two of them
where exactly one value that depends on the images is still needed: never across the shortcut of a
residual block, where two values are. Of these places, those are kept where the call of a module
ends, so that operations outside any module (a flatten, a ReLU function) join the stage after them.
A module that leaves the values as they are (flatten, identity, dropout) ends no stage.

A stage is a list of operations, not a module. When it runs, it looks up modules, parameters and
buffers in the network itself. So training, loading weights and moving to another device take effect
at once, and nothing is copied.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, fx, nn
from torch.fx.node import Argument

from tasks.parts.models.tracing import first_line, may_write, trace, unavailable

# Modules whose output has the same values as their input.
_UNCHANGED = (nn.Flatten, nn.Unflatten, nn.Identity, nn.modules.dropout._DropoutNd)

ModulePath = tuple[str, ...]
"""The names that lead from the network to a module in it."""


@dataclass(frozen=True)
class Step:
    """One operation of a stage.

    Attributes:
        node: the operation.
        spent: the operations whose values are no longer needed after it.
        path: the module, if the operation calls one with a single value and nothing else, as nearly
            all do. Such a call runs directly, without looking at the operation again. Else None.
    """

    node: fx.Node
    spent: tuple[fx.Node, ...]
    path: ModulePath | None


@dataclass(frozen=True)
class Stage:
    """Consecutive operations of a network from one value to another.

    Attributes:
        name: path of the module whose call ends the stage.
        entry: the operation whose value is the stage's input.
        exit: the operation whose value is the stage's output.
        steps: the operations in order.
        chain: the modules, if each operation calls one on what the operation before returned, as in
            most stages. Such a stage runs without a table of values. Else None.
        writes: whether an operation of the network may write into its input, so that a caller's
            tensor must be copied first.
    """

    name: str
    entry: fx.Node
    exit: fx.Node
    steps: tuple[Step, ...]
    chain: tuple[ModulePath, ...] | None
    writes: bool


def split(network: nn.Module) -> tuple[Stage, ...]:
    """The stages of a network, with each module in the mode (training, evaluation) that it is in.

    Args:
        network: takes images (B, C, H, W) and returns one tensor. A module in it that cannot be
            traced is one operation.

    Raises:
        UserError: the network itself cannot be traced; the message says why.

    >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    >>> [stage.name for stage in split(network)]  # the flatten goes with the linear layer
    ['network.0', 'network.1', 'network.3']
    """
    graph, whole = trace(network)
    nodes = list(graph.nodes)
    start, end = next(node for node in nodes if node.op == "placeholder"), nodes[-1]
    logits = end.args[0]
    if not isinstance(logits, fx.Node):
        raise unavailable("its forward returns more than one tensor of logits")
    order = [start]  # the operations whose value depends on the images
    dependent = {start}
    for node in nodes[:-1]:
        if any(source in dependent for source in node.all_input_nodes):
            order.append(node)
            dependent.add(node)
    writes = bool(whole) or any(may_write(network, node) for node in order[1:])

    # Of each stage: its name, the place of its last operation in `order`, the value it hands on.
    ends: list[tuple[str, int, fx.Node]] = []
    first, last = 1, len(order) - 1
    for i, value in _cuts(order, end):
        name = _name(network, order[first : i + 1], order[i + 1] if i < last else end)
        if name is not None:
            ends.append((name, i, value))
            first = i + 1
    if not ends or ends[-1][1] < last:  # what is left is outside any module: part of the last stage
        ends[-1:] = [(ends[-1][0] if ends else "output", last, logits)]

    stages: list[Stage] = []
    taken: Counter[str] = Counter()
    first, entry = 1, start
    for name, i, value in ends:
        unique = f"{name}_{taken[name]}" if taken[name] else name  # called again: relu, relu_1, ...
        steps = _steps(nodes, dependent, order[first : i + 1], value)
        stages.append(Stage(unique, entry, value, steps, _chain(steps, entry, value), writes))
        taken[name] += 1
        first, entry = i + 1, value
    return tuple(stages)


def run(network: nn.Module, stages: Sequence[Stage], value: Tensor) -> Tensor:
    """The value after some consecutive stages of the network.

    Args:
        network: the network that was split.
        stages: some of its stages, in order, none left out between them.
        value: the value before the first of them. It is not written to.
    """
    for i, stage in enumerate(stages):
        if i == 0 and stage.writes:
            value = value.clone()
        if stage.chain is not None:
            for path in stage.chain:
                value = _module(network, path)(value)
            continue
        values: dict[fx.Node, Argument] = {stage.entry: value}
        for step in stage.steps:
            node = step.node
            if step.path is None:
                values[node] = _execute(network, node, values)
            else:
                values[node] = _module(network, step.path)(values[cast(fx.Node, node.args[0])])
            for old in step.spent:
                del values[old]
        value = cast(Tensor, values[stage.exit])  # `_cuts` cuts at no tuple
    return value


def verify(network: nn.Module, stages: Sequence[Stage], images: Tensor) -> None:
    """Makes sure that the stages together compute what the network computes.

    Args:
        network: the network that was split.
        stages: all of its stages.
        images: some normalised images (B, C, H, W). They are not written to.

    Raises:
        UserError: they do not, because the network's Python code treats tensors and the tracer's
            placeholders differently.
    """
    with torch.no_grad():
        try:
            wanted = network(images.clone())  # the network may write into its input
            error = (run(network, stages, images) - wanted).abs().max()
        except (KeyError, TypeError, AttributeError, RuntimeError) as wrong:
            raise unavailable(f"its traced form does not run ({first_line(wrong)})") from wrong
    if error > 1e-3 * wanted.abs().max():  # relative: an untrained network's logits may be tiny
        raise unavailable("its traced form gives other logits, so its forward looks at more than the values of tensors")


def _cuts(order: list[fx.Node], end: fx.Node) -> Iterator[tuple[int, fx.Node]]:
    """The places i in `order` after which one tensor is needed, and the operation it is from."""
    place = {node: i for i, node in enumerate([*order, end])}
    needed_until = [max((place[user] for user in node.users if user in place), default=-1) for node in order]
    live = [0]
    for i in range(1, len(order)):
        live = [j for j in [*live, i] if needed_until[j] > i]
        if len(live) == 1 and live != [0] and not _is_tuple(order[live[0]]):
            yield i, order[live[0]]


def _is_tuple(node: fx.Node) -> bool:
    """Whether a value is indexed with a whole number, like the pair from an attention layer."""
    return any(user.target is operator.getitem and isinstance(user.args[1], int) for user in node.users)


def _name(network: nn.Module, nodes: list[fx.Node], following: fx.Node) -> str | None:
    """The module whose call ends with these operations: the one that holds most of them.

    The innermost, if several hold as many. None where no call ends, or where every operation leaves
    the values as they are.
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
    """The operations of `part`, and those they need that do not depend on images: parameters."""
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


def _chain(steps: Sequence[Step], entry: fx.Node, result: fx.Node) -> tuple[ModulePath, ...] | None:
    """The modules called, if each is called on what the operation before returned; else None."""
    paths = [step.path for step in steps if step.path is not None]
    returned = [entry, *(step.node for step in steps)]
    linked = all(step.node.args == (before,) for step, before in zip(steps, returned, strict=False))
    return tuple(paths) if len(paths) == len(steps) and linked and returned[-1] is result else None


def _module(network: nn.Module, path: ModulePath) -> nn.Module:
    """As `network.get_submodule`, at a fraction of its cost."""
    for name in path:
        network = cast(nn.Module, network._modules[name])  # there when the network was traced
    return network


def _execute(network: nn.Module, node: fx.Node, values: dict[fx.Node, Argument]) -> Argument:
    args = fx.node.map_arg(node.args, values.__getitem__)
    kwargs = fx.node.map_arg(node.kwargs, values.__getitem__)
    target = node.target
    if not isinstance(target, str):  # a function
        return target(*args, **kwargs)
    match node.op:
        case "call_module":
            return network.get_submodule(target)(*args, **kwargs)
        case "call_method":
            return getattr(args[0], target)(*args[1:], **kwargs)
        case "get_attr":
            return operator.attrgetter(target)(network)
        case _:  # a further argument of forward, at its default
            return args[0] if args else None

"""A network as a list of operations, traced with `torch.fx`.

Each operation's `meta["calls"]` lists the module calls that it is in, the outermost first.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable

from torch import fx, nn
from torch.fx.node import Argument, Target

from tasks.parts.settings import UserError

# Packages whose functions write into a tensor only if the function's name says so.
_PURE = ("torch", "_operator", "builtins", "math")

Call = tuple[str, int]
"""The path of the called module, and the number of the call."""


class _Tracer(fx.Tracer):
    """Marks each operation with its module calls. Modules of torch.nn and `whole` stay whole."""

    def __init__(self, whole: Iterable[str]):
        super().__init__()
        self.whole = set(whole)
        self.calls: list[Call] = []
        self.count = 0

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name in self.whole or super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self, m: nn.Module, forward: Callable[..., object], args: tuple[object, ...], kwargs: dict[str, object]
    ) -> object:
        self.count += 1
        self.calls.append((self.path_of_module(m), self.count))
        result = super().call_module(m, forward, args, kwargs)
        self.calls.pop()  # after an error, `calls` still says which module could not be traced
        return result

    def create_node(
        self,
        kind: str,
        target: Target,
        args: tuple[Argument, ...],
        kwargs: dict[str, Argument],
        name: str | None = None,
        type_expr: object = None,
    ) -> fx.Node:
        node = super().create_node(kind, target, args, kwargs, name, type_expr)
        node.meta["calls"] = tuple(self.calls)
        return node


def trace(network: nn.Module) -> tuple[fx.Graph, set[str]]:
    """The operations of a network, and the paths of the modules that could not be traced.

    Such a module is one operation. Arguments of `forward` after the first keep their defaults.

    Raises:
        UserError: the network itself cannot be traced; the message says why.
    """
    whole: set[str] = set()
    parameters = list(inspect.signature(network.forward).parameters.values())
    fixed = {p.name: p.default for p in parameters[1:] if p.default is not p.empty}
    while True:
        tracer = _Tracer(whole)
        try:
            return tracer.trace(network, concrete_args=fixed or None), whole
        except Exception as error:  # the user's own code runs here, and may raise anything
            if not tracer.calls or tracer.calls[-1][0] in whole:
                raise unavailable(f"torch.fx cannot trace it ({first_line(error)})") from error
            whole.add(tracer.calls[-1][0])


def may_write(network: nn.Module, node: fx.Node) -> bool:
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


def unavailable(why: str) -> UserError:
    """The error for a network without hidden spaces."""
    return UserError(f"hidden spaces are unavailable for this network: {why}")


def first_line(error: BaseException) -> str:
    """The type of an error and the first line of its message."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"

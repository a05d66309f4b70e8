"""Code of the user's own, `package.module:function`: how it is found, and what identifies it.

The hash of its source separates the results of different versions of it.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import io
import tokenize
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from tasks.parts.settings import UserError

OURS = ("tasks", "engine", "analysis")
"""Packages that have versions of their own."""


def is_own(name: str) -> bool:
    """Whether a name is that of a user's function.

    >>> is_own("package.module:function"), is_own("convnet")
    (True, False)
    """
    return ":" in name


def module_of(name: str) -> str:
    """The part of a name that says the module.

    >>> module_of("package.module:function")
    'package.module'
    """
    return name.partition(":")[0]


def function_of(name: str) -> Callable[..., Any]:
    """The function that a `package.module:function` names.

    Raises:
        UserError: the module cannot be imported, or has no such function.

    >>> function_of("math:hypot")(3, 4)
    5.0
    """
    module, wanted = imported(module_of(name)), name.partition(":")[2]
    function = getattr(module, wanted, None)
    if not callable(function):
        raise UserError(f"{getattr(module, '__file__', module.__name__)} has no function '{wanted}'")
    return function


def imported(module: str) -> ModuleType:
    """A module by its dotted name.

    Raises:
        UserError: it cannot be imported; the message has the error that its code raised.
    """
    try:
        return importlib.import_module(module)
    except Exception as error:  # importing runs the module's code, which may raise anything
        raise UserError(f"{module} cannot be imported: {type(error).__name__}: {error}") from error


def source_hash(module: str) -> str:
    """A hash of a module's source, and of the modules of its package or folder that it imports.

    It has 32 hexadecimal digits. Comments, docstrings, blank lines and the version of Python do not
    count. Of a compiled module the file is hashed. Modules that are imported under a computed name
    do not count, nor do the files that the code reads.

    Args:
        module: its dotted name. The module is not run, but the packages around it are imported.

    Raises:
        ImportError: there is no such module, or no file of it.
    """
    found = importlib.util.find_spec(module)
    if found is None or not found.origin or not Path(found.origin).is_file():
        raise ImportError(f"no file of {module} is found")
    origin = Path(found.origin).resolve()
    if origin.suffix != ".py":  # compiled
        return hashlib.sha256(origin.read_bytes()).hexdigest()[:32]
    is_package = origin.name == "__init__.py"
    root = origin.parents[module.count(".") + is_package]
    package = module.partition(".")[0] if "." in module or is_package else None
    alone = package is None and root.name in ("site-packages", "dist-packages")
    seen: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        file = _file_of(name, root)
        if file is None or name in seen:
            continue
        text = _read(file)
        seen[name] = meaning(text)
        if not alone:
            imported = _imported(text, name, is_package=file.name == "__init__.py")
            waiting += [other for other in imported if _belongs(other, package)]
    text = "\n".join(f"{name}\n{seen[name]}" for name in sorted(seen))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def meaning(source: str) -> str:
    r"""Python source without comments, docstrings and blank lines; as it is if it cannot be parsed.

    >>> print(meaning("def f(x):  # one\n    'Says what.'\n\n    return x + 1\n"))
    def f(x):
        return x + 1
    """
    try:
        tree = ast.parse(source)
        tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    except (SyntaxError, ValueError, tokenize.TokenError):
        return source
    lines = [line.encode() for line in source.splitlines()]
    for token in tokens:
        if token.type == tokenize.COMMENT:  # nothing follows it on its line
            lines[token.start[0] - 1] = source.splitlines()[token.start[0] - 1][: token.start[1]].encode()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            _blank_docstring(node, lines)
    return "\n".join(line.decode().rstrip() for line in lines if line.strip())


def _blank_docstring(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, lines: list[bytes]
) -> None:
    """Takes a docstring out of the lines of its module, class or function; columns count bytes."""
    first = node.body[0] if node.body else None
    if not (
        isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    ):
        return
    begin, end = first.lineno - 1, (first.end_lineno or first.lineno) - 1
    rest = lines[end][first.end_col_offset or 0 :]
    for line in range(begin + 1, end + 1):
        lines[line] = b""
    lines[begin] = lines[begin][: first.col_offset] + rest


def _imported(source: str, module: str, *, is_package: bool) -> Iterator[str]:
    """The dotted names that a module imports, anywhere in it.

    `from a import b` yields both a and a.b, for b may be a module.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    parts = module.split(".")
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _with_parents(alias.name)
        elif isinstance(node, ast.ImportFrom):
            above = parts[: len(parts) - node.level + is_package] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            if base:
                yield from _with_parents(base)
                yield from (f"{base}.{alias.name}" for alias in node.names)
            else:
                yield from (alias.name for alias in node.names)


def _with_parents(module: str) -> Iterator[str]:
    """A module's dotted name, after those of the packages around it.

    >>> list(_with_parents("a.b.c"))
    ['a', 'a.b', 'a.b.c']
    """
    parts = module.split(".")
    yield from (".".join(parts[: end + 1]) for end in range(len(parts)))


def _belongs(module: str, package: str | None) -> bool:
    """Whether a module is of that package; without a package, whether it is not one of ours."""
    top = module.partition(".")[0]
    return top == package if package else top not in OURS


def _file_of(module: str, root: Path) -> Path | None:
    """The file of a module below a folder; None where it lies elsewhere."""
    place = root.joinpath(*module.split("."))
    for file in (place / "__init__.py", place.with_name(f"{place.name}.py")):
        if file.is_file():
            return file
    return None


def _read(file: Path) -> str:
    with tokenize.open(file) as text:  # in the encoding that it declares
        return text.read()

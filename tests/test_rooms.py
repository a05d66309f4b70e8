"""Who may import whom. Every module stands on a floor; an import goes to a lower one.

On the same floor only two rooms are open within themselves: the parts of tasks, and analysis. Imports count wherever
they stand: at the top, inside a function, under TYPE_CHECKING, or as `import_module("...")` of a literal name.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
ROOMS = ("tasks", "engine", "analysis")

FLOORS = {
    "tasks": 0,
    "engine": 0,
    "analysis": 0,
    "engine.terminal": 0,
    "analysis.stats": 1,
    "analysis.style": 1,
    "analysis.augmented": 1,
    "analysis.catalogue": 1,
    "analysis.cube": 1,
    "analysis.drawing": 1,
    "analysis.networks": 1,
    "analysis.options": 1,
    "analysis.points": 1,
    "analysis.page": 1,
    "analysis.paired": 1,
    "analysis.results": 1,
    "analysis.searches": 1,
    "analysis.summary": 1,
    "analysis.telling": 1,
    "engine.source": 1,
    "engine.entries": 1,
    "engine.explain": 2,
    "engine.spec": 3,
    "engine.store": 2,
    "engine.scores": 2,
    "engine.owned": 3,
    "engine.identity": 3,
    "engine.plan": 4,
    "engine.space": 2,
    "engine.importance": 5,
    "engine.storage": 4,
    "engine.study": 5,
    "engine.work": 3,
    "engine.scatter": 3,
    "engine.board": 4,
    "engine.recipe_log": 9,
    "engine.job": 5,
    "engine.artifacts": 6,
    "engine.judge": 6,
    "engine.trial": 7,
    "engine.progress": 7,
    "engine.tuning": 8,
    "engine.launch": 9,
    "analysis.table": 8,
    "analysis.report": 8,
    "engine.results": 12,
    "engine.sweep": 13,
}

# What a room may not import from outside, and the modules that alone may.
FORBIDDEN = {
    "tasks": ("ray", "yaml", "matplotlib", "optuna"),
    "analysis": ("torch", "torchvision", "ray"),
}
RESERVED = {
    "ray.tune": ("engine.tuning",),
    "optuna": ("engine.study", "engine.space", "engine.importance", "engine.storage"),
    "matplotlib": ("analysis",),
}


def below(name: str, package: str) -> bool:
    """Whether a module is a package or lies in it.

    >>> below("ray.tune.search", "ray.tune"), below("ray.tuner", "ray.tune")
    (True, False)
    """
    return name == package or name.startswith(f"{package}.")


def floor(module: str) -> int | None:
    """The floor of a module of the project, None where it has none yet."""
    if below(module, "tasks.parts"):
        return 0
    if below(module, "analysis.figures"):
        return 1
    if module.startswith("tasks.") and module.count(".") == 1:
        return 1
    return FLOORS.get(module)


def sources() -> dict[str, Path]:
    """Every module of the three rooms, by its dotted name."""
    found = {}
    for room in ROOMS:
        for path in sorted((PROJECT / room).rglob("*.py")):
            parts = path.relative_to(PROJECT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(module: str, source: str, is_package: bool = False) -> Iterator[tuple[int, str, str | None]]:
    """Every import of a source: its line, the module, and for `from module import name` each name.

    >>> list(imported("engine.trial", "from . import store"))
    [(1, 'engine', 'store')]
    >>> list(imported("engine.trial", "def f():\\n    import ray.tune as t"))
    [(2, 'ray.tune', None)]
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, None
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            if node.level:
                here = module.split(".")
                up = len(here) - node.level + (1 if is_package else 0)
                origin = ".".join([*here[:up], *([node.module] if node.module else [])])
            for alias in node.names:
                yield node.lineno, origin, alias.name
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in {"import_module", "__import__"} and isinstance(node.args[0].value, str):
                yield node.lineno, node.args[0].value, None


def violations(module: str, source: str, modules: set[str]) -> list[str]:
    """What a module does that its floor does not allow, one line each; `modules` are all those of the project."""
    here, room = floor(module), module.split(".")[0]
    if here is None:
        return [f"{module}: stands on no floor; give it one in tests/test_rooms.py"]
    found = []
    is_package = any(other.startswith(f"{module}.") for other in modules)
    for line, origin, name in imported(module, source, is_package):
        full = f"{origin}.{name}" if name else origin
        # `from package import name` means the module of that name where there is one, else something of the package.
        target = full if full in modules else origin
        place = f"{module}:{line}"
        for package in FORBIDDEN.get(room, ()):
            if below(full, package):
                found.append(f"{place}: {room} may not import {package}")
        for package, allowed in RESERVED.items():
            if below(full, package) and not any(below(module, each) for each in allowed):
                found.append(f"{place}: only {', '.join(allowed)} may import {package}")
        if target.split(".")[0] not in ROOMS:
            continue
        there = floor(target)
        if there is None:
            found.append(f"{place}: imports {target}, which stands on no floor; give it one in tests/test_rooms.py")
            continue
        if room == "analysis" and here <= 1 and not below(target, "analysis"):
            found.append(f"{place}: computes on tables alone and may not import {target}")
        within = all(below(each, "tasks.parts") for each in (module, target)) or (
            all(below(each, "analysis") for each in (module, target))
        )
        if there > here or (there == here and not within):
            found.append(f"{place}: on floor {here}, may not import {target} on floor {there}")
    return list(dict.fromkeys(found))  # `from module import a, b` breaks one rule once


def test_imports_go_downward() -> None:
    modules = sources()
    assert {"tasks.parts.settings", "engine", "analysis"} <= set(modules)
    found = [each for name, path in modules.items() for each in violations(name, path.read_text(), set(modules))]
    assert not found, "\n" + "\n".join(found)


MODULES = {*FLOORS, "tasks.parts", "tasks.parts.noise", "tasks.parts.attacks", "tasks.parts.attacks.pgd"} | {
    "tasks.flatness",
    "tasks.attack",
    "analysis.figures",
    "analysis.figures.curve",
}


@pytest.mark.parametrize(
    ("module", "source", "said"),
    [
        ("engine.store", "from engine.trial import run", "floor 7"),
        ("engine.store", "from engine import trial", "floor 7"),
        ("engine.store", "from . import trial", "floor 7"),
        ("engine.store", "import engine.trial as t", "floor 7"),
        ("engine.store", "def f():\n    from .trial import run", "engine.store:2: on floor 2"),
        ("engine.store", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import engine.trial", "floor 7"),
        ("engine.store", "from importlib import import_module\nimport_module('engine.trial')", "floor 7"),
        ("engine.store", "import importlib\nimportlib.import_module('engine.trial')", "floor 7"),
        ("engine.store", "import engine.spec", "on floor 2, may not import engine.spec on floor 3"),
        ("engine.trial", "import engine.progress", "floor 7"),
        ("engine.trial", "from engine.helpers import f", "engine.helpers, which stands on no floor"),
        ("engine.helpers", "", "engine.helpers: stands on no floor"),
        ("analysis.helpers", "", "analysis.helpers: stands on no floor"),
        ("tasks.more.flatness", "", "tasks.more.flatness: stands on no floor"),
        ("engine", "from engine.spec import Sweep", "floor 3"),
        ("tasks.flatness", "from tasks import attack", "tasks.attack on floor 1"),
        ("tasks.flatness", "from tasks.attack import measure", "tasks.attack on floor 1"),
        ("tasks.flatness", "from engine.spec import Sweep", "floor 3"),
        ("tasks.parts.noise", "from tasks.flatness import Config", "floor 1"),
        ("tasks.parts.attacks.pgd", "from ... import flatness", "floor 1"),
        ("tasks.parts.noise", "import ray", "tasks may not import ray"),
        ("tasks.parts.noise", "def f():\n    import yaml", "tasks may not import yaml"),
        ("tasks.flatness", "from matplotlib import pyplot", "tasks may not import matplotlib"),
        ("tasks.flatness", "import optuna.samplers", "tasks may not import optuna"),
        ("analysis.stats", "import torch.nn", "analysis may not import torch"),
        ("analysis.report", "def f():\n    import ray", "analysis may not import ray"),
        ("analysis.stats", "from tasks.parts import noise", "computes on tables alone"),
        ("analysis.figures.curve", "from engine import spec", "computes on tables alone"),
        ("analysis.stats", "from analysis import report", "floor 8"),
        ("engine.trial", "from ray import tune", "only engine.tuning may import ray.tune"),
        ("engine.trial", "from ray.tune import report", "only engine.tuning may import ray.tune"),
        (
            "engine.spec",
            "import optuna",
            "only engine.study, engine.space, engine.importance, engine.storage may import optuna",
        ),
        ("engine.sweep", "import matplotlib.pyplot as plt", "only analysis may import matplotlib"),
    ],
)
def test_what_is_not_allowed_is_seen(module: str, source: str, said: str) -> None:
    found = violations(module, source, MODULES)
    assert any(said in each for each in found), found


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("tasks.parts.attacks.pgd", "from tasks.parts import noise\nfrom ..noise import sample\nimport torch"),
        ("tasks.parts.attacks", "from .pgd import pgd\nfrom tasks.parts.attacks.pgd import pgd"),
        ("tasks.flatness", "from __future__ import annotations\nfrom tasks.parts.noise import sample"),
        ("analysis.figures.curve", "from analysis import stats, style\nfrom matplotlib import pyplot\nimport pandas"),
        (
            "analysis.report",
            "from analysis import table\nfrom engine import spec, store\nfrom analysis.figures import curve",
        ),
        ("engine.tuning", "from ray import tune\nfrom engine import progress, trial"),
        ("engine.trial", "import ray\nfrom engine.scatter import scatter\nfrom engine import store"),
        ("engine.sweep", "from engine import launch\nfrom analysis import report\nimport tuner"),
    ],
)
def test_what_is_allowed_is_let_through(module: str, source: str) -> None:
    assert violations(module, source, MODULES) == []


def classes(source: str) -> list[str]:
    return [node.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)]


def test_sweep_defines_no_class() -> None:
    """It runs as `__main__`: a class defined there is another class wherever it is imported or unpickled."""
    assert classes("def f():\n    class A: pass") == ["A"]
    assert classes((PROJECT / "engine" / "sweep.py").read_text()) == []


def work_of(source: str) -> list[str]:
    """What an `__init__.py` holds besides prose, imports and the list of its names."""

    def harmless(node: ast.stmt) -> bool:
        if isinstance(node, ast.Assign):
            return [ast.unparse(target) for target in node.targets] == ["__all__"]
        if isinstance(node, ast.Expr):
            return isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return isinstance(node, ast.Import | ast.ImportFrom)

    return [ast.unparse(node) for node in ast.parse(source).body if not harmless(node)]


def test_packages_only_speak_and_pass_on() -> None:
    assert work_of('"""Prose."""\nfrom a import b\n__all__ = ["b"]\n') == []
    assert work_of("REGISTRY = {}") == ["REGISTRY = {}"]
    packages = [path for path in sources().values() if path.name == "__init__.py"]
    assert len(packages) >= len(ROOMS)
    assert {str(path): work_of(path.read_text()) for path in packages if work_of(path.read_text())} == {}


def test_report_loads_neither_torch_nor_ray() -> None:
    """In a fresh interpreter, so through whatever the report imports in turn."""
    program = "import sys, analysis.report; print(*sorted({'torch', 'ray'} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == []

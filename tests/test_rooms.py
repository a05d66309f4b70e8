"""The one rule of the house: a module imports its own room and the rooms above it in this list."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import PROJECT

ROOMS = (
    "engine.shadows",
    "engine.terminal",
    "tasks.parts",
    "tasks.parts.data",
    "tasks.parts.geometry",
    "tasks.parts.models",
    "tasks.parts.noise",
    "tasks.parts.attacks.common",
    "tasks.parts.training",
    "tasks.parts.attacks",
    "tasks.parts.autoencoders.common",
    "tasks.parts.autoencoders",
    "tasks.parts.samplers.common",
    "tasks.parts.samplers",
    "tasks.parts.measures",
    "tasks.parts.artifacts",
    "tasks.parts.contract",
    "tasks.parts.attack_task",
    "tasks",
    "engine.store",
    "engine.sweepfile",
    "engine.plan",
    "engine.search",
    "engine.execution",
    "engine.results",
    "analysis",
    "engine.sweep",
    "engine.conformance",
    "engine.console",
    "engine.notebook",
)
FORBIDDEN = {
    "tasks": ("ray", "yaml", "matplotlib", "optuna"),
    "analysis": ("torch", "torchvision", "ray"),
    "engine": ("matplotlib",),
}
"""What a package may not import from outside."""
RESERVED = {"ray.tune": "engine.execution.ray_tune", "optuna": "engine.search"}
"""What is imported in one place alone."""
READS = ("analysis.table", "analysis.report", "analysis.recipe_log")
"""The modules of analysis that read and write what is stored.

The others compute on tables alone.
"""
SHARED = (
    "engine.store.records",
    "tasks.parts.columns",
    "tasks.parts.measures.calibration",
    "tasks.parts.measures.ladder",
    "tasks.parts.measures.wilson",
    "tasks.parts.members",
    "tasks.parts.messages",
    "tasks.parts.settings",
)
"""What all of analysis may know besides: records, and arithmetic without torch that tasks share."""
MEMBERS = {
    "tasks": ("Config", "measure"),
    "tasks.parts.attacks": ("VERSION",),
    "tasks.parts.autoencoders": ("Options", "build", "VERSION"),
    "tasks.parts.data.datasets": ("read", "fingerprint", "check"),
    "tasks.parts.models.networks": ("build",),
    "tasks.parts.samplers": (),
    "analysis.figures": ("Options", "compute", "draw"),
}
"""Folders that are searched for members, and what a member has.

Helpers live in `common/`, or another folder.
"""
NAMED = ("tasks.parts.attacks", "tasks.parts.samplers")
"""Those whose members have a function of the member's name."""


def sources() -> dict[str, Path]:
    """Every module of the project, by its dotted name."""
    found = {}
    for package in ("tasks", "engine", "analysis"):
        for path in sorted((PROJECT / package).rglob("*.py")):
            parts = path.relative_to(PROJECT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def below(name: str, package: str) -> bool:
    """
    >>> below("ray.tune.search", "ray.tune"), below("ray.tuner", "ray.tune")
    (True, False)
    """
    return name == package or name.startswith(f"{package}.")


def room(module: str) -> int:
    """The place of a module's room in the list; those that only hold rooms come first.

    >>> ROOMS[room("tasks.parts.attacks.common.checks")], ROOMS[room("tasks.parts.losses")]
    ('tasks.parts.attacks.common', 'tasks.parts')
    >>> room("engine")
    -1
    """
    fitting = [name for name in ROOMS if below(module, name)]
    return ROOMS.index(max(fitting, key=len)) if fitting else -1


def imported(module: str, source: str) -> Iterator[tuple[int, str, str | None]]:
    """Every import of a source: its line, the module, and for `from module import name` each name.

    >>> source = "def f():\\n    from ray import tune\\n    import_module('analysis')"
    >>> list(imported("engine.execution.trial", source))
    [(2, 'ray', 'tune'), (3, 'analysis', None)]
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}:{node.lineno}: names what it imports from the top"
            yield from ((node.lineno, str(node.module), alias.name) for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in {"import_module", "__import__"} and isinstance(node.args[0].value, str):
                yield node.lineno, node.args[0].value, None


def violations(module: str, source: str, modules: set[str]) -> list[str]:
    """What a module imports and may not, one line each.

    `modules` are all those of the project.
    """
    found = []
    for line, origin, name in imported(module, source):
        full = f"{origin}.{name}" if name else origin
        # A module of a package, or something of a module
        target = full if full in modules else origin
        place = f"{module}:{line}"
        for package in FORBIDDEN[module.partition(".")[0]]:
            if below(full, package):
                found.append(f"{place}: may not import {package}")
        for package, only in RESERVED.items():
            if below(full, package) and not below(module, only):
                found.append(f"{place}: only {only} may import {package}")
        # A package passes on
        if target in modules and room(target) > room(module) and not below(target, module):
            found.append(f"{place}: {target} is in a room below its own")
        elsewhere = target in modules and target not in SHARED and not below(target, "analysis")
        if elsewhere and below(module, "analysis") and module not in READS:
            found.append(f"{place}: computes on tables alone, and may not import {target}")
    return list(dict.fromkeys(found))  # `from module import a, b` breaks one rule once


def test_imports_go_upward_in_the_list() -> None:
    modules = sources()
    found = [each for name, path in modules.items() for each in violations(name, path.read_text(), set(modules))]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("module", "source", "said"),
    [
        ("tasks.parts.noise.input_noise", "from tasks.parts.training import recipes", "is in a room below its own"),
        ("tasks.parts.settings", "import tasks.parts.data.load", "is in a room below its own"),
        ("engine.store.store", "def f():\n    from engine.execution.trial import run", "is in a room below its own"),
        (
            "engine.results.finish",
            "from importlib import import_module\nimport_module('analysis.report')",
            "room below",
        ),
        ("analysis.stats", "from engine.store import store", "computes on tables alone"),
        ("analysis.stats", "import torch.nn", "may not import torch"),
        ("tasks.evaluation", "from matplotlib import pyplot", "may not import matplotlib"),
        ("engine.execution.trial", "from ray import tune", "only engine.execution.ray_tune may import ray.tune"),
        ("engine.sweepfile.load", "import optuna.samplers", "only engine.search may import optuna"),
    ],
)
def test_what_is_not_allowed_is_seen(module: str, source: str, said: str) -> None:
    found = violations(module, source, set(sources()))
    assert any(said in each for each in found), found


@pytest.mark.parametrize("folder", MEMBERS)
def test_a_folder_that_is_searched_holds_members_alone(folder: str) -> None:
    names = [path.stem for path in (PROJECT / folder.replace(".", "/")).glob("*.py") if path.stem != "__init__"]
    assert names
    for name in names:
        module = importlib.import_module(f"{folder}.{name}")
        wanted = (*MEMBERS[folder], *([name] if folder in NAMED else []))
        assert not [part for part in wanted if not hasattr(module, part)], name


def test_sweep_defines_no_class() -> None:
    """It runs as `__main__`, so a class defined there is another class where it is imported."""
    tree = ast.parse((PROJECT / "engine" / "sweep.py").read_text())
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]


def test_packages_only_speak_and_pass_on() -> None:
    """An `__init__.py` holds prose, imports and the list of its names."""
    allowed = (ast.Import, ast.ImportFrom, ast.Expr)
    for path in sources().values():
        if path.name == "__init__.py":
            body = ast.parse(path.read_text()).body
            others = [ast.unparse(node) for node in body if not isinstance(node, allowed)]
            assert all(other.startswith("__all__ = ") for other in others), path


def test_report_loads_neither_torch_nor_ray() -> None:
    """In a fresh interpreter, so through whatever the report imports in turn."""
    program = "import sys, analysis.report; print(*sorted({'torch', 'ray'} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == []

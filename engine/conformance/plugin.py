"""A pytest plugin that chooses what is tested.

These are all tasks, attacks and kinds on disk or, with `--own`, modules of the user's own.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

import pytest

import tasks
from tasks.parts import artifacts, attacks

FOLDERS = {"task": tasks, "attack": attacks, "kind": artifacts}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds `--own`, the modules to test in place of those on disk."""
    parser.addoption(
        "--own",
        action="append",
        default=[],
        metavar="package.module",
        help="a task, an attack or an artifact kind of your own, in place of those on disk; may be given again",
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leaves out a test file where `--own` names no module of its sort."""
    sort = collection_path.stem.removeprefix("test_").removesuffix("s")
    return True if sort in FOLDERS and config.getoption("own") and not _members(sort, config) else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs each test of this folder with every task, attack or kind."""
    if metafunc.module.__package__ != __package__:
        return  # not a test of this folder; its arguments may have the same names
    for sort in FOLDERS:
        if sort in metafunc.fixturenames:
            found = _members(sort, metafunc.config)
            metafunc.parametrize(sort, found, ids=lambda module: module.__name__.rpartition(".")[2], scope="module")


def _members(sort: str, config: pytest.Config) -> list[ModuleType]:
    if own := config.getoption("own"):
        return [module for module in map(importlib.import_module, own) if _sort(module) == sort]
    package = FOLDERS[sort]
    names = [module.name for module in pkgutil.iter_modules(package.__path__) if not module.ispkg]
    return [importlib.import_module(f"{package.__name__}.{name}") for name in names]


def _sort(module: ModuleType) -> str:
    """The sort of a module: a task has a `Config`, a kind a `Request`."""
    return "task" if hasattr(module, "Config") else "kind" if hasattr(module, "Request") else "attack"

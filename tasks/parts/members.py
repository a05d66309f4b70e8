"""Folders of members: one file each, found on disk by its name and registered nowhere.

Helpers live in a folder of their own (`common/`), or in a file whose name begins with `_`.
"""

from __future__ import annotations

import importlib
import inspect
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

from tasks.parts.settings import UserError
from tasks.parts.user_code import imported


@dataclass(frozen=True)
class Members:
    """The members in the folder of a package.

    Attributes:
        package: its dotted name.
        kind: what a member is, for messages.
        parts: names that every member has.
        contract: the file that says what they are.
    """

    package: str
    kind: str
    parts: tuple[str, ...]
    contract: str

    def names(self) -> tuple[str, ...]:
        """The names of all members, sorted. A process reads the folder once.

        Raises:
            UserError: two files, or a file and a folder, have one name.

        >>> Members("tasks.parts.data.datasets", "data set", ("read",), "").names()[:2]
        ('blobs', 'cifar10')
        """
        return _names(self.package, self.kind)

    def module(self, name: str) -> ModuleType:
        """A member's module.

        Raises:
            UserError: it cannot be imported, or lacks a part.
        """
        return self.checked(imported(f"{self.package}.{name}"), name)

    def checked(self, module: ModuleType, name: str) -> ModuleType:
        """The module, once it is known to have the parts of a member.

        Args:
            module: ours or a user's own.
            name: what the user calls it.

        Raises:
            UserError: it lacks a part of a member.
        """
        lacking = [part for part in self.parts if not hasattr(module, part)]
        if lacking:
            raise UserError(f"{name} is no {self.kind}: it has no {', '.join(lacking)} (see {self.contract})")
        return module


def wrong_version(version: object) -> str | None:
    """What is wrong with a member's `VERSION`; None where it is a whole number above 0.

    >>> wrong_version(2), wrong_version("2")
    (None, "VERSION must be a whole number above 0, not '2'")
    """
    return None if type(version) is int and version > 0 else f"VERSION must be a whole number above 0, not {version!r}"


@cache
def _names(package: str, kind: str) -> tuple[str, ...]:
    found = []
    for folder in map(Path, importlib.import_module(package).__path__):
        for path in folder.iterdir():
            name = path.name if (path / "__init__.py").is_file() else inspect.getmodulename(path.name)
            if name and not name.startswith("_"):
                found.append((name, path))
    twice = [name for name, count in Counter(name for name, _ in found).items() if count > 1]
    if twice:
        paths = sorted(str(path) for name, path in found if name == twice[0])
        raise UserError(f"{' and '.join(paths)} are both the {kind} {twice[0]}; rename one of them")
    return tuple(sorted(name for name, path in found if not path.is_dir()))

"""The identities of tasks and artifacts: what decides numbers, from which keys are made.

An identity holds settings and data by their content, and the `VERSION` of the code that makes the
numbers: of the task, the attack and the kind of artifact. A version is raised by hand when numbers
change on purpose; `tests/golden` notices when they change without. So a docstring, a label or
another layout of the code measures nothing anew. Code of the user's own is identified by its source
(`tasks.parts.user_code`).
"""

from __future__ import annotations

from functools import cache
from types import ModuleType

from tasks.parts import user_code
from tasks.parts.artifacts.common.kind import Kind
from tasks.parts.settings import Settings


def of_task(task: ModuleType) -> list[object]:
    """The identity of a task: one of ours by its version, the user's own by its source."""
    ours = task.__name__.startswith("tasks.") and hasattr(task, "VERSION")
    return [task.__name__, task.VERSION if ours else _source_hash(task.__name__)]


def of_artifact(kind: Kind, request: Settings, root: str | None) -> list[object]:
    """The identity of an artifact, without what it needs, which has identities of its own.

    Args:
        kind: of the artifact.
        request: what was asked for.
        root: the folder of the data sets.
    """
    version = kind.module.VERSION if kind.ours else _source_hash(kind.module_name)
    return [kind.name, version, kind.identity(request, root)]


@cache
def _source_hash(module: str) -> str:
    """Hash of a module's source, remembered: this process has imported the module as it was."""
    return user_code.source_hash(module)

"""Finds the task that a sweep file names: a file in `tasks/`, or a module of the user's own."""

from __future__ import annotations

from types import ModuleType

from tasks.parts.contract import TaskConfig
from tasks.parts.members import Members, wrong_version
from tasks.parts.messages import did_you_mean
from tasks.parts.settings import UserError
from tasks.parts.user_code import imported

TASKS = Members("tasks", "task", ("COLUMNS", "Config", "needs", "measure", "summarise"), "tasks/parts/contract.py")


def task_names() -> tuple[str, ...]:
    """The names of the tasks in `tasks/`.

    >>> "input_flatness" in task_names()
    True
    """
    return TASKS.names()


def task_module(name: str) -> ModuleType:
    """The module of a task: `tasks/<name>.py`, or `package.module` of the user's own.

    Raises:
        UserError: there is no such module, or it is no task; the field is `task`.
    """
    known = task_names()
    try:
        if name not in known and "." not in name:
            raise UserError(f"unknown task {name}; there are {', '.join(known)}{did_you_mean(name, known)}")
        module = TASKS.checked(imported(f"tasks.{name}" if name in known else name), name)
        if wrong := _wrong(module):
            raise UserError(f"{name} is no task: {wrong}")
    except UserError as error:
        raise error.below("task") from None
    return module


def _wrong(module: ModuleType) -> str | None:
    """What is wrong with a task, in words that follow its name; None where nothing is."""
    if not (isinstance(module.Config, type) and issubclass(module.Config, TaskConfig)):
        return "its Config is not built on tasks.parts.contract.TaskConfig"
    if "id" not in module.COLUMNS:
        return "its COLUMNS lack id, the example that a row is about"
    wrong = wrong_version(getattr(module, "VERSION", 1))
    return f"its {wrong}" if wrong else None

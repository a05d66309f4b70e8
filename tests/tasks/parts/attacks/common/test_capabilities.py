"""What an attack declares: a file without it, or with a wrong one, is told of in one line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from tasks.parts import attacks, members
from tasks.parts.artifacts.common import attack_functions, attack_settings
from tasks.parts.artifacts.common.attack_settings import Attack

RIGHT = """
from typing import Literal
from tasks.parts.attacks.common.capabilities import Capabilities
VERSION = 1
ATTACK = Capabilities(norms=("Linf", "L2"), radius="fixed", spaces=("pixel",), targets=False)

def mine(model, images, labels, *, epsilon: float, norm: Literal["Linf", "L2"] = "L2", width: float = 0.5, grain: int = 2):
    return None
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A further folder of attacks."""
    monkeypatch.setattr(attacks, "__path__", [*attacks.__path__, str(tmp_path)])
    caches = (members._names, attack_functions.function_of, attack_functions.parameters_of)
    for cached in caches:
        cached.cache_clear()
    yield tmp_path
    for cached in (*caches, attack_functions.choices_of, attack_functions.hints_of, attack_settings._options_of):
        cached.cache_clear()
    sys.modules.pop("tasks.parts.attacks.mine", None)
    vars(attacks).pop("mine", None)


def test_a_file_of_its_own_is_all_that_an_attack_needs(folder: Path) -> None:
    (folder / "mine.py").write_text(RIGHT)
    attack = Attack(name="mine", options={"width": "1/4", "grain": 3})
    assert attack.resolve().arguments == {"norm": "L2", "epsilon": 1.0, "width": 0.25, "grain": 3}
    assert attack.fixed_radius
    for settings, said in (
        ({"space": "hidden:1"}, "space: mine attacks pixels only"),
        ({"target": 1}, "target: mine has no targets"),
        ({"norm": "L1"}, "mine has Linf, L2"),
        ({"options": {"grain": 2.5}}, "grain: must be a whole number, not 2.5"),
    ):
        with pytest.raises(ValidationError, match=said):
            Attack(name="mine", **settings)


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("VERSION = 1", "", "VERSION must be a whole number above 0, not None"),
        ("VERSION = 1", "VERSION = 1.5", "VERSION must be a whole number above 0, not 1.5"),
        ("ATTACK =", "OTHER =", r"ATTACK must be Capabilities\(norms=..., radius=...\), not None"),
        ("def mine(", "def yours(", "a function mine is missing"),
        ("epsilon: float, ", "", "ATTACK declares radius fixed, but mine has no argument epsilon"),
        (", targets=False", "", "ATTACK declares targets True, but mine has no argument targets"),
        ('spaces=("pixel",), ', "", "ATTACK declares spaces pixel, hidden, but mine has no argument box"),
        ('norms=("Linf", "L2")', 'norms=("L1",)', "ATTACK declares the norms L1, but mine has Linf, L2"),
        ("import Capabilities", "import Capabilitys", "cannot be imported: ImportError: cannot import name"),
        ("    return None", "    return (", "cannot be imported: SyntaxError"),
    ],
)
def test_a_file_that_is_wrong(right: str, wrong: str, said: str, folder: Path) -> None:
    assert right in RIGHT
    (folder / "mine.py").write_text(RIGHT.replace(right, wrong))
    with pytest.raises(ValidationError, match=f"its file tasks/parts/attacks/mine.py .*: {said}"):
        Attack(name="mine")
    Attack(name="pgd")  # nothing to do with it

"""The numbers of every task, attack and kind of artifact are those that its `VERSION` stands for.

Results are kept under keys that hold versions: numbers that change under the same version would
stand beside old ones, as if they were the same. Who changes them on purpose raises the version and
runs `python tests/golden/renew.py`.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from commands import PROJECT
from numbers_of import FOLDER, computed, file_of, kept, members, module_of

TOLERANCE = 1e-5


def differing(was: dict[str, list[float]], now: dict[str, list[float]]) -> list[str]:
    """The names of numbers that are not the same."""

    def same(a: float, b: float) -> bool:
        return (math.isnan(a) and math.isnan(b)) or math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE)

    names = {name for name in was.keys() | now.keys() if len(was.get(name, [])) != len(now.get(name, []))}
    names |= {
        name
        for name in was.keys() & now.keys() - names
        if not all(same(a, b) for a, b in zip(was[name], now[name], strict=True))
    }
    return sorted(names)


@pytest.mark.parametrize("member", members())
def test_numbers_are_those_of_the_version(member: str) -> None:
    module = module_of(member)
    version, name = module.VERSION, member.partition("/")[2]
    file = Path(str(module.__file__)).relative_to(PROJECT)
    assert type(version) is int, f"VERSION in {file} is no whole number"
    assert version > 0, f"VERSION in {file} is not above 0"
    assert file_of(member).exists(), f"{member} has no numbers yet: run python tests/golden/renew.py {member}"
    golden = kept(member)
    assert golden["version"] == version, (
        f"VERSION in {file} is {version}, the numbers kept are of {golden['version']}: run python tests/golden/renew.py {member}"
    )
    changed = differing(golden["numbers"], computed(member))
    assert not changed, (
        f"the numbers of {name} changed ({', '.join(changed)}): restore them, or raise VERSION in {file}"
    )


def test_what_is_kept_is_of_members_that_there_are() -> None:
    files = {file.relative_to(FOLDER).with_suffix("").as_posix() for file in FOLDER.glob("*/*.json")}
    assert files == set(members())


def test_a_change_is_noticed() -> None:
    was = {"a": [1.0, float("nan")], "b": [1.0], "c": [1.0]}
    assert differing(was, {"a": [1.0 + 1e-6, float("nan")], "b": [1.1], "d": [1.0]}) == ["b", "c", "d"]
    assert differing(was, was) == []

"""Every attack passes the checks of `tasks.parts.attacks.common.conformance`."""

from __future__ import annotations

from types import ModuleType

import pytest

from tasks.parts.attacks.common import conformance


@pytest.mark.parametrize("check", conformance.CHECKS, ids=lambda check: check.__name__)
def test_an_attack(attack: ModuleType, check: conformance.Check) -> None:
    """Each check holds in all cases that suit the attack."""
    function = getattr(attack, attack.__name__.rpartition(".")[2])
    for case in conformance.cases(function):
        check(function, case)

"""Self-checks that tasks share."""

from __future__ import annotations

Outcome = dict[str, str | None]
"""What was checked, in words, with what is wrong, or None."""

LOSS_SHARE = 0.05
"""Share of examples whose loss may fail to rise: near the boundary a step may pass a small hill."""


def found_again(wrong: int, examples: int) -> Outcome:
    """Checks that adversarial examples fool the network again, as they are stored.

    Args:
        wrong: number of examples that do not.
        examples: number of examples.
    """
    return {
        "what was found is found again from its stored form": f"not so for {wrong} of {examples}" if wrong else None
    }


def weaker_at_random(at_random: float, by_attack: float) -> Outcome:
    """Checks that moving at random fools less often than the attack.

    Both are shares of the examples that are fooled, NaN where there are none.

    >>> weaker_at_random(0.5, 0.25)
    {'moving at random fools less often than the attack': 'it fools 50.0%, the attack 25.0%'}
    """
    wrong = f"it fools {at_random:.1%}, the attack {by_attack:.1%}" if at_random > by_attack else None
    return {"moving at random fools less often than the attack": wrong}


def loss_rises(flat: int, examples: int) -> Outcome:
    """Checks that the loss is larger where an attack ends than where it began.

    Args:
        flat: number of examples for which it is not.
        examples: number of examples.
    """
    wrong = f"it does not for {flat} of {examples} examples" if flat > LOSS_SHARE * examples else None
    return {"the loss rises along the attack": wrong}

"""Self-checks that tasks share: what was checked, with words on what is wrong, or None."""

from __future__ import annotations

Outcome = dict[str, str | None]

LOSS_SHARE = 0.05
"""Share of the examples whose loss may fail to rise: near the boundary a step may lead past a small hill."""


def found_again(wrong: int, examples: int) -> Outcome:
    """Adversarial examples fool the network again, from where they are stored.

    Args:
        wrong: examples of which that is not so.
    """
    return {
        "what was found is found again from its stored form": f"not so for {wrong} of {examples}" if wrong else None
    }


def weaker_at_random(at_random: float, by_search: float) -> Outcome:
    """Moving at random fools less often than the search.

    Args:
        at_random, by_search: shares of the examples that are fooled; NaN where there are none.

    >>> weaker_at_random(0.5, 0.25)
    {'moving at random fools less often than the search': 'it fools 50.0%, the search 25.0%'}
    """
    wrong = f"it fools {at_random:.1%}, the search {by_search:.1%}" if at_random > by_search else None
    return {"moving at random fools less often than the search": wrong}


def loss_rises(flat: int, examples: int) -> Outcome:
    """The loss is larger where a search ends than where it began.

    Args:
        flat: examples of which that is not so.
    """
    wrong = f"it does not for {flat} of {examples} examples" if flat > LOSS_SHARE * examples else None
    return {"the loss rises along the search": wrong}

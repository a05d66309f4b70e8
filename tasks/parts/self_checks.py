"""Self-checks that tasks share."""

from __future__ import annotations

import pandas as pd

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


def more_alike_than_by_chance(labels: pd.Series, neighbor_labels: pd.Series) -> Outcome:
    """Checks that neighbours share the label of their example more often than by chance.

    Chance is what the shares of the labels on both sides would give if they were independent.

    Args:
        labels: of the examples, one for each neighbour.
        neighbor_labels: of the neighbours.
    """
    shares = [each.value_counts(normalize=True) for each in (labels, neighbor_labels)]
    by_chance = float(shares[0].mul(shares[1], fill_value=0).sum())
    true = float((labels == neighbor_labels).mean())
    wrong = f"{true:.1%} do, {by_chance:.1%} would by chance" if true <= by_chance else None
    return {"neighbours of unmoved images share their class more often than by chance": wrong}

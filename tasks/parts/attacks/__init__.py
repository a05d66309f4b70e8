"""Attacks: searches for adversarial examples.

Each file has one attack: a function from a batch to an `AttackResult`.

>>> from tasks.parts.attacks import fmn
>>> fmn.__module__
'tasks.parts.attacks.fmn'
"""

from tasks.parts.attacks.alma import alma
from tasks.parts.attacks.apgd import apgd
from tasks.parts.attacks.auto import auto
from tasks.parts.attacks.bisection import bisection
from tasks.parts.attacks.class_probability import class_probability
from tasks.parts.attacks.ddn import ddn
from tasks.parts.attacks.fmn import fmn
from tasks.parts.attacks.nearest import nearest
from tasks.parts.attacks.pgd import pgd
from tasks.parts.attacks.square import square

__all__ = ["alma", "apgd", "auto", "bisection", "class_probability", "ddn", "fmn", "nearest", "pgd", "square"]

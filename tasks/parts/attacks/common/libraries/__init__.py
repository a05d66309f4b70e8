"""The attacks of other packages as attacks of ours.

There are `foolbox:<class>` (foolbox 3: Rauber, Brendel and Bethge 2017) and `art:<class>`
(adversarial-robustness-toolbox: Nicolae et al. 2018).

They run on our network and our images. What they return is projected into the ball that was asked
for, clipped into [0, 1], shown to the network once more, and measured by us. Neither package is a
dependency: both come with the extra `peers`, and are imported when one of their attacks is asked
for.

Their random numbers come from the global states of torch, numpy and `random`. These are seeded for
every batch from (seed, id of its first example), and are as they were afterwards: the same chunk
gives the same rows, but where an attack draws at random, other chunks or another batch give others.
With `batch=1` each example has random numbers of its own, at the price of speed.
"""

from tasks.parts.attacks.common.libraries.attack import VERSION, check, find, library_attack

__all__ = ["VERSION", "check", "find", "library_attack"]

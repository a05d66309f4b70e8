"""Samplers: points of a space around an example, or from a distribution over the space.

Each file has one sampler, a function of the file's name. `gaussian` and `spherical` perturb points
at a ladder of radii. `mala` and `pcn` run Markov chains, whose distribution is a
`common.target.Target`; `common.diagnostics` says whether they have converged.

>>> from tasks.parts.samplers import mala
>>> mala.__module__
'tasks.parts.samplers.mala'
"""

from tasks.parts.samplers.gaussian import gaussian
from tasks.parts.samplers.mala import mala
from tasks.parts.samplers.pcn import pcn
from tasks.parts.samplers.spherical import spherical

__all__ = ["gaussian", "mala", "pcn", "spherical"]

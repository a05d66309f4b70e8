"""The sweep engine: from a YAML file to rows, over Ray or in this process.

`engine.run("sweeps/noise.yaml")` runs a sweep.
"""

from engine.notebook import run

__all__ = ["run"]

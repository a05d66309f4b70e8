"""Makes Optuna's samplers: a new one for each point, seeded by the number of the point."""

from __future__ import annotations

import optuna

from engine.store.naming import content_hash
from engine.sweepfile.schema import Searcher


class OrderedNSGAII(optuna.samplers.NSGAIISampler):
    """NSGA-II with parents sorted by trial number.

    So a resumed study proposes the same points as an uninterrupted one.
    """

    def select_parent(self, study: optuna.Study, generation: int) -> list[optuna.trial.FrozenTrial]:
        """The parents of a generation, by trial number."""
        return sorted(super().select_parent(study, generation), key=lambda trial: trial.number)


def sampler(searcher: Searcher, number: int) -> optuna.samplers.BaseSampler:
    """The sampler that chooses the point with a number."""
    seed = int(content_hash([searcher.seed, number])[:8], 16)
    if searcher.name == "nsga2":
        return OrderedNSGAII(population_size=searcher.population, seed=seed)
    return optuna.samplers.TPESampler(n_startup_trials=searcher.startup, seed=seed, constant_liar=True)

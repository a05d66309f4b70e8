"""A user's mistake ends in one clear line and exit status 2, and writes nothing.

The line names file, line and field.
"""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import sweep
from engine.plan.plan import plan
from engine.sweepfile.load import load
from engine.sweepfile.yaml_lines import SpecError
from tasks.input_flatness import Config
from tasks.parts.dotted import settings_of

GRID = """\
task: input_flatness
about: Any text.
fixed:
  examples: 6
  samples: 4
  radii: [0.1, 8/255]
  conditions: [genuine, adversarial]
  attack: {norm: Linf, epsilon: 0.15, steps: 2}
  recipe:
    dataset: blobs
    network: linear
    epochs: 1
    input_noise: {radius: 0.1, probability: 1}
grid:
  recipe.optimiser: [sgd, adam]
  recipe.weight_noise.sigma:
    - 0
    - 0.1
seeds: 2
objective: {metric: accuracy, mode: max}
resources: {cpus: 1, gpus: auto, chunk: null}
figures: [effects, recipes: {y: p_true}]
"""
SEARCH = """\
task: input_flatness
fixed.examples: 3
fixed.recipe: {dataset: digits, network: mlp, network_options: {width: 8}, train_examples: 50, classes: ['1', '7']}
search:
  recipe.learning_rate: {loguniform: [0.001, 0.1]}
  recipe.input_noise.radius: {uniform: [0, 1/2]}
  recipe.epochs: {int: [1, 3]}
  recipe.optimiser: {choice: [sgd, adam]}
trials: 3
seeds: [3, 5]
"""


def run(folder: Path, content: str | bytes, *arguments: str, name: str = "x.yaml") -> int:
    """Runs a sweep, given as text, in this process."""
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return sweep.main([name, "--local", *arguments])


@pytest.fixture
def folder(in_tmp_path: Path) -> Path:
    return in_tmp_path


def refused(folder: Path, capsys: pytest.CaptureFixture[str], content: str | bytes, *arguments: str) -> str:
    """The one line of a mistake; checks that nothing else is printed."""
    assert run(folder, content, *arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert len(err.splitlines()) == 1
    assert not (folder / "results").exists()
    assert [path.name for path in folder.iterdir() if path.suffix not in (".py", "")] == ["x.yaml"]
    return err.rstrip("\n")


def matches(said: str, expected: str) -> bool:
    """Whether a line is as expected, where `...` stands for anything.

    >>> matches("a: unknown, there is b", "a: ... b"), matches("a: b", "a")
    (True, False)
    """
    return re.fullmatch(".*".join(map(re.escape, expected.split("..."))), said) is not None


TWO_OBJECTIVES = """\
search: {recipe.epochs: {int: [1, 2]}}
trials: 2
objective: [{metric: accuracy}, {metric: persistence}]"""

# The content, with `#!` in the line at fault, and the expected line without `x.yaml:<line>: `.
FILES = {
    # names
    "unknown entry": ("seedz: 3 #!", "seedz: unknown field; a sweep has task, about, ...; did you mean seeds?"),
    "setting at the top": ("radii: [0.1] #!", "radii: unknown field; a sweep has task, ..."),
    "unknown setting": (
        "fixed:\n  samples: 3\n  radiii: [0.1] #!",
        "fixed.radiii: unknown field; input_flatness has recipe, ..., only_correct; did you mean radii?",
    ),
    "recipe forgotten": (
        "fixed: {epochs: 3} #!",
        "fixed.epochs: unknown field; input_flatness has ...; did you mean recipe.epochs?",
    ),
    "unknown in the recipe": (
        "fixed:\n  recipe:\n    epochs: 2\n    optimizer: sgd #!",
        "fixed.recipe.optimizer: unknown field; recipe has dataset, ..., seed; did you mean optimiser?",
    ),
    "unknown, dotted": (
        "fixed.recipe.epochs: 2\nfixed.recipe.optimizer: sgd #!",
        "fixed.recipe.optimizer: unknown field; ...; did you mean optimiser?",
    ),
    "unknown group": (
        "fixed:\n  recip.seed: 3 #!",
        "fixed.recip: unknown field; input_flatness has ...; did you mean recipe?",
    ),
    "unknown in the attack": (
        "fixed:\n  attack:\n    epsilom: 0.1 #!",
        "fixed.attack.epsilom: unknown field; attack has name, norm, ...; did you mean epsilon?",
    ),
    "unknown in input noise": (
        "fixed:\n  recipe:\n    input_noise: {kind: additive,\n      radios: 1} #!",
        "fixed.recipe.input_noise.radios: unknown field; recipe.input_noise has kind, radius, probability...",
    ),
    "unknown in the grid": (
        "grid:\n  recipe.epochs: [1]\n  recipe.optimizer: [sgd] #!",
        "grid.recipe.optimizer: unknown setting of input_flatness; did you mean recipe.optimiser?",
    ),
    "unknown in a nested grid": (
        "grid:\n  recipe:\n    optimizer: [sgd] #!",
        "grid.recipe.optimizer: unknown setting of input_flatness; did you mean recipe.optimiser?",
    ),
    "recipe forgotten in the grid": (
        "grid:\n  optimiser: [sgd] #!",
        "grid.optimiser: unknown setting of input_flatness; did you mean recipe.optimiser?",
    ),
    "unknown in the search": (
        "search:\n  recipe.epoch: {int: [1, 2]} #!\ntrials: 2",
        "search.recipe.epoch: unknown setting of input_flatness; did you mean recipe.epochs?",
    ),
    "unknown distribution": (
        "search:\n  recipe.epochs: {integer: [1, 2]} #!\ntrials: 2",
        "search.recipe.epochs.integer: unknown field; search.recipe.epochs has uniform, loguniform, int, choice; "
        "did you mean int?",
    ),
    "unknown resource": (
        "resources:\n  gpu: 1 #!",
        "resources.gpu: unknown field; resources has cpus, gpus, ...; did you mean gpus?",
    ),
    "unknown in the objective": (
        "objective: {metrik: accuracy} #!",
        "objective.metrik: unknown field; objective has metric, mode; did you mean metric?",
    ),
    "a merge key": ("fixed:\n  <<: {samples: 3} #!", "fixed.<<: unknown field; ..."),
    "unicode name": ("fixed:\n  größe: 3 #!", "fixed.größe: unknown field; ..."),
    # kinds of values
    "text for a whole number": ("fixed: {samples: many} #!", "fixed.samples: must be a whole number, not many"),
    "a part of a number": ("fixed: {samples: 1.5} #!", "fixed.samples: must be a whole number, not 1.5"),
    "true for a number": ("fixed: {seed: true} #!", "fixed.seed: must be a number, not true"),
    "true for a radius": ("fixed: {radii: [0.1, true]} #!", "fixed.radii.1: must be a number, not true"),
    "true for examples": ("fixed: {examples: true} #!", "fixed.examples: must be a number, not true"),
    "true for a class": ("fixed: {classes: [true]} #!", "fixed.classes.0: must be ..., not true"),
    "number for a switch": ("fixed: {clip: 3} #!", "fixed.clip: must be true or false, not 3"),
    "number for text": ("fixed: {recipe: {network: 3}} #!", "fixed.recipe.network: must be text, not 3"),
    "value for a list": ("fixed: {kinds: additive} #!", "fixed.kinds: must be a list, not additive"),
    "value for a mapping": (
        "fixed:\n  recipe: digits #!",
        "fixed.recipe: must be a mapping of names to values, not digits",
    ),
    "list for a mapping": ("fixed: [1, 2] #!", "fixed: must be a mapping of names to values, not [1, 2]"),
    "mapping for text": ('about: {a: "b"} #!', 'about: must be text, not {"a": "b"}'),
    "value for a list in the grid": ("grid:\n  recipe.epochs: 3 #!", "grid.recipe.epochs: must be a list, not 3"),
    "wrong one of several": (
        "fixed:\n  conditions:\n    - genuine\n    - adverserial #!",
        "fixed.conditions.1: must be one of genuine, adversarial, random, not adverserial; did you mean adversarial?",
    ),
    "number for one of several": ("fixed: {attack: {norm: 2}} #!", "fixed.attack.norm: must be one of ..., not 2"),
    "wrong value in the grid": (
        "grid:\n  recipe.optimiser:\n    - sgd\n    - adamm #!",
        "grid.recipe.optimiser.1: must be one of sgd, adam, adamw, not adamm; did you mean adam?",
    ),
    "wrong value in a nested grid": (
        "grid:\n  recipe:\n    epochs: [1,\n      -2] #!",
        "grid.recipe.epochs.1: must be at least 0, not -2",
    ),
    "wrong inside a grid's mapping": (
        "grid:\n  attack:\n    - {epsilon: 0.1}\n    - steps: 3\n      epsilon: -1 #!",
        "grid.attack.1.epsilon: must be above 0, not -1",
    ),
    "wrong value in the search": (
        "search:\n  recipe.optimiser: {choice: [adamm]} #!\ntrials: 2",
        "search.recipe.optimiser: must be one of sgd, adam, adamw, not adamm; did you mean adam?",
    ),
    "gpus": (
        "resources: {gpus: many} #!",
        "resources.gpus: must be a number or a fraction such as 8/255 or auto, not many",
    ),
    "gpus below zero": ("resources: {gpus: -1} #!", "resources.gpus: must be at least 0 or auto, not -1"),
    "true gpus": ("resources: {gpus: true} #!", "resources.gpus: must be a number or auto, not true"),
    "a gpu and a half": (
        "resources: {gpus: 1.5} #!",
        "resources.gpus: must be a whole number of GPUs or a fraction of one, not 1.5",
    ),
    "no cpus": ("resources: {cpus: 0} #!", "resources.cpus: must be above 0, not 0"),
    "true cpus": ("resources: {cpus: true} #!", "resources.cpus: must be a number, not true"),
    "mode": (
        "objective: {metric: accuracy, mode: maximum} #!",
        "objective.mode: must be one of max, min, not maximum...",
    ),
    "metric": ("objective: {metric: 3} #!", "objective.metric: must be text, not 3"),
    "no metric": ("objective: {mode: max} #!", "objective.metric: is missing"),
    "figures": ("figures: effects #!", "figures: must be a list, not effects"),
    "data root": ("data_root: [a] #!", 'data_root: must be text, not ["a"]'),
    # bounds
    "negative radius": ("fixed:\n  radii: [0.1,\n    -0.2] #!", "fixed.radii.1: must be at least 0, not -0.2"),
    "probability": (
        "fixed:\n  recipe:\n    input_noise.probability: 1.2 #!",
        "fixed.recipe.input_noise.probability: must be at most 1, not 1.2",
    ),
    "zero tolerance": ("fixed: {tolerance: 0} #!", "fixed.tolerance: must be above 0, not 0"),
    "fraction by zero": (
        "fixed: {radii: [8/0]} #!",
        "fixed.radii.0: must be a number or a fraction such as 8/255, not 8/0",
    ),
    "fraction of text": ("fixed: {radii: [a/b]} #!", "fixed.radii.0: must be a number or a fraction..., not a/b"),
    "not a number": ("fixed: {radii: [.nan]} #!", "fixed.radii.0: must be a finite number, not NaN"),
    "infinite": ("fixed: {radii: [.inf]} #!", "fixed.radii.0: must be a finite number, not Infinity"),
    "infinite, as text": ("fixed: {radii: ['inf']} #!", "fixed.radii.0: must be a finite number, not inf"),
    "too large for a float": ("fixed: {radii: [1e999]} #!", "fixed.radii.0: must be a finite number, not Infinity"),
    "a network's infinite option": (
        "fixed: {recipe: {network: mlp, network_options: {width: .inf}}} #!",
        "fixed.recipe.network_options.width: must be a finite number, not Infinity",
    ),
    "huge seed": ("fixed: {seed: 10000000000000000000} #!", "fixed.seed: must be ..., not 1..."),
    "huge seeds": ("seeds: [1, 10000000000000000000000] #!", "seeds.1: must be ..., not 1e+22"),
    "too many seeds": ("seeds: 1000000000000 #!", "seeds: must be at most 100000, not 1000000000000"),
    "too many trials": (
        "grid: #!\n  seed: &many ["
        + ", ".join(map(str, range(400)))
        + "]\n  samples: ["
        + "1, " * 0
        + "1]\nseeds: 1000",
        "grid: 400000 trials; at most 100000 are run",
    ),
    "huge ends": (
        "search: {recipe.epochs: {int: [0, 1e30]}} #!\ntrials: 1",
        "search.recipe.epochs.int.1: must be a whole number, not 1e+30",
    ),
    # nothing there
    "no radii": ("fixed: {radii: []} #!", "fixed.radii: must be a list of at least 1 entry, not []"),
    "no conditions": ("fixed: {conditions: []} #!", "fixed.conditions: must be a list of at least 1 entry, not []"),
    "no examples": ("fixed: {examples: []} #!", "fixed.examples: ..."),
    "no classes": ("fixed: {recipe: {classes: []}} #!", "fixed.recipe.classes: ..."),
    "empty grid": ("grid: {} #!", "grid: is empty; name a setting and its values, or leave it out"),
    "null grid": ("grid: #!", "grid: is empty; name a setting and its values, or leave it out"),
    "empty search": ("search: {} #!\ntrials: 3", "search: is empty; ..."),
    "no values": ("grid: {recipe.epochs: []} #!", "grid.recipe.epochs: must be a list of at least 1 entry, not []"),
    "null values": ("grid: {recipe.epochs: } #!", "grid.recipe.epochs: must be a list, not null"),
    "no entries in a grid's group": ("grid:\n  recipe: {} #!", "grid.recipe: must be a list, not {}"),
    "no choices": (
        "search: {recipe.epochs: {choice: []}} #!\ntrials: 1",
        "search.recipe.epochs.choice: must be a list of at least 1 entry, not []",
    ),
    "null fixed": ("fixed: #!", "fixed: must be a mapping of names to values, not null"),
    "null task": ("fixed: {recipe: } #!", "fixed.recipe: must be a mapping of names to values, not null"),
    "null resources": ("resources: #!", "resources: must be a mapping of names to values, not null"),
    "null radii": ("fixed: {radii: null} #!", "fixed.radii: must be a list, not null"),
    "null in a list": ("fixed: {radii: [0.1, ~]} #!", "fixed.radii.1: must be a number..., not null"),
    "null in seeds": ("seeds: [0, null] #!", "seeds.1: must be a whole number, not null"),
    "no seeds": ("seeds: [] #!", "seeds: must be a list of at least 1 entry, not []"),
    "zero seeds": ("seeds: 0 #!", "seeds: must be above 0, not 0"),
    "empty text": ('fixed: {recipe: {dataset: ""}} #!', "fixed.recipe.dataset: unknown data set ''; ..."),
    # twice, or together
    "key twice": ("fixed: {samples: 3}\nseeds: 1\nfixed: {} #!", "fixed: given twice, first in line 2"),
    "setting twice": ("fixed:\n  samples: 3\n  samples: 4 #!", "fixed.samples: given twice, first in line 3"),
    "dotted and nested": (
        "fixed:\n  recipe.seed: 3\n  recipe:\n    epochs: 1\n    seed: 4 #!",
        "fixed.recipe.seed: given twice, first in line 3",
    ),
    "nested and dotted": (
        "fixed:\n  recipe:\n    seed: 4\n  recipe.seed: 3 #!",
        "fixed.recipe.seed: given twice, first in line 4",
    ),
    "group and value": ("fixed:\n  recipe.seed: 4\n  recipe: 3 #!", "fixed.recipe: given twice, first in line 3"),
    "value and group": ("fixed:\n  recipe: 3\n  recipe.seed: 4 #!", "fixed.recipe: given twice, first in line 3"),
    "dotted and nested in the grid": (
        "grid:\n  recipe.epochs: [1]\n  recipe:\n    epochs: [2] #!",
        "grid.recipe.epochs: given twice, with a dotted and with a nested name",
    ),
    "in the grid and fixed": (
        "fixed:\n  samples: 3\ngrid:\n  samples: [3, 4] #!",
        "grid.samples: is given in fixed as well, as fixed.samples",
    ),
    "a group in the grid, a part fixed": (
        "fixed:\n  recipe.epochs: 3\ngrid:\n  recipe: [{network: mlp}] #!",
        "grid.recipe: is given in fixed as well, as fixed.recipe.epochs",
    ),
    "a group and a part in the grid": (
        "grid:\n  recipe.input_noise.radius: [0.1]\n  recipe.input_noise: [{radius: 1}] #!",
        "grid.recipe.input_noise: is given in grid as well, as grid.recipe.input_noise.radius",
    ),
    "no group to vary in": (
        "fixed:\n  recipe: digits #!\ngrid:\n  recipe.epochs: [1]",
        "fixed.recipe: must be a mapping of names to values, since recipe.epochs varies",
    ),
    "value twice in the grid": (
        "grid:\n  samples: [1, 2,\n    1] #!",
        "grid.samples.2: the value 1 is given twice",
    ),
    "value twice in another form": (
        "grid:\n  radii: [[0.1]]\n  tolerance: [0.25, 1/4] #!",
        "grid.tolerance.1: the value 1/4 is given twice",
    ),
    "the same trial": (
        "grid: #!\n  radii: [[0.25], [1/4]]",
        "grid: the trials radii=[0.25] and radii=['1/4'] are the same",
    ),
    "seed twice": ("seeds: [1, 2,\n  1] #!", "seeds.2: the value 1 is given twice"),
    "negative seed": ("seeds: [1, -1] #!", "seeds.1: must be at least 0, not -1"),
    "seeds and the seed": (
        "fixed: {recipe: {seed: 3}}\nseeds: 2 #!",
        "seeds: vary recipe.seed, which fixed.recipe.seed gives as well; leave one of them out",
    ),
    "seeds and the seed in the grid": (
        "grid: {recipe.seed: [1]}\nseeds: 2 #!",
        "seeds: vary recipe.seed, which grid.recipe.seed ...",
    ),
    "seeds and the seed inside the grid": (
        "grid: {recipe: [{seed: 1}]}\nseeds: 2 #!",
        "seeds: vary recipe.seed, which grid.recipe ...",
    ),
    "grid with search": (
        "grid: {samples: [1]}\nsearch: {recipe.epochs: {int: [1, 2]}} #!\ntrials: 1",
        "search: cannot go with grid: list values in grid, or draw them in search",
    ),
    "search without trials": (
        "search: {recipe.epochs: {int: [1, 2]}} #!",
        "search: needs trials, the number of points that are drawn",
    ),
    "trials without search": (
        "trials: 3 #!\ngrid: {samples: [1]}",
        "trials: belongs to search; without one, all combinations of the grid are run",
    ),
    "ends the wrong way": (
        "trials: 1\nsearch:\n  recipe.epochs:\n    int: [3, 1] #!",
        "search.recipe.epochs.int: the first number must be below the second",
    ),
    "one end": (
        "trials: 1\nsearch:\n  recipe.epochs:\n    int: [3] #!",
        "search.recipe.epochs.int: must be a list of more entries, not [3]",
    ),
    "three ends": (
        "trials: 1\nsearch:\n  recipe.epochs:\n    int: [3, 4, 5] #!",
        "search.recipe.epochs.int: must be a list of at most 2 entries, not [3, 4, 5]",
    ),
    "true for an end": (
        "trials: 1\nsearch:\n  recipe.epochs:\n    int: [false, 4] #!",
        "search.recipe.epochs.int.0: must be a number, not false",
    ),
    "zero on a logarithm": (
        "trials: 1\nsearch:\n  recipe.learning_rate:\n    loguniform: [0, 1] #!",
        "search.recipe.learning_rate.loguniform.0: must be above 0, not 0",
    ),
    "two distributions": (
        "trials: 1\nsearch:\n  recipe.epochs: {int: [1, 2], choice: [3]} #!",
        "search.recipe.epochs: one of uniform: [low, high], ... is needed",
    ),
    "no distribution": (
        "trials: 1\nsearch:\n  recipe.epochs: [1, 2] #!",
        "search.recipe.epochs: must be a mapping of names to values, not [1, 2]",
    ),
    "unknown searcher": (
        "search: {recipe.epochs: {int: [1, 2]}}\ntrials: 2\nobjective: {metric: accuracy}\nsearcher: tpee #!",
        "searcher: must be one of random, tpe, nsga2, not tpee; did you mean tpe?",
    ),
    "no searcher": (
        "search: {recipe.epochs: {int: [1, 2]}}\ntrials: 2\nobjective: {metric: accuracy}\nsearcher: none #!",
        "searcher: must be one of random, tpe, nsga2, not none",
    ),
    "unknown searcher, in full": (
        "search: {recipe.epochs: {int: [1, 2]}}\ntrials: 2\nobjective: {metric: accuracy}\nsearcher:\n  name: tpee #!",
        "searcher.name: must be one of random, tpe, nsga2, not tpee; did you mean tpe?",
    ),
    "unknown in the searcher": (
        "search: {recipe.epochs: {int: [1, 2]}}\ntrials: 2\nobjective: {metric: accuracy}\nsearcher: {name: tpe, population_size: 3} #!",
        "searcher.population_size: unknown field; searcher has name, seed, startup, population; did you mean population?",
    ),
    "searcher's option of another": (
        "search: {recipe.epochs: {int: [1, 2]}}\ntrials: 2\nobjective: {metric: accuracy}\nsearcher: {name: tpe, population: 3} #!",
        "searcher.population: belongs to nsga2, and this is tpe",
    ),
    "population of one": (
        "search: {recipe.epochs: {int: [1, 2]}}\ntrials: 2\nobjective: {metric: accuracy}\nsearcher: {name: nsga2, population: 1} #!",
        "searcher.population: must be above 1, not 1",
    ),
    "searcher without search": (
        "searcher: tpe #!",
        "searcher: belongs to search, and there is none",
    ),
    "searcher without objective": (
        "search: {recipe.epochs: {int: [1, 2]}}\ntrials: 2\nsearcher: tpe #!",
        "searcher: tpe needs an objective, the scalar that it makes better",
    ),
    "unknown scheduler": (
        "search: {recipe.epochs: {int: [1, 2]}}\ntrials: 2\nobjective: {metric: accuracy}\nscheduler: hyperband #!",
        "scheduler: must be one of asha, median, not hyperband",
    ),
    "scheduler without search": (
        "grid: {recipe.epochs: [1, 2]}\nscheduler: asha #!",
        "scheduler: belongs to search, and there is none",
    ),
    "scheduler's metric": (
        "search: {recipe.epochs: {int: [1, 2]}}\ntrials: 2\nobjective: {metric: accuracy}\nscheduler: {name: asha, metric: los} #!",
        "scheduler.metric: must be one of validation_accuracy, validation_loss, accuracy, loss, not los; did you mean loss?",
    ),
    "scheduler's option of another": (
        "search: {recipe.epochs: {int: [1, 2]}}\ntrials: 2\nobjective: {metric: accuracy}\nscheduler:\n  name: median\n  reduction: 3 #!",
        "scheduler.reduction: belongs to asha, and this is median",
    ),
    "no reduction": (
        "search: {recipe.epochs: {int: [1, 2]}}\ntrials: 2\nobjective: {metric: accuracy}\nscheduler: {name: asha, reduction: 1} #!",
        "scheduler.reduction: must be above 1, not 1",
    ),
    "nothing held out for the scheduler": (
        "search: {recipe.epochs: {int: [1, 2]}}\ntrials: 2\nobjective: {metric: accuracy}\nscheduler: asha #!",
        "scheduler.metric: trainings report validation_accuracy where recipe.validation is above 0; set it, or use accuracy or loss",
    ),
    "scheduler that never stops": (
        "search: {recipe.epochs: {int: [1, 2]}}\ntrials: 2\nobjective: {metric: accuracy}\nscheduler: {name: "
        "asha, metric: loss, grace: 2} #!",
        "scheduler.grace: 2 epochs, but no training has more than 2: none would ever be stopped",
    ),
    "scheduler without a name": (
        "search: {recipe.epochs: {int: [1, 2]}}\ntrials: 2\nobjective: {metric: accuracy}\nscheduler: {grace: 2} #!",
        "scheduler.name: is missing",
    ),
    "storage without search": (
        "storage: study.db #!",
        "storage: belongs to search, and there is none",
    ),
    "storage of no kind": (
        "search: {recipe.epochs: {int: [1, 2]}}\ntrials: 2\nobjective: {metric: accuracy}\nstorage: study.sqlite #!",
        "storage: must be none or a file that ends in .db or .journal, not study.sqlite",
    ),
    "storage without objective": (
        "search: {recipe.epochs: {int: [1, 2]}}\ntrials: 2\nstorage: study.db #!",
        "storage: needs an objective: the study keeps its values",
    ),
    "storage nowhere": (
        "search: {recipe.epochs: {int: [1, 2]}}\ntrials: 2\nobjective: {metric: accuracy}\nstorage: /no/such/study.db #!",
        "storage: /no/such is no folder that can be written to",
    ),
    "objective twice": (
        "objective: [{metric: a}, {metric: a, mode: min}] #!",
        "objective: a metric is given twice",
    ),
    "no objectives": (
        "objective: [] #!",
        "objective: must be a list of at least 1 entry, not []",
    ),
    "objective as text": (
        "objective: accuracy #!",
        "objective: must be a mapping of names to values, not accuracy",
    ),
    "unknown in the second objective": (
        "objective:\n  - metric: a\n  - metrik: b #!",
        "objective.1.metrik: unknown field; objective.1 has metric, mode; did you mean metric?",
    ),
    "choice twice": (
        "trials: 2\nsearch:\n  samples: {choice: [1, 2, 1]} #!",
        "search.samples.choice.2: the value 1 is given twice",
    ),
    "whole numbers from uniform, under tpe": (
        "trials: 2\nobjective: {metric: accuracy}\nsearcher: tpe\nsearch:\n  recipe.batch_size: {uniform: [16, 64]} #!",
        "search.recipe.batch_size: must be a whole number, not 45.6...; take int: [low, high], since uniform draws any number between",
    ),
    "whole numbers from loguniform, under nsga2": (
        "trials: 2\nobjective: {metric: accuracy}\nsearcher: nsga2\nsearch:\n  examples: {loguniform: [1, 2]} #!",
        "search.examples: must be a whole number or a list, not 1.6...; take int: [low, high], since loguniform draws any number between",
    ),
    "whole numbers from uniform, at random": (
        "trials: 1\nsearch:\n  attack.steps: {uniform: [2, 9]} #!",
        "search.attack.steps: must be a whole number, not ...; take int: [low, high], since uniform draws any number between",
    ),
    "true or false from uniform, under tpe": (
        "trials: 2\nobjective: {metric: accuracy}\nsearcher: tpe\nsearch:\n  recipe.freeze_backbone: {uniform: [0, 1]} #!",
        "search.recipe.freeze_backbone: must be true or false, not 0.6...",
    ),
    "a choice that is none, under tpe": (
        "trials: 2\nobjective: {metric: accuracy}\nsearcher: tpe\nsearch:\n  recipe.optimiser: {choice: [sgd, adamm]} #!",
        "search.recipe.optimiser: must be one of sgd, adam, adamw, not adamm; did you mean adam?",
    ),
    "an end out of bounds, under tpe": (
        "trials: 2\nobjective: {metric: accuracy}\nsearcher: tpe\nsearch:\n  recipe.input_noise.probability: {uniform: [0.5, 1.5]} #!",
        "search.recipe.input_noise.probability: must be at most 1, not 1.5",
    ),
    "figure of another kind of sweep": (
        "search: {recipe.epochs: {int: [1, 2]}}\ntrials: 2\nobjective: {metric: accuracy}\nfigures:\n  - pareto #!",
        "figures.0: figure pareto: needs two objectives or more",
    ),
    "options of a figure of another kind of sweep": (
        "search: {recipe.epochs: {int: [1, 2]}}\ntrials: 2\nobjective: {metric: accuracy}\nfigures:\n  - pareto: #!\n      level: 0.9",
        "figures.0.pareto: figure pareto: needs two objectives or more",
    ),
    "axis of a figure that is no objective": (
        f"{TWO_OBJECTIVES}\nfigures:\n  - pareto:\n      level: 0.9\n      x: acuracy #!",
        "figures.0.pareto.x: figure pareto: x: no objective 'acuracy'; there are accuracy, persistence; did you mean accuracy?",
    ),
    "colour of a figure that is no objective": (
        f"{TWO_OBJECTIVES}\nfigures:\n  - parallel_coordinates:\n      by: p_true #!",
        "figures.0.parallel_coordinates.by: figure parallel_coordinates: by: no objective 'p_true'; there are accuracy, persistence",
    ),
    "one objective on both axes": (
        f"{TWO_OBJECTIVES}\nfigures:\n  - effects\n  - pareto: {{x: accuracy, y: accuracy}} #!",
        "figures.1.pareto: figure pareto: x and y are both accuracy; one of them must be another objective",
    ),
    "learning curves of no metric": (
        "figures:\n  - learning_curves:\n      metric: acuracy #!",
        "figures.0.learning_curves.metric: figure learning_curves: metric: no metric 'acuracy'; ...; did you mean accuracy?",
    ),
    "no trials": ("trials: 0 #!\nsearch: {recipe.epochs: {int: [1, 2]}}", "trials: must be above 0, not 0"),
    # what stands for something that is not there
    "unknown data set": (
        "fixed:\n  recipe:\n    dataset: digit #!",
        "fixed.recipe.dataset: unknown data set 'digit'; allowed: blobs, ...; did you mean digits?",
    ),
    "unknown data set in the grid": (
        "grid:\n  recipe.dataset:\n    - digits\n    - blubs #!",
        "grid.recipe.dataset.1: unknown data set 'blubs'; allowed: blobs, ...; did you mean blobs?",
    ),
    "unknown data set in the search": (
        "trials: 9\nsearch:\n  recipe.dataset: {choice: [blubs]} #!",
        "search.recipe.dataset: unknown data set 'blubs'; ...",
    ),
    "data set of no module": (
        "fixed: {recipe: {dataset: 'nowhere.at_all:read'}} #!",
        "fixed.recipe.dataset: unknown data set 'nowhere.at_all:read'; allowed: ...",
    ),
    "data set of an odd module": (
        "fixed: {recipe: {dataset: '..:read'}} #!",
        "fixed.recipe.dataset: unknown data set '..:read'; allowed: ...",
    ),
    "no folder of images": (
        "fixed: {recipe: {dataset: 'imagefolder:nowhere'}} #!",
        "fixed.recipe.dataset: imagefolder: files not found, expected .../nowhere/train/<class>/ ...",
    ),
    "no data root": (
        "data_root: nowhere\nfixed: {recipe: {dataset: 'imagefolder:set'}} #!",
        "fixed.recipe.dataset: imagefolder: files not found, expected .../nowhere/set/train/<class>/ ...",
    ),
    "a name that no file can have": (
        'fixed: {recipe: {dataset: "imagefolder:\\0"}} #!',
        "fixed.recipe.dataset: ...",
    ),
    "unknown network": (
        "fixed: {recipe: {network: convnets}} #!",
        "fixed.recipe.network: unknown network 'convnets'; there are convnet, ...; did you mean convnet?",
    ),
    "network of no module": (
        "fixed: {recipe: {network: 'nowhere.at_all:build'}} #!",
        "fixed.recipe.network: nowhere.at_all cannot be imported: ModuleNotFoundError: No module named 'nowhere'",
    ),
    "network that is none": (
        "fixed: {recipe: {network: 'json:dumps'}} #!",
        "fixed.recipe...: network 'json:dumps' ...",
    ),
    "unknown option of a network": (
        "fixed:\n  recipe:\n    network: mlp\n    network_options: {widht: 3} #!",
        "fixed.recipe.network_options...widht: unknown option; mlp has depth, width; did you mean width?",
    ),
    "network that does not fit": (
        "fixed:\n  recipe:\n    dataset: digits\n    network: alexnet #!",
        "fixed.recipe.network: network 'alexnet' cannot be had for 1x8x8 images, 10 classes: ...",
    ),
    "image size that the network cannot take": (
        "fixed:\n  recipe:\n    dataset: digits\n    network: alexnet #!\n    image_size: 12",
        "fixed.recipe.network: network 'alexnet' cannot be had for 1x12x12 images, 10 classes: ...",
    ),
    "no such weights": (
        "fixed:\n  recipe:\n    weights: nowhere.pt #!",
        "fixed.recipe.weights: no such weights file: 'nowhere.pt'; none, DEFAULT (torchvision's own) or a file",
    ),
    "weights that are none": (
        "fixed:\n  recipe:\n    weights: x.yaml #!",
        "fixed.recipe.weights: x.yaml is not a checkpoint of tensors alone that torch can read",
    ),
    "weights with too long a name": (
        f"fixed: {{recipe: {{weights: {'x' * 5000}}}}} #!",
        "fixed.recipe.weights: x...: File name too long",
    ),
    "weights that the network has not": (
        "fixed: {recipe: {weights: DEFAULT}} #!",
        "fixed.recipe.weights: convnet has no weights DEFAULT, ...",
    ),
    "too many examples": (
        "fixed: {recipe: {dataset: blobs}, examples: 61} #!",
        "fixed.examples: 61 examples asked for, there are 60",
    ),
    "too many examples in the grid": (
        "fixed: {recipe: {dataset: blobs}}\ngrid:\n  examples: [60,\n   61] #!",
        "grid.examples.1: 61 examples asked for, there are 60",
    ),
    "example out of range": (
        "fixed:\n  recipe.dataset: blobs\n  examples: [59, 60] #!",
        "fixed.examples: unknown example id 60; this split has 60 ids in 0..59",
    ),
    "example twice": ("fixed:\n  examples: [5, 5] #!", "fixed.examples: the id 5 is given more than once"),
    "negative example": ("fixed:\n  examples: [5, -5] #!", "fixed.examples.1: must be at least 0, not -5"),
    "too many training examples": (
        "fixed:\n  recipe.dataset: blobs\n  recipe.train_examples: 181 #!",
        "fixed.recipe.train_examples: 181 examples asked for, there are 180",
    ),
    "unknown class": (
        "fixed:\n  recipe.dataset: blobs\n  classes: [blob 1, blob 3] #!",
        "fixed.classes: unknown class 'blob 3'; allowed: blob 0, blob 1, blob 2, or an index 0..2; ...",
    ),
    "unknown class of the recipe": (
        "fixed:\n  recipe.dataset: blobs\n  recipe.classes: [0, 3] #!",
        "fixed.recipe.classes: unknown class 3; allowed: blob 0, blob 1, blob 2, or an index 0..2",
    ),
    "target that is no class": (
        "fixed:\n  recipe.dataset: blobs\n  target: 3 #!",
        "fixed.target: 3 is no class; the classes are 0 to 2",
    ),
    "target that is no class in the grid": (
        "fixed:\n  recipe.dataset: blobs\ngrid:\n  target:\n    - 2\n    - 3 #!",
        "grid.target.1: 3 is no class; the classes are 0 to 2",
    ),
    "class twice": (
        "fixed:\n  recipe.dataset: blobs\n  recipe.classes: [0, blob 0] #!",
        "fixed.recipe.classes: the classes 0, blob 0 name one class twice",
    ),
    "unknown figure": (
        "figures: [effects,\n  recipe] #!",
        "figures.1: unknown figure 'recipe'; there are ...",
    ),
    "figure of an unknown column": (
        "figures:\n  - effects\n  - recipes:\n      y: p_treu #!",
        "figures.1.recipes.y: figure recipes: y: no row column 'p_treu'; there are id, ...; did you mean p_true?",
    ),
    "unknown option of a figure": (
        "figures:\n  - recipes:\n      level: 0.9\n      colour: red #!",
        "figures.0.recipes.colour: figure recipes: colour: unknown field; recipes has level, ...",
    ),
    "wrong option of a figure": (
        "figures:\n  - recipes:\n      level: 9 #!",
        "figures.0.recipes.level: figure recipes: level: ..., not 9",
    ),
    "no figure": ("figures: [3] #!", "figures.0: 3 is not a figure: ..."),
    "two figures in one": (
        "figures:\n  - {effects: {}, recipes: {}} #!",
        "figures.0: ... is not a figure: ...",
    ),
    # YAML
    "odd key": ("fixed:\n  samples: 3\n  [a, b]: 3 #!", "fixed: a key is a name, or names joined by dots"),
    "mapping as a key": ("? {a: b} #!\n: 3", "a key is a name, or names joined by dots"),
    "empty key": ("fixed:\n  '': 3 #!", "fixed: a key is a name, or names joined by dots"),
    "dots": ("fixed:\n  recipe..seed: 3 #!", "fixed: a key is a name, or names joined by dots"),
    "tag": (
        "fixed: !!python/object/apply:os.getcwd [] #!",
        "fixed: the tag tag:yaml.org,2002:python/object/apply:os.getcwd is not known; plain YAML is",
    ),
    "tagged value": ("fixed:\n  samples: !mine 3 #!", "fixed.samples: the tag !mine is not known; plain YAML is"),
    "not closed": ("fixed: {samples: 3\nseeds: 3 #!", "not valid YAML: while parsing a flow mapping, ..."),
    "tab": ("fixed:\n\tsamples: 3 #!", "not valid YAML: ...; indent with spaces, not with tabs"),
    "indentation": ("fixed:\n  samples: 3\n   radii: [1] #!", "not valid YAML: ..."),
    "a second document": ("seeds: 1\n--- #!\nseeds: 2", "not valid YAML: ..."),
    "no anchor": ("seeds: *a #!", "not valid YAML: found undefined alias 'a'"),
    "itself": ("fixed: {samples: &a [*a]} #!", "nested more than 30 levels deep"),
    "deep": ("fixed: {samples: " + "[" * 60 + "]" * 60 + "} #!", "nested more than 30 levels deep"),
    "many dots": ("fixed." + "a." * 60 + "a: 3 #!", "nested more than 30 levels deep"),
}


# As FILES, for the tasks that search.
SEARCHES = {
    "radius 0": ("radii: [0.1,\n    0] #!", "fixed.radii.1: must be above 0, not 0"),
    "no radii": ("radii: [] #!", "fixed.radii: must be a list of at least 1 entry, not []"),
    "radius twice": ("radii: [0.1, 0.1] #!", "fixed.radii: 0.1 is given twice..."),
    "radii and a radius": (
        "radii: [0.1, 0.2]\n  attack:\n    epsilon: 0.1 #!",
        "fixed.attack.epsilon: radii are given; leave one of the two out",
    ),
    "the end of a ladder": ("attack:\n    stop: last #!", "fixed.attack.stop: along a ladder ...; give one radius"),
    "attack radius 0": ("attack: {epsilon: 0} #!", "fixed.attack.epsilon: must be above 0, not 0"),
    "negative attack radius": ("attack: {epsilon: -8/255} #!", "fixed.attack.epsilon: must be above 0, not -8/255"),
    "misspelt attack": (
        "attack:\n    name: pdg #!",
        "fixed.attack.name: unknown attack pdg; there are alma, ..., foolbox:<class>, art:<class>; did you mean pgd?",
    ),
    "attack of an unknown package": (
        "attack:\n    name: foolbx:LinfPGD #!",
        "fixed.attack.name: unknown package 'foolbx'; allowed: ...; did you mean foolbox?",
    ),
    "no such norm": ("attack: {norm: L3} #!", "fixed.attack.norm: must be one of Linf, L2, L1, L0, not L3"),
    "norm that it lacks": (
        "attack:\n    name: apgd\n    norm: L0 #!",
        "fixed.attack.norm: apgd has Linf, L2..., not L0",
    ),
    "setting that it lacks": (
        "attack:\n    name: ddn\n    restarts: 2 #!",
        "fixed.attack.restarts: no setting of ddn (it has steps, ...)",
    ),
    "misspelt loss": ("attack: {loss: dlrr} #!", "fixed.attack.loss: pgd has ce, margin, dlr, not dlrr"),
    "loss that needs more classes": (
        "recipe.classes: [blob 0, blob 2]\n  attack: {loss: dlr} #!",
        "fixed.attack.loss: the loss dlr needs 3 classes, there are 2; take ce or margin",
    ),
    "misspelt option": (
        "attack:\n    options:\n      momentun: 1 #!",
        "fixed.attack.options.momentun: unknown field; pgd has schedule, momentum, share; did you mean momentum?",
    ),
    "option of another type": (
        "attack: {options: {momentum: fast}} #!",
        "fixed.attack.options.momentum: must be a number or a fraction such as 8/255, not fast",
    ),
    "negative option": (
        "attack: {options: {momentum: -1}} #!",
        "fixed.attack.options.momentum: must be at least 0, not -1",
    ),
    "option that is no number": (
        "attack: {options: {momentum: .nan}} #!",
        "fixed.attack.options.momentum: must be a finite number, not NaN",
    ),
    "option that only the attack can refuse": (
        "attack:\n    name: class_probability\n    options: {optimiser: addam} #!",
        "fixed.attack.options.optimiser: unknown optimiser 'addam'; there are ...",
    ),
    "target that is the label": (
        "attack: {target: 1} #!",
        "fixed.attack.target: 1 is the label of examples that are measured; leave that class out with classes: [...]",
    ),
    "target that is no class": (
        "attack: {target: 3} #!",
        "fixed.attack.target: 3 is no class; the classes are 0 to 2",
    ),
    "misspelt space": ("attack: {space: 'hiden:1'} #!", "fixed.attack.space: unknown space 'hiden:1'; ...?"),
    "latent space alone": (
        "attack: {space: latent} #!",
        "fixed.attack.space: the latent space is that of an autoencoder of the pixels; also write autoencoder: {kind...}",
    ),
    "codes of another stage": (
        "attack: {space: latent}\n  autoencoder: {stage: 1} #!",
        "fixed.autoencoder.stage: images are decoded from codes of the pixels, not of stage 1; take stage: 0",
    ),
    "means over pixels": (
        "attack: {space: latent}\n  autoencoder: {pooled: true} #!",
        "fixed.autoencoder.pooled: means over all pixels decode to no image; take pooled: false",
    ),
    "autoencoder that is not there": (
        "attack: {space: latent}\n  autoencoder: {kind: vea} #!",
        "fixed.autoencoder.kind: unknown autoencoder 'vea'; ...; did you mean vae?",
    ),
    "pixels only in latent space": (
        "autoencoder: {}\n  attack:\n    name: square\n    space: latent #!",
        "fixed.attack.space: square attacks pixels only",
    ),
    "no such stage": (
        "attack: {space: 'hidden:9'} #!",
        "fixed.attack.space: no stage '9': 0 (pixels) to 1 (logits)...",
    ),
    "stages of pixels only": (
        "attack:\n    name: square\n    space: hidden:1 #!",
        "fixed.attack.space: square attacks pixels only",
    ),
    "negative weight noise": (
        "attack:\n    weight_noise: {draws: 2,\n      sigma: -1} #!",
        "fixed.attack.weight_noise.sigma: must be at least 0, not -1",
    ),
    "no queries for the black box": ("black_box: -1 #!", "fixed.black_box: must be at least 0, not -1"),
}
POOLS = {
    "no networks": ("networks: [] #!", "fixed.networks: must be a list of at least 1 entry, not []"),
    "one network": ("members: 1\n  networks: [{}] #!", "fixed.networks: two networks at least are compared; ..."),
    "a name for a network": ("networks: [mlp] #!", "fixed.networks.0: must be a mapping of names to values, not mlp"),
    "unknown in a network": (
        "networks:\n    - {epochs: 1}\n    - networc: mlp #!",
        "fixed.networks.1.networc: unknown field; a recipe has dataset, ...; did you mean network?",
    ),
    "wrong in a network": (
        "networks:\n    - epochs: -1 #!",
        "fixed.networks.0.epochs: must be at least 0, not -1",
    ),
    "odd seed of a network": (
        "networks: [{seed: one}] #!",
        "fixed.networks.0.seed: must be a whole number, not one",
    ),
    "other images": (
        "networks:\n    - dataset: digits #!",
        "fixed.networks.0.dataset: all networks see the same images; give it in recipe",
    ),
    "a network twice": ("networks: [{}, {}] #!", "fixed.networks.1: the network seed 0 is there twice"),
    "network that is not there": (
        "networks: [{network: lineer}] #!",
        "fixed.networks: lineer, seed 0: unknown network 'lineer'; ...; did you mean linear?",
    ),
    "hidden space of several": (
        "attack: {space: hidden:1} #!",
        "fixed.attack.space: networks share no hidden space; take pixel or latent",
    ),
    "no members": ("members: 0 #!", "fixed.members: must be above 0, not 0"),
    "one sample": ("samples: 1 #!", "fixed.samples: must be at least 2, not 1"),
}
STAGES = {
    "no such stage": ("stages: [0,\n    linaer] #!", "fixed.stages.1: no stage 'linaer': ...; did you mean linear?"),
    "a stage twice": ("stages: [1,\n    linear] #!", "fixed.stages.1: linear is the same stage as 1, which is given"),
    "more neighbours than examples": (
        "recipe.train_examples: 30\n  neighbors: 31 #!",
        "fixed.neighbors: more than the 30 training examples there are",
    ),
    "no such hidden stage": ("moves: [hidden]\n  hidden: 2 #!", "fixed.hidden: no stage '2': ...linear"),
    "a move behind all stages": (
        "moves: [hidden]\n  stages: [0]\n  hidden: linear #!",
        "fixed.hidden: linear lies after all stages at which neighbours are found: 0",
    ),
}
CODES = {
    "a stage that is not there": (
        "autoencoder.stage: 3  #!",
        "fixed.autoencoder.stage: no stage '3': 0 (pixels) to 1 (logits), or one of ...",
    ),
    "a code larger than the representation": (
        "autoencoder: {stage: 1, bottleneck: 4}  #!",
        "fixed.autoencoder.bottleneck: 4 is more than the 3 numbers of a representation",
    ),
    "a kind that is not there": (
        "autoencoder.kind: vea  #!",
        "fixed.autoencoder.kind: unknown autoencoder 'vea'; there are linear, plain, topk, vae, vqvae; did you mean vae?",
    ),
    "an option of another kind": (
        "autoencoder: {kind: topk, options: {beta: 2}}  #!",
        "fixed.autoencoder.options.beta: unknown field; topk has ...",
    ),
    "patience with nothing held out": (
        "autoencoder: {validation: 0, patience: 3}  #!",
        "fixed.autoencoder.patience: is counted on images that are held out; set validation above 0",
    ),
    "a pooled flat representation": (
        "autoencoder: {stage: 1, bottleneck: 2, pooled: true}  #!",
        "fixed.autoencoder.pooled: a representation of 3 numbers has no positions to pool over",
    ),
}
OF_TASKS = {"adversarial_search": SEARCHES, "autoencoding": CODES, "transfer": POOLS, "hidden_neighbors": STAGES}


@pytest.mark.parametrize(("task", "case"), [(task, case) for task, cases in OF_TASKS.items() for case in cases])
def test_mistake_in_a_search(task: str, case: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body, expected = OF_TASKS[task][case]
    content = f"task: {task}\nfixed:\n  recipe.dataset: blobs\n  recipe.network: linear\n  {body}\n"
    line = next(number for number, text in enumerate(content.splitlines(), 1) if "#!" in text)
    said = refused(folder, capsys, content.replace(" #!", ""))
    assert matches(said, f"x.yaml:{line}: {expected}"), said


@pytest.mark.parametrize("case", FILES)
def test_mistake_in_a_file(case: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body, expected = FILES[case]
    content = f"task: input_flatness\n{body}\n"
    line = next(number for number, text in enumerate(content.splitlines(), 1) if "#!" in text)
    said = refused(folder, capsys, content.replace(" #!", ""))
    assert matches(said, f"x.yaml:{line}: {expected}"), said


# A whole file without a line at fault, and the line that is to come.
WHOLE = {
    "empty": ("", "x.yaml:1: a sweep is a mapping such as `task: input_flatness`, not an empty file"),
    "comments": ("# nothing\n", "x.yaml:1: a sweep is a mapping such as `task: input_flatness`, not an empty file"),
    "list": ("- task: input_flatness\n", "x.yaml:1: a sweep is a mapping such as `task: input_flatness`, not a list"),
    "text": ("task\n", "x.yaml:1: a sweep is a mapping such as `task: input_flatness`, not a single value"),
    "binary": (b"\x89PNG\r\n\x1a\n\x00\xff", "x.yaml: not a text file in UTF-8"),
    "UTF-16": ("task: input_flatness".encode("utf-16"), "x.yaml: not a text file in UTF-8"),
    "zeros": (b"\0" * 100, "x.yaml: not valid YAML: unacceptable character #x0000: ..."),
    "no task": ("seeds: 3\n", "x.yaml: task: is missing"),
    "misspelt task": (
        "tsk: input_flatness\n",
        "x.yaml:1: tsk: unknown field; a sweep has task, ..., data_root; did you mean task?",
    ),
    "unknown task": (
        "task: input_flatnes\n",
        "x.yaml:1: task: unknown task input_flatnes; there are adversarial_search, ...; did you mean input_flatness?",
    ),
    "task that is none": (
        "task: os.path\n",
        "x.yaml:1: task: os.path is no task: it has no COLUMNS, Config, needs, measure, summarise (see ...)",
    ),
    "task that is not there": (
        "task: nowhere.at_all\n",
        "x.yaml:1: task: nowhere.at_all cannot be imported: ModuleNotFoundError: No module named 'nowhere'",
    ),
    "task with an odd name": ("task: ..\n", "x.yaml:1: task: .. cannot be imported: ..."),
    "null task": ("task:\n", "x.yaml:1: task: must be text, not null"),
    "list of tasks": ("task: [input_flatness]\n", 'x.yaml:1: task: must be text, not ["input_flatness"]'),
    "deeper than Python goes": ("a: " + "[" * 5000, "x.yaml: nested too deeply"),
    "more aliases than memory": (
        "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
        + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
        "x.yaml: more than 100000 entries",
    ),
    "escape beyond Unicode": ('task: "\\UFFFFFFFF"\n', "x.yaml...: ..."),
    "control characters": (
        'task: "\\e[31m\\n\\u2028"\n',
        "x.yaml:1: task: unknown task \\x1b[31m ; there are adversarial_search, ...",
    ),
    "half a character": (
        'task: "\\ud800"\n',
        "x.yaml:1: task: unknown task \\ud800; there are adversarial_search, ...",
    ),
}


@pytest.mark.parametrize("case", WHOLE)
def test_mistaken_file(case: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, expected = WHOLE[case]
    said = refused(folder, capsys, content)
    assert matches(said, expected), said


OVERRIDES = {
    "samples": "override samples: not of the form key=value, such as recipe.epochs=5",
    "=3": "override =3: not of the form key=value, such as recipe.epochs=5",
    "recipe..seed=3": "override recipe..seed=3: a key is a name, or names joined by dots",
    "sampels=3": "override sampels=3: fixed.sampels: unknown field; input_flatness has ...; did you mean samples?",
    "epochs=3": "override epochs=3: fixed.epochs: unknown field; ...; did you mean recipe.epochs?",
    "recipe.optimizer=sgd": "override recipe.optimizer=sgd: fixed.recipe.optimizer: unknown field; ...; did you mean optimiser?",
    "grid.optimiser=[sgd]": "override grid.optimiser=[sgd]: grid.optimiser: unknown setting of ...; did you mean recipe.optimiser?",
    "resources.gpu=1": "override resources.gpu=1: resources.gpu: unknown field; ...; did you mean gpus?",
    "samples=many": "override samples=many: fixed.samples: must be a whole number, not many",
    "samples=": "override samples=: fixed.samples: must be a whole number, not null",
    "radii=[0.1, -1]": "override radii=[0.1, -1]: fixed.radii.1: must be at least 0, not -1",
    "recipe.optimiser=sdg": "override recipe.optimiser=sdg: fixed.recipe.optimiser: must be one of sgd, ...; did you mean sgd?",
    "recipe.dataset=digit": "override recipe.dataset=digit: fixed.recipe.dataset: unknown data set 'digit'; ...",
    "grid.recipe.optimiser=[sgd, sdg]": "override grid...: grid.recipe.optimiser.1: must be one of sgd, ...",
    "grid.recipe.optimiser=sgd": "override grid...: grid.recipe.optimiser: must be a list, not sgd",
    "grid={}": "override grid={}: grid: is empty; ...",
    "grid=3": "override grid=3: grid: must be a mapping of names to values, not 3",
    "search.recipe.epochs={int: [1, 2]}": "override search...: search: cannot go with grid: ...",
    "trials=3": "override trials=3: trials: belongs to search; ...",
    "fixed=3": "override fixed=3: fixed: must be a mapping of names to values, not 3",
    "radii.0=3": 'override radii.0=3: fixed.radii.0: fixed.radii is [0.1, "8/255"], which has no entries to set',
    "task.x=3": "override task.x=3: task.x: task is input_flatness, which has no entries to set",
    "seeds=[1, 1]": "override seeds=[1, 1]: seeds.1: the value 1 is given twice",
    "recipe.seed=3": "x.yaml:19: seeds: vary recipe.seed, which fixed.recipe.seed gives as well; ...",
    "samples={": "override samples={: not valid YAML: ...",
    "samples={a: 1, a: 2}": "override samples={a: 1, a: 2}: samples.a: given twice...",
    "samples=!mine 3": "override samples=!mine 3: samples: the tag !mine is not known; plain YAML is",
    "samples=&a [*a]": "override samples=&a [*a]: nested more than 30 levels deep",
    "a" + ".a" * 60 + "=1": "override a.a.a...: nested more than 30 levels deep",
    "a\nb=1": "override a b=1: fixed.a b: unknown field; ...",
    "figures=[nope]": "override figures=[nope]: figures.0: unknown figure 'nope'; there are ...",
    "task=nope": "override task=nope: task: unknown task nope; there are adversarial_search, ...",
}


@pytest.mark.parametrize("override", OVERRIDES)
def test_mistake_in_an_override(override: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(folder, capsys, GRID, override)
    assert matches(said, OVERRIDES[override]), said


COMMANDS = {
    "": "the following arguments are required: SWEEP.yaml...",
    "x.yaml --max-concurrent 0": "argument --max-concurrent: a number above 0 is needed, not 0",
    "x.yaml --max-concurrent -1": "argument --max-concurrent: a number above 0 is needed, not -1",
    "x.yaml --max-concurrent two": "argument --max-concurrent: a number above 0 is needed, not two",
    "x.yaml --frsh": "unrecognized arguments: --frsh",
    "x.yaml --results": "argument --results: expected one argument",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_mistake_in_the_command(command: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "x.yaml").write_text(GRID)
    with pytest.raises(SystemExit) as raised:
        sweep.main(command.split())
    assert raised.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert matches(err.splitlines()[-1], f"python -m engine.sweep: error: {COMMANDS[command]}")
    assert not (folder / "results").exists()


def test_local_excludes_an_address(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(folder, capsys, GRID, "--address", "auto") == "--local and --address exclude each other"


def test_unknown_kind_of_results(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(folder, capsys, GRID, "--results", "nope://bucket/results")
    assert matches(said, "--results nope://bucket/results: ...nope://bucket/results")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nowhere.yaml", "nowhere.yaml: no such file"),
        (".", ".: cannot be read: Is a directory"),
        ("x.yaml/y.yaml", "x.yaml/y.yaml: cannot be read: Not a directory"),
        ("a\0b", "a\\x00b: cannot be read: embedded null byte"),
        ("y" * 300, "yyy...: cannot be read: File name too long"),
    ],
)
def test_no_such_file(name: str, expected: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "x.yaml").write_text(GRID)
    assert sweep.main([name]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert matches(err, f"{expected}\n")


def test_name_of_the_networks_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, GRID, name="artifacts.yaml") == 2
    assert matches(capsys.readouterr().err, "artifacts.yaml: the name artifacts is ...; rename the file\n")
    assert not (folder / "results").exists()


def test_gpu_where_there_is_none(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    said = refused(folder, capsys, GRID, "resources.gpus=1")
    assert matches(said, "override resources.gpus=1: resources.gpus: 1 a task are asked for, this machine has none ...")


@pytest.mark.slow
@pytest.mark.cluster
def test_gpu_that_no_node_has(folder: Path, capfd: pytest.CaptureFixture[str], cluster: str) -> None:
    (folder / "x.yaml").write_text(GRID.replace("gpus: auto", "gpus: 1000"))
    assert sweep.main(["x.yaml", "--address", cluster]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert matches(err, "x.yaml:21: resources.gpus: 1000 a task are asked for, the largest node has ...\n")
    assert not (folder / "results").exists()


NETWORK = """\
from torch import nn
class Network(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.layer = nn.Linear(64, classes)
    def forward(self, x):
        return {}
def build(shape, classes):
    return Network(classes)
"""
MODULES = {
    # the module's code, where it is named, and what is said
    "data set that raises": (
        "def read(split, root):\n    return {}['images']\n",
        "fixed.recipe.dataset",
        "{name}:read",
        "{name}:read failed: KeyError: 'images' ({name}.py, line 2)",
    ),
    "data set that is none": (
        "def read(split, root):\n    return [[[[0.5]]]], [7], ['a']\n",
        "fixed.recipe.dataset",
        "{name}:read",
        "the data set breaks its contract: labels must lie in 0..0, ...",
    ),
    "data set that returns nothing": (
        "def read(split, root):\n    pass\n",
        "fixed.recipe.dataset",
        "{name}:read",
        "the data set breaks its contract: images, labels and class names must be returned; got NoneType",
    ),
    "data set without a function": (
        "",
        "fixed.recipe.dataset",
        "{name}:read",
        ".../{name}.py has no function 'read'",
    ),
    "module with a mistake": (
        "def read(:\n",
        "fixed.recipe.dataset",
        "{name}:read",
        "{name} cannot be imported: SyntaxError: ...",
    ),
    "network that raises": (
        "def build(shape, classes):\n    return {}['layer']\n",
        "fixed.recipe.network",
        "{name}:build",
        "{name}:build failed: KeyError: 'layer' ({name}.py, line 2)",
    ),
    "network that is none": (
        "def build(shape, classes):\n    return 3\n",
        "fixed.recipe.network",
        "{name}:build",
        "network '{name}:build' cannot be had for 1x8x8 images, 10 classes: TypeError: its function returned int, ...",
    ),
    "network with other logits": (
        "from torch import nn\ndef build(shape, classes):\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))\n",
        "fixed.recipe.network",
        "{name}:build",
        "network '{name}:build' cannot be had for 1x8x8 images, 10 classes: ...not logits (2, 10)",
    ),
    "data set of bright images": (
        "import numpy as np\ndef read(split, root):\n    return np.full((6, 1, 8, 8), 1.5), [0, 1] * 3, ['a', 'b']\n",
        "fixed.recipe.dataset",
        "{name}:read",
        "the data set breaks its contract: images must be uint8, or floats in [0, 1]; ...",
    ),
    "network that returns probabilities": (
        NETWORK.format("self.layer(x.flatten(1)).softmax(1)"),
        "fixed.recipe.network",
        "{name}:build",
        "{name}:build: the network returns probabilities; logits are needed, before the softmax",
    ),
    "network that returns NaN": (
        NETWORK.format("self.layer(x.flatten(1)) * float('nan')"),
        "fixed.recipe.network",
        "{name}:build",
        "{name}:build: the network returns numbers that are not finite (NaN or infinite)",
    ),
    "network without gradients": (
        NETWORK.format("self.layer(x.detach().flatten(1))"),
        "fixed.recipe.network",
        "{name}:build",
        "{name}:build: the network has no gradient with respect to its input: a search ... would be vacuous; ...",
    ),
    "network of steps": (
        NETWORK.format("self.layer(x.flatten(1)).round()"),
        "fixed.recipe.network",
        "{name}:build",
        "{name}:build: the network has a gradient that is zero everywhere: a search ... would be vacuous; ...",
    ),
    "task that raises": (
        "import json\njson.loads('{')\n",
        "task",
        "own.{name}",
        "own.{name} cannot be imported: JSONDecodeError: ...",
    ),
    "task without settings": (
        "COLUMNS, Config, needs, measure, summarise = {}, dict, None, None, None\n",
        "task",
        "own.{name}",
        "own.{name} is no task: its Config is not built on tasks.parts.contract.TaskConfig",
    ),
}


@pytest.mark.parametrize("case", MODULES)
def test_code_of_the_users_own(
    case: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, field, value, expected = MODULES[case]
    name = f"module_{list(MODULES).index(case)}"
    place = folder / "own" if field == "task" else folder
    place.mkdir(exist_ok=True)
    (place / f"{name}.py").write_text(code)
    text = f"task: {value if field == 'task' else 'input_flatness'}\n"
    text += "" if field == "task" else f"{field}: {value}\n"
    said = refused(folder, capsys, text.format(name=name))
    assert matches(said, f"x.yaml:{text.count(chr(10))}: {field}: {expected.format(name=name)}"), said


def test_a_network_of_a_pool_that_cannot_be_attacked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The line is that of `networks`, where the network is given, not that of a recipe."""
    (folder / "module_sure.py").write_text(NETWORK.format("self.layer(x.flatten(1)).softmax(1)"))
    text = "task: transfer\nfixed:\n  networks:\n    - {}\n    - network: 'module_sure:build'\n"
    said = refused(folder, capsys, text)
    assert matches(said, "x.yaml:3: fixed.networks: ...module_sure:build: the network returns probabilities; ..."), said


def test_networks_that_can_be_searched(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Networks of which an attack could refuse others like them.

    The last layer of one begins with zeros. The other has steps, and the attack follows no gradient
    or none is run.
    """
    code = NETWORK.replace("(64, classes)", "(64, classes)\n        nn.init.zeros_(self.layer.weight)")
    (folder / "module_zeros.py").write_text(code.format("self.layer(x.flatten(1))"))
    (folder / "module_steps.py").write_text(NETWORK.format("self.layer(x.flatten(1)).round()"))
    for task, name, *overrides in [
        ("adversarial_search", "zeros"),
        ("adversarial_search", "steps", "attack.name=square"),
        ("input_flatness", "steps", "conditions=[genuine]"),
    ]:
        content = f"task: {task}\nfixed: {{recipe: {{network: 'module_{name}:build'}}}}\n"
        assert run(folder, content, "--dry-run", *overrides) == 0, capsys.readouterr().err


@pytest.mark.parametrize("text", [GRID, SEARCH])
def test_these_are_right(text: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, text, "--dry-run") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.count("\n") > 6
    assert not (folder / "results").exists()


# What a mutation puts in. Nothing here asks a host, or needs much memory.
ODD: list[Any] = [
    *(None, True, False, 0, 1, -1, 2.5, 10**30, -(2**63), 1e308, float("inf"), float("nan")),
    *(
        "",
        " ",
        "~",
        "no",
        "1e-3",
        "8/255",
        "8/0",
        "a/b",
        "nan",
        "-inf",
        "\0",
        "\ud800",
        "a\nb",
        "ü",
        "🙂",
        ".",
        "..",
        "a.b",
    ),
    *("x:y", ":", "imagefolder:", "imagefolder:nowhere", "recipe", "seed", "blob 1", "digits", "auto", "x" * 5000),
    *(
        [],
        {},
        [[]],
        [None],
        [1, "a"],
        [0.1, 0.1],
        {"a": 1},
        {"uniform": [0, 1]},
        {"int": [1, 1]},
        [{"recipes": {"y": 1}}],
    ),
]
KEYS = [
    *("task", "fixed", "grid", "search", "trials", "seeds", "objective", "resources", "figures", "data_root", "about"),
    *("recipe", "attack", "radii", "examples", "classes", "target", "recipe.seed", "recipe.classes", "seed", "batch"),
    *("fixed.recipe", "fixed.recipe.epochs", "grid.recipe.epochs", "search.recipe.epochs", "resources.gpus"),
    *(
        "recipe.network_options",
        "recipe.network_options.width",
        "recipe.input_noise",
        "recipe.weights",
        "recipe.dataset",
    ),
    *("", ".", "a..b", " ", "<<", "ü", "1", "a.b.c", "null", "recipe.optimizer", "grid", "grid.recipe.optimiser"),
]
SETTINGS = [
    *KEYS,
    *(name for name in settings_of(Config) if name != "recipe.image_size"),
]  # images a million pixels wide
SNIPPETS = [
    *(":", ": ", "- ", "&a", "&a ", "*a", "{", "}", "[", "]", "!!python/object:os.system ", "!x ", "? ", "|\n", ">\n"),
    *(
        "\t",
        "%YAML 1.1\n---\n",
        "---\n",
        "...\n",
        "'",
        '"',
        "<<: *a\n",
        "\ufeff",
        "\r",
        "\r\n",
        "\0",
        "#",
        ",",
        "\n",
        "  ",
    ),
    *(
        "@",
        "`",
        "%",
        '"\\x"',
        '"\\UFFFFFFFF"',
        "2020-01-01",
        "0x10",
        "0o7",
        "1_000",
        "1:30",
        "~",
        "=",
        "\u2028",
        "\x85",
    ),
]
values = st.sampled_from(ODD) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
keys = st.sampled_from(KEYS) | st.text(max_size=8)


def places(tree: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all entries in nested mappings and lists."""
    inside = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path for key, item in inside for path in [(*above, key), *places(item, (*above, key))]]


def override_of(key: str, value: Any) -> str:
    """An override as a user types it."""
    return f"{key}={yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix('...' + chr(10)).strip()}"


@st.composite
def other_entries(draw: st.DrawFn) -> tuple[bytes, list[str]]:
    """A valid sweep with some entries replaced, and some overrides."""
    tree = yaml.safe_load(draw(st.sampled_from([GRID, SEARCH])))
    for _ in range(draw(st.integers(0, 2))):
        there = places(tree)
        if not there:
            break
        *above, last = draw(st.sampled_from(there))
        holder = tree
        for key in above:
            holder = holder[key]
        kind = draw(st.sampled_from(["replace", "replace", "delete", "rename", "insert", "copy"]))
        if kind == "delete":
            del holder[last]
        elif kind == "replace":
            holder[last] = copy.deepcopy(draw(values))
        elif isinstance(holder, list):
            holder.insert(last, copy.deepcopy(holder[last] if kind == "copy" else draw(values)))
        elif kind == "rename":
            holder[draw(keys)] = holder.pop(last)
        else:
            holder[draw(keys)] = copy.deepcopy(holder[last] if kind == "copy" else draw(values))
    overrides = draw(st.lists(st.builds(override_of, st.sampled_from(SETTINGS), values), max_size=2))
    return yaml.safe_dump(tree, sort_keys=False).encode(), overrides


@st.composite
def other_text(draw: st.DrawFn) -> tuple[bytes, list[str]]:
    """A valid sweep file with pieces of text or bytes put in, and overrides of any text."""
    content = draw(st.sampled_from([GRID, SEARCH])).encode()
    for _ in range(draw(st.integers(0, 2))):
        start = draw(st.integers(0, len(content)))
        end = start + draw(st.sampled_from([0, 0, 0, 1, 5, 30]))
        snippet = st.sampled_from(SNIPPETS).map(str.encode)
        content = content[:start] + draw(snippet | snippet | st.binary(max_size=3)) + content[end:]
    overrides = (
        st.builds(override_of, keys, values) | st.text(max_size=8).map("samples={}".format) | st.text(max_size=8)
    )
    return content, draw(st.sampled_from([[], [draw(overrides)]]))


def read_or_refused(file: Path, content: bytes, overrides: list[str]) -> None:
    """Whether a file can be planned, or ends in a one-line error; other exceptions are raised."""
    file.write_bytes(content)
    try:
        plan(load(file, overrides))
    except SpecError as error:
        said = error.message
    else:
        return
    assert said.strip()
    assert said.isprintable()
    assert said.startswith((str(file), "override "))


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(other_entries())
def test_any_entries_are_taken_or_refused(
    tmp_path_factory: pytest.TempPathFactory, case: tuple[bytes, list[str]]
) -> None:
    read_or_refused(tmp_path_factory.getbasetemp() / "entries.yaml", *case)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(other_text())
def test_any_text_is_taken_or_refused(tmp_path_factory: pytest.TempPathFactory, case: tuple[bytes, list[str]]) -> None:
    read_or_refused(tmp_path_factory.getbasetemp() / "text.yaml", *case)

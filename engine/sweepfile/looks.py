"""Quick looks: which overrides change the trials of a sweep, and the page of such a run."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from pydantic import JsonValue

from engine.sweepfile.schema import Sweep
from engine.sweepfile.spec import Spec
from engine.sweepfile.yaml_lines import SpecError, override, scalar

LONGEST = 100
"""Most characters for the overrides in the name of a quick look's page."""
NO_TRIALS = ("resources", "figures", "about", "data_root", "storage")
"""Entries of a sweep that do not change its trials."""
_PLAIN = re.compile(r"[A-Za-z0-9._+-]+")
_HASHED = re.compile(r".*-[0-9a-f]{8}")


def look_of(spec: Spec, again: Callable[[Sequence[str]], Spec]) -> dict[str, JsonValue]:
    """The overrides that change the trials of a sweep, as path -> value.

    Args:
        spec: the sweep as it was read with its overrides.
        again: reads the same sweep file with other overrides.
    """
    there = spec.source.overrides
    aside = {path for path in there if path.split(".")[0] in NO_TRIALS}
    kept = [path for path in there if path not in aside]
    for path in list(kept):
        rest = [other for other in kept if other != path]
        try:
            without = again([there[one] for one in there if one in aside or one in rest])
        except SpecError:  # the others make no sense without it
            continue
        if _goes_on(spec, without):
            kept = rest
    return {path: override(there[path])[1] for path in kept}


def _goes_on(spec: Spec, other: Spec) -> bool:
    """Whether a sweep has all trials of another; a search may have more trials than the other."""
    one, two = spec.sweep, other.sweep
    if spec.task is not other.task or bool(one.search) != bool(two.search):
        return False
    if not one.search:
        return len(spec.trials) == len(other.trials) and set(_contents(spec)).issuperset(_contents(other))
    drawn = (one.search, one.searcher) == (two.search, two.searcher)
    seeds = len(one.seed_list or [0]) == len(two.seed_list or [0])
    aim = not (one.studied or two.studied) or one.objectives == two.objectives
    first = zip(_contents(spec), _contents(other), strict=False)
    return drawn and seeds and aim and (one.trials or 0) >= (two.trials or 0) and all(a == b for a, b in first)


def _contents(spec: Spec) -> Iterator[str]:
    """All settings of each trial, as text, except those that change only the speed."""
    speed = set(spec.task.Config.performance)
    for trial in spec.trials:
        yield json.dumps(trial.config.model_dump(mode="json", exclude=speed), sort_keys=True)


def page_of(name: str, look: Mapping[str, JsonValue]) -> str:
    """The name of the folder for a run's report and tables.

    A quick look has its overrides in the name. Where they cannot stand there as they are, they are
    cut and a hash is added.

    >>> page_of("noise", {}), page_of("noise", {"seeds": 1, "fixed.examples": 50})
    ('noise', 'noise@seeds=1,examples=50')
    >>> page_of("noise", {"fixed.recipe.optimiser": ["sgd"]})
    'noise@recipe.optimiser=_sgd_-a2956796'
    """
    if not look:
        return name
    words = [(_setting(path), _word(value)) for path, value in look.items()]
    text = ",".join(f"{key}={word}" for key, word in words)
    whole = all(_PLAIN.fullmatch(part) for pair in words for part in pair)  # no comma, no =
    typed = all(type(scalar(word)) is type(value) for (_, word), value in zip(words, look.values(), strict=True))
    if whole and typed and len(text) <= LONGEST and not _HASHED.fullmatch(text):
        return f"{name}@{text}"
    digest = hashlib.sha256(json.dumps(list(look.items())).encode()).hexdigest()[:8]
    text = re.sub(r"[^A-Za-z0-9._=+,-]", "_", text)[: LONGEST - 9]
    return f"{name}@{text}-{digest}"


def _setting(path: str) -> str:
    """The path of an override in its shortest form.

    >>> _setting("fixed.recipe.epochs"), _setting("fixed.seeds"), _setting("seeds")
    ('recipe.epochs', 'fixed.seeds', 'seeds')
    """
    short = path.removeprefix("fixed.")
    return path if short.split(".")[0] in Sweep.model_fields else short


def _word(value: object) -> str:
    """The value of an override in its shortest form."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return f"[{','.join(map(_word, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{name}:{_word(of)}' for name, of in value.items())}}}"
    return json.dumps(value)

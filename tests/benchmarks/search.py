"""A search over Ray against a bare loop over the same trials, and what ASHA saves.

    python tests/benchmarks/search.py --trials 16 --epochs 150

bare         the trials' networks trained and measured by plain functions, in one process and then
             in as many as there are cores, which is the machine's ceiling; no engine, no files
sweep        the command, from nothing: the start of Python and of Ray, the trials, the report
trials run   of the sweep, from the start of its first trial to the end of its last
efficiency   seconds of the bare loop in one process over those of the sweep times the cores

ASHA: one search at random for the lowest negative log-likelihood, without and with the scheduler;
the same points in both.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tasks import evaluation as task

SWEEP = "sweeps/augmentation_search.yaml"
BY_NLL = ["searcher=random", "objective={metric: nll, mode: min}", "conditions=[clean]", "figures=[learning_curves]"]
Record = dict[str, Any]
"""What a trial's `trial.json` holds, or a part of it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--skip-efficiency", action="store_true")
    parser.add_argument("--skip-asha", action="store_true")
    options = parser.parse_args()
    if not options.skip_efficiency:
        efficiency(options.trials, options.epochs)
    if not options.skip_asha:
        asha(2 * options.trials)


def efficiency(trials: int, epochs: int) -> None:
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as results:
        whole, done = sweep(results, f"trials={trials}", f"recipe.epochs={epochs}", "scheduler=null")
    running = max(t["started"] + t["seconds"] for t in done) - min(t["started"] for t in done)
    configs = [trial["config"] for trial in done]
    alone, together = bare(configs, 1), bare(configs, cores)
    print(f"{len(done)} trials of {epochs} epochs, {cores} cores              seconds   efficiency")
    rows = {"bare, 1 process": (alone, 1), f"bare, {cores} processes": (together, cores)}
    for name, (seconds, used) in (rows | {"sweep": (whole, cores), "its trials run": (running, cores)}).items():
        print(f"{name:46} {seconds:9.1f} {alone / seconds / used:12.2f}", flush=True)


def asha(trials: int) -> None:
    print(f"\n{trials} random points   seconds   epochs   stopped   lowest nll")
    for name, chosen in [("no scheduler", ["scheduler=null"]), ("asha", [])]:
        with tempfile.TemporaryDirectory() as results:
            seconds, done = sweep(results, f"trials={trials}", *BY_NLL, *chosen)
        epochs = sum(len(trial["epochs"]) for trial in done)
        best = min(trial["summary"]["nll"] for trial in done if trial["status"] == "done")
        stopped = sum(trial["status"] == "stopped" for trial in done)
        print(f"{name:16} {seconds:9.1f} {epochs:8} {stopped:9} {best:12.5f}", flush=True)


def sweep(results: str, *overrides: str) -> tuple[float, list[Record]]:
    """Seconds of the command, and the records of its trials.

    Says what went wrong in some of them (exit status 1).

    Raises:
        RuntimeError: it did not run to its end.
    """
    begun = time.perf_counter()
    command = [sys.executable, "-m", "engine.sweep", SWEEP, *overrides, "--results", results]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    seconds = time.perf_counter() - begun
    if ended.returncode > 1:
        raise RuntimeError(ended.stderr)
    if ended.returncode == 1:
        print(*(line for line in ended.stderr.splitlines() if not line.startswith("[")), sep="\n", file=sys.stderr)
    return seconds, [json.loads(path.read_text()) for path in Path(results).glob("*/trials/*/trial.json")]


def bare(configs: list[Record], processes: int) -> float:
    """Seconds for the trials in so many processes that have loaded what they need."""
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        short = configs[0] | {"recipe": configs[0]["recipe"] | {"epochs": 1}}
        list(pool.map(run, [short] * (2 * processes)))
        begun = time.perf_counter()
        list(pool.map(run, configs))
        return time.perf_counter() - begun


def run(config: Record) -> dict[str, float]:
    """One trial by plain functions: its network, trained; its examples, measured; its scalars."""
    import pandas as pd
    import torch

    from tasks.parts.contract import Batch, prepared
    from tasks.parts.data import load as data
    from tasks.parts.training import training

    torch.set_num_threads(1)
    trial = task.Config(**config)
    train, test = (data.load(trial.recipe.dataset, split) for split in ("train", "test"))
    model = training.trained(trial.recipe, train).requires_grad_(False)
    training.score(model, test)
    ids = data.choose(test, trial.examples)
    batch = Batch(ids, *data.take(test, ids))
    rows = task.measure(trial, prepared(task.needs(trial), model, batch), batch)
    return task.summarise(trial, pd.DataFrame(rows))


if __name__ == "__main__":
    main()

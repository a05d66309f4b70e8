"""The main job from nothing, again, and with one more seed.

    python tests/benchmarks/sweep.py

Its rows are compared with those of a local run, and two workers with one. Times include the start
of Python and of Ray. Two workers are held against the ceiling that two plain processes reach on
this machine.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pandas as pd

from tasks import input_flatness as task
from tasks.parts.training.recipes import Recipe

CHUNKS, ROUNDS = 16, 3
KINDS = ("measurement", "search")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--skip-main-job", action="store_true")
    if not parser.parse_args().skip_main_job:
        main_job()
    for kind in KINDS:
        workers(kind)


def main_job() -> None:
    with tempfile.TemporaryDirectory() as folder:
        print("main job           seconds   last line")
        for name, options in [("from nothing", []), ("again", []), ("one more seed", ["seeds=4"])]:
            seconds, said = _timed([*options, "--results", f"{folder}/ray"])
            print(f"{name:16} {seconds:9.1f}   {said.strip().splitlines()[-1].partition(';')[0]}", flush=True)
        _timed(["seeds=4", "--local", "--results", f"{folder}/local"])
        rays, local = _rows(Path(folder, "ray")), _rows(Path(folder, "local"))
        pd.testing.assert_frame_equal(rays, local, rtol=1e-5, atol=1e-5)
        print(f"{len(rays):,} rows over Ray and in one process agree to 1e-5\n")


def workers(kind: str) -> None:
    """The same chunks over Ray with one CPU and with two, and in one and two plain processes."""
    import ray

    from engine.execution.executors import RayExecutor

    seconds: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for slots in (1, 2):
            ray.init(num_cpus=slots, include_dashboard=False, log_to_driver=False)
            by = RayExecutor()
            # The workers start, import and train their network
            list(by.scatter(_chunk, range(2 * slots), kind))
            begun = time.perf_counter()
            list(by.scatter(_chunk, range(CHUNKS), kind))
            seconds.setdefault(f"ray {slots}", []).append(time.perf_counter() - begun)
            ray.shutdown()
            with ProcessPoolExecutor(slots, mp_context=get_context("spawn")) as pool:
                chunk = partial(_chunk, kind=kind)
                list(pool.map(chunk, range(2 * slots)))
                begun = time.perf_counter()
                list(pool.map(chunk, range(CHUNKS)))
                seconds.setdefault(f"plain {slots}", []).append(time.perf_counter() - begun)
    best = {name: min(values) for name, values in seconds.items()}
    print(
        f"two workers against one, {kind}: Ray {best['ray 1'] / best['ray 2']:.2f} times, "
        f"plain processes {best['plain 1'] / best['plain 2']:.2f} times (the machine's ceiling)",
        flush=True,
    )


def _chunk(number: int, kind: str) -> int:
    """A fixed piece of the measurement, or of an attack, with a network that is trained once."""
    import torch

    from tasks.parts.attacks.apgd import apgd
    from tasks.parts.contract import Batch, prepared
    from tasks.parts.data import load as data
    from tasks.parts.training import training

    torch.set_num_threads(1)
    config = task.Config(samples=64, recipe=Recipe(epochs=1))
    if not _network:
        train = data.load("digits", "train")
        _network.append(training.untrained(config.recipe, train))
        for _ in training.epochs(config.recipe, _network[0], train):
            pass
        _network[0].requires_grad_(False)
    ids = list(range(20 * number, 20 * number + 20))
    images, labels = data.take(data.load("digits", "test"), ids)
    if kind == "search":  # at a radius at which about half of the images hold, with all their steps
        return int(apgd(_network[0], images, labels, epsilon=0.1, steps=100, restarts=5, ids=ids).success.sum())
    batch = Batch(ids, images, labels)
    return len(task.measure(config, prepared(task.needs(config), _network[0], batch), batch)["id"])


_network: list = []


def _timed(options: list[str]) -> tuple[float, str]:
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "engine.sweep", "sweeps/noise.yaml", *options],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    return time.perf_counter() - begun, done.stdout


def _rows(results: Path) -> pd.DataFrame:
    frames = [
        pd.read_parquet(part).assign(trial=part.parts[-3]) for part in results.glob("noise/trials/*/rows/*.parquet")
    ]
    keys = ["trial", "id", "condition", "kind", "radius"]
    return pd.concat(frames).sort_values(keys, ignore_index=True)


if __name__ == "__main__":
    main()

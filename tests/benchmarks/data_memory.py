"""What worker processes cost that all hold CIFAR-10's training images.

    python tests/benchmarks/data_memory.py --data-root <folder>

Compared are images that are mapped and shared, and a copy in each process. PSS (proportional set
size) divides every shared page by the number of processes that map it: summed over processes it is
what the machine holds. RSS counts shared pages in full for each. Linux only: read from
/proc/self/smaps_rollup.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections.abc import Iterator
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np

from tasks.parts.data.load import load


def memory() -> dict[str, float]:
    """PSS and RSS of this process in MiB."""
    lines = (line.split() for line in Path("/proc/self/smaps_rollup").read_text().splitlines())
    return {words[0][:-1]: int(words[1]) / 1024 for words in lines if words[0] in ("Pss:", "Rss:")}


def hold(root: str, copy: bool, together: Barrier, results: Queue[dict[str, float]]) -> None:
    """One worker: loads, touches every page, and measures while the others hold theirs."""
    together.wait()
    before = memory()
    together.wait()
    split = load("cifar10", "train", root=root)
    images = np.array(split.images) if copy else split.images
    for start in range(0, len(split), 1000):
        images[start : start + 1000].sum()
    together.wait()
    after = memory()
    together.wait()
    results.put({f"{kind} {when}": m[kind] for when, m in (("before", before), ("after", after)) for kind in m})


def measurements(root: str) -> Iterator[tuple[str, int, list[dict[str, float]]]]:
    context = multiprocessing.get_context("spawn")
    for copy in (False, True):
        for workers in (1, 2):
            together, results = context.Barrier(workers), context.Queue()
            processes = [context.Process(target=hold, args=(root, copy, together, results)) for _ in range(workers)]
            for process in processes:
                process.start()
            yield "a copy each" if copy else "mapped", workers, [results.get(timeout=600) for _ in processes]
            for process in processes:
                process.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data-root", required=True, help="folder with CIFAR-10 in one of the layouts that cifar10 reads"
    )
    root = parser.parse_args().data_root
    split = load("cifar10", "train", root=root)  # decoded before the workers start
    mebibytes = np.prod(split.images.shape) * split.images.dtype.itemsize / 2**20
    print(f"CIFAR-10 train: {len(split)} images, {mebibytes:.0f} MiB; below MiB, summed over the workers")
    print(f"{'images':12} {'workers':>7} {'PSS before':>11} {'PSS after':>10} {'RSS before':>11} {'RSS after':>10}")
    for mode, workers, rows in measurements(root):
        sums = [sum(row[name] for row in rows) for name in ("Pss before", "Pss after", "Rss before", "Rss after")]
        print(f"{mode:12} {workers:7} {sums[0]:11.0f} {sums[1]:10.0f} {sums[2]:11.0f} {sums[3]:10.0f}")


if __name__ == "__main__":
    main()

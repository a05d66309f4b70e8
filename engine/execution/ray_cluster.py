"""Connects to a Ray cluster: the one at an address, or one that is started here."""

from __future__ import annotations

import logging
import os
import socket
import sys
from functools import partial

from engine.execution.executors import RayExecutor
from engine.sweepfile.load import Spec
from engine.sweepfile.yaml_lines import SpecError
from engine.terminal import dimensions, say

CONNECT_SECONDS = 5
"""How long an address has to answer."""


def connect(address: str | None) -> None:
    """Joins a Ray cluster, or starts one on this machine.

    Args:
        address: of the cluster; None: that in RAY_ADDRESS, else one is started.

    Raises:
        SpecError: no cluster answers at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    # So Ctrl-C reaches us, and ends the run at once.
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
    import ray

    init = partial(ray.init, log_to_driver=False, logging_level=logging.ERROR, configure_logging=True)
    if address is None and "RAY_ADDRESS" not in os.environ:
        _say_at_a_terminal("starting Ray ...")
        init(address="local", include_dashboard=False)
        return
    address = address or os.environ["RAY_ADDRESS"]
    _ping(address)
    _say_at_a_terminal(f"joining the Ray cluster at {address} ...")
    try:
        init(address=address)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise _no_cluster(address, str(error).strip().splitlines()[0]) from None


def ray_executor(spec: Spec) -> RayExecutor:
    """The executor for the cluster that this process has joined.

    It knows how many CPUs and GPUs each task gets.

    Raises:
        SpecError: the sweep asks for GPUs or CPUs that no node has.
    """
    import ray

    resources = spec.sweep.resources
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    largest = {name: max((node.get(name, 0) for node in nodes), default=0) for name in ("CPU", "GPU")}
    gpus = (1.0 if largest["GPU"] else 0.0) if resources.gpus == "auto" else float(resources.gpus)
    if gpus > largest["GPU"] and not resources.nodes_may_join:
        raise no_gpu(spec, f"the largest node has {largest['GPU']:g}")
    if resources.cpus > largest["CPU"] and not resources.nodes_may_join:
        message = f"{resources.cpus} a task are asked for, the largest node has {largest['CPU']:g}"
        raise spec.source.error("resources.cpus", message)
    return RayExecutor(resources.cpus, gpus, resources.retries)


def no_gpu(spec: Spec, have: str) -> SpecError:
    """The error of a sweep that asks for GPUs that are not there."""
    message = f"{spec.sweep.resources.gpus:g} a task are asked for, {have}; use 0, or auto for what there is"
    return spec.source.error("resources.gpus", message)


def _say_at_a_terminal(text: str) -> None:
    """Says what takes some seconds, at a terminal only: elsewhere an error stays one line."""
    if dimensions(sys.stderr) is not None:
        say(text)


def _ping(address: str) -> None:
    """Tries a `host:port` address, since Ray takes a minute and many lines to give up."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdecimal():
        return  # auto, or a name that only Ray knows
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise _no_cluster(address, str(error.strerror or error)) from None


def _no_cluster(address: str, why: str) -> SpecError:
    return SpecError(f"--address {address}: no Ray cluster answers there: {why}")

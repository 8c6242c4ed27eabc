"""A Ray cluster to work on: one that runs, or one on this machine for as long as it is needed.

A cluster that is started here has no dashboard, and reports nothing to anybody: Ray's usage statistics are off. Work is
cut into tasks; Ray repeats those whose process or machine was lost.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from blemish.errors import BlemishError, UsageError
from blemish.extras import require
from blemish.scale.versions import versions

RETRIES = 3
"""How often a task is repeated whose process or machine was lost."""

STARTS = 2
"""How often a cluster on this machine is tried to be started."""

_SECONDS = 5.0
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_USAGE_STATS_PROMPT_ENABLED": "0"}
"""The environment in which Ray tells nothing about its use."""


@contextmanager
def cluster(address: str | None = None, *, cpus: int | None = None) -> Iterator[Any]:
    """Ray, connected; what was connected before stays so.

    Args:
        address: HOST:PORT of the head of a cluster, or "auto" for the one that this machine belongs to. None starts one
            on this machine, unless the process is connected already.
        cpus: of a cluster that is started here; None for all cores.

    Yields:
        The module `ray`.

    Raises:
        MissingExtraError: if Ray isn't installed. UsageError: if there is no cluster at the address, or one of another
            version of Ray or Python.
    """
    ray = require("ray")
    if ray.is_initialized():
        here = ray.get_runtime_context().gcs_address
        if address not in (None, "auto", here):
            raise UsageError(f"This process is connected to the cluster at {here} already. Got {address!r}.")
        yield ray
        return
    quiet = {"log_to_driver": False, "logging_level": "WARNING"}
    if address is None:
        with _environment(QUIET):
            # "local": otherwise Ray takes any cluster of this machine, also one that is gone and has left its address.
            _start(ray, address="local", num_cpus=cpus, include_dashboard=False, **quiet)
    else:
        require_reachable(address)
        try:
            ray.init(address=address, **quiet)
        except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise UsageError(
                f"The Ray cluster at {address} can't be used: {' '.join(str(error).split())} Start one with `ray start "
                f"--head`, or leave --address out to use this machine alone."
            ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _start(ray: Any, **options: Any) -> None:
    """Starts a cluster here; again, where a busy machine took longer than the half minute that Ray waits.

    Raises:
        UsageError: if it can't be started.
    """
    for attempt in range(STARTS):
        try:
            ray.init(**options)
            return
        except Exception as error:  # of no other class, when time ran out
            ray.shutdown()
            if attempt == STARTS - 1:
                raise UsageError(
                    f"Ray can't be started on this machine: {' '.join(str(error).split())} Try again when it has less "
                    f"to do, or name a cluster that runs with --address."
                ) from error


def own_error(error: BaseException) -> BlemishError | None:
    """The error of this library that a task ended with; None for any other end."""
    cause = getattr(error, "cause", error)
    return cause if isinstance(cause, BlemishError) else None


def ask_nodes(ray: Any, question: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    """The answer of every machine of the cluster, by its address.

    Raises:
        UsageError: if one of them has other versions than this process.
    """
    strategy = require("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy
    asked = {
        node["NodeManagerAddress"]: ray.remote(num_cpus=0)(_answer)
        .options(scheduling_strategy=strategy(node["NodeID"], soft=False))
        .remote(question, *arguments)
        for node in ray.nodes()
        if node["Alive"]
    }
    own, answers = versions(), {}
    for node, reference in asked.items():
        theirs, answers[node] = ray.get(reference)
        for name, version in own.items():
            if theirs.get(name, version) != version:
                raise UsageError(
                    f"The worker at {node} has {name} {theirs[name]}, and this process has {name} {version}: their "
                    f"results could differ. Install the same version on both."
                )
    return answers


def _answer(question: Callable[..., Any], *arguments: Any) -> tuple[Mapping[str, str], Any]:
    return versions(), question(*arguments)


def require_reachable(address: str) -> None:
    """Asks for the port of a cluster's head; Ray itself tries for minutes.

    Raises:
        UsageError: if nobody answers within seconds, or the address is none.
    """
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UsageError(f"--address must be HOST:PORT of the head of a Ray cluster, or auto. Got {address!r}.")
    try:
        socket.create_connection((host, int(port)), timeout=_SECONDS).close()
    except OSError as error:
        raise UsageError(
            f"There is no Ray cluster at {address}: {error.strerror or error}. Start one with `ray start --head "
            f"--port={port}` on that machine, or leave --address out to use this machine alone."
        ) from error


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                with suppress(KeyError):
                    del os.environ[name]
            else:
                os.environ[name] = value

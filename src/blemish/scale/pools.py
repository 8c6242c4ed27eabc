"""Who does the work of a fit: tasks on Ray, or processes of this machine. Either way functions, and results by
reference, so that what one task made goes to the next without a detour.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, Protocol

import torch

from blemish.errors import BlemishError, UsageError
from blemish.scale.cluster import RETRIES, cluster, own_error
from blemish.scale.versions import require_same, versions


class Pool(Protocol):
    """Workers.

    Attributes:
        workers: how many work at once.
    """

    workers: int

    def put(self, value: Any) -> Any:
        """A reference to a value that many tasks take."""
        ...

    def submit(self, function: Callable[..., Any], *arguments: Any, returns: int = 1) -> list[Any]:
        """References to the `returns` results of `function(device, *arguments)`. References among the arguments
        arrive as values.
        """
        ...

    def wait(self, reference: Any) -> None:
        """Returns when the value is there, or the task has failed."""
        ...

    def get(self, reference: Any) -> Any:
        """The value; the error of the task, as it was raised."""
        ...


@contextmanager
def ray_pool(accelerator: str, devices: int | None, address: str | None) -> Iterator[Pool]:
    """Tasks on a cluster, see `blemish.scale.cluster.cluster`, each on a GPU where there are any, else on a CPU.

    Args:
        accelerator: "auto", "cpu" or "cuda".
        devices: how many tasks at once; None for all that the cluster can run.
        address: of the cluster.

    Raises:
        UsageError: if the cluster has no such thing, or as `cluster`.
    """
    with cluster(address) as ray:
        there = ray.cluster_resources()
        gpu = accelerator == "cuda" or (accelerator == "auto" and there.get("GPU", 0) >= 1)
        if accelerator not in ("auto", "cpu", "cuda") or (gpu and there.get("GPU", 0) < 1):
            raise UsageError(f"accelerator {accelerator!r} can't be used: this Ray cluster has no such device.")
        yield _RayPool(ray, devices or max(1, int(there.get("GPU" if gpu else "CPU", 1))), gpu)


class _RayPool:
    def __init__(self, ray: Any, workers: int, gpu: bool) -> None:
        self.workers = workers
        self._ray, self._device = ray, "cuda" if gpu else "cpu"
        self._options = {"num_cpus": 1, "num_gpus": int(gpu), "max_retries": RETRIES, "max_calls": 0}
        self._sent_by = versions()

    def put(self, value: Any) -> Any:
        return self._ray.put(value)

    def submit(self, function: Callable[..., Any], *arguments: Any, returns: int = 1) -> list[Any]:
        task = self._ray.remote(num_returns=returns, **self._options)(_checked)
        found = task.remote(self._sent_by, function, self._device, *arguments)
        return [found] if returns == 1 else list(found)

    def wait(self, reference: Any) -> None:
        self._ray.wait([reference], fetch_local=False)

    def get(self, reference: Any) -> Any:
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            own = own_error(error)
            raise (error if own is None else own) from error
        except self._ray.exceptions.RayError as error:
            raise BlemishError(
                f"Ray lost a worker {RETRIES + 1} times at the same work: {' '.join(str(error).split())[:300]} Give "
                f"workers more memory, and fit again."
            ) from error


def _checked(sent_by: dict[str, str], function: Callable[..., Any], *arguments: Any) -> Any:
    require_same(sent_by)
    return function(*arguments)


@contextmanager
def process_pool(accelerator: str, devices: int) -> Iterator[Pool]:
    """Processes of this machine, one for each GPU of `devices`, or as many on the CPU.

    Raises:
        UsageError: if there are fewer GPUs.
    """
    gpus = torch.cuda.device_count() if accelerator in ("auto", "cuda") else 0
    if accelerator not in ("auto", "cpu", "cuda") or (accelerator == "cuda" and gpus < devices):
        raise UsageError(f"accelerator {accelerator!r} with {devices} devices can't be used: this machine has {gpus}.")
    context = multiprocessing.get_context("spawn")  # a forked process can't use a GPU
    names = context.SimpleQueue()
    for number in range(devices):
        names.put(f"cuda:{number}" if gpus >= devices else "cpu")
    threads = max(1, torch.get_num_threads() // devices)
    with ProcessPoolExecutor(devices, context, _begin, (names, threads)) as executor:
        yield _ProcessPool(executor, devices)


class _ProcessPool:
    def __init__(self, executor: ProcessPoolExecutor, workers: int) -> None:
        self.workers = workers
        self._executor = executor

    def put(self, value: Any) -> Any:
        return value

    def submit(self, function: Callable[..., Any], *arguments: Any, returns: int = 1) -> list[Any]:
        ready = [self.get(one) if isinstance(one, (Future, _Item)) else one for one in arguments]
        future = self._executor.submit(_here, function, *ready)
        return [future] if returns == 1 else [_Item(future, number) for number in range(returns)]

    def wait(self, reference: Any) -> None:
        self.get(reference)

    def get(self, reference: Any) -> Any:
        try:
            if isinstance(reference, _Item):
                return reference.future.result()[reference.number]
            return reference.result()
        except BrokenProcessPool as error:
            raise BlemishError(
                "A process of the fit was killed; the system does that when memory runs out. Fit again, with fewer "
                "--devices, or on Ray, which repeats what was lost."
            ) from error


class _Item:
    """One of several results."""

    def __init__(self, future: Future[Any], number: int) -> None:
        self.future, self.number = future, number


_DEVICE = "cpu"


def _begin(names: Any, threads: int) -> None:
    global _DEVICE
    _DEVICE = names.get()
    torch.set_num_threads(threads)


def _here(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(_DEVICE, *arguments)

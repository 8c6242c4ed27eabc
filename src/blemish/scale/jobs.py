"""Jobs of `blemish.trials.jobs` on Ray: the largest first, so that none is begun when all others are done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from blemish.scale.cluster import RETRIES
from blemish.scale.versions import require_same, versions
from blemish.trials.jobs import Job, Work, attempt


def on_ray(
    ray: Any, work: Work, jobs: Sequence[Job], sizes: Sequence[int], *, gpus: float = 0
) -> Iterator[tuple[Job, dict[str, Any]]]:
    """Does jobs as tasks and yields each with its outcome, when it is there.

    Args:
        ray: connected, see `blemish.scale.cluster.cluster`.
        work: as for `run_jobs`.
        jobs: what to do.
        sizes: how much work each is, in any unit; the largest is begun first.
        gpus: GPUs that a job takes.

    Yields:
        A job, and what `work` returned, or its "error": that of a job whose worker was lost `RETRIES` times in a row,
        too.
    """
    # A worker ends with its job, and so does the memory that it took.
    task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=RETRIES, max_calls=1)(_outcome)
    ordered = sorted(range(len(jobs)), key=lambda number: -sizes[number])
    pending = {task.remote(versions(), work, jobs[number]): jobs[number] for number in ordered}
    while pending:
        for reference in ray.wait(list(pending))[0]:
            job = pending.pop(reference)
            try:
                outcome: dict[str, Any] = ray.get(reference)
            except ray.exceptions.RayError as error:
                outcome = {"error": f"its worker was lost {RETRIES + 1} times: {' '.join(str(error).split())[:200]}"}
            yield job, outcome


def _outcome(sent_by: Mapping[str, str], work: Work, job: Job) -> dict[str, Any]:
    def checked(one: Job) -> dict[str, Any]:
        require_same(sent_by)
        return work(one)

    return attempt(checked, job)

"""Independent jobs on Ray: calls of a pure function, which are repeated if they are lost.

`blur_es.fleet.dispatch` serves the generations of a training, whose workers keep what they have
compiled. This module runs fewer and longer jobs that share nothing.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, TypeVar

from blur_es.errors import BlurError, RunError
from blur_es.fleet.connection import connected
from blur_es.tasks import Task, make_task
from blur_es.util.environment import NEUTRAL_SETTINGS
from blur_es.util.threads import ONE_THREAD

Job = TypeVar("Job")
Result = TypeVar("Result")

WAIT_SECONDS = 1.0

# A job is granted a core and no GPU, so JAX must not look for one.
ENVIRONMENT = {**NEUTRAL_SETTINGS, **ONE_THREAD, "JAX_PLATFORMS": "cpu"}

# Number of tasks that a worker keeps between jobs; MNIST takes 200 MB of memory.
TASKS_KEPT = 2


@dataclasses.dataclass(frozen=True)
class Place:
    """Where jobs run; results do not depend on it.

    Attributes:
        local: run in this process, without Ray.
        address: address of a Ray cluster; None starts a local one.
        workers: largest number of jobs that run at a time; None for one on each core.
    """

    local: bool = False
    address: str | None = None
    workers: int | None = None

    @classmethod
    def chosen(cls, local: bool | None, address: str | None, workers: int | None) -> Place:
        """Return the place that was asked for.

        If `local` is None, jobs run on Ray if an address or a number of workers is given, and
        otherwise in this process.
        """
        return cls((address or workers) is None if local is None else local, address, workers)


def run_jobs(
    function: Callable[[Job], Result], jobs: Sequence[Job], costs: Sequence[float], place: Place
) -> Generator[tuple[int, Result]]:
    """Call a function with every job; yields index and result as they become available.

    In this process the jobs run in their order, so that consecutive jobs can share the data that
    they read. On Ray (see `run_on_ray`) the jobs with the highest costs start first.
    """
    if place.local:
        for index, job in enumerate(jobs):
            yield index, function(job)
        return
    # The driver does not need its tasks any longer; workers make their own.
    _tasks.clear()
    order = sorted(range(len(jobs)), key=lambda index: -costs[index])
    ordered = [jobs[index] for index in order]
    for number, result in run_on_ray(function, ordered, place.address, place.workers):
        yield order[number], result


def run_on_ray(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    address: str | None = None,
    workers: int | None = None,
    *,
    names: Sequence[str] | None = None,
    retries: int = -1,
    check: Callable[[], None] = lambda: None,
) -> Generator[tuple[int, Result]]:
    """Call a function with every job, each on a core; yields index and result when available.

    A job whose worker or node is lost is repeated. Closing the iterator cancels the jobs that
    remain.

    Args:
        function: a pure function that every node can import.
        jobs: its arguments; those that take longest should come first.
        address: address of a cluster; None starts a local one, which ends with the iterator. A
            caller that is connected to a cluster already stays connected to it.
        workers: largest number of jobs that run at a time; None for one on each core.
        names: names of the jobs, for Ray's dashboard and for messages.
        retries: how often a lost job is repeated; -1 for any number of times.
        check: called about once a second; an exception that it raises ends the iterator.

    Raises:
        RunError: there is no cluster at the address, or a job fails.
        BlurError: a job raised it.
    """
    import ray

    with connected(address):
        yield from _run(ray, function, jobs, workers, names, retries, check)


def _run(
    ray: Any,
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    workers: int | None,
    names: Sequence[str] | None,
    retries: int,
    check: Callable[[], None],
) -> Generator[tuple[int, Result]]:
    """Run the jobs on the cluster that this process is connected to; see `run_on_ray`."""
    running: dict[Any, int] = {}
    try:
        settings: Any = {"max_retries": retries, "runtime_env": {"env_vars": ENVIRONMENT}}
        remote: Any = ray.remote(num_cpus=1, **settings)(function)
        following = 0
        while following < len(jobs) or running:
            # Submit all jobs at once, so that a cluster that grows with its queue sees them.
            while following < len(jobs) and len(running) < (workers or len(jobs)):
                call = remote if names is None else remote.options(name=names[following])
                running[call.remote(jobs[following])] = following
                following += 1
            check()
            ready, _ = ray.wait(list(running), timeout=WAIT_SECONDS)
            for reference in ready:
                index = running.pop(reference)
                yield index, _result(reference, names[index] if names else None)
    finally:
        for reference in running:
            ray.cancel(reference, force=True)


def _result(reference: Any, name: str | None) -> Any:
    """The result of a job; its failure is raised as an error of blur_es."""
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, BlurError):
            raise (type(cause)(f"{name}: {cause}") if name else cause) from None
        raise RunError(f"{name or 'a job'} failed on a Ray worker:\n{error}") from error
    except ray.exceptions.RayError as error:
        raise RunError(
            f"{name or 'a job'} could not be completed; the last process that ran it was lost: "
            f"{str(error).strip()}"
        ) from error


def job_tasks(
    wanted: Sequence[Mapping[str, Any]], data_dir: str | None, import_path: str = ""
) -> list[Task]:
    """The tasks of a job, by their options; the last ones are kept for the next job.

    A user's own tasks and measures are imported from `import_path`. Raises `InputError` as
    `make_task` does.
    """
    if import_path and import_path not in sys.path:
        sys.path.append(import_path)
    keys = [(json.dumps(options), data_dir) for options in wanted]
    for key, options in zip(keys, wanted, strict=True):
        # The most recently wanted task is moved to the end.
        known = key in _tasks
        _tasks[key] = _tasks.pop(key) if known else make_task(options, data_dir)
    found = [_tasks[key] for key in keys]
    while len(_tasks) > max(TASKS_KEPT, len(set(keys))):
        del _tasks[next(iter(_tasks))]
    return found


_tasks: dict[tuple[str, str | None], Task] = {}

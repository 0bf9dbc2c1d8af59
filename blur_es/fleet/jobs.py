"""Independent jobs on Ray: each a call of a pure function, done again wherever it was lost.

A generation of a training is for `blur_es.fleet.dispatch`, whose workers stay and keep what
they have compiled. This is for fewer and longer pieces of work that have nothing in common.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, TypeVar

from blur_es.errors import BlurError, RunError
from blur_es.fleet.connection import connect
from blur_es.tasks import Task, make_task
from blur_es.util.threads import ONE_THREAD

Job = TypeVar("Job")
Result = TypeVar("Result")

WAIT_SECONDS = 1.0

# A core is what a job is given, also where there is a GPU beside it.
ENVIRONMENT = {**ONE_THREAD, "JAX_PLATFORMS": "cpu"}


@dataclasses.dataclass(frozen=True)
class Place:
    """Where jobs are done; their results do not depend on it.

    Attributes:
        local: in this process, without Ray.
        address: an existing Ray cluster; None starts a local one.
        workers: how many jobs run at a time at most; None for one a core.
    """

    local: bool = False
    address: str | None = None
    workers: int | None = None

    @classmethod
    def chosen(cls, local: bool | None, address: str | None, workers: int | None) -> Place:
        """Return the place that was asked for.

        With `local` None that is Ray if an address or a number of workers is given, else this
        process.
        """
        return cls((address or workers) is None if local is None else local, address, workers)


def run_jobs(
    function: Callable[[Job], Result], jobs: Sequence[Job], costs: Sequence[float], place: Place
) -> Generator[tuple[int, Result]]:
    """Have a function called with every job; yields index and result as they come.

    In this process that is in the order of the jobs, whose neighbours may share what they read;
    on Ray (see `run_on_ray`) those with the largest costs begin.
    """
    if place.local:
        for index, job in enumerate(jobs):
            yield index, function(job)
        return
    # Workers read their own.
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
    """Have a function called with every job, on a core each; yields index and result as they come.

    A job whose worker or node is lost is done again. When the iterator is closed, what is not
    done yet is given up.

    Args:
        function: pure, and importable on every node.
        jobs: what it is called with; those that take longest should come first.
        address: an existing cluster; None starts a local one, which ends with the iterator. A
            caller who is connected already stays connected, and to the same cluster.
        workers: how many jobs run at a time at most; None for as many as there are cores.
        names: of the jobs, for Ray's dashboard and for messages.
        retries: how often a job is done again; -1 for however often its worker is lost.
        check: called about once a second; what it raises ends the iterator.

    Raises:
        RunError: no cluster at the address, or a job that failed.
        BlurError: a job raised it.
    """
    import ray

    connected_here = not ray.is_initialized()
    if connected_here:
        connect(address)
    flying: dict[Any, int] = {}
    try:
        settings: Any = {"max_retries": retries, "runtime_env": {"env_vars": ENVIRONMENT}}
        remote: Any = ray.remote(num_cpus=1, **settings)(function)
        following = 0
        while following < len(jobs) or flying:
            # All of them, so that a cluster that grows with its queue sees what there is.
            while following < len(jobs) and len(flying) < (workers or len(jobs)):
                call = remote if names is None else remote.options(name=names[following])
                flying[call.remote(jobs[following])] = following
                following += 1
            check()
            ready, _ = ray.wait(list(flying), timeout=WAIT_SECONDS)
            for reference in ready:
                index = flying.pop(reference)
                yield index, _result(reference, names[index] if names else None)
    finally:
        for reference in flying:
            ray.cancel(reference, force=True)
        if connected_here:
            ray.shutdown()


def _result(reference: Any, name: str | None) -> Any:
    """The result of a job, or what went wrong in it as an error of our own."""
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
            f"{name or 'a job'} could not be done; the process that ran it was lost, in the end "
            f"with: {str(error).strip()}"
        ) from error


def job_tasks(
    wanted: Sequence[Mapping[str, Any]], data_dir: str | None, import_path: str = ""
) -> list[Task]:
    """The tasks that a job needs, by their options; those of the last job are remembered.

    A user's own tasks and measures are imported from `import_path`. Raises `InputError` as
    `make_task` does.
    """
    if import_path and import_path not in sys.path:
        sys.path.append(import_path)
    keys = [(json.dumps(options), data_dir) for options in wanted]
    for key, options in zip(keys, wanted, strict=True):
        # The last that was wanted comes last.
        known = key in _tasks
        _tasks[key] = _tasks.pop(key) if known else make_task(options, data_dir)
    found = [_tasks[key] for key in keys]
    while len(_tasks) > max(REMEMBERED, len(set(keys))):
        del _tasks[next(iter(_tasks))]
    return found


# A worker does many jobs with the same data; all of MNIST in memory are 200 MB.
REMEMBERED = 2
_tasks: dict[tuple[str, str | None], Task] = {}

"""Independent jobs on Ray: each a call of a pure function, done again wherever it was lost.

A generation of a training is for `blur_es.fleet.dispatch`, whose workers stay and keep what
they have compiled. This is for fewer and longer pieces of work that have nothing in common.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeVar

from blur_es.errors import BlurError, RunError
from blur_es.fleet.connection import connect
from blur_es.threads import ONE_THREAD

Job = TypeVar("Job")
Result = TypeVar("Result")

WAIT_SECONDS = 1.0


def run_on_ray(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    address: str | None = None,
    workers: int | None = None,
) -> Generator[tuple[int, Result]]:
    """Have a function called with every job, on a core each; yields index and result as they come.

    A job whose worker or node is lost is done again, however often that happens. When the
    iterator is closed, what is not done yet is given up.

    Args:
        function: pure, and importable on every node.
        jobs: what it is called with; those that take longest should come first.
        address: an existing cluster; None starts a local one, which ends with the iterator. A
            caller who is connected already stays connected, and to the same cluster.
        workers: how many jobs run at a time at most; None for as many as there are cores.

    Raises:
        RunError: no cluster at the address, or a job that failed.
        InputError: a job raised it.
    """
    import ray

    connected_here = not ray.is_initialized()
    if connected_here:
        connect(address)
    flying: dict[Any, int] = {}
    try:
        remote = ray.remote(num_cpus=1, max_retries=-1, runtime_env={"env_vars": dict(ONE_THREAD)})(
            function
        )
        following = 0
        while following < len(jobs) or flying:
            # All of them, so that a cluster that grows with its queue sees what there is.
            while following < len(jobs) and len(flying) < (workers or len(jobs)):
                flying[remote.remote(jobs[following])] = following
                following += 1
            ready, _ = ray.wait(list(flying), timeout=WAIT_SECONDS)
            for reference in ready:
                yield flying.pop(reference), _result(reference)
    finally:
        for reference in flying:
            ray.cancel(reference, force=True)
        if connected_here:
            ray.shutdown()


def _result(reference: Any) -> Any:
    """The result of a job, or what went wrong in it as an error of our own."""
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, BlurError):
            raise cause from None
        raise RunError(f"a job failed on a Ray worker:\n{error}") from error
    except ray.exceptions.RayError as error:
        raise RunError(f"Ray could not do a job: {error}") from error

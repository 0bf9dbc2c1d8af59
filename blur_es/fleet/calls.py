"""Calls to workers through Ray: sending, waiting, and turning Ray's errors into causes."""

from __future__ import annotations

import pickle
import time
from typing import TYPE_CHECKING, Any

from blur_es.errors import InputError
from blur_es.fleet.computing import ChunkFailure, ChunkResult
from blur_es.fleet.failures import CallError, Failure, cause_of, classify
from blur_es.fleet.worker import EvaluationWorker
from blur_es.inner import DeviceBatchTooLargeError

if TYPE_CHECKING:
    from blur_es.fleet.pool import Worker

# How long to sleep at most when there is nothing to wait for.
IDLE_SECONDS = 0.1


class Calls:
    """Sends chunks to workers and receives their results.

    `blur_es.fleet.chaos` has a subclass that injects faults.
    """

    worker_class: type = EvaluationWorker

    def __init__(self) -> None:
        import ray

        self.ray: Any = ray

    def send(
        self,
        worker: Worker,
        method: str,
        arguments: tuple[Any, ...],
        name: str,
        expected: float | None,
    ) -> Any:
        """Call a worker; returns a reference to the result.

        Args:
            worker: the worker.
            method: `evaluate` or `gradients`.
            arguments: arguments of the method.
            name: name of the call in Ray's dashboard, and the title of the worker's process.
            expected: expected seconds until the result, if known.

        Raises:
            CallError: Ray's object store has no room for the arguments.
        """
        # Ray takes twice as long over separate arguments as over one pickled tuple.
        packed = pickle.dumps(arguments)
        try:
            return getattr(worker.actor, method).options(name=name).remote(packed)
        except self.ray.exceptions.RayError as error:
            failure = classify(error)
            if failure is not Failure.STORE_FULL:
                raise
            raise CallError(failure, cause_of(error)) from error

    def wait(self, references: list[Any], seconds: float) -> list[Any]:
        """The references whose results are ready, after some seconds at most."""
        if not references:
            time.sleep(min(seconds, IDLE_SECONDS))
            return []
        ready, others = self.ray.wait(references, timeout=seconds)
        if others and ready:
            more, _ = self.ray.wait(others, num_returns=len(others), timeout=0)
            ready += more
        return list(ready)

    def receive(self, reference: Any) -> ChunkResult:
        """The result of a call that is ready.

        Raises:
            CallError: the call failed.
            DeviceBatchTooLargeError: the device batch does not fit the worker's device.
            InputError: the evaluation found something wrong with the user's input.
        """
        try:
            found: ChunkResult | ChunkFailure = self.ray.get(reference)
        except self.ray.exceptions.RayError as error:
            failure = classify(error)
            text = str(error) if failure is Failure.ERROR else cause_of(error)
            raise CallError(failure, text) from error
        if isinstance(found, ChunkResult):
            return found
        if found.kind == "device_batch":
            raise DeviceBatchTooLargeError(found.device_batch)
        if found.kind == "input":
            raise InputError(found.text)
        raise CallError(Failure(found.kind), found.text)

    def overdue(self, reference: Any) -> Failure:
        """The cause to assume for a call that missed its deadline."""
        return Failure.HUNG

    def forget(self, reference: Any) -> None:
        """Stop expecting the result of a call, because its worker is given up."""

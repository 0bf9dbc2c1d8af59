"""Storage that retries failed requests with growing pauses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

from blur_es.errors import RunError
from blur_es.run.interrupt import InterruptGuard
from blur_es.storage import Storage
from blur_es.util.callbacks import MessageCallback

# Seconds between attempts: about a minute in total for a remote store, which usually recovers by
# itself, and a few seconds for a disk, which rarely does.
REMOTE_PAUSES: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
LOCAL_PAUSES: tuple[float, ...] = (1.0, 2.0, 4.0)

# Errors that are definite answers; retrying would only delay them.
_ANSWERS = (
    FileNotFoundError,
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)

Result = TypeVar("Result")


class RefusedError(RunError):
    """The run folder could not be written to."""


@dataclasses.dataclass(frozen=True)
class RetryPolicy:
    """How to wait between attempts.

    Attributes:
        guard: a signal ends the wait, and one more attempt follows at once.
        on_message: receives a line for every failed attempt.
    """

    guard: InterruptGuard
    on_message: MessageCallback

    def wait(self, seconds: float) -> None:
        """Sleep; raises `Interrupted` as soon as a signal arrives."""
        self.guard.wait(seconds)
        self.guard.check()


class RetryingStorage:
    """A storage that repeats failed requests, and calls a function before every write.

    Args:
        storage: the storage to use.
        policy: how to wait between attempts; None for no second attempt.

    Attributes:
        inner: the storage to use.
        before_write: called with the name of a file before it is written or deleted; it raises
            an error to prevent that.
        written_before: whether a write has succeeded before. From then on every error is retried,
            because the folder and the permission to write have existed.
        refused: whether the last request failed.
    """

    def __init__(self, storage: Storage, policy: RetryPolicy | None) -> None:
        self.inner = storage
        self.location = storage.location
        self.appends = storage.appends
        self.locate = storage.locate
        self.before_write: Callable[[str], None] = lambda name: None
        self.written_before = False
        self.refused = False
        self._policy = policy

    def folder(self, name: str) -> Storage:
        """See `Storage.folder`."""
        inside = RetryingStorage(self.inner.folder(name), self._policy)
        inside.before_write = lambda inner: self.before_write(f"{name}/{inner}")
        inside.written_before = self.written_before
        return inside

    def is_folder(self) -> bool:
        """See `Storage.is_folder`."""
        return self.retry(self.inner.is_folder)

    def names(self, folder: str = "") -> list[str]:
        """See `Storage.names`."""
        return self.retry(lambda: self.inner.names(folder))

    def exists(self, name: str) -> bool:
        """See `Storage.exists`."""
        return self.retry(lambda: self.inner.exists(name))

    def size(self, name: str) -> int:
        """See `Storage.size`."""
        return self.retry(lambda: self.inner.size(name))

    def modified(self, name: str) -> float:
        """See `Storage.modified`."""
        return self.retry(lambda: self.inner.modified(name))

    def read(self, name: str) -> bytes:
        """See `Storage.read`."""
        return self.retry(lambda: self.inner.read(name))

    def write(self, name: str, content: bytes) -> None:
        """See `Storage.write`."""
        self._change(name, lambda: self.inner.write(name, content))

    def create(self, name: str, content: bytes) -> None:
        """See `Storage.create`."""
        self.retry(lambda: self.inner.create(name, content))

    def append(self, name: str, content: bytes) -> None:
        """See `Storage.append`."""
        self._change(name, lambda: self.inner.append(name, content))

    def delete(self, name: str) -> None:
        """See `Storage.delete`."""
        self._change(name, lambda: self.inner.delete(name))

    def _change(self, name: str, action: Callable[[], None]) -> None:
        def checked() -> None:
            self.before_write(name)
            action()

        self.retry(checked, final=() if self.written_before else _ANSWERS)

    def retry(
        self, action: Callable[[], Result], final: tuple[type[OSError], ...] = _ANSWERS
    ) -> Result:
        """Call a function until it succeeds or the attempts are used up.

        Errors of the `final` types are raised at once. Raises `OSError` from the last attempt.
        """
        policy = self._policy
        pauses = LOCAL_PAUSES if self.appends else REMOTE_PAUSES
        for pause in pauses if policy is not None else ():
            try:
                return self._once(action, final)
            except final:
                raise
            except OSError as error:
                assert policy is not None
                where = error.filename or self.location
                policy.on_message(
                    f"warning: {where}: {error.strerror or error}; trying again in {pause:.0f} s"
                )
                if policy.guard.wait(pause):
                    break
        return self._once(action, final)

    def _once(self, action: Callable[[], Result], final: tuple[type[OSError], ...]) -> Result:
        try:
            result = action()
        except OSError as error:
            self.refused = not isinstance(error, final)
            raise
        self.refused = False
        return result


def write_or_stop(action: Callable[..., Any], *arguments: Any) -> None:
    """Call a function that writes to the run folder. Raises `RefusedError` if it fails."""
    try:
        action(*arguments)
    except OSError as error:
        where = getattr(error, "filename", None) or "the run folder"
        raise RefusedError(
            f"{where}: cannot write: {error.strerror or error}; the previous checkpoint is "
            "intact: make the folder writable again (is the disk full?), then continue with "
            "--resume"
        ) from error

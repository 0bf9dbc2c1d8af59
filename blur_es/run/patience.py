"""A store that refuses for a while is asked again, with growing pauses, before work stops."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TypeVar

from blur_es.run.interrupt import InterruptGuard
from blur_es.storage import Storage
from blur_es.util.callbacks import MessageCallback

# Seconds between the attempts: about a minute for a store, which others mend, and a few
# seconds for a disk, which rarely mends itself.
REMOTE_PAUSES: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
LOCAL_PAUSES: tuple[float, ...] = (1.0, 2.0, 4.0)

# Answers, not failures: asking again would only keep a user waiting for them.
_ANSWERS = (
    FileNotFoundError,
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)

Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True)
class Patience:
    """How long to wait for a store, who hears of it, and who may end the wait.

    Attributes:
        guard: a signal ends the wait; one more attempt is made at once.
        on_message: gets a line for every attempt that failed.
    """

    guard: InterruptGuard
    on_message: MessageCallback

    def wait(self, seconds: float) -> None:
        """Sleep; raises `Interrupted` as soon as a signal has come."""
        self.guard.wait(seconds)
        self.guard.check()


class PatientStorage:
    """A storage that repeats what failed, and that asks before it writes.

    Attributes:
        fence: called with the name of what is about to be written; raises to forbid it.
        begun: writing has worked here before, so that no refusal of it is final.
        refused: what was asked last was refused.
    """

    def __init__(self, storage: Storage, patience: Patience | None) -> None:
        self.inner = storage
        self.location = storage.location
        self.appends = storage.appends
        self.locate = storage.locate
        self.fence: Callable[[str], None] = lambda name: None
        self.begun = False
        self.refused = False
        self._patience = patience

    def folder(self, name: str) -> Storage:
        """See `Storage.folder`."""
        inside = PatientStorage(self.inner.folder(name), self._patience)
        inside.fence = lambda inner: self.fence(f"{name}/{inner}")
        inside.begun = self.begun
        return inside

    def is_folder(self) -> bool:
        """See `Storage.is_folder`."""
        return self.insist(self.inner.is_folder)

    def names(self, folder: str = "") -> list[str]:
        """See `Storage.names`."""
        return self.insist(lambda: self.inner.names(folder))

    def exists(self, name: str) -> bool:
        """See `Storage.exists`."""
        return self.insist(lambda: self.inner.exists(name))

    def size(self, name: str) -> int:
        """See `Storage.size`."""
        return self.insist(lambda: self.inner.size(name))

    def read(self, name: str) -> bytes:
        """See `Storage.read`."""
        return self.insist(lambda: self.inner.read(name))

    def write(self, name: str, content: bytes) -> None:
        """See `Storage.write`."""
        self._change(name, lambda: self.inner.write(name, content))

    def create(self, name: str, content: bytes) -> None:
        """See `Storage.create`."""
        self.insist(lambda: self.inner.create(name, content))

    def append(self, name: str, content: bytes) -> None:
        """See `Storage.append`."""
        self._change(name, lambda: self.inner.append(name, content))

    def delete(self, name: str) -> None:
        """See `Storage.delete`."""
        self._change(name, lambda: self.inner.delete(name))

    def _change(self, name: str, action: Callable[[], None]) -> None:
        def fenced() -> None:
            self.fence(name)
            action()

        self.insist(fenced, final=() if self.begun else _ANSWERS)

    def insist(
        self, action: Callable[[], Result], final: tuple[type[OSError], ...] = _ANSWERS
    ) -> Result:
        """Do something, again and again if need be; errors that are `final` are no failures."""
        patience = self._patience
        pauses = LOCAL_PAUSES if self.appends else REMOTE_PAUSES
        for pause in pauses if patience is not None else ():
            try:
                return self._once(action, final)
            except final:
                raise
            except OSError as error:
                assert patience is not None
                where = error.filename or self.location
                patience.on_message(
                    f"warning: {where}: {error.strerror or error}; trying again in {pause:.0f} s"
                )
                if patience.guard.wait(pause):
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


__all__ = ["Patience", "PatientStorage"]

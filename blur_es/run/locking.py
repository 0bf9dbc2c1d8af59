"""Exclusive use of a run folder: a lock on a disk, and a lease everywhere."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from blur_es.errors import InputError, RunError
from blur_es.run.lease import Lease, holder_of, refusal
from blur_es.run.retry import RetryingStorage, RetryPolicy
from blur_es.storage import LocalStorage, Storage
from blur_es.storage.names import CONFIG, LAUNCHES, LEASE, METRICS, POINTER, VERSIONS
from blur_es.util.callbacks import ignore_message

# A driver that is killed may leave a temporary copy of one of these, under a hidden name.
_REPLACED = (POINTER, LEASE, METRICS, CONFIG, VERSIONS, LAUNCHES)


@contextlib.contextmanager
def hold_folder(
    storage: RetryingStorage,
    policy: RetryPolicy | None,
    *,
    resume: bool = False,
    take_over: bool = False,
) -> Iterator[None]:
    """Keep other drivers out of a folder, which is created if necessary.

    On a disk the folder itself is locked: that leaves no file, and the operating system releases
    the lock when the process ends. The lease also excludes drivers on other machines.

    Args:
        storage: the folder.
        policy: how to wait for the store.
        resume: wait for the lease to expire if its holder may be dead.
        take_over: take the folder from a driver that is using it; that driver then stops.

    Raises `InputError` if the folder cannot be created or is in use. While the folder is held,
    writing to it raises `RunError` if another driver has taken it, or if it was deleted or
    renamed.
    """
    wait = policy.wait if policy is not None else time.sleep
    on_message = policy.on_message if policy is not None else ignore_message
    with contextlib.ExitStack() as stack:
        try:
            descriptor, locked = stack.enter_context(_locked(storage, take_over))
            folder = _Folder(storage.inner, descriptor)
            lease = Lease(storage.inner, wait, on_message, folder.check)
            # A remote store that refuses requests is not asked again: the lease will expire.
            stack.callback(lambda: lease.release(ask=storage.appends or not storage.refused))
            storage.retry(lambda: lease.acquire(watch=resume, take_over=take_over, locked=locked))
        except OSError as error:
            raise InputError(
                f"{storage.location}: cannot create this run folder: {error.strerror or error}; "
                "choose another with --run-dir"
            ) from error
        _remove_temporary_files(storage)

        def before_write(name: str) -> None:
            folder.check()
            # The lease is checked before a file is replaced; adding a file does no harm.
            if "/" in name or name == METRICS:
                lease.check()
            else:
                lease.confirm()

        storage.before_write = before_write
        try:
            yield
        finally:
            storage.before_write = lambda name: None


class _Folder:
    """Notices that a folder on a disk was deleted or renamed while it is in use."""

    def __init__(self, storage: Storage, descriptor: int | None) -> None:
        self._storage = storage
        self._identity = None if descriptor is None else _identity(os.fstat(descriptor))

    def check(self) -> None:
        """Raise `RunError` if the folder is no longer where it was."""
        if self._identity is None or not isinstance(self._storage, LocalStorage):
            return
        try:
            found = _identity(os.stat(self._storage.path))
        except FileNotFoundError:
            found = None
        if found != self._identity:
            raise RunError(
                f"{self._storage.location}: this run folder was deleted or renamed while the run "
                "was using it; stopping without writing anything more. If it was renamed, continue "
                "with --resume and its new name as --run-dir"
            )


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


@contextlib.contextmanager
def _locked(storage: RetryingStorage, take_over: bool) -> Iterator[tuple[int | None, bool]]:
    """Lock a folder on a disk; yields its descriptor and whether it was locked."""
    if not isinstance(storage.inner, LocalStorage):
        yield None, False
        return
    path = storage.inner.path
    created = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked = True
        except BlockingIOError as error:
            if not take_over:
                held = holder_of(storage.inner)
                raise InputError(refusal(storage.location, held)) from error
            locked = False
        except OSError:  # a file system without locks
            locked = False
        yield descriptor, locked
    finally:
        os.close(descriptor)
        _remove_empty(created)


def _remove_empty(folders: list[Path]) -> None:
    """Remove folders that were created and not used; those with files in them stay."""
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _remove_temporary_files(storage: RetryingStorage) -> None:
    """Delete files that a killed driver was writing."""
    with contextlib.suppress(OSError):
        for name in storage.names():
            if name.startswith(tuple(f".{whole}." for whole in _REPLACED)):
                storage.delete(name)

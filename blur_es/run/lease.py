"""A lease that lets one driver at a time use a run folder, on a disk or in an object store.

The lease is a file in the folder. It names its holder, which renews it regularly. Clocks of
different machines are never compared: another driver watches the lease, and if nobody renews it
for as long as it lasts, it has expired. On the same machine no watching is needed, because a
holder whose process has ended holds nothing.

If a store lets two drivers believe that they hold the lease, they find out at the next checkpoint
and one of them stops. Until then both compute the same bits, so only time is lost.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from blur_es.errors import InputError, RunError
from blur_es.storage import Storage
from blur_es.storage.names import LEASE
from blur_es.util.callbacks import MessageCallback
from blur_es.util.json_text import parse_json

# How long a lease lasts, and how often its holder renews it.
LEASE_SECONDS = 45.0
RENEW_SECONDS = 10.0
# In a store without conditional writes, the driver that the file names after this time holds it.
SETTLE_SECONDS = 1.0

# Holders in this process that have not released their lease.
_holding: set[str] = set()


@dataclasses.dataclass(frozen=True)
class Holder:
    """The driver that holds, or held, a lease.

    Attributes:
        owner: a random name of the driver.
        host: the machine's name, for messages.
        machine: identifies the machine, its last restart and its process table.
        pid: process id of the driver.
        started: when that process started, in clock ticks, because process ids are reused.
        renewed: how often the lease has been renewed.
        expires: when the lease ends unless it is renewed, by the holder's clock, in UTC.
    """

    owner: str
    host: str
    machine: str
    pid: int
    started: int
    renewed: int
    expires: str

    @classmethod
    def this_process(cls) -> Holder:
        """A new holder in this process."""
        started = _started(os.getpid()) or 0
        return cls(
            uuid.uuid4().hex, platform.node(), _machine(), os.getpid(), started, 0, _after(0.0)
        )

    @classmethod
    def parse(cls, content: bytes) -> Holder | None:
        """The holder in a file; None if the file is damaged."""
        try:
            values: dict[str, Any] = parse_json(content)
            kinds = {"str": str, "int": int}
            given = {field.name: values[field.name] for field in dataclasses.fields(cls)}
            for field in dataclasses.fields(cls):
                if not isinstance(given[field.name], kinds[str(field.type)]):
                    return None
            return cls(**given)
        except (ValueError, KeyError, TypeError):
            return None

    def content(self) -> bytes:
        """The content of the file."""
        return (json.dumps(dataclasses.asdict(self), indent=1) + "\n").encode()

    def is_gone(self) -> bool:
        """Whether the holder is known to be a driver on this machine that has ended."""
        return self.machine == _machine() and not self._runs()

    def is_here(self) -> bool:
        """Whether the holder is a driver on this machine that is running."""
        return self.machine == _machine() and self._runs()

    def _runs(self) -> bool:
        if self.pid == os.getpid():
            return self.owner in _holding
        return _started(self.pid) == self.started

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, whose lease lasts until {self.expires}"


class Lease:
    """The right to write to a run folder, renewed by a thread while it is held.

    Args:
        storage: the folder.
        wait: sleeps for a number of seconds; may raise an error to stop waiting.
        on_message: receives a line when this driver waits for a lease or takes one over.
        check_folder: called before the lease is renewed; raises `RunError` if the folder is gone.
    """

    def __init__(
        self,
        storage: Storage,
        wait: Callable[[float], None],
        on_message: MessageCallback,
        check_folder: Callable[[], None] = lambda: None,
    ) -> None:
        self._storage = storage
        self._wait = wait
        self._on_message = on_message
        self._check_folder = check_folder
        self._self = Holder.this_process()
        self._lost: Holder | None = None
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._keep_renewing, name="lease", daemon=True)

    def acquire(self, *, watch: bool, take_over: bool = False, locked: bool = False) -> None:
        """Take the lease and keep it.

        Args:
            watch: wait for the lease to expire if its holder may have died.
            take_over: take the lease from its holder.
            locked: a file lock already excludes other drivers on this machine.

        Raises `InputError` if another driver holds it, `OSError` if the store refuses.
        """
        _holding.add(self._self.owner)
        seen: tuple[str, int] | None = None
        ends = 0.0
        while True:
            held, damaged = self._read()
            if held is None and not damaged:
                try:
                    self._storage.create(LEASE, self._renewal().content())
                except FileExistsError:
                    continue
                break
            if held is not None and held.owner == self._self.owner:
                break  # written by an earlier attempt that the store reported as failed
            now = time.monotonic()
            state = ("", 0) if held is None else (held.owner, held.renewed)
            if take_over or (held is not None and held.is_gone()) or (seen == state and now > ends):
                if held is not None:
                    self._on_message(f"taking over the run folder from {held}")
                self._storage.write(LEASE, self._renewal().content())
                break
            if (held is not None and held.is_here()) or not watch or seen not in (None, state):
                raise InputError(refusal(self._storage.location, held))
            if seen is None:
                seen, ends = state, now + LEASE_SECONDS
                self._on_message(
                    f"{self._storage.locate(LEASE)}: held by {held or 'an unknown driver'}; "
                    f"continuing if nobody renews it within {LEASE_SECONDS:.0f} s"
                )
            self._wait(min(1.0, LEASE_SECONDS / 4))
        if not locked:
            self._wait(SETTLE_SECONDS)
            held, _ = self._read()
            if held is not None and held.owner != self._self.owner:
                raise InputError(refusal(self._storage.location, held))
        self._thread.start()

    def check(self) -> None:
        """Raise `RunError` if another driver is known to have taken the lease."""
        if self._lost is not None:
            raise RunError(
                f"{self._storage.location}: this run folder was taken over by {self._lost}; "
                "stopping without writing anything more"
            )

    def confirm(self) -> None:
        """Read the lease. Raises `RunError` if it is lost, `OSError` if it cannot be read."""
        self._look()
        self.check()

    def release(self, *, ask: bool = True) -> None:
        """Delete the lease if `ask` is true and the store allows it; otherwise it expires."""
        self._released.set()
        _holding.discard(self._self.owner)
        if not ask:
            return
        if self._thread.ident is not None:
            self._thread.join(timeout=2.0)
        if self._lost is None and not self._thread.is_alive():
            with contextlib.suppress(OSError):
                held, _ = self._read()
                if held is not None and held.owner == self._self.owner:
                    self._storage.delete(LEASE)

    def _keep_renewing(self) -> None:
        while not self._released.wait(RENEW_SECONDS):
            # A store that refuses now may not refuse the next time.
            with contextlib.suppress(OSError):
                self._look()
                if self._lost is not None:
                    return
                try:
                    self._check_folder()
                except RunError:
                    return
                self._storage.write(LEASE, self._renewal().content())

    def _look(self) -> None:
        held, _ = self._read()
        if held is not None and held.owner != self._self.owner:
            self._lost = held

    def _renewal(self) -> Holder:
        self._self = dataclasses.replace(
            self._self, renewed=self._self.renewed + 1, expires=_after(LEASE_SECONDS)
        )
        return self._self

    def _read(self) -> tuple[Holder | None, bool]:
        """The holder in the file, and whether the file is damaged."""
        try:
            held = Holder.parse(self._storage.read(LEASE))
        except FileNotFoundError:
            return None, False
        return held, held is None


def holder_of(storage: Storage) -> Holder | None:
    """The holder of a folder's lease, if the file can be read."""
    try:
        return Holder.parse(storage.read(LEASE))
    except OSError:
        return None


def refusal(location: str, held: Holder | None) -> str:
    """The message that another driver uses the folder, and what to do."""
    return (
        f"{location}: another blur-es train is using this folder: "
        f"{f'{held} unless it renews it' if held else 'its lease does not say which'}; wait for "
        "it to end, choose another folder with --run-dir, or stop it with --resume --take-over"
    )


def _after(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(time.time() + seconds))


def _machine() -> str:
    """Identifies this machine, its last restart and its process table (a container has its own)."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{platform.node()} {boot} {os.readlink('/proc/self/ns/pid')}"
    # This system does not list its processes, so a lease has to expire.
    return f"{platform.node()} {uuid.uuid4().hex}"


def _started(pid: int) -> int | None:
    """When a process on this machine started, in clock ticks; None if it does not run."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (OSError, ValueError):
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])

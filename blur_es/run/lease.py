"""One head at a time on a run folder, wherever it is: a lease that its holder keeps renewing.

The lease is a file of the folder that names its holder. No two clocks are compared: a lease
that nobody renews while another head watches it for as long as it lasts has ended. On one
machine there is no need to watch: a holder whose process is gone holds nothing.

Two heads that both believe to hold a lease, because a store answered them in an unlucky order,
find out at the next checkpoint, and one stops. Until then both compute the same bits: nothing
is lost but time.
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
from blur_es.util.callbacks import MessageCallback

LEASE = "lease.json"

# How long a lease lasts, and how often its holder renews it.
LEASE_SECONDS = 45.0
RENEW_SECONDS = 10.0
# Stores without conditional writes: who finds itself in the file after this long has it.
SETTLE_SECONDS = 1.0

# Holders in this process that have not let go.
_holding: set[str] = set()


@dataclasses.dataclass(frozen=True)
class Holder:
    """Who has, or had, a lease.

    Attributes:
        owner: a random name of the head.
        host: the machine's name, for people.
        machine: tells machines, their restarts and their process tables apart.
        pid: the head's process.
        started: when that process began, in the machine's ticks: numbers are used again.
        renewed: how often the lease has been renewed.
        expires: when it ends unless renewed, by the holder's clock, in UTC.
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
        """From a file; None if that is damaged."""
        try:
            values: dict[str, Any] = json.loads(content)
            kinds = {"str": str, "int": int}
            given = {field.name: values[field.name] for field in dataclasses.fields(cls)}
            for field in dataclasses.fields(cls):
                if not isinstance(given[field.name], kinds[str(field.type)]):
                    return None
            return cls(**given)
        except (ValueError, KeyError, TypeError):
            return None

    def content(self) -> bytes:
        """As a file."""
        return (json.dumps(dataclasses.asdict(self), indent=1) + "\n").encode()

    def is_gone(self) -> bool:
        """Whether this is known to be a head of this machine that has ended."""
        return self.machine == _machine() and not self._runs()

    def is_here(self) -> bool:
        """Whether this is a head of this machine that runs."""
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
        wait: sleeps for so many seconds; may raise.
        on_message: gets a line when another's lease is waited for or taken.
    """

    def __init__(
        self, storage: Storage, wait: Callable[[float], None], on_message: MessageCallback
    ) -> None:
        self._storage = storage
        self._wait = wait
        self._on_message = on_message
        self._self = Holder.this_process()
        self._lost: Holder | None = None
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._keep_renewing, name="lease", daemon=True)

    def acquire(self, *, watch: bool, take_over: bool = False, locked: bool = False) -> None:
        """Take the lease and keep it.

        Args:
            watch: wait for the end of a lease whose holder may have died.
            take_over: take it from whoever has it.
            locked: a lock of the file system keeps other heads of this machine out meanwhile.

        Raises `InputError` if another head has it, `OSError` if the store refuses.
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
                break  # written before, though the store said no
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
                    f"{self._storage.locate(LEASE)}: held by {held or 'an unknown head'}; going "
                    f"on if nobody renews it within {LEASE_SECONDS:.0f} s"
                )
            self._wait(min(1.0, LEASE_SECONDS / 4))
        if not locked:
            self._wait(SETTLE_SECONDS)
            held, _ = self._read()
            if held is not None and held.owner != self._self.owner:
                raise InputError(refusal(self._storage.location, held))
        self._thread.start()

    def check(self) -> None:
        """Raise `RunError` if another head is known to have taken the lease."""
        if self._lost is not None:
            raise RunError(
                f"{self._storage.location}: this run folder was taken over by {self._lost}; "
                "stopping without writing anything more"
            )

    def confirm(self) -> None:
        """Look whether the lease is still held: `RunError` if not, `OSError` if unknown."""
        self._look()
        self.check()

    def release(self, *, ask: bool = True) -> None:
        """Give the lease back, if the store is to be asked and does it; else it ends of itself."""
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
            # A store that refuses now may not the next time.
            with contextlib.suppress(OSError):
                self._look()
                if self._lost is not None:
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
        """Who is in the file, and whether the file is damaged."""
        try:
            held = Holder.parse(self._storage.read(LEASE))
        except FileNotFoundError:
            return None, False
        return held, held is None


def holder_of(storage: Storage) -> Holder | None:
    """Who has the lease of a folder, as far as can be told."""
    try:
        return Holder.parse(storage.read(LEASE))
    except OSError:
        return None


def refusal(location: str, held: Holder | None) -> str:
    """Says that another head has the folder, and what to do."""
    return (
        f"{location}: another blur-es train is at work on this folder: "
        f"{f'{held} unless it renews it' if held else 'it does not say which'}; wait for its "
        "end, choose another with --run-dir, or stop it with --resume --take-over"
    )


def _after(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(time.time() + seconds))


def _machine() -> str:
    """This machine, since it was started, and its table of processes (containers have own)."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{platform.node()} {boot} {os.readlink('/proc/self/ns/pid')}"
    # Nothing is known of processes here: leases have to end of themselves.
    return f"{platform.node()} {uuid.uuid4().hex}"


def _started(pid: int) -> int | None:
    """When a process of this machine began, in ticks; None if it does not run."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


__all__ = ["LEASE", "Holder", "Lease", "holder_of", "refusal"]

"""Admits workers that have the driver's versions and the same data and rounding as the others.

A worker that differs would make results depend on which worker computed them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from blur_es.errors import RunError
from blur_es.fleet.computing import Description
from blur_es.fleet.kinds import WorkerKind
from blur_es.fleet.worker import installed_versions

logger = logging.getLogger(__name__)


class RefusedError(RunError):
    """A worker may not compute; the message is the reason."""


class Admission:
    """Compares workers with the driver and with the first worker of their backend.

    Args:
        kinds: the kinds of workers.
        mixed_hardware: admit workers with other versions of packages or another rounding.

    Attributes:
        first: description of the first worker of each backend.
        mixed: whether any admitted worker differs from the others.
    """

    def __init__(self, kinds: Iterable[WorkerKind], mixed_hardware: bool) -> None:
        self._expected = {kind: installed_versions(kind.packages) for kind in kinds}
        self._mixed_hardware = mixed_hardware
        self.first: dict[str, Description] = {}
        self.mixed = False
        self._data: str | None = None
        self._first_host = ""

    def check_versions(self, kind: WorkerKind, host: str, versions: Mapping[str, str]) -> None:
        """Compare the versions on a node with those of the driver.

        Raises `RefusedError`; with mixed hardware only for another version of blur_es.
        """
        expected = self._expected[kind]
        other = [name for name in expected if versions.get(name) != expected[name]]
        if not other:
            return
        differences = ", ".join(
            f"{name} {versions.get(name, 'none')} there, {expected[name]} here" for name in other
        )
        if not self._mixed_hardware or any(name.startswith("blur_es") for name in other):
            raise RefusedError(f"it has other versions: {differences}")
        self._note_mixed(host, f"it has other versions: {differences}")

    def check_description(self, kind: WorkerKind, host: str, found: Description) -> None:
        """Compare a worker's data and rounding with those of the first worker.

        Raises `RefusedError`; with mixed hardware only for other data.
        """
        if not self.first:
            self._first_host, self._data = host, found.data
        first = self.first.setdefault(kind.backend, found)
        if found.data != self._data:
            raise RefusedError(
                f"its data differ from those on {self._first_host}: the digest of the first "
                f"episodes is {found.data[:12]}, expected {str(self._data)[:12]}"
            )
        if found.digest != first.digest:
            difference = (
                f"its arithmetic rounds differently from {self._first_host}: the digest of a "
                f"canonical evaluation is {found.digest[:12]}, expected {first.digest[:12]}"
            )
            if not self._mixed_hardware:
                raise RefusedError(f"{difference} (--mixed-hardware would accept it)")
            self._note_mixed(host, difference)

    def _note_mixed(self, host: str, difference: str) -> None:
        if not self.mixed:
            logger.warning(
                "%s is used although %s; the result is not reproducible", host, difference
            )
        self.mixed = True

"""Standard streams that may be closed, full, or unable to encode what is written to them."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

# ASCII for characters in the project's output; all others become a question mark.
_SUBSTITUTES = {
    "±": "+-",
    "×": "x",
    "−": "-",
    "–": "-",
    "—": "-",
    "…": "...",
    "‖": "||",
    "η": "eta",
    "µ": "mu",
    "ν": "nu",
    "θ": "theta",
    "ᵀ": "^T",
}
_ERROR_HANDLER = "blur_es.substitute"


def _substitute(error: UnicodeError) -> tuple[str, int]:
    """Replace characters that the stream's encoding lacks: an error handler of `codecs`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = error.object[error.start : error.end]
    return "".join(_SUBSTITUTES.get(character, "?") for character in characters), error.end


class LenientStream(io.TextIOBase):
    """A stream for progress and messages, where failing to write is not an error.

    After the first failure it tries once to say so; whatever cannot be written is dropped.

    Args:
        stream: the stream to write to.
    """

    def __init__(self, stream: Any) -> None:
        self._wrapped = stream
        self._failed = False

    def write(self, text: str) -> int:
        """Write text; drop it if that fails."""
        self._attempt(self._wrapped.write, text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream; do nothing if that fails."""
        self._attempt(self._wrapped.flush)

    def isatty(self) -> bool:
        """Return whether the stream is a terminal; a closed one is none."""
        closed = getattr(self._wrapped, "closed", False)
        return not closed and bool(self._wrapped.isatty())

    def fileno(self) -> int:
        """Return the file descriptor of the stream."""
        return int(self._wrapped.fileno())

    def writable(self) -> bool:
        """Return True."""
        return True

    @property
    def encoding(self) -> Any:  # type: ignore[override]
        """The encoding of the stream."""
        return self._wrapped.encoding

    @property
    def buffer(self) -> Any:
        """The binary buffer of the stream."""
        return self._wrapped.buffer

    def _attempt(self, function: Any, *arguments: Any) -> None:
        try:
            function(*arguments)
        except (OSError, ValueError) as error:
            # `ValueError`: the stream is closed.
            if not self._failed:
                self._failed = True
                reason = getattr(error, "strerror", None) or error
                with contextlib.suppress(OSError, ValueError):
                    self._wrapped.write(f"\nmessages cannot be written ({reason}); going on\n")


def is_notebook(stream: Any) -> bool:
    """Whether what is written to a stream appears below a cell of a notebook."""
    return type(stream).__module__ == "ipykernel.iostream"


def message_stream() -> TextIO | None:
    """Where progress and messages go: standard error; in a notebook, standard output.

    A notebook shows standard error as if something had failed. None if there is no such stream.
    """
    return sys.stdout if is_notebook(sys.stderr) else sys.stderr


def fill_closed_descriptors() -> None:
    """Open the null device for each of stdin, stdout and stderr that is closed.

    Otherwise the next file that is opened would get the descriptor, and output meant for a
    standard stream would end up in that file.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest free descriptor is used, which is this one.
            os.open(os.devnull, os.O_RDWR)


@contextlib.contextmanager
def robust_streams() -> Iterator[None]:
    """Make stdout and stderr usable whatever they are, while the block runs.

    A closed stream (None) becomes the null device, characters that its encoding lacks are
    replaced, and stderr becomes a `LenientStream`.
    """
    before = sys.stdout, sys.stderr
    codecs.register_error(_ERROR_HANDLER, _substitute)
    with contextlib.ExitStack() as stack:
        if sys.stdout is None or sys.stderr is None:
            fill_closed_descriptors()
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is None:
                opened = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (closed by stack)
                setattr(sys, name, stack.enter_context(opened))
            elif isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors=_ERROR_HANDLER)
        sys.stderr = LenientStream(sys.stderr)
        try:
            yield
        finally:
            sys.stderr.flush()
            sys.stdout, sys.stderr = before


def discard_stdout() -> None:
    """Redirect stdout to the null device, so that Python's flush at its exit cannot fail."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)

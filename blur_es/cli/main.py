"""The entry point: parse the arguments, call the command, and turn errors into exit codes."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence

from blur_es.cli.output import FAILED, INTERRUPTED, WRONG_INPUT, fail, json_only_on_stdout
from blur_es.cli.parser import make_parser
from blur_es.errors import BlurError, InputError, RunError
from blur_es.util.abrupt_exit import set_exit_status
from blur_es.util.streams import discard_stdout, robust_streams
from blur_es.util.text import install_command

_EXTRA_PACKAGES = ("ray", "jax", "evosax", "optax", "matplotlib", "PIL")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    with robust_streams():
        options = make_parser().parse_args(arguments)
        logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
        code = _run(options)
        try:
            sys.stdout.flush()
        except (OSError, ValueError):
            # Discard what could not be written, so that Python does not fail again at its exit.
            discard_stdout()
            code = code or FAILED
        set_exit_status(code)
        return code


def _run(options: argparse.Namespace) -> int:
    """Call the command's handler; print an error as one message."""
    try:
        with _user_modules(options.user_code), json_only_on_stdout(getattr(options, "json", False)):
            code: int = options.handler(options)
            _flush_stdout()
            return code
    except InputError as error:
        return fail(str(error), WRONG_INPUT)
    except BlurError as error:
        return fail(str(error), FAILED)
    except MemoryError:
        return fail(
            "out of memory: lower meta.population, episode.batch_size, network.hidden or the "
            "number of workers",
            FAILED,
        )
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in _EXTRA_PACKAGES:
            return fail(f"this command needs {error.name}: {install_command('train')}", FAILED)
        raise
    except KeyboardInterrupt:
        return fail("interrupted", INTERRUPTED)
    except SystemExit as error:
        # No command calls `sys.exit`; a module of the user's own may.
        return fail(f"a task, measure or module of your own called sys.exit({error.code})", FAILED)
    except BrokenPipeError:
        # The reader of the output has closed the pipe, so no message is printed.
        discard_stdout()
        return FAILED
    except OSError as error:
        return fail(f"{error.filename or 'input or output'}: {error.strerror or error}", FAILED)


def _flush_stdout() -> None:
    """Write what stdout buffers. Raises `RunError` if that fails, `BrokenPipeError` for a pipe."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise RunError(f"stdout: cannot write to it: {error.strerror or error}") from error


@contextlib.contextmanager
def _user_modules(wanted: bool) -> Iterator[None]:
    """Let commands that may import a user's tasks and measures find them in the current folder.

    The folder comes last on the module path, so that no file in it replaces a module of Python or
    of an installed package.
    """
    if not wanted:
        yield
        return
    try:
        folder = os.getcwd()
    except OSError as error:
        raise InputError(
            f"the current folder cannot be read ({error.strerror or error}); change to a folder "
            "that exists"
        ) from error
    if folder in sys.path:
        yield
        return
    sys.path.append(folder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)

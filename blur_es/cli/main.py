"""The entry point: parse the arguments, call the command, and turn errors into exit codes."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from blur_es.cli.output import FAILED, INTERRUPTED, WRONG_INPUT, fail
from blur_es.cli.parser import make_parser
from blur_es.errors import BlurError, InputError

_EXTRA = "pip install 'blur_es[train]'"
_EXTRA_PACKAGES = ("ray", "jax", "evosax", "optax", "matplotlib", "PIL")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    # Tasks and measures of the user's own are imported from the current folder.
    sys.path.insert(0, str(Path.cwd()))
    options = make_parser().parse_args(arguments)
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        code: int = options.handler(options)
        sys.stdout.flush()
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
            return fail(f"this command needs {error.name}: {_EXTRA}", FAILED)
        raise
    except KeyboardInterrupt:
        return fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # The reader of the output has gone, and so has the reader of a message about it.
        sys.stderr.close()
        return FAILED
    except OSError as error:
        return fail(f"{error.filename or 'system'}: {error.strerror or error}", FAILED)

"""When, where and by which command a run was started and resumed."""

from __future__ import annotations

import datetime
import platform
import shlex
import sys
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import joblib

from blur_es.redact import redact
from blur_es.storage import Storage
from blur_es.storage.names import LAUNCHES
from blur_es.util.json_text import parse_json

# A program may be passed to Python as text of any length.
_LONGEST = 1000


def record_launch(storage: Storage) -> list[dict[str, Any]]:
    """Return the launches of a run folder so far, and one for this process at this time."""
    return [
        *read_launches(storage),
        {
            "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "command": command_line(),
            "host": platform.node(),
            "cores": joblib.cpu_count(),
        },
    ]


def read_launches(storage: Storage) -> list[dict[str, Any]]:
    """The launches of a run folder, oldest first.

    Without the file, as in folders of earlier versions, or if it is damaged, there are none: it is
    for people only, and no training depends on it.
    """
    try:
        content = parse_json(storage.read(LAUNCHES))
    except (OSError, ValueError):
        return []
    found = content.get("launches") if isinstance(content, dict) else None
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def command_line(arguments: Sequence[str] | None = None) -> str:
    """The command of a process as a shell would take it, without secrets.

    The folder of the interpreter is left out, and so is the interpreter itself for `blur-es`.

    Args:
        arguments: the program and its arguments; None for those of this process.
    """
    program, *rest = sys.orig_argv if arguments is None else arguments
    if rest and PurePath(rest[0]).name == "blur-es":
        program, *rest = rest
    command = redact(shlex.join([PurePath(program).name, *rest]))
    return command if len(command) <= _LONGEST else f"{command[:_LONGEST]}..."

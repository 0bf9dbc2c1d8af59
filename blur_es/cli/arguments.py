"""Arguments that several commands have, and the types of their values."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any

from blur_es.errors import InputError
from blur_es.keys import MAXIMUM_SEED

Handler = Callable[[argparse.Namespace], int]


class Commands:
    """The commands of a parser; every module of commands adds its own.

    Args:
        parser: the parser of the whole command line.
    """

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(
        self,
        name: str,
        handler: Handler,
        summary: str,
        *,
        user_code: bool = False,
        epilog: str | None = None,
    ) -> argparse.ArgumentParser:
        """Add a command and return its parser.

        Args:
            name: name of the command.
            handler: runs the command and returns the exit code.
            summary: what the command does, in a sentence.
            user_code: whether it may import tasks and measures of the user's own, which are then
                found in the current folder as well.
            epilog: text at the end of the command's help.
        """
        parser = self._commands.add_parser(name, help=summary, description=summary, epilog=epilog)
        parser.set_defaults(command=name, handler=handler, user_code=user_code)
        return parser


def positive(text: str) -> int:
    """Return a whole number of 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number, 1 or more")
    return int(text)


def seed(text: str) -> int:
    """Return a seed of random numbers."""
    if not text.isdecimal() or int(text) > MAXIMUM_SEED:
        raise argparse.ArgumentTypeError(
            f"found {text!r}, expected a whole number, 0 to {MAXIMUM_SEED}"
        )
    return int(text)


def seconds(text: str) -> float:
    """Return a number of seconds, 0 or more."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected seconds, 0 or more")
    return number


def tolerance(text: str) -> float:
    """Return an accuracy that may be lost, from 0 to 1."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0.0 <= number <= 1.0:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected an accuracy, 0 to 1")
    return number


def nodes(text: str) -> int | list[str]:
    """Return a number of nodes, or their names."""
    if text.isdigit():
        return positive(text)
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise argparse.ArgumentTypeError(
            f"found {text!r}, expected a number of nodes, or names such as 10.0.0.1,10.0.0.2"
        )
    return names


def steps(text: str) -> tuple[int, ...]:
    """Return numbers of steps, in rising order."""
    return tuple(sorted({positive(word.strip()) for word in text.split(",")}))


def absolute_path(text: str) -> str:
    """Return a path that means the same to workers, which run in other folders."""
    try:
        return text if text.startswith("~") else os.path.abspath(text)
    except OSError as error:
        raise argparse.ArgumentTypeError(
            f"found {text!r}, but the current folder cannot be read ({error.strerror or error}); "
            "expected an absolute path"
        ) from error


def add_subject(parser: argparse.ArgumentParser) -> None:
    """Add the genome that a command is about."""
    parser.add_argument(
        "subject",
        metavar="GENOME_OR_RUN_OR_NAME",
        help="a genome file or a run folder, path or URL, or the name of a genome that ships",
    )
    parser.add_argument(
        "--trust",
        action="store_true",
        help="follow import paths in the experiment that came with the genome, and let it ask for "
        "any amount of work; only for genomes and runs whose origin you trust",
    )


def add_measurement(parser: argparse.ArgumentParser) -> None:
    """Add a genome, and the experiment and the episodes in which it is measured."""
    add_subject(parser)
    parser.add_argument(
        "--experiment",
        metavar="FILE",
        help="take tasks, network and episode from this file (default: those it was trained with)",
    )
    parser.add_argument(
        "--task",
        metavar="TASK",
        help="measure on this task, a name or options as in '{name: mnist, size: 14}' (default: "
        "those of the experiment)",
    )
    add_settings(parser, "network.hidden=[128]")
    parser.add_argument(
        "--episodes", type=positive, metavar="N", help="number of episodes of each task"
    )
    parser.add_argument("--seed", type=seed, metavar="SEED", help="seed of the episodes")


def chosen_task(options: argparse.Namespace) -> str | dict[str, Any] | None:
    """The task of `--task`: its name, its options, or None. Raises `InputError`."""
    from blur_es.config.source import assignment

    if options.task is None:
        return None
    _, task = assignment(f"task={options.task}", "--task")
    if not isinstance(task, str | dict):
        raise InputError(
            f"--task: found {options.task}, expected a name such as digits, or options such as "
            "{name: mnist, size: 14}"
        )
    return task


def add_settings(parser: argparse.ArgumentParser, example: str = "meta.population=80") -> None:
    """Add `--set`."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help=f"override a value of the experiment, e.g. {example} (repeatable)",
    )


def add_place(
    parser: argparse.ArgumentParser,
    default: str,
    workers: str = "jobs on Ray at a time (default: one per core)",
) -> None:
    """Add where the work is done: a Ray cluster, or this process."""
    place = parser.add_mutually_exclusive_group()
    place.add_argument(
        "--address",
        metavar="ADDRESS",
        help=f"an existing Ray cluster, e.g. auto (default: {default})",
    )
    place.add_argument("--local", action="store_true", help="no Ray: evaluate in this process")
    parser.add_argument("--workers", type=positive, metavar="N", help=f"number of {workers}")


def add_output(parser: argparse.ArgumentParser, what: str) -> None:
    """Add the folder that results are written to."""
    parser.add_argument(
        "--output",
        metavar="DIR",
        help=f"write {what} to this folder, path or URL; earlier results of the same genome there "
        "are replaced",
    )


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    """Add the folder of data sets."""
    parser.add_argument(
        "--data-dir",
        type=absolute_path,
        metavar="DIR",
        help="folder of data sets (default: $BLUR_ES_DATA, else ~/.cache/blur_es)",
    )


def add_json(parser: argparse.ArgumentParser, what: str) -> None:
    """Add `--json`."""
    parser.add_argument("--json", action="store_true", help=f"print {what} as JSON")

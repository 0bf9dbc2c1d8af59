"""`blur-es runs`: run folders in one view."""

from __future__ import annotations

import argparse

from blur_es.cli.arguments import Commands, add_json
from blur_es.cli.output import print_json, write_file


def add_commands(commands: Commands) -> None:
    """Add `runs`."""
    parser = commands.add(
        "runs",
        run_runs,
        "List run folders: state, generation, fitness, accuracy, age and size.",
        epilog="Example: blur-es runs s3://bucket/runs --html runs.html. A run is running, "
        "finished (all generations are done), stopped (by a stop condition), interrupted (it can "
        "be resumed) or damaged. Nothing in the folders is imported or run.",
    )
    parser.add_argument(
        "folder",
        metavar="DIR",
        nargs="?",
        default="runs",
        help="a folder with run folders in it, path or URL (default: runs)",
    )
    parser.add_argument("--html", metavar="FILE", help="also write a self-contained page")
    add_json(parser, "the list")


def run_runs(options: argparse.Namespace) -> int:
    """Print the run folders."""
    from blur_es.report.runs import list_runs

    found = list_runs(options.folder)
    if options.html:
        write_file(options.html, found.page(), "--html")
    if options.json:
        print_json(found.to_json())
    else:
        print(found.table())
    return 0

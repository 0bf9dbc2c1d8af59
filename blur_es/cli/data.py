"""`blur-es strategies`, `tasks` and `fetch`: lists of strategies and tasks, and data sets."""

from __future__ import annotations

import argparse

from blur_es.cli.arguments import Commands, add_data_dir, add_json
from blur_es.cli.output import print_json, print_names, show_progress


def add_commands(commands: Commands) -> None:
    """Add `strategies`, `tasks` and `fetch`."""
    add_json(
        commands.add("strategies", run_strategies, "List the evolution strategies."), "the list"
    )
    add_json(commands.add("tasks", run_tasks, "List the tasks and their options."), "the list")
    parser = commands.add(
        "fetch",
        run_fetch,
        "Download a data set and verify its checksum; an interrupted download resumes.",
    )
    parser.add_argument("name", metavar="NAME", help="mnist, fashion_mnist, emnist or omniglot")
    add_data_dir(parser)
    parser.add_argument(
        "--mirror", metavar="URL", help="take the files from this folder instead, a path or URL"
    )


def run_strategies(options: argparse.Namespace) -> int:
    """Print the names of the strategies."""
    from blur_es.meta.strategy import strategy_names

    names = strategy_names()
    if options.json:
        print_json([{"name": name, "description": text} for name, text in names.items()])
    else:
        print_names(names)
    return 0


def run_tasks(options: argparse.Namespace) -> int:
    """Print the names of the tasks and their options."""
    from blur_es.tasks import describe_tasks

    tasks = describe_tasks()
    if options.json:
        print_json([task._asdict() for task in tasks])
        return 0
    print_names(
        {
            task.name: task.description
            + (f" (options: {', '.join(task.options)})" if task.options else "")
            for task in tasks
        }
    )
    return 0


def run_fetch(options: argparse.Namespace) -> int:
    """Download a data set and print the paths of its files."""
    from blur_es.tasks import data_directory
    from blur_es.tasks.fetch import fetch

    folder = data_directory(options.data_dir)
    show = show_progress(lambda done: f"  {done / 1e6:.1f} MB")
    for path in fetch(options.name, folder, on_progress=show, mirror=options.mirror):
        print(path)
    return 0

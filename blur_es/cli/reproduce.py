"""`blur-es sweep` and `reproduce`: trainings over a grid, and the paper's results."""

from __future__ import annotations

import argparse
import contextlib

from blur_es.cli.arguments import Commands, add_data_dir, add_json, add_place
from blur_es.cli.output import INTERRUPTED, fail, print_json, write_file
from blur_es.util.callbacks import print_message


def add_commands(commands: Commands) -> None:
    """Add `sweep` and `reproduce`."""
    _add_sweep(commands)
    parser = commands.add(
        "reproduce",
        run_reproduce,
        "Reproduce one of the paper's results: trainings, measurements, table and picture.",
        user_code=True,
        epilog="Example: blur-es reproduce normalisation --quick. Every training is a run folder; "
        "after an interruption the same command continues, and nothing is done twice. `all` "
        "skips what needs a missing data set, and says so.",
    )
    parser.add_argument(
        "name",
        metavar="NAME",
        help="the name of a file in experiments/paper, or all (a file of your own: blur-es sweep)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="the small variant: minutes on two cores"
    )
    add_place(parser, "start a local one")
    parser.add_argument(
        "--output",
        metavar="DIR",
        default="runs/reproduce",
        help="folder or URL for the results, with a subfolder for each (default: runs/reproduce)",
    )
    parser.add_argument(
        "--skip-missing", action="store_true", help="skip what needs a missing data set"
    )
    add_data_dir(parser)
    add_json(parser, "the paths of the files")


def _add_sweep(commands: Commands) -> None:
    parser = commands.add(
        "sweep",
        run_sweep,
        "Train every combination of a grid with several seeds, and measure the genomes.",
        user_code=True,
        epilog="Example: blur-es sweep my_sweep.yaml --csv sweep.csv --latex sweep.tex. Every "
        "training is a run folder; after an interruption the same command continues, and nothing "
        "is done twice. docs/sweeps.md describes the file.",
    )
    parser.add_argument("file", metavar="FILE", help="the sweep (YAML), a path or URL")
    parser.add_argument("--quick", action="store_true", help="the quick variant in the file")
    add_place(parser, "start a local one")
    parser.add_argument(
        "--output",
        metavar="DIR",
        default="runs/sweep",
        help="folder or URL for the results, with a subfolder for each sweep (default: runs/sweep)",
    )
    parser.add_argument("--csv", metavar="FILE", help="also write a row for every training")
    parser.add_argument("--latex", metavar="FILE", help="also write the table for LaTeX")
    parser.add_argument(
        "--skip-missing", action="store_true", help="skip what needs a missing data set"
    )
    add_data_dir(parser)
    add_json(parser, "the results")


def run_sweep(options: argparse.Namespace) -> int:
    """Run the missing trainings; print the table and the files."""
    from blur_es.reproduce.sweep import train_sweep
    from blur_es.run.interrupt import Interrupted

    try:
        found = train_sweep(
            options.file,
            output=options.output,
            quick=options.quick,
            local=options.local,
            address=options.address,
            workers=options.workers,
            data_dir=options.data_dir,
            skip_missing=options.skip_missing,
            on_message=print_message,
        )
    except (Interrupted, KeyboardInterrupt):
        return fail("interrupted; the same command continues from here", INTERRUPTED)
    files = list(found.files)
    for option, content in (("csv", found.to_csv), ("latex", found.to_latex)):
        if path := getattr(options, option):
            write_file(path, content(), f"--{option}")
            files.append(path)
    if options.json:
        print_json({**found.to_json(), "files": files})
    else:
        print(f"{found.table()}\n")
        print("\n".join(files))
    return 0


def run_reproduce(options: argparse.Namespace) -> int:
    """Run all missing jobs of the results; print their tables and files."""
    from blur_es.reproduce.results import table_text
    from blur_es.reproduce.runner import MissingDataError, ReproduceOptions, make_result
    from blur_es.reproduce.schema import find_results, load_result
    from blur_es.run.interrupt import Interrupted

    everything = options.name == "all"
    if options.name.endswith((".yaml", ".yml")):
        print_message(f"note: blur-es sweep {options.name} is the command for a file of your own")
    reproduce_options = ReproduceOptions(
        output=options.output,
        local=options.local,
        address=options.address,
        workers=options.workers,
        data_dir=options.data_dir,
        skip_missing=options.skip_missing or everything,
    )
    # All files are read before the first is run, so that a mistake in the last is found now.
    results = [load_result(path, options.quick) for path in find_results(options.name)]
    made, skipped = [], []
    with contextlib.ExitStack() as connection:
        for result in results:
            try:
                document, paths = make_result(result, reproduce_options, print_message, connection)
            except MissingDataError as error:
                if not everything:
                    raise
                print_message(str(error))
                skipped.append(result.name)
                continue
            except (Interrupted, KeyboardInterrupt):
                return fail("interrupted; the same command continues from here", INTERRUPTED)
            made.append({"name": result.name, "files": paths})
            if options.json:
                continue
            figure = f" (figure {document['figure']})" if document["figure"] else ""
            print(f"\n{result.name}: {document['title']}{figure}\n")
            print(table_text(document))
            print("\n" + "\n".join(paths), flush=True)
    if options.json:
        print_json({"results": made, "skipped": skipped})
    elif skipped:
        print(f"\nskipped because data sets are missing: {', '.join(skipped)}")
    return 0

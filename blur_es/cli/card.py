"""`blur-es card`: what a genome is, where it comes from and how good it is."""

from __future__ import annotations

import argparse
from pathlib import Path

from blur_es.cli.arguments import Commands
from blur_es.cli.output import show_progress


def add_commands(commands: Commands) -> None:
    """Add `card`."""
    parser = commands.add(
        "card",
        run_card,
        "Write the card of a genome: Markdown made from its provenance and measured results.",
        epilog="Example: blur-es card runs/digits-seed0 --output CARD.md",
    )
    parser.add_argument(
        "genome",
        metavar="GENOME_OR_RUN_OR_NAME",
        help="a genome file or a run folder, path or URL, or the name of a genome that ships; a "
        "URL may end with #sha256= and the expected digest",
    )
    parser.add_argument(
        "--output", metavar="FILE", help="write the card to this file (default: print it)"
    )
    parser.add_argument(
        "--no-measure",
        action="store_true",
        help="do not measure the genome as a classifier on scikit-learn's tables, which takes some "
        "seconds",
    )


def run_card(options: argparse.Namespace) -> int:
    """Print the card of a genome, or write it to a file."""
    from blur_es.report.card import genome_card

    text = genome_card(
        options.genome, measure=not options.no_measure, on_progress=show_progress(delay=3.0)
    )
    if options.output is None:
        print(text, end="")
        return 0
    Path(options.output).write_text(text, encoding="utf-8")
    print(f"wrote {options.output}")
    return 0

"""`blur-es analyze`: whether a genome's update is a gradient, and how its synapses grow."""

from __future__ import annotations

import argparse

from blur_es.cli.arguments import Commands, add_data_dir, add_json, add_subject, positive
from blur_es.cli.output import print_json, show_progress


def add_commands(commands: Commands) -> None:
    """Add `analyze`."""
    parser = commands.add(
        "analyze",
        run_analyze,
        "Measure whether a genome's update is a gradient, and how its synapses grow.",
        user_code=True,
        epilog="Example: blur-es analyze backprop. Writes analysis.json and pictures of the "
        "Jacobian, of the growth and of the genome, each as PNG and SVG.",
    )
    add_subject(parser)
    parser.add_argument(
        "--output",
        metavar="DIR",
        help="the folder to write to, path or URL (default: analysis in the run folder, else "
        "./NAME-analysis)",
    )
    parser.add_argument(
        "--steps",
        type=positive,
        metavar="N",
        help="number of steps in the long episodes (default: ten times the unroll that the "
        "genome was trained with)",
    )
    add_data_dir(parser)
    add_json(parser, "the numbers")


def run_analyze(options: argparse.Namespace) -> int:
    """Analyse a genome, write numbers and pictures, and print a summary."""
    from blur_es.report.analysis import analyze_and_write

    analysis, pictures = analyze_and_write(
        options.subject,
        options.output,
        options.steps,
        options.data_dir,
        show_progress(delay=3.0),
        trust=options.trust,
    )
    if options.json:
        print_json(analysis.to_json() | {"pictures": pictures})
        return 0
    print(analysis.summary())
    print()
    for path in pictures:
        print(f"picture {path}")
    return 0

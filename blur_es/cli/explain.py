"""`blur-es explain`: a learned rule as equations with few numbers."""

from __future__ import annotations

import argparse

from blur_es.cli.arguments import (
    Commands,
    add_data_dir,
    add_json,
    add_measurement,
    chosen_task,
    tolerance,
)
from blur_es.cli.output import print_json, show_progress
from blur_es.errors import InputError


def add_commands(commands: Commands) -> None:
    """Add `explain`."""
    parser = commands.add(
        "explain",
        run_explain,
        "Write a rule as equations with few numbers, and measure what each of them is worth.",
        user_code=True,
        epilog="Example: blur-es explain mnist-3state --task '{name: mnist, size: 14}' --set "
        "episode.unroll=15 --output simple.npz. Numbers that a change of scale or another order of "
        "states would remove are removed first. Then numbers are set to 0 or 1 for as long as the "
        "accuracy on validation episodes allows. They are others than those of the search; "
        "--episodes is their number (default: 16).",
    )
    add_measurement(parser)
    parser.add_argument(
        "--tolerance",
        type=tolerance,
        metavar="ACCURACY",
        help="accuracy that may be lost by leaving out numbers (default: 0.005)",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="write the simplified genome to this .npz file, path or URL",
    )
    add_data_dir(parser)
    add_json(parser, "equations, numbers and terms")


def run_explain(options: argparse.Namespace) -> int:
    """Print a genome's equations and terms, and write the simplified genome."""
    from blur_es.analysis.explain import TOLERANCE, explain

    if options.output is not None and not options.output.endswith(".npz"):
        raise InputError(f"--output: found {options.output!r}, expected a file name ending in .npz")
    explanation = explain(
        options.subject,
        chosen_task(options),
        experiment=options.experiment,
        settings=options.set,
        tolerance=TOLERANCE if options.tolerance is None else options.tolerance,
        episodes=options.episodes,
        seed=options.seed,
        data_dir=options.data_dir,
        trust=options.trust,
        on_progress=show_progress(delay=3.0),
    )
    if options.json:
        print_json(explanation.to_json())
    else:
        print(explanation.text)
    if options.output is not None:
        explanation.genome.save(options.output)
        print(f"\nsimplified genome {options.output}")
    return 0

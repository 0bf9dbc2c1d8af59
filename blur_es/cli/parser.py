"""The parser of the command line, built from the modules of commands."""

from __future__ import annotations

import argparse

from blur_es import __version__
from blur_es.cli import (
    analyze,
    bench,
    card,
    cluster,
    data,
    evaluate,
    explain,
    reproduce,
    runs,
    train,
)
from blur_es.cli.arguments import Commands


def make_parser() -> argparse.ArgumentParser:
    """Return the parser; its result has the function that runs the command as `handler`."""
    parser = argparse.ArgumentParser(
        prog="blur-es",
        description="Meta-learn synapse update rules by evolution strategies or meta-gradients.",
        epilog="Exit codes: 0 done; 1 failed; 2 wrong input; 130 interrupted after a clean "
        "checkpoint. `blur-es COMMAND --help` describes a command.",
    )
    parser.add_argument("--version", action="version", version=f"blur_es {__version__}")
    commands = Commands(parser)
    train.add_train(commands)
    evaluate.add_commands(commands)
    reproduce.add_commands(commands)
    analyze.add_commands(commands)
    explain.add_commands(commands)
    train.add_report(commands)
    runs.add_commands(commands)
    card.add_commands(commands)
    data.add_commands(commands)
    bench.add_conformance(commands)
    cluster.add_commands(commands)
    bench.add_bench(commands)
    return parser

"""`blur-es bench` and `blur-es conformance`: speed and correctness of the backends."""

from __future__ import annotations

import argparse
import functools
from pathlib import Path

from blur_es.cli.arguments import Commands, add_data_dir, add_json, positive
from blur_es.cli.output import FAILED, print_json
from blur_es.errors import InputError, nearest


def add_conformance(commands: Commands) -> None:
    """Add `conformance`."""
    parser = commands.add(
        "conformance",
        run_conformance,
        "Replay golden trajectories of the authors' own code and compare.",
        epilog="Exit code 1 if a case fails. Tolerance: 1e-10 in float64, 1e-5 in float32, as "
        "largest difference over largest reference value.",
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="folder of .npz cases")
    parser.add_argument("--backend", metavar="NAME", help="one backend (default: all)")
    add_json(parser, "the results")


def run_conformance(options: argparse.Namespace) -> int:
    """Replay every case with every backend and print the differences."""
    from blur_es.inner import BACKENDS, make_inner_loop
    from blur_es.inner.conformance import replay_all

    backends = [options.backend] if options.backend else list(BACKENDS)
    if options.backend and options.backend not in BACKENDS:
        raise InputError(
            f"--backend: unknown backend {options.backend!r}{nearest(options.backend, BACKENDS)}; "
            f"expected one of {', '.join(BACKENDS)}"
        )
    failed = 0
    lines = []
    for backend in backends:
        tolerance = BACKENDS[backend]
        make_loop = functools.partial(make_inner_loop, backend)
        for result in replay_all(options.folder, make_loop, tolerance):
            failed += result.status == "fail"
            if options.json:
                lines.append({"backend": backend, "tolerance": tolerance, **vars(result)})
                continue
            errors = "  ".join(f"{group} {error:.1e}" for group, error in result.errors.items())
            print(f"{backend:6}  {result.case:40}  {result.status:13}  {errors}{result.reason}")
    if options.json:
        print_json(lines)
    return FAILED if failed else 0


def add_bench(commands: Commands) -> None:
    """Add `bench`."""
    parser = commands.add(
        "bench",
        run_bench,
        "Measure evaluations per second, compared with the rate of plain matrix products.",
        user_code=True,
        epilog="One process, one thread, data in memory; takes about a minute.",
    )
    parser.add_argument(
        "--backend", default="auto", metavar="NAME", help="a backend (default: auto)"
    )
    parser.add_argument(
        "--config",
        default="P1",
        metavar="P0|P1|P2|FILE",
        help="a fixed configuration, or an experiment file (default: P1)",
    )
    parser.add_argument(
        "--population", type=positive, metavar="N", help="number of genomes in a call (default: 8)"
    )
    add_data_dir(parser)
    add_json(parser, "the result")


def run_bench(options: argparse.Namespace) -> int:
    """Measure and print the speed of a backend."""
    from blur_es.analysis.bench import run_bench, table

    result = run_bench(options.backend, options.config, options.population, options.data_dir)
    if options.json:
        print_json(result)
    else:
        print(table(result))
    return 0

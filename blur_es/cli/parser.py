"""The arguments of the `blur-es` command: every option of every command, with its help."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from blur_es import __version__

MAXIMUM_SEED = 2**32 - 1


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number, 1 or more")
    return int(text)


def _everywhere(text: str) -> str:
    """A path that means the same to workers, which run in other folders."""
    return text if text.startswith("~") else os.path.abspath(text)


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected seconds, 0 or more")
    return number


def _nodes(text: str) -> int | list[str]:
    """A number of nodes, or their names."""
    if text.isdigit():
        return _positive(text)
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise argparse.ArgumentTypeError(
            f"found {text!r}, expected a number of nodes, or names such as 10.0.0.1,10.0.0.2"
        )
    return names


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) > MAXIMUM_SEED:
        raise argparse.ArgumentTypeError(
            f"found {text!r}, expected a whole number, 0 to {MAXIMUM_SEED}"
        )
    return int(text)


def make_parser() -> argparse.ArgumentParser:
    """The parser; `command` of what it parses names the command, as `COMMANDS` of `cli` does."""
    parser = argparse.ArgumentParser(
        prog="blur-es",
        description="Meta-learn synapse update rules by evolution strategies or meta-gradients.",
        epilog="Exit codes: 0 done; 1 failed; 2 wrong input; 130 interrupted after a clean "
        "checkpoint. `blur-es COMMAND --help` tells more.",
    )
    parser.add_argument("--version", action="version", version=f"blur_es {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, summary: str, **more: Any) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=summary, description=summary, **more)
        sub.set_defaults(command=name)
        return sub

    def data_dir(sub: argparse.ArgumentParser) -> None:
        sub.add_argument(
            "--data-dir",
            type=_everywhere,
            metavar="DIR",
            help="folder of data sets (default: $BLUR_ES_DATA, else ~/.cache/blur_es)",
        )

    def overrides(sub: argparse.ArgumentParser, example: str = "meta.population=80") -> None:
        sub.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            help=f"override a value of the experiment, e.g. {example} (repeatable)",
        )

    def as_json(sub: argparse.ArgumentParser, what: str) -> None:
        sub.add_argument("--json", action="store_true", help=f"print {what} as JSON")

    def where(
        sub: argparse.ArgumentParser,
        cluster: str,
        workers: str = "jobs on Ray at a time (default: one a core)",
    ) -> None:
        place = sub.add_mutually_exclusive_group()
        place.add_argument(
            "--address",
            metavar="ADDRESS",
            help=f"an existing Ray cluster, e.g. auto (default: {cluster})",
        )
        place.add_argument("--local", action="store_true", help="no Ray: evaluate in this process")
        sub.add_argument(
            "--workers",
            type=_positive,
            metavar="N",
            help=f"number of {workers}",
        )

    def subject(sub: argparse.ArgumentParser) -> None:
        sub.add_argument(
            "subject",
            metavar="GENOME_OR_RUN_OR_NAME",
            help="a genome file or a run folder, path or URL, or the name of a genome that ships",
        )

    def measured(sub: argparse.ArgumentParser) -> None:
        subject(sub)
        sub.add_argument(
            "--experiment",
            metavar="FILE",
            help="take tasks, network and episode from here (default: what it was trained on)",
        )
        overrides(sub, "network.hidden=[128]")
        sub.add_argument(
            "--episodes", type=_positive, metavar="N", help="number of episodes of each task"
        )
        sub.add_argument("--seed", type=_seed, metavar="SEED", help="seed of the episodes")

    def output(sub: argparse.ArgumentParser, what: str) -> None:
        sub.add_argument(
            "--output",
            metavar="DIR",
            help=f"write {what} to this folder, path or URL; it may hold the genome's earlier ones",
        )

    train = command(
        "train",
        "Meta-train a genome as an experiment file says.",
        epilog="Example: blur-es train experiments/digits.yaml --set seed=3 --run-dir runs/three. "
        "Ctrl-C ends it after a clean checkpoint; --resume goes on to the same genome.",
    )
    train.add_argument("file", metavar="FILE", help="the experiment (YAML), a path or URL")
    overrides(train)
    train.add_argument(
        "--run-dir",
        metavar="DIR",
        help="where the run is kept: a path, or a URL such as s3://bucket/prefix (default: the "
        "next free runs/NAME-seedSEED)",
    )
    train.add_argument(
        "--resume",
        action="store_true",
        help="continue the run in the folder (default: the last of runs/NAME-seedSEED)",
    )
    train.add_argument(
        "--take-over",
        action="store_true",
        help="with --resume: take the run from another blur-es train that is at work on it, which "
        "then stops",
    )
    where(train, "start a local one", "Ray workers (default: what fleet.workers says)")
    data_dir(train)
    train.add_argument(
        "--mixed-hardware",
        action="store_true",
        help="continue, and take in workers, where arithmetic rounds differently; the result is "
        "then marked as not reproducible",
    )
    train.add_argument(
        "--chaos",
        metavar="FAULTS",
        help="inject faults, at rates by chunk and nodes by number, e.g. "
        "kill-worker:0.05,slow-worker:0.1,drop-result:0.02,hang-worker:0.01,kill-node:1; the "
        "genome stays the same",
    )
    train.add_argument(
        "--tensorboard",
        metavar="DIR",
        help="also log the metrics for TensorBoard, to a folder in this one with the run's name",
    )
    train.add_argument(
        "--mlflow",
        metavar="URI",
        help="also log metrics and settings to this tracking server of MLflow, one that `mlflow "
        "server` starts, e.g. http://127.0.0.1:5000",
    )
    train.add_argument("--quiet", action="store_true", help="no progress")
    as_json(train, "the result")

    evaluate = command(
        "evaluate",
        "Measure a genome on fresh episodes of the test split, for one experiment or many.",
        epilog="Example: blur-es evaluate runs/digits-seed0 --vary hidden=16,64,64-64 "
        "--vary unroll=5,15,50 --seeds 3 --output sweep. An axis is a dotted key of tasks, "
        "network, episode, backend or jax, or one of task, hidden, unroll, size, batch_size; its "
        "values are a list as in YAML, brackets left out or not. What varies is spread over Ray; "
        "the rest is done in this process.",
    )
    measured(evaluate)
    evaluate.add_argument(
        "--vary",
        action="append",
        default=[],
        metavar="KEY=LIST",
        help="evaluate with every value of the list, and in every combination with other "
        "lists, e.g. unroll=5,15,100 (repeatable)",
    )
    evaluate.add_argument(
        "--seeds",
        type=_positive,
        default=1,
        metavar="N",
        help="evaluate with N seeds from the seed on (default: 1)",
    )
    where(evaluate, "start a local one if there is a --vary or a number of workers")
    output(evaluate, "all scores, a table and pictures")
    data_dir(evaluate)
    as_json(evaluate, "the scores")

    compare = command(
        "compare",
        "Hold a genome against tuned optimisers in the same test episodes, step by step.",
        epilog="Example: blur-es compare runs/digits-seed0 --optimizers sgd,momentum,adam "
        "--output comparison. Each optimiser trains the plain network and one with batch "
        "normalisation, with the best of 13 learning rates over four orders of magnitude, "
        "chosen on episodes that are not the test episodes. With --address or --workers every "
        "entry on every task is a job on Ray.",
    )
    measured(compare)
    where(compare, "start a local one if there is a number of workers")
    compare.add_argument(
        "--optimizers",
        metavar="NAMES",
        help="some of sgd, momentum, nesterov, adagrad, rmsprop, adam, adamw, lion, separated by "
        "commas (default: all)",
    )
    output(compare, "the comparison, a table and a picture for each task")
    data_dir(compare)
    as_json(compare, "the comparison")

    reproduce = command(
        "reproduce",
        "Make one of the paper's results again: trainings, measurements, table and picture.",
        epilog="Example: blur-es reproduce normalisation --quick. Every training is a run folder; "
        "the same command goes on where it was interrupted and does nothing twice. `all` leaves "
        "out what needs a data set that is not there, and says so.",
    )
    reproduce.add_argument(
        "name", metavar="NAME", help="a file of experiments/paper by its name, a path, or all"
    )
    reproduce.add_argument(
        "--quick", action="store_true", help="the small variant: minutes on two cores"
    )
    where(reproduce, "start a local one")
    reproduce.add_argument(
        "--output",
        metavar="DIR",
        default="runs/reproduce",
        help="folder or URL where results are kept, a folder each (default: runs/reproduce)",
    )
    reproduce.add_argument(
        "--skip-missing",
        action="store_true",
        help="leave out what needs a data set that is not there",
    )
    data_dir(reproduce)
    as_json(reproduce, "the paths of what was made")

    analyze = command(
        "analyze",
        "Measure whether a genome's update is a gradient, and how its synapses grow.",
        epilog="Example: blur-es analyze backprop. Writes analysis.json and pictures of the "
        "Jacobian, of the growth and of the genome, each as PNG and SVG.",
    )
    subject(analyze)
    analyze.add_argument(
        "--output",
        metavar="DIR",
        help="where to, path or URL (default: analysis in the run folder, else ./NAME-analysis)",
    )
    analyze.add_argument(
        "--steps",
        type=_positive,
        metavar="N",
        help="length of the long lives (default: ten times the unroll that it was learned for)",
    )
    data_dir(analyze)
    as_json(analyze, "the numbers")

    report = command("report", "Write report.html and its pictures for a run again.")
    report.add_argument("run_dir", metavar="RUN", help="the run folder, path or URL")
    as_json(report, "the report's path")

    as_json(command("strategies", "List the evolution strategies."), "the list")
    as_json(command("tasks", "List the tasks and their options."), "the list")

    fetch = command("fetch", "Download a data set, with checksum; a broken one resumes.")
    fetch.add_argument("name", metavar="NAME", help="mnist, fashion_mnist, emnist or omniglot")
    data_dir(fetch)
    fetch.add_argument(
        "--mirror", metavar="URL", help="take the files from this folder instead, a path or URL"
    )

    conformance = command(
        "conformance",
        "Replay golden trajectories of the authors' own code and compare.",
        epilog="Exit code 1 if a case fails. Tolerance: 1e-10 in float64, 1e-5 in float32, as "
        "largest difference over largest reference value.",
    )
    conformance.add_argument("folder", metavar="DIR", type=Path, help="folder of .npz cases")
    conformance.add_argument("--backend", metavar="NAME", help="one backend (default: all)")
    as_json(conformance, "the results")

    doctor = command(
        "doctor",
        "Examine a Ray cluster node by node, and say what to do about what is wrong.",
        epilog="Example: blur-es doctor --address auto --nodes 3 --experiment "
        "experiments/mnist14.yaml --run-dir s3://bucket/run. Versions should be those of this "
        "machine, where `blur-es train` would run. Exit code 1 if something is wrong.",
    )
    doctor.add_argument(
        "--address",
        metavar="ADDRESS",
        help="the Ray cluster, e.g. auto (default: start one of this machine, and end it)",
    )
    doctor.add_argument(
        "--nodes",
        type=_nodes,
        default=1,
        metavar="N|NAME,NAME",
        help="wait for so many nodes, or for these addresses or host names",
    )
    doctor.add_argument(
        "--wait",
        type=_seconds,
        default=300.0,
        metavar="SECONDS",
        help="how long to wait for nodes (default: 300)",
    )
    doctor.add_argument(
        "--experiment",
        metavar="FILE",
        type=Path,
        help="try its data sets and its backend on every node",
    )
    overrides(doctor)
    doctor.add_argument(
        "--run-dir",
        metavar="DIR",
        help="write, read and delete a small object there: in a path from this machine, at a "
        "URL (s3://, gs://, file:// for a shared disk) from every node",
    )
    data_dir(doctor)
    as_json(doctor, "what was found")
    subjects = doctor.add_subparsers(metavar="cluster FILE", help="check a cluster file instead")
    cluster = subjects.add_parser(
        "cluster", description="Check a file for `ray up` or the KubeRay operator."
    )
    cluster.set_defaults(command="doctor cluster")
    cluster.add_argument("file", metavar="FILE", type=Path, help="such as cluster/local.yaml")
    as_json(cluster, "what was found")

    bench = command(
        "bench",
        "Measure evaluations a second beside the rate of plain matrix products.",
        epilog="One process, one thread, data in memory; takes about a minute.",
    )
    bench.add_argument(
        "--backend", default="auto", metavar="NAME", help="a backend (default: auto)"
    )
    bench.add_argument(
        "--config",
        default="P1",
        metavar="P0|P1|P2|FILE",
        help="a fixed configuration, or an experiment file (default: P1)",
    )
    bench.add_argument(
        "--population", type=_positive, metavar="N", help="genomes of a call (default: 8)"
    )
    data_dir(bench)
    as_json(bench, "the result")
    return parser

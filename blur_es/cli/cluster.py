"""`blur-es doctor`: examine a Ray cluster, or check a cluster file."""

from __future__ import annotations

import argparse
from pathlib import Path

from blur_es.cli.arguments import (
    Commands,
    add_data_dir,
    add_json,
    add_settings,
    nodes,
    seconds,
)
from blur_es.cli.output import FAILED, print_json, show_progress
from blur_es.evaluator import problem_of


def add_commands(commands: Commands) -> None:
    """Add `doctor` and `doctor cluster`."""
    parser = commands.add(
        "doctor",
        run_doctor,
        "Examine a Ray cluster node by node, and say how to fix what is wrong.",
        user_code=True,
        epilog="Example: blur-es doctor --address auto --nodes 3 --experiment "
        "experiments/mnist14.yaml --run-dir s3://bucket/run. Versions are compared with those on "
        "this machine, where `blur-es train` would run. Exit code 1 if something is wrong.",
    )
    parser.add_argument(
        "--address",
        metavar="ADDRESS",
        help="the Ray cluster, e.g. auto (default: start one on this machine, and stop it)",
    )
    parser.add_argument(
        "--nodes",
        type=nodes,
        default=1,
        metavar="N|NAME,NAME",
        help="wait for this many nodes, or for these addresses or host names",
    )
    parser.add_argument(
        "--wait",
        type=seconds,
        default=300.0,
        metavar="SECONDS",
        help="how long to wait for nodes (default: 300)",
    )
    parser.add_argument(
        "--experiment",
        metavar="FILE",
        type=Path,
        help="try its data sets and its backend on every node",
    )
    add_settings(parser)
    parser.add_argument(
        "--run-dir",
        metavar="DIR",
        help="write, read and delete a small object there: at a path from this machine, at a "
        "URL (s3://, gs://, file:// for a shared disk) from every node",
    )
    add_data_dir(parser)
    add_json(parser, "what was found")
    subjects = parser.add_subparsers(metavar="cluster FILE", help="check a cluster file instead")
    cluster = subjects.add_parser(
        "cluster", description="Check a file for `ray up` or the KubeRay operator."
    )
    cluster.set_defaults(command="doctor cluster", handler=run_doctor_cluster)
    cluster.add_argument("file", metavar="FILE", type=Path, help="such as cluster/local.yaml")
    add_json(cluster, "what was found")


def run_doctor(options: argparse.Namespace) -> int:
    """Examine a cluster and print what was found."""
    from blur_es.config import load_config
    from blur_es.fleet.doctor import examine_cluster

    problem = None
    if options.experiment is not None:
        problem = problem_of(load_config(options.experiment, options.set))
    examination = examine_cluster(
        options.address,
        options.nodes,
        options.wait,
        problem,
        options.run_dir,
        options.data_dir,
        [str(Path.cwd())],
        show_progress(lambda done: f": {done}"),
    )
    if options.json:
        print_json(examination.to_json())
    else:
        print(examination.text())
    return 0 if examination.healthy else FAILED


def run_doctor_cluster(options: argparse.Namespace) -> int:
    """Check a cluster file and print a summary of it."""
    from blur_es.fleet.clusterfile import check_cluster_file

    summary = check_cluster_file(options.file)
    if options.json:
        print_json(summary._asdict())
        return 0
    print(f"{summary.file} is fine ({summary.provider})")
    for node in summary.nodes:
        print(f"  {node}")
    return 0

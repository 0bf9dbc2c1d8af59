"""`blur-es train` and `blur-es report`: run an experiment, and write its report again."""

from __future__ import annotations

import argparse

from blur_es.cli.arguments import (
    Commands,
    add_data_dir,
    add_json,
    add_place,
    add_settings,
)
from blur_es.cli.output import INTERRUPTED, fail, print_json
from blur_es.util.callbacks import print_message
from blur_es.util.streams import discard_stdout


def add_train(commands: Commands) -> None:
    """Add `train`."""
    parser = commands.add(
        "train",
        run_train,
        "Meta-train a genome, as an experiment file describes.",
        user_code=True,
        epilog="Example: blur-es train experiments/demo.yaml --set seed=3 --run-dir runs/three. "
        "Ctrl-C stops after a clean checkpoint; --resume continues to the same genome.",
    )
    parser.add_argument("file", metavar="FILE", help="the experiment (YAML), a path or URL")
    add_settings(parser)
    parser.add_argument(
        "--run-dir",
        metavar="DIR",
        help="the run folder: a path, or a URL such as s3://bucket/prefix (default: the next free "
        "runs/NAME-seedSEED)",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue the run in the folder (default: the last of runs/NAME-seedSEED)",
    )
    parser.add_argument(
        "--take-over",
        action="store_true",
        help="with --resume: take the run folder from another blur-es train that is using it, "
        "which then stops",
    )
    add_place(parser, "start a local one", "Ray workers (default: fleet.workers)")
    add_data_dir(parser)
    parser.add_argument(
        "--mixed-hardware",
        action="store_true",
        help="continue, and accept workers, where arithmetic rounds differently; the result is "
        "then marked as not reproducible",
    )
    parser.add_argument(
        "--chaos",
        metavar="FAULTS",
        help="inject faults, at rates by chunk and nodes by number, e.g. "
        "kill-worker:0.05,slow-worker:0.1,drop-result:0.02,hang-worker:0.01,kill-node:1; the "
        "genome stays the same",
    )
    parser.add_argument(
        "--tensorboard",
        metavar="DIR",
        help="also log the metrics for TensorBoard, to a subfolder of DIR with the run's name",
    )
    parser.add_argument(
        "--mlflow",
        metavar="URI",
        help="also log metrics and settings to this MLflow tracking server, as started by `mlflow "
        "server`, e.g. http://127.0.0.1:5000",
    )
    parser.add_argument(
        "--wandb",
        metavar="PROJECT",
        help="also log metrics and settings to this project of Weights & Biases; with "
        "WANDB_MODE=offline, to the folder wandb only",
    )
    parser.add_argument(
        "--logger",
        action="append",
        default=[],
        metavar="PATH",
        help="also log with an object of your own, e.g. my_package.my_module:MyLogger (repeatable)",
    )
    parser.add_argument("--quiet", action="store_true", help="print no progress")
    add_json(parser, "the result")


def run_train(options: argparse.Namespace) -> int:
    """Train, compare and report; print the result."""
    from blur_es.experiment import TrainingInterrupted, train

    try:
        run = train(
            options.file,
            options.run_dir,
            workers=options.workers,
            local=options.local,
            address=options.address,
            resume=options.resume,
            settings=options.set,
            take_over=options.take_over,
            data_dir=options.data_dir,
            mixed_hardware=options.mixed_hardware,
            chaos=options.chaos,
            tensorboard=options.tensorboard,
            mlflow=options.mlflow,
            wandb=options.wandb,
            loggers=options.logger,
            quiet=options.quiet,
        )
    except TrainingInterrupted as error:
        if error.run is None:
            return fail(str(error), INTERRUPTED)
        print_message("Interrupted; the last checkpoint is whole and --resume continues.")
        print_message(f"  blur-es train {options.file} --resume --run-dir {error.run.location}")
        return INTERRUPTED
    try:
        if options.json:
            print_json({**run.result, "run_dir": run.location})
            return 0
        print(run.result["stopped"])
        for comparison in run.comparisons:
            print()
            print(comparison.table(brief=True))
        print()
        print(f"genome  {run.genome_file}")
        print(f"report  {run.report}")
        print(f"SHA-256 {run.genome.sha256}", flush=True)
    except OSError as error:
        # Everything is in the run folder, so a closed terminal is not a failure.
        discard_stdout()
        reason = error.strerror or error
        print_message(f"the result cannot be printed ({reason}); it is in {run.location}")
    return 0


def add_report(commands: Commands) -> None:
    """Add `report`."""
    parser = commands.add(
        "report", run_report, "Write report.html and its pictures for a run again."
    )
    parser.add_argument("run_dir", metavar="RUN", help="the run folder, path or URL")
    add_json(parser, "the report's path")


def run_report(options: argparse.Namespace) -> int:
    """Write the report of a run folder again and print where it is."""
    from blur_es.report.html import write_report
    from blur_es.run.folder import open_run
    from blur_es.run.retry import write_or_stop

    run = open_run(options.run_dir)
    write_or_stop(write_report, run)
    if options.json:
        print_json({"report": run.report})
    else:
        print(run.report)
    return 0

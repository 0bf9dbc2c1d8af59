"""`blur-es evaluate` and `blur-es compare`: accuracy of genomes, compared with baselines."""

from __future__ import annotations

import argparse

from blur_es.cli.arguments import (
    Commands,
    add_data_dir,
    add_json,
    add_measurement,
    add_output,
    add_place,
    chosen_task,
    positive,
    steps,
)
from blur_es.cli.output import print_json, print_results, show_progress
from blur_es.util.callbacks import print_message

# Seconds of work during which no progress is shown.
_DELAY = 3.0


def add_commands(commands: Commands) -> None:
    """Add `evaluate` and `compare`."""
    _add_evaluate(commands)
    _add_compare(commands)


def _add_evaluate(commands: Commands) -> None:
    parser = commands.add(
        "evaluate",
        run_evaluate,
        "Measure a genome on fresh episodes of the test split, for one experiment or many.",
        user_code=True,
        epilog="Example: blur-es evaluate runs/digits-seed0 --vary hidden=16,64,64-64 "
        "--vary unroll=5,15,50 --seeds 3 --output sweep. An axis is a dotted key of tasks, "
        "network, episode, backend or jax, or one of task, hidden, unroll, size, batch_size; its "
        "values are a list as in YAML, with or without brackets. With --vary the work is spread "
        "over Ray; without, it is done in this process.",
    )
    add_measurement(parser)
    parser.add_argument(
        "--vary",
        action="append",
        default=[],
        metavar="KEY=LIST",
        help="evaluate with every value of the list, and in every combination with other "
        "lists, e.g. unroll=5,15,100 (repeatable)",
    )
    parser.add_argument(
        "--seeds",
        type=positive,
        default=1,
        metavar="N",
        help="evaluate with N consecutive seeds, from --seed on (default: 1)",
    )
    add_place(parser, "start a local one if --vary or --workers is given")
    add_output(parser, "all scores, a table and pictures")
    add_data_dir(parser)
    add_json(parser, "the scores")


def run_evaluate(options: argparse.Namespace) -> int:
    """Print a genome's scores, or those of a sweep."""
    from blur_es.analysis.axes import parse_axis
    from blur_es.analysis.evaluate import evaluate
    from blur_es.analysis.subject import resolve_subject
    from blur_es.analysis.sweep import sweep

    axes = [parse_axis(text) for text in options.vary]
    genome, config = resolve_subject(
        options.subject,
        chosen_task(options),
        experiment=options.experiment,
        settings=options.set,
        seed=options.seed,
        trust=options.trust,
    )
    on_ray = bool(axes or options.address or options.workers) and not options.local
    if not (axes or on_ray or options.seeds > 1 or options.output):
        evaluation = evaluate(
            genome, experiment=config, episodes=options.episodes, data_dir=options.data_dir
        )
        if options.json:
            print_json(evaluation.to_json())
        else:
            print(evaluation.table())
        return 0
    if options.output:
        from blur_es.report.folder import result_folder
        from blur_es.report.sweep import NUMBERS, write_sweep

        folder = result_folder(options.output, NUMBERS, genome.sha256, "a sweep")
    if on_ray:
        print_message("starting on Ray; --local evaluates in this process")
    result = sweep(
        genome,
        axes,
        experiment=config,
        episodes=options.episodes,
        seeds=options.seeds,
        local=not on_ray,
        address=options.address,
        workers=options.workers,
        data_dir=options.data_dir,
        on_progress=show_progress(),
    )
    pictures = []
    if options.output:
        pictures = write_sweep(result, config, {axis.name: axis.values for axis in axes}, folder)
    return print_results(result.to_json(), [result.table()], pictures, options)


def _add_compare(commands: Commands) -> None:
    parser = commands.add(
        "compare",
        run_compare,
        "Compare a genome with tuned baselines in the same test episodes.",
        user_code=True,
        epilog="Example: blur-es compare mnist-3state --optimizers sgd,adam --at 15,50,300 --set "
        "episode.unroll=300 --output comparison. Each optimiser trains the plain network and one "
        "with batch normalisation, with a constant and with a cosine schedule, and with the best "
        "of 13 learning rates over four orders of magnitude for each step, chosen on other "
        "episodes. Classifiers are trained on the rows that have been seen by each step. With "
        "--address or --workers the work is spread over Ray.",
    )
    add_measurement(parser)
    add_place(parser, "start a local one if --workers is given")
    parser.add_argument(
        "--optimizers",
        metavar="NAMES",
        help="some of sgd, momentum, nesterov, adagrad, rmsprop, adam, adamw, lion, muon, "
        "schedule-free, separated by commas (default: all)",
    )
    parser.add_argument(
        "--schedules",
        metavar="NAMES",
        help="schedules of the learning rate: constant, cosine, or both (default: both)",
    )
    parser.add_argument(
        "--classifiers",
        metavar="NAMES",
        help="some of knn, lda, logistic, svm, or none (default: all)",
    )
    parser.add_argument(
        "--at",
        type=steps,
        metavar="STEPS",
        help="measure accuracy after these steps, e.g. 15,50,300 (default: 1,2,5,10,20, ... and "
        "the last)",
    )
    add_output(parser, "the comparison, a table and a picture for each task")
    add_data_dir(parser)
    add_json(parser, "the comparison")


def run_compare(options: argparse.Namespace) -> int:
    """Print a genome's accuracy compared with that of baselines."""
    from blur_es.analysis.baselines import (
        CLASSIFIERS,
        LEARNING_RATES,
        SCHEDULES,
        classifier_names,
        optimizer_names,
        schedule_names,
    )
    from blur_es.analysis.comparisons import compare
    from blur_es.analysis.subject import resolve_subject

    optimizers = tuple(LEARNING_RATES)
    if options.optimizers is not None:
        optimizers = optimizer_names(options.optimizers)
    schedules, classifiers = SCHEDULES, tuple(CLASSIFIERS)
    if options.schedules is not None:
        schedules = schedule_names(options.schedules)
    if options.classifiers is not None:
        classifiers = classifier_names(options.classifiers)
    genome, config = resolve_subject(
        options.subject,
        chosen_task(options),
        experiment=options.experiment,
        settings=options.set,
        seed=options.seed,
        trust=options.trust,
    )
    if options.output:
        from blur_es.report.comparison import NUMBERS, write_comparisons
        from blur_es.report.folder import result_folder

        folder = result_folder(options.output, NUMBERS, genome.sha256, "a comparison")
    if (options.address or options.workers) and not options.local:
        print_message("starting on Ray; --local compares in this process")
    result = compare(
        genome,
        experiment=config,
        optimizers=optimizers,
        schedules=schedules,
        classifiers=classifiers,
        at=options.at,
        episodes=options.episodes,
        local=options.local or None,
        address=options.address,
        workers=options.workers,
        data_dir=options.data_dir,
        on_progress=show_progress(delay=_DELAY),
    )
    pictures = []
    if options.output:
        pictures = write_comparisons(result, config, folder)
    return print_results(result.to_json(), [result.table()], pictures, options)

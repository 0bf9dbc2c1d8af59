"""The `blur-es` command.

Exit codes: 0 done; 1 failed; 2 wrong input; 130 interrupted after a clean checkpoint.
"""

from __future__ import annotations

# Before NumPy and JAX: they read these once.
from blur_es.util.threads import use_one_thread

use_one_thread()

import argparse
import contextlib
import json
import logging
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blur_es.cli.parser import MAXIMUM_SEED, make_parser
from blur_es.errors import BlurError, InputError, nearest
from blur_es.util.callbacks import MessageCallback, ProgressCallback, ignore_message
from blur_es.util.text import count

if TYPE_CHECKING:
    from blur_es.analysis.axes import Axis
    from blur_es.config import ExperimentConfig
    from blur_es.genome import Genome

FAILED, WRONG_INPUT, INTERRUPTED = 1, 2, 130

_EXTRA = "pip install 'blur_es[train]'"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    # A user's own tasks and measures are imported from the current folder.
    sys.path.insert(0, str(Path.cwd()))
    options = make_parser().parse_args(arguments)
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        code = COMMANDS[options.command](options)
        sys.stdout.flush()
        return code
    except InputError as error:
        return _fail(str(error), WRONG_INPUT)
    except BlurError as error:
        return _fail(str(error), FAILED)
    except MemoryError:
        return _fail(
            "out of memory: lower meta.population, episode.batch_size, network.hidden or the "
            "number of workers",
            FAILED,
        )
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in (
            "ray",
            "jax",
            "evosax",
            "optax",
            "matplotlib",
            "PIL",
        ):
            return _fail(f"this command needs {error.name}: {_EXTRA}", FAILED)
        raise
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has gone; do not complain to them about it.
        sys.stderr.close()
        return FAILED
    except OSError as error:
        return _fail(f"{error.filename or 'system'}: {error.strerror or error}", FAILED)


def _fail(message: str, code: int) -> int:
    print(f"blur-es: {message}", file=sys.stderr)
    return code


def _print_message(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _train(options: argparse.Namespace) -> int:
    from blur_es.config import load_config
    from blur_es.experiment import TrainOptions, run_experiment
    from blur_es.meta.stop import StopReason
    from blur_es.run.interrupt import Interrupted
    from blur_es.run.store import RESULT

    config = load_config(options.file, options.set)
    train_options = TrainOptions(
        run_dir=options.run_dir,
        resume=options.resume,
        take_over=options.take_over,
        local=options.local,
        address=options.address,
        workers=options.workers,
        data_dir=options.data_dir,
        mixed_hardware=options.mixed_hardware,
        chaos=options.chaos,
        tensorboard=options.tensorboard,
        mlflow=options.mlflow,
        quiet=options.quiet,
    )
    on_message: MessageCallback = ignore_message if options.quiet else _print_message
    try:
        result = run_experiment(config, train_options, on_message)
    except Interrupted:
        return _fail("interrupted before the run began", INTERRUPTED)
    training, run = result.training, result.run
    if training.reason is StopReason.INTERRUPTED or training.genome is None:
        _print_message(StopReason.INTERRUPTED.value)
        _print_message(f"  blur-es train {options.file} --resume --run-dir {run.location}")
        return INTERRUPTED
    if options.json:
        print(json.dumps(run.read_json(RESULT) | {"run_dir": run.location}))
        return 0
    print(training.reason.value)
    for comparison in result.comparisons:
        print()
        print(comparison.table())
    print()
    print(f"genome  {run.genome}")
    print(f"report  {run.report}")
    print(f"SHA-256 {training.genome.sha256}")
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from blur_es.analysis.axes import parse_axis, task_labels
    from blur_es.experiment import load_subject_for

    axes = [parse_axis(text) for text in options.vary]
    genome, config = load_subject_for(
        options.subject, options.experiment, options.set, options.seed
    )
    on_ray = bool(axes or options.address or options.workers) and not options.local
    if axes or on_ray or options.seeds > 1 or options.output:
        return _sweep(options, genome, config, axes, on_ray)
    from blur_es.analysis.evaluate import evaluate_genome
    from blur_es.evaluator import LocalEvaluator

    episodes = options.episodes or config.meta.test_episodes
    with config.located():
        evaluator = LocalEvaluator(config.problem(training=False), options.data_dir)
        scores = evaluate_genome(genome, evaluator, episodes)
    names = task_labels(({}, config))
    if options.json:
        content = {
            "genome_sha256": genome.sha256,
            "seed": config.seed,
            "fitness_measure": config.fitness.measure,
            "tasks": [
                {"label": name, **score.to_json()}
                for name, score in zip(names, scores, strict=True)
            ],
        }
        print(json.dumps(content))
        return 0
    width = max(map(len, names))
    for name, score in zip(names, scores, strict=True):
        print(
            f"{name:{width}}  test accuracy {score.test_accuracy:.4f} ± "
            f"{score.test_accuracy_std:.4f}  {config.fitness.measure} {score.test_fitness:.4f}  "
            f"({count(score.episodes, 'episode')}"
            + (f", {score.diverged} diverged)" if score.diverged else ")")
        )
    return 0


def _sweep(
    options: argparse.Namespace,
    genome: Genome,
    config: ExperimentConfig,
    axes: Sequence[Axis],
    on_ray: bool,
) -> int:
    """The part of `evaluate` that is for more than one experiment or seed."""
    from blur_es.analysis.axes import grid
    from blur_es.analysis.sweep import sweep_genome
    from blur_es.fleet.jobs import Place
    from blur_es.run.progress import ProgressLine
    from blur_es.run.store import versions

    if config.seed + options.seeds > MAXIMUM_SEED + 1:
        raise InputError(
            f"--seeds: {options.seeds} from seed {config.seed} on, expected none above "
            f"{MAXIMUM_SEED}"
        )
    points = grid(config, axes)
    if options.output:
        from blur_es.report.folder import check_folder
        from blur_es.report.sweep import NUMBERS, write_sweep
        from blur_es.storage import open_storage

        folder = open_storage(options.output)
        check_folder(folder, NUMBERS, genome.sha256, "a sweep")
    if on_ray:
        _print_message("starting on Ray; --local does without")
    lines: list[ProgressLine] = []

    def show(activity: str, done: int, total: int | None) -> None:
        if not lines:
            lines.append(ProgressLine(total or 0))
        lines[0].update(done, activity)

    try:
        sweep = sweep_genome(
            genome,
            points,
            range(config.seed, config.seed + options.seeds),
            options.episodes or config.meta.test_episodes,
            Place(not on_ray, options.address, options.workers),
            options.data_dir,
            show,
        )
    finally:
        for line in lines:
            line.close()
    pictures = []
    if options.output:
        more = {"experiment": config.to_dict(), "axes": {axis.name: axis.values for axis in axes}}
        pictures = write_sweep(sweep, more | {"versions": versions()}, folder)
    return _print(sweep.to_json(), [sweep.table()], pictures, options)


def _compare(options: argparse.Namespace) -> int:
    from blur_es.analysis.axes import task_labels
    from blur_es.analysis.compare import LEARNING_RATES, optimizer_names
    from blur_es.analysis.comparisons import compare_on_ray, compare_on_tasks
    from blur_es.evaluator import LocalEvaluator
    from blur_es.experiment import load_subject_for
    from blur_es.fleet.jobs import Place
    from blur_es.run.store import versions

    optimizers = tuple(LEARNING_RATES)
    if options.optimizers is not None:
        optimizers = optimizer_names(options.optimizers)
    genome, config = load_subject_for(
        options.subject, options.experiment, options.set, options.seed
    )
    if options.output:
        from blur_es.report.comparison import NUMBERS, write_comparisons
        from blur_es.report.folder import check_folder
        from blur_es.storage import open_storage

        folder = open_storage(options.output)
        check_folder(folder, NUMBERS, genome.sha256, "a comparison")
    with config.located():
        evaluator = LocalEvaluator(config.problem(training=False), options.data_dir)
        common = (
            genome,
            evaluator,
            task_labels(({}, config)),
            options.episodes or config.meta.test_episodes,
            "numpy" if config.backend == "numpy" else "numba",
            optimizers,
        )
        if options.local or not (options.address or options.workers):
            comparisons = compare_on_tasks(*common, _progress(patience=3.0))
        else:
            _print_message("starting on Ray; --local does without")
            show = _progress(lambda done: f": {done} entries")
            place = Place(address=options.address, workers=options.workers)
            comparisons = compare_on_ray(*common, place, options.data_dir, show)
    about = {"genome_sha256": genome.sha256, "seed": config.seed}
    pictures = []
    if options.output:
        more = about | {"experiment": config.to_dict(), "versions": versions()}
        pictures = write_comparisons(comparisons, more, folder)
    content = about | {"comparisons": [comparison.to_json() for comparison in comparisons]}
    return _print(content, [comparison.table() for comparison in comparisons], pictures, options)


def _print(
    content: dict[str, Any],
    tables: Sequence[str],
    pictures: Sequence[str],
    options: argparse.Namespace,
) -> int:
    """Results as JSON if asked for, else as tables, and where their pictures are."""
    if options.json:
        print(json.dumps(content | {"pictures": pictures}))
        return 0
    print("\n\n".join(tables))
    if options.output:
        print()
        print(f"results {options.output}")
    for path in pictures:
        print(f"picture {path}")
    return 0


def _reproduce(options: argparse.Namespace) -> int:
    from blur_es.reproduce.results import table_text
    from blur_es.reproduce.runner import MissingDataError, ReproduceOptions, make_result
    from blur_es.reproduce.schema import find_results, load_result
    from blur_es.run.interrupt import Interrupted

    everything = options.name == "all"
    reproduce_options = ReproduceOptions(
        output=options.output,
        local=options.local,
        address=options.address,
        workers=options.workers,
        data_dir=options.data_dir,
        skip_missing=options.skip_missing or everything,
    )
    # All are read before any is begun: a slip in the last is found now.
    results = [load_result(path, options.quick) for path in find_results(options.name)]
    made, skipped = [], []
    with contextlib.ExitStack() as connection:
        for result in results:
            try:
                document, paths = make_result(result, reproduce_options, _print_message, connection)
            except MissingDataError as error:
                if not everything:
                    raise
                _print_message(str(error))
                skipped.append(result.name)
                continue
            except (Interrupted, KeyboardInterrupt):
                return _fail("interrupted; the same command goes on from here", INTERRUPTED)
            made.append({"name": result.name, "files": paths})
            if options.json:
                continue
            figure = f" (figure {document['figure']})" if document["figure"] else ""
            print(f"\n{result.name}: {document['title']}{figure}\n")
            print(table_text(document))
            print("\n" + "\n".join(paths), flush=True)
    if options.json:
        print(json.dumps({"results": made, "skipped": skipped}))
    elif skipped:
        print(f"\nnot run for lack of data: {', '.join(skipped)}")
    return 0


def _analyze(options: argparse.Namespace) -> int:
    from blur_es.experiment import analyze_subject

    analysis, pictures = analyze_subject(
        options.subject, options.output, options.steps, options.data_dir, _progress(patience=3.0)
    )
    if options.json:
        print(json.dumps(analysis.to_json() | {"pictures": pictures}))
        return 0
    print(analysis.summary())
    print()
    for path in pictures:
        print(f"picture {path}")
    return 0


def _report(options: argparse.Namespace) -> int:
    from blur_es.report.html import write_report
    from blur_es.run.store import open_run, write_or_stop

    run = open_run(options.run_dir)
    write_or_stop(write_report, run)
    print(json.dumps({"report": run.report}) if options.json else run.report)
    return 0


def _strategies(options: argparse.Namespace) -> int:
    from blur_es.meta.strategy import strategy_names

    return _list(strategy_names(), options.json)


def _tasks(options: argparse.Namespace) -> int:
    from blur_es.tasks import describe_tasks

    tasks = describe_tasks()
    if options.json:
        print(json.dumps([task._asdict() for task in tasks]))
        return 0
    return _list(
        {
            task.name: task.description
            + (f" (options: {', '.join(task.options)})" if task.options else "")
            for task in tasks
        },
        False,
    )


def _list(entries: dict[str, str], as_json: bool) -> int:
    if as_json:
        print(json.dumps([{"name": name, "description": text} for name, text in entries.items()]))
        return 0
    width = max(len(name) for name in entries)
    for name, text in entries.items():
        print(f"{name:{width}}  {text}")
    return 0


def _fetch(options: argparse.Namespace) -> int:
    from blur_es.tasks import data_directory
    from blur_es.tasks.fetch import fetch

    folder = data_directory(options.data_dir)
    show = _progress(lambda done: f"  {done / 1e6:.1f} MB")
    for path in fetch(options.name, folder, on_progress=show, mirror=options.mirror):
        print(path)
    return 0


def _progress(
    amount: Callable[[int], str] = lambda done: "", patience: float = 0.0
) -> ProgressCallback:
    """Shows a line for every name that it is called with, and how much of it is done.

    In the first seconds, `patience`, it keeps quiet: nobody needs a line about a moment.
    """
    from blur_es.run.progress import ProgressLine

    lines: dict[str, ProgressLine] = {}
    began = time.monotonic()

    def show(name: str, done: int, total: int | None) -> None:
        if time.monotonic() - began < patience:
            return
        if name not in lines:
            lines[name] = ProgressLine(total or 0)
        lines[name].update(done, name + amount(done))
        if total and done >= total:
            lines[name].close()

    return show


def _conformance(options: argparse.Namespace) -> int:
    import functools

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
        print(json.dumps(lines))
    return FAILED if failed else 0


def _doctor(options: argparse.Namespace) -> int:
    from blur_es.config import load_config
    from blur_es.fleet.doctor import examine_cluster

    problem = None
    if options.experiment is not None:
        problem = load_config(options.experiment, options.set).problem()
    examination = examine_cluster(
        options.address,
        options.nodes,
        options.wait,
        problem,
        options.run_dir,
        options.data_dir,
        [str(Path.cwd())],
        _progress(lambda done: f": {done}"),
    )
    print(json.dumps(examination.to_json()) if options.json else examination.text())
    return 0 if examination.healthy else FAILED


def _doctor_cluster(options: argparse.Namespace) -> int:
    from blur_es.fleet.clusterfile import check_cluster_file

    summary = check_cluster_file(options.file)
    if options.json:
        print(json.dumps(summary._asdict()))
        return 0
    print(f"{summary.file} is fine ({summary.provider})")
    for node in summary.nodes:
        print(f"  {node}")
    return 0


def _bench(options: argparse.Namespace) -> int:
    from blur_es.analysis.bench import run_bench, table

    result = run_bench(options.backend, options.config, options.population, options.data_dir)
    print(json.dumps(result) if options.json else table(result))
    return 0


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "train": _train,
    "evaluate": _evaluate,
    "compare": _compare,
    "reproduce": _reproduce,
    "analyze": _analyze,
    "report": _report,
    "strategies": _strategies,
    "tasks": _tasks,
    "fetch": _fetch,
    "conformance": _conformance,
    "doctor": _doctor,
    "doctor cluster": _doctor_cluster,
    "bench": _bench,
}


if __name__ == "__main__":
    sys.exit(main())

"""The `blur-es` command.

Exit codes: 0 done; 1 failed; 2 wrong input; 130 interrupted after a clean checkpoint.
"""

from __future__ import annotations

# Before NumPy and JAX: they read these once.
from blur_es.threads import use_one_thread

use_one_thread()

import argparse
import json
import logging
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blur_es.errors import BlurError, InputError, nearest

if TYPE_CHECKING:
    from blur_es.analysis.axes import Axis
    from blur_es.config import ExperimentConfig
    from blur_es.genome import Genome

FAILED, WRONG_INPUT, INTERRUPTED = 1, 2, 130

MAXIMUM_SEED = 2**32 - 1

_EXTRA = "pip install 'blur_es[train]'"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    # A user's own tasks and measures are imported from the current folder.
    sys.path.insert(0, str(Path.cwd()))
    options = _parser().parse_args(arguments)
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        code: int = options.run(options)
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


def _say(message: str) -> None:
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
    say = (lambda message: None) if options.quiet else _say
    try:
        result = run_experiment(config, train_options, say)
    except Interrupted:
        return _fail("interrupted before the run began", INTERRUPTED)
    training, run = result.training, result.run
    if training.reason is StopReason.INTERRUPTED or training.genome is None:
        _say(StopReason.INTERRUPTED.value)
        _say(f"  blur-es train {options.file} --resume --run-dir {run.location}")
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
    from blur_es.fleet.evaluator import LocalEvaluator

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
            f"({score.episodes} episodes"
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
    from blur_es.analysis.sweep import Place, sweep_genome
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
        _say("starting on Ray; --local does without")
    parts = 10_000
    line = ProgressLine(parts)

    def show(done: int, total: int, share: float) -> None:
        line.update(round(share * parts), f"{done}/{total} evaluations")

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
        line.close()
    pictures = []
    if options.output:
        more = {"experiment": config.to_dict(), "axes": {axis.name: axis.values for axis in axes}}
        pictures = write_sweep(sweep, more | {"versions": versions()}, folder)
    return _print(sweep.to_json(), [sweep.table()], pictures, options)


def _compare(options: argparse.Namespace) -> int:
    from blur_es.analysis.axes import task_labels
    from blur_es.analysis.compare import LEARNING_RATES, compare_on_tasks, optimizer_names
    from blur_es.experiment import load_subject_for
    from blur_es.fleet.evaluator import LocalEvaluator
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
        comparisons = compare_on_tasks(
            genome,
            evaluator,
            task_labels(({}, config)),
            options.episodes or config.meta.test_episodes,
            "numpy" if config.backend == "numpy" else "numba",
            optimizers,
            _progress(patience=3.0),
        )
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
    for result in results:
        try:
            document, paths = make_result(result, reproduce_options, _say)
        except MissingDataError as error:
            if not everything:
                raise
            _say(str(error))
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
        if document["missing"]:
            print(f"\nleft out for lack of data: {', '.join(document['missing'])}")
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
    for path in fetch(options.name, folder, progress=show, mirror=options.mirror):
        print(path)
    return 0


def _progress(amount: Callable[[int], str] = lambda done: "", patience: float = 0.0) -> Any:
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


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"found {number}, expected 1 or more")
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"found {text}, expected seconds, 0 or more")
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
    number = int(text)
    if not 0 <= number <= MAXIMUM_SEED:
        raise argparse.ArgumentTypeError(f"found {number}, expected 0 to {MAXIMUM_SEED}")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="blur-es",
        description="Meta-learn synapse update rules with evolution strategies.",
        epilog="Exit codes: 0 done; 1 failed; 2 wrong input; 130 interrupted after a clean "
        "checkpoint. `blur-es COMMAND --help` tells more.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, run: Any, summary: str, **more: Any) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=summary, description=summary, **more)
        sub.set_defaults(run=run)
        return sub

    def data_dir(sub: argparse.ArgumentParser) -> None:
        sub.add_argument(
            "--data-dir",
            metavar="DIR",
            help="folder of data sets (default: $BLUR_ES_DATA, else ~/.cache/blur_es)",
        )

    def overrides(sub: argparse.ArgumentParser) -> None:
        sub.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            help="override a value of the experiment, e.g. meta.population=80 (repeatable)",
        )

    def as_json(sub: argparse.ArgumentParser, what: str) -> None:
        sub.add_argument("--json", action="store_true", help=f"print {what} as JSON")

    def where(sub: argparse.ArgumentParser, cluster: str) -> None:
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
            help="number of Ray workers (default: one a core)",
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
        overrides(sub)
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
        _train,
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
    where(train, "start a local one")
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
        help="also log metrics and settings to this tracking server of MLflow, e.g. "
        "http://127.0.0.1:5000",
    )
    train.add_argument("--quiet", action="store_true", help="no progress")
    as_json(train, "the result")

    evaluate = command(
        "evaluate",
        _evaluate,
        "Measure a genome on fresh episodes of the test split, for one experiment or many.",
        epilog="Example: blur-es evaluate runs/digits-seed0 --vary hidden=16,64,64-64 "
        "--vary unroll=5,15,50 --seeds 3 --output sweep. An axis is a dotted key of the "
        "experiment or one of task, hidden, unroll, size, batch_size; its values are a list as "
        "in YAML, brackets left out or not. What varies is spread over Ray; the rest is done "
        "in this process.",
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
    where(evaluate, "start a local one if there is a --vary")
    output(evaluate, "all scores, a table and pictures")
    data_dir(evaluate)
    as_json(evaluate, "the scores")

    compare = command(
        "compare",
        _compare,
        "Hold a genome against tuned optimisers in the same test episodes, step by step.",
        epilog="Example: blur-es compare runs/digits-seed0 --optimizers sgd,momentum,adam "
        "--output comparison. Each optimiser trains the plain network and one with batch "
        "normalisation, with the best of 13 learning rates over four orders of magnitude, "
        "chosen on episodes that are not the test episodes.",
    )
    measured(compare)
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
        _reproduce,
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
        _analyze,
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

    report = command("report", _report, "Write report.html and its pictures for a run again.")
    report.add_argument("run_dir", metavar="RUN", help="the run folder, path or URL")
    as_json(report, "the report's path")

    as_json(command("strategies", _strategies, "List the evolution strategies."), "the list")
    as_json(command("tasks", _tasks, "List the tasks and their options."), "the list")

    fetch = command("fetch", _fetch, "Download a data set, with checksum; a broken one resumes.")
    fetch.add_argument("name", metavar="NAME", help="mnist, fashion_mnist, emnist or omniglot")
    data_dir(fetch)
    fetch.add_argument(
        "--mirror", metavar="URL", help="take the files from this folder instead: http(s), s3, ..."
    )

    conformance = command(
        "conformance",
        _conformance,
        "Replay golden trajectories of the authors' own code and compare.",
        epilog="Exit code 1 if a case fails. Tolerance: 1e-10 in float64, 1e-5 in float32, as "
        "largest difference over largest reference value.",
    )
    conformance.add_argument("folder", metavar="DIR", type=Path, help="folder of .npz cases")
    conformance.add_argument("--backend", metavar="NAME", help="one backend (default: all)")
    as_json(conformance, "the results")

    doctor = command(
        "doctor",
        _doctor,
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
    cluster.set_defaults(run=_doctor_cluster)
    cluster.add_argument("file", metavar="FILE", type=Path, help="such as cluster/local.yaml")
    as_json(cluster, "what was found")

    bench = command(
        "bench",
        _bench,
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


if __name__ == "__main__":
    sys.exit(main())

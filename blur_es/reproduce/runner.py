"""Running a result: trainings and measurements, in this process or on Ray, resumable.

On Ray, one task trains one genome from beginning to end in a single process, and measures it. A
result has tens of independent trainings. One core for each keeps all cores busy, whereas the
workers of a fleet wait for each other after every generation. The genomes are the same, bit for
bit.

Every training is a run folder, as made by `blur-es train`. A finished one is not run again, and
an interrupted one resumes from its last checkpoint.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from blur_es.config import Experiment
from blur_es.errors import InputError, RunError
from blur_es.fleet.connection import connected
from blur_es.fleet.jobs import run_on_ray
from blur_es.meta.initial import initial_genome, search_space
from blur_es.meta.method import make_method
from blur_es.report.folder import check_output
from blur_es.reproduce.jobs import MEASURED, BaselineJob, Job, Measure, TrainJob, measured
from blur_es.reproduce.results import (
    results_bytes,
    results_document,
    table_text,
    training_entry,
)
from blur_es.reproduce.schema import Result
from blur_es.run.folder import RunFolder
from blur_es.run.interrupt import InterruptGuard
from blur_es.run.retry import write_or_stop
from blur_es.storage import LocalStorage, Storage, open_storage
from blur_es.storage.names import CONFIG, LEASE, POINTER, RESULT
from blur_es.tasks import check_task_data
from blur_es.util.callbacks import MessageCallback, ignore_message

# Files of a job's folder that are written last, in this order: they mark it as begun or done.
LAST = {CONFIG: 1, POINTER: 2, RESULT: 3, MEASURED: 4}
RESULTS, TABLE, PICTURE = "results.json", "table.txt", "picture"

# How often a Ray task is repeated if its worker dies (a lost node, a preemption).
RETRIES = 3


class MissingDataError(InputError):
    """A result needs data sets that are missing; the message names them and how to get them."""


@dataclasses.dataclass(frozen=True)
class ReproduceOptions:
    """Where a result is run, and with which resources. No option changes the result.

    Attributes:
        output: path or URL of the folder of results, which gets a subfolder for each.
        local: whether to run in this process, without Ray.
        address: an existing Ray cluster; None starts a local one.
        workers: the largest number of jobs at a time, and the number of cores of a local
            cluster; None for one per core.
        data_dir: folder of data sets; None for the default one.
        skip_missing: whether to skip what needs a missing data set.
    """

    output: str = "runs/reproduce"
    local: bool = False
    address: str | None = None
    workers: int | None = None
    data_dir: str | None = None
    skip_missing: bool = False


def reproduce(
    result: Result,
    options: ReproduceOptions,
    on_message: MessageCallback = ignore_message,
    connection: contextlib.ExitStack | None = None,
) -> dict[str, Any]:
    """Run the missing jobs of a result, and return the content of its results file.

    After an error or interrupt, completed jobs are kept, and the same call continues.

    Args:
        result: the result.
        options: where to run and to write.
        on_message: called with progress messages.
        connection: keeps the connection to Ray open until it is closed, for several results. Ray
            must start before JAX is imported, because JAX's threads do not survive Ray's forks.

    Raises:
        InputError: data are missing, or a folder belongs to another experiment.
        RunError: the work could not be completed.
        Interrupted: the user interrupted it.
    """
    top = _folder(result, options)
    jobs, missing = _jobs(result, options)
    waiting = [job for job in jobs if not job.done(top)]
    if waiting:
        check_output(top)
    on_message(
        f"{result.name}: {len(jobs) - len(waiting)} of {len(jobs)} done, "
        f"{len(waiting)} to do in {top.location}"
    )
    if waiting:
        _run(waiting, top, options, on_message, connection)
    return _collect(result, jobs, missing, top)


def make_result(
    result: Result,
    options: ReproduceOptions,
    on_message: MessageCallback = ignore_message,
    connection: contextlib.ExitStack | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """Run the missing jobs of a result and write its files; return its content and their paths.

    The files are `results.json`, `table.txt`, and the picture, if it has one, as PNG and SVG, in
    the result's folder. Arguments and errors are those of `reproduce`.
    """
    document = reproduce(result, options, on_message, connection)
    folder = _folder(result, options)
    write_or_stop(folder.write, RESULTS, results_bytes(document))
    write_or_stop(folder.write, TABLE, (table_text(document) + "\n").encode())
    names = [RESULTS, TABLE]
    if result.config.picture is not None:
        from blur_es.reproduce.pictures import draw
        from blur_es.util.style import write_figure

        write_or_stop(write_figure, draw(document), folder, PICTURE)
        names += [f"{PICTURE}.png", f"{PICTURE}.svg"]
    return document, [folder.locate(name) for name in names]


def _folder(result: Result, options: ReproduceOptions) -> Storage:
    """Return the folder of a result."""
    return open_storage(options.output).folder(result.name)


def missing_data(result: Result, data_dir: str | None) -> dict[str, str]:
    """Return the missing data sets (or splits) that a result needs, each with an error message."""
    found: dict[str, str] = {}
    seen = set()
    for training in result.trainings:
        configs = [point.experiment(training.config) for point in result.points]
        for config in (training.config, *configs):
            for task in config.task_options:
                if (name := _data_set(task)) not in seen:
                    seen.add(name)
                    try:
                        check_task_data(task, data_dir)
                    except InputError as error:
                        found[name] = str(error)
    return found


def _data_set(task: Mapping[str, Any]) -> str:
    """Name a task's data set, with its split: one split may be present and another missing."""
    return f"{task['name']} {task['split']}" if "split" in task else str(task["name"])


def _jobs(result: Result, options: ReproduceOptions) -> tuple[list[Job], list[str]]:
    """Return the jobs that the available data allow, and the names of missing data sets."""
    lacking = missing_data(result, options.data_dir)
    if lacking and not options.skip_missing:
        raise MissingDataError(
            f"{result.command}: data sets are missing; --skip-missing skips what needs "
            "them:\n" + "\n".join(f"  {text}" for text in lacking.values())
        )

    def possible(config: Experiment) -> bool:
        return all(_data_set(task) not in lacking for task in config.tasks)

    evaluate = result.config.evaluate
    steps = None if evaluate.steps is None else tuple(evaluate.steps)
    jobs: list[Job] = []
    for training in result.trainings:
        points = tuple(p for p in result.points if possible(p.experiment(training.config)))
        if points and possible(training.config):
            picture = result.config.picture
            kind = "bars" if picture is None else picture.kind
            measure = Measure(points, evaluate.episodes, steps, kind)
            jobs.append(TrainJob(training, measure, options.data_dir))
    # Baselines do not depend on the training, so the first training's experiment serves for all.
    first = result.trainings[0].config
    for optimizer, rates in evaluate.baselines.items():
        for point in result.points:
            config = point.experiment(first)
            if possible(config):
                jobs.append(
                    BaselineJob(
                        *(optimizer, tuple(rates), point, config, evaluate.episodes),
                        *(steps or (config.episodes[0].unroll,), options.data_dir),
                    )
                )
    if not jobs:
        raise MissingDataError(
            f"{result.command}: nothing can be run without the missing data sets:\n"
            + "\n".join(f"  {text}" for text in lacking.values())
        )
    return jobs, sorted(lacking)


def _collect(
    result: Result, jobs: Sequence[Job], missing: list[str], top: Storage
) -> dict[str, Any]:
    """Return the content of the results file, from the folders of the completed jobs."""
    trainings, rows, baselines, origins = [], [], [], []
    seconds = {"training": 0.0, "measuring": 0.0}
    for job in jobs:
        found = measured(top, job)
        if found is None:
            where = top.locate(job.folder)
            raise RunError(f"{where}: {MEASURED} is missing; run the same command again")
        origins.append(found)
        seconds["measuring"] += found["seconds"]
        if isinstance(job, BaselineJob):
            baselines += found["rows"]
            continue
        run = RunFolder(top.locate(job.folder))
        content = run.read_json(RESULT)
        seconds["training"] += content["seconds"]
        trainings.append(training_entry(job.training, content, run.metrics.read()))
        rows += found["rows"]
    return results_document(result, trainings, rows, baselines, missing, seconds, origins)


def _run(
    jobs: Sequence[Job],
    top: Storage,
    options: ReproduceOptions,
    on_message: MessageCallback,
    connection: contextlib.ExitStack | None,
) -> None:
    guard = InterruptGuard()
    with guard.installed(), contextlib.ExitStack() as alone:
        if options.local:
            _check_methods(jobs, top, guard)
            for number, job in enumerate(jobs, start=1):
                guard.check()
                job.run(top, guard.interruptible)
                on_message(f"  {number}/{len(jobs)}  {job}  {_summary(top, job)}")
            return
        home = (connection or alone).enter_context(_cluster(options))
        _check_methods(jobs, top, guard)
        _run_on_ray(home, jobs, top, options.workers, guard, on_message)


def _check_methods(jobs: Sequence[Job], top: Storage, guard: InterruptGuard) -> None:
    """Raise `InputError` unless every training can begin.

    This finds a mistake in the last training before the first has run. It must come after the
    start of Ray, because strategies import JAX, whose threads do not survive Ray's forks.
    """
    seen: list[Any] = []
    for job in jobs:
        guard.check()
        if isinstance(job, TrainJob):
            config = job.training.config
            try:
                initial = initial_genome(config, RunFolder(top.locate(job.folder)))
                space = search_space(config, initial)
                # Trainings that differ in their seeds share a method, and building one compiles it.
                if (method := (config.meta, space.dimensions)) not in seen:
                    seen.append(method)
                    make_method(config, space, 0)
            except InputError as error:
                raise InputError(f"{job}: {error}") from error


def _run_on_ray(
    home: str,
    jobs: Sequence[Job],
    top: Storage,
    workers: int | None,
    guard: InterruptGuard,
    on_message: MessageCallback,
) -> None:
    path = str(Path.cwd())
    local = isinstance(top, LocalStorage)
    # A path is valid in every process on this machine, a URL on every machine.
    place = str(Path(top.location).resolve()) if local else top.location
    remote_jobs = [
        RemoteJob(job, place, home, path, _files(top, job.folder) if local else {}) for job in jobs
    ]
    done = 0
    results = run_on_ray(
        run_remote_job,
        remote_jobs,
        workers=workers,
        names=[str(job) for job in jobs],
        retries=RETRIES,
        # Checked between waits, because an exception raised inside Ray is replaced by another.
        check=guard.check,
    )
    with contextlib.closing(results):
        try:
            for index, files in results:
                job = jobs[index]
                # Files that mark a run as begun or done are written last.
                for name in sorted(files, key=lambda name: (LAST.get(name, 0), name)):
                    top.write(f"{job.folder}/{name}", files[name])
                done += 1
                on_message(f"  {done}/{len(jobs)}  {job}  {_summary(top, job)}")
        except RunError as error:
            raise RunError(
                f"{error}; completed jobs are kept, and the same command continues"
            ) from error


class RemoteJob(NamedTuple):
    """A job as the argument of a Ray task.

    Attributes:
        job: the job.
        top: the folder of the result, as an absolute path or a URL.
        home: id of the node that has the folder, if it is a path.
        import_path: folder from which the user's own tasks and measures are imported.
        files: content of the job's folder by relative path, so that another node can resume it.
            These files are small.
    """

    job: Job
    top: str
    home: str
    import_path: str
    files: dict[str, bytes]


def run_remote_job(remote_job: RemoteJob) -> dict[str, bytes]:
    """Run a job in a Ray task, in its own folder if this node can reach it.

    On a node that does not have the folder, the job runs in a temporary folder. Returns the
    files to write to the job's folder, by relative path; none if they are there already.
    """
    import ray

    job, top, home, path, files = remote_job
    if path not in sys.path:
        sys.path.append(path)
    storage = open_storage(top)
    at_home = ray.get_runtime_context().get_node_id() == home
    if at_home or not isinstance(storage, LocalStorage):
        job.run(storage)
        return {}
    with tempfile.TemporaryDirectory(prefix="blur_es-") as folder:
        own = open_storage(folder)
        for name, content in files.items():
            own.write(f"{job.folder}/{name}", content)
        job.run(own)
        return _files(own, job.folder)


def _files(top: Storage, folder: str) -> dict[str, bytes]:
    """Return the files in a local folder by relative path, without the lease."""
    inside = Path(top.location) / folder
    return {
        str(file.relative_to(inside)): file.read_bytes()
        for file in sorted(inside.rglob("*"))
        if file.is_file() and file.name != LEASE
    }


@contextlib.contextmanager
def _cluster(options: ReproduceOptions) -> Iterator[str]:
    """Connect to Ray; yield the id of this machine's node in the cluster, or an empty string."""
    import ray

    with connected(options.address, options.workers):
        # Through Ray's client this process is on no node of the cluster.
        remote = (options.address or "").startswith("ray://")
        yield "" if remote else ray.get_runtime_context().get_node_id()


def _summary(top: Storage, job: Job) -> str:
    """Summarise the measurements of a job in a few words."""
    rows = measured(top, job, "rows") or []
    accuracies = [row["accuracy"] for row in rows]
    if not accuracies:
        return ""
    if len(accuracies) == 1:
        return f"test accuracy {accuracies[0]:.3f}"
    return f"test accuracy {min(accuracies):.3f} to {max(accuracies):.3f}"

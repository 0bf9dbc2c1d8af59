"""Running a result: trainings and measurements on Ray, kept in folders, begun where they ended.

One Ray task trains one genome from beginning to end, inside one process, and measures it. A
result has tens of trainings, which need nothing of each other: cores that each have one of
their own never wait, whereas a fleet that shares one training meets after every generation. A
genome is the same, bit for bit, either way.

Each training is a run folder of its own, as `blur-es train` makes them; one that has ended is
not run again, and one that was interrupted goes on from its last checkpoint.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from blur_es.config import ExperimentConfig
from blur_es.errors import InputError, RunError
from blur_es.fleet.connection import connect
from blur_es.fleet.jobs import run_on_ray
from blur_es.meta.method import make_method
from blur_es.meta.trainer import initial_genome, search_space
from blur_es.report.folder import check_output
from blur_es.reproduce.jobs import MEASURED, BaselineJob, Job, Measure, TrainJob, measured
from blur_es.reproduce.results import (
    results_bytes,
    results_document,
    table_text,
    training_entry,
)
from blur_es.reproduce.schema import Result
from blur_es.run.checkpoint import POINTER
from blur_es.run.interrupt import InterruptGuard
from blur_es.run.lease import LEASE
from blur_es.run.store import CONFIG, RESULT, RunFolder, write_or_stop
from blur_es.storage import LocalStorage, Storage, open_storage
from blur_es.tasks import check_task_data
from blur_es.util.callbacks import MessageCallback, ignore_message

# Files of a job's folder that are written last, in this order.
LAST = {CONFIG: 1, POINTER: 2, RESULT: 3, MEASURED: 4}
RESULTS, TABLE, PICTURE = "results.json", "table.txt", "picture"

# A task whose worker dies (a lost node, a preemption) is run again so often.
RETRIES = 3


class MissingDataError(InputError):
    """A result needs data sets that are not there; says which, and how to get them."""


@dataclasses.dataclass(frozen=True)
class ReproduceOptions:
    """Where and on what a result is made; nothing here changes it.

    Attributes:
        output: path or URL of the folder of results; each has a folder of its own in it.
        local: in this process, without Ray.
        address: an existing Ray cluster; None starts a local one.
        workers: how many jobs run on Ray at a time at most, and how many cores a local cluster
            has; None for one a core.
        data_dir: folder of data sets.
        skip_missing: leave out what needs a data set that is not there.
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
    """Run what a result lacks; the content of its results file.

    With a `connection` Ray, once it is needed, stays until that is closed. So several results
    start it once: by the second JAX is here, whose threads do not survive the forks of a start.

    Raises `InputError` if data are missing or a folder is another experiment's, `RunError` if
    the work cannot go on, `Interrupted` if the user ended it. What has been done by then is
    kept, and the same call goes on.
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
    """Run what a result lacks and write its files; its content and where they are.

    They are `results.json`, `table.txt`, and the picture as PNG and SVG, in the result's folder.
    Arguments and errors are those of `reproduce`.
    """
    from blur_es.report.style import write_figure
    from blur_es.reproduce.pictures import draw

    document = reproduce(result, options, on_message, connection)
    folder = _folder(result, options)
    write_or_stop(folder.write, RESULTS, results_bytes(document))
    write_or_stop(folder.write, TABLE, (table_text(document) + "\n").encode())
    write_or_stop(write_figure, draw(document), folder, PICTURE)
    names = (RESULTS, TABLE, f"{PICTURE}.png", f"{PICTURE}.svg")
    return document, [folder.locate(name) for name in names]


def _folder(result: Result, options: ReproduceOptions) -> Storage:
    """Where a result and all that it takes is kept."""
    return open_storage(options.output).folder(result.name)


def missing_data(result: Result, data_dir: str | None) -> dict[str, str]:
    """Data sets, or splits of them, that a result needs and that are not there, and why."""
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
    """A task's data set: one split of it may be there and another not."""
    return f"{task['name']} {task['split']}" if "split" in task else str(task["name"])


def _jobs(result: Result, options: ReproduceOptions) -> tuple[list[Job], list[str]]:
    """What there is to do with the data that are there, and the names of those that are not."""
    lacking = missing_data(result, options.data_dir)
    if lacking and not options.skip_missing:
        raise MissingDataError(
            f"{result.command}: data sets are missing; --skip-missing leaves out what needs "
            "them:\n" + "\n".join(f"  {text}" for text in lacking.values())
        )

    def possible(config: ExperimentConfig) -> bool:
        return all(_data_set(task) not in lacking for task in config.tasks)

    evaluate = result.config.evaluate
    steps = None if evaluate.steps is None else tuple(evaluate.steps)
    jobs: list[Job] = []
    for training in result.trainings:
        points = tuple(p for p in result.points if possible(p.experiment(training.config)))
        if points and possible(training.config):
            measure = Measure(points, evaluate.episodes, steps, result.config.picture.kind)
            jobs.append(TrainJob(training, measure, options.data_dir))
    # Baselines learn no rule: whichever the training, they do the same at a point.
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
            f"{result.command}: nothing can be run without the data sets that are missing:\n"
            + "\n".join(f"  {text}" for text in lacking.values())
        )
    return jobs, sorted(lacking)


def _collect(
    result: Result, jobs: Sequence[Job], missing: list[str], top: Storage
) -> dict[str, Any]:
    """The results file's content, from the folders of the jobs, all of which are done."""
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
                on_message(f"  {number}/{len(jobs)}  {job}  {_told(top, job)}")
            return
        home = (connection or alone).enter_context(_cluster(options))
        _check_methods(jobs, top, guard)
        _run_on_ray(home, jobs, top, options.workers, guard, on_message)


def _check_methods(jobs: Sequence[Job], top: Storage, guard: InterruptGuard) -> None:
    """Whether every training can begin: a slip in the last is found before the first has run.

    Not sooner, since strategies bring JAX, whose threads do not survive the forks of a Ray that
    starts. Raises `InputError`.
    """
    seen: list[Any] = []
    for job in jobs:
        guard.check()
        if isinstance(job, TrainJob):
            config = job.training.config
            try:
                initial = initial_genome(config, RunFolder(top.locate(job.folder)))
                space = search_space(config, initial)
                # Seeds have it in common, and building one compiles it.
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
    # A path means the same to every process on this machine, a URL on every machine.
    place = str(Path(top.location).resolve()) if local else top.location
    errands = [
        Errand(job, place, home, path, _files(top, job.folder) if local else {}) for job in jobs
    ]
    done = 0
    results = run_on_ray(
        run_errand,
        errands,
        workers=workers,
        names=[str(job) for job in jobs],
        retries=RETRIES,
        # Not interruptible: an exception that is raised inside of Ray comes out as another.
        check=guard.check,
    )
    with contextlib.closing(results):
        try:
            for index, files in results:
                job = jobs[index]
                # What says that a run is there, or done, comes when all else is.
                for name in sorted(files, key=lambda name: (LAST.get(name, 0), name)):
                    top.write(f"{job.folder}/{name}", files[name])
                done += 1
                on_message(f"  {done}/{len(jobs)}  {job}  {_told(top, job)}")
        except RunError as error:
            raise RunError(
                f"{error}; what has been done is kept, and the same command goes on"
            ) from error


class Errand(NamedTuple):
    """A job as a Ray task is given it.

    Attributes:
        job: what is to be done.
        top: the folder of the result, as an absolute path or a URL.
        home: node id of the machine that a path is on.
        import_path: where a user's own tasks and measures are imported from.
        files: what the job's folder holds at home, by their paths inside it: with them it goes
            on elsewhere. They are small, and there are none before it has begun.
    """

    job: Job
    top: str
    home: str
    import_path: str
    files: dict[str, bytes]


def run_errand(errand: Errand) -> dict[str, bytes]:
    """What a Ray task does: a job, in its folder if that can be reached from this machine.

    On another machine than that of the folder it works in a folder of its own, and returns the
    files, by their paths inside the job's folder.
    """
    import ray

    job, top, home, path, files = errand
    if path not in sys.path:
        sys.path.insert(0, path)
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
    """What is in a folder on a disk, by the paths inside it; not who is at work there."""
    inside = Path(top.location) / folder
    return {
        str(file.relative_to(inside)): file.read_bytes()
        for file in sorted(inside.rglob("*"))
        if file.is_file() and file.name != LEASE
    }


@contextlib.contextmanager
def _cluster(options: ReproduceOptions) -> Iterator[str]:
    """Connected to Ray: the id of this machine's node in the cluster (empty if it has none)."""
    import ray

    connected_here = not ray.is_initialized()
    if connected_here:
        connect(options.address, options.workers)
    try:
        # Through Ray's client this process is on no node of the cluster.
        remote = (options.address or "").startswith("ray://")
        yield "" if remote else ray.get_runtime_context().get_node_id()
    finally:
        if connected_here:
            ray.shutdown()


def _told(top: Storage, job: Job) -> str:
    """A line's worth of what a job measured."""
    rows = measured(top, job, "rows") or []
    accuracies = [row["accuracy"] for row in rows]
    if not accuracies:
        return ""
    if len(accuracies) == 1:
        return f"test accuracy {accuracies[0]:.3f}"
    return f"test accuracy {min(accuracies):.3f} to {max(accuracies):.3f}"

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
import datetime
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from blur_es.analysis.bench import machine
from blur_es.config import ExperimentConfig
from blur_es.errors import BlurError, InputError, RunError
from blur_es.experiment import TrainOptions, run_experiment
from blur_es.files import sha256
from blur_es.fleet.connection import connect
from blur_es.genome import Genome
from blur_es.meta.method import make_method
from blur_es.meta.trainer import initial_genome, search_space
from blur_es.report.folder import check_output
from blur_es.reproduce.measure import measure_genome, measure_opponent
from blur_es.reproduce.results import (
    results_bytes,
    results_document,
    table_text,
    training_entry,
)
from blur_es.reproduce.schema import Point, Result, Training, slug
from blur_es.run.interrupt import Interrupted, InterruptGuard
from blur_es.run.store import RESULT, RunFolder, versions, write_or_stop
from blur_es.storage import LocalStorage, Storage, open_storage
from blur_es.tasks import check_task_data
from blur_es.threads import ONE_THREAD

Say = Callable[[str], None]

TRAININGS, OPPONENTS, MEASURED = "trainings", "opponents", "measured.json"
RESULTS, TABLE, PICTURE = "results.json", "table.txt", "picture"

# A task whose worker dies (a lost node, a preemption) is run again so often.
RETRIES = 3
WAIT_SECONDS = 1.0


class MissingDataError(InputError):
    """A result needs data sets that are not there; says which, and how to get them."""


@dataclasses.dataclass(frozen=True)
class ReproduceOptions:
    """Where and on what a result is made; nothing here changes it.

    Attributes:
        output: path or URL of the folder of results; each has a folder of its own in it.
        local: in this process, without Ray.
        address: an existing Ray cluster; None starts a local one.
        workers: cores of the local cluster; None for all.
        data_dir: folder of data sets.
        skip_missing: leave out what needs a data set that is not there.
    """

    output: str = "runs/reproduce"
    local: bool = False
    address: str | None = None
    workers: int | None = None
    data_dir: str | None = None
    skip_missing: bool = False


@dataclasses.dataclass(frozen=True)
class _Measure:
    """Points where a genome is measured, and how: plain data that a task carries."""

    points: tuple[Point, ...]
    episodes: int
    steps: tuple[int, ...] | None
    kind: str


@dataclasses.dataclass(frozen=True)
class _TrainJob:
    """A training and the measurements of its genome, in a run folder."""

    training: Training
    measure: _Measure
    data_dir: str | None

    @property
    def folder(self) -> str:
        return f"{TRAININGS}/{self.training.slug}"

    def __str__(self) -> str:
        return str(self.training)

    def done(self, top: Storage) -> bool:
        """Whether all of it is there, for this very experiment."""
        run = RunFolder(top.locate(self.folder))
        if run.holds_run:
            try:
                run.check(self.training.config.to_dict(), resume=True)
            except InputError as error:
                raise InputError(
                    f"{error}\nThe result was another one when this was made: name another "
                    "--output, or remove that folder"
                ) from error
        return self._trained(run) and self._key(run) == _measured(top, self, "key")

    def _trained(self, run: RunFolder) -> bool:
        """Whether the training has ended, and was this very one and not a shorter one."""
        if not run.storage.exists(RESULT):
            return False
        expected = sha256(self.training.config.to_yaml().encode())
        return run.read_json(RESULT).get("experiment_sha256") == expected

    def run(self, top: Storage) -> None:
        """Train, or go on, and measure. Raises what these raise; `Interrupted` if they were."""
        config, run = self.training.config, RunFolder(top.locate(self.folder))
        if not self._trained(run):
            options = TrainOptions(
                run_dir=run.location,
                resume=run.holds_run,
                local=True,
                data_dir=self.data_dir,
                quiet=True,
            )
            if run_experiment(config, options).training.genome is None:
                raise Interrupted
        began = time.monotonic()
        genome = Genome.load(run.genome)
        rows = [
            {
                "labels": {**self.training.labels, **point.labels},
                "seed": self.training.seed,
                **measure_genome(
                    genome,
                    point.experiment(config),
                    self.measure.episodes,
                    self.measure.steps,
                    self.measure.kind,
                    self.data_dir,
                ),
            }
            for point in self.measure.points
        ]
        seconds = time.monotonic() - began
        _keep(top, self, self._key(run), seconds, rows)

    def _key(self, run: RunFolder) -> str:
        """Digest of everything that the measurements depend on."""
        measure = self.measure
        return _digest(
            [run.read_json(RESULT)["genome_sha256"], self.training.labels],
            [
                [point.labels, point.experiment(self.training.config).to_dict()]
                for point in measure.points
            ],
            [measure.episodes, measure.steps, measure.kind],
        )


@dataclasses.dataclass(frozen=True)
class _OpponentJob:
    """An optimiser with all its learning rates, at one point."""

    optimizer: str
    rates: tuple[float, ...]
    point: Point
    config: ExperimentConfig
    episodes: int
    steps: tuple[int, ...]
    data_dir: str | None

    @property
    def folder(self) -> str:
        return f"{OPPONENTS}/{slug([self.optimizer, *self.point.labels.values()])}"

    def __str__(self) -> str:
        return ", ".join([self.optimizer, *self.point.labels.values()])

    def done(self, top: Storage) -> bool:
        """Whether it is there, for these very episodes and rates."""
        return _measured(top, self, "key") == self._key()

    def run(self, top: Storage) -> None:
        """Let it learn. Raises what that raises."""
        began = time.monotonic()
        rows = [
            {"labels": self.point.labels, **entry}
            for entry in measure_opponent(
                self.optimizer, self.rates, self.config, self.episodes, self.steps, self.data_dir
            )
        ]
        _keep(top, self, self._key(), time.monotonic() - began, rows)

    def _key(self) -> str:
        plain = [self.optimizer, self.rates, self.episodes, self.steps]
        return _digest(self.point.labels, self.config.to_dict(), plain)


_Job = _TrainJob | _OpponentJob


def reproduce(
    result: Result, options: ReproduceOptions, say: Say = lambda message: None
) -> dict[str, Any]:
    """Run what a result lacks; the content of its results file.

    Raises `InputError` if data are missing or a folder is another experiment's, `RunError` if
    the work cannot go on, `Interrupted` if the user ended it. What has been done by then is
    kept, and the same call goes on.
    """
    top = _folder(result, options)
    jobs, missing = _jobs(result, options)
    waiting = [job for job in jobs if not job.done(top)]
    if waiting:
        check_output(top)
    say(
        f"{result.name}: {len(jobs) - len(waiting)} of {len(jobs)} done, "
        f"{len(waiting)} to do in {top.location}"
    )
    if waiting:
        _run(waiting, top, options, say)
    return _collect(result, jobs, missing, top)


def make_result(
    result: Result, options: ReproduceOptions, say: Say = lambda message: None
) -> tuple[dict[str, Any], list[str]]:
    """Run what a result lacks and write its files; its content and where they are.

    They are `results.json`, `table.txt`, and the picture as PNG and SVG, in the result's folder.
    Raises what `reproduce` raises.
    """
    from blur_es.report.style import write_figure
    from blur_es.reproduce.pictures import draw

    document = reproduce(result, options, say)
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


def _jobs(result: Result, options: ReproduceOptions) -> tuple[list[_Job], list[str]]:
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
    jobs: list[_Job] = []
    for training in result.trainings:
        points = tuple(p for p in result.points if possible(p.experiment(training.config)))
        if points and possible(training.config):
            measure = _Measure(points, evaluate.episodes, steps, result.config.picture.kind)
            jobs.append(_TrainJob(training, measure, options.data_dir))
    # Opponents learn no rule: whichever the training, they do the same at a point.
    first = result.trainings[0].config
    for optimizer, rates in evaluate.opponents.items():
        for point in result.points:
            config = point.experiment(first)
            if possible(config):
                jobs.append(
                    _OpponentJob(
                        *(optimizer, tuple(rates), point, config, evaluate.episodes),
                        *(steps or (config.episode.unroll,), options.data_dir),
                    )
                )
    if not jobs:
        raise MissingDataError(
            f"{result.command}: nothing can be run without the data sets that are missing:\n"
            + "\n".join(f"  {text}" for text in lacking.values())
        )
    return jobs, sorted(lacking)


def _collect(
    result: Result, jobs: Sequence[_Job], missing: list[str], top: Storage
) -> dict[str, Any]:
    """The results file's content, from the folders of the jobs, all of which are done."""
    trainings, rows, opponents, origins = [], [], [], []
    seconds = {"training": 0.0, "measuring": 0.0}
    for job in jobs:
        measured = _measured(top, job)
        if measured is None:
            where = top.locate(job.folder)
            raise RunError(f"{where}: {MEASURED} is missing; run the same command again")
        origins.append(measured)
        seconds["measuring"] += measured["seconds"]
        if isinstance(job, _OpponentJob):
            opponents += measured["rows"]
            continue
        run = RunFolder(top.locate(job.folder))
        content = run.read_json(RESULT)
        seconds["training"] += content["seconds"]
        trainings.append(training_entry(job.training, content, run.metrics.read()))
        rows += measured["rows"]
    return results_document(result, trainings, rows, opponents, missing, seconds, origins)


def _run(jobs: Sequence[_Job], top: Storage, options: ReproduceOptions, say: Say) -> None:
    guard = InterruptGuard()
    with guard.installed():
        if options.local:
            _check_methods(jobs, top, guard)
            for number, job in enumerate(jobs, start=1):
                guard.check()
                job.run(top)
                say(f"  {number}/{len(jobs)}  {job}  {_told(top, job)}")
            return
        with _cluster(options) as (ray, home):
            _check_methods(jobs, top, guard)
            _run_on_ray(ray, home, jobs, top, guard, say)


def _check_methods(jobs: Sequence[_Job], top: Storage, guard: InterruptGuard) -> None:
    """Whether every training can begin: a slip in the last is found before the first has run.

    Not sooner, since strategies bring JAX, whose threads do not survive the forks of a Ray that
    starts. Raises `InputError`.
    """
    seen: list[Any] = []
    for job in jobs:
        guard.check()
        if isinstance(job, _TrainJob):
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
    ray: Any, home: str, jobs: Sequence[_Job], top: Storage, guard: InterruptGuard, say: Say
) -> None:
    environment = {**ONE_THREAD, "JAX_PLATFORMS": "cpu"}
    settings = {"num_cpus": 1, "max_retries": RETRIES, "runtime_env": {"env_vars": environment}}
    task = ray.remote(run_job)
    path = str(Path.cwd())
    # A path means the same to every process on this machine, a URL on every machine.
    place = str(Path(top.location).resolve()) if isinstance(top, LocalStorage) else top.location
    flying = {
        task.options(name=str(job), **settings).remote(job, place, home, path): job for job in jobs
    }
    done = 0
    while flying:
        # Not interruptible: an exception that is raised inside of Ray comes out as another.
        guard.check()
        ready, _ = ray.wait(list(flying), timeout=WAIT_SECONDS)
        for reference in ready:
            job = flying.pop(reference)
            for name, content in _finished(ray, reference, job).items():
                top.write(f"{job.folder}/{name}", content)
            done += 1
            say(f"  {done}/{len(jobs)}  {job}  {_told(top, job)}")


def _finished(ray: Any, reference: Any, job: _Job) -> dict[str, bytes]:
    """The files that a task sent; its own error, if it ended with one."""
    try:
        files: dict[str, bytes] = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, BlurError):
            raise type(error.cause)(f"{job}: {error.cause}") from error
        raise RunError(f"{job}: failed with {error}") from error
    except ray.exceptions.RayError as error:
        raise RunError(
            f"{job}: the process that ran it was lost {RETRIES + 1} times, the last time with: "
            f"{str(error).strip()}; what has been done is kept, and the same command goes on"
        ) from error
    return files


def run_job(job: _Job, top: str, home: str, path: str) -> dict[str, bytes]:
    """What a Ray task does: a job, in its folder if that can be reached from this machine.

    A folder on a disk is reached on its own machine alone (`home` is the node id of the one
    that asked). On another one it works in a folder of its own and returns the files, by
    their paths inside the job's folder; they are small.
    """
    import ray

    # A user's own tasks and measures are imported from the folder of the command.
    if path not in sys.path:
        sys.path.insert(0, path)
    storage = open_storage(top)
    at_home = ray.get_runtime_context().get_node_id() == home
    if at_home or not isinstance(storage, LocalStorage):
        job.run(storage)
        return {}
    with tempfile.TemporaryDirectory(prefix="blur_es-") as folder:
        job.run(open_storage(folder))
        inside = Path(folder) / job.folder
        return {
            str(file.relative_to(inside)): file.read_bytes()
            for file in sorted(inside.rglob("*"))
            if file.is_file()
        }


@contextlib.contextmanager
def _cluster(options: ReproduceOptions) -> Iterator[tuple[Any, str]]:
    """Ray, connected, and the id of this machine's node in the cluster (empty if it has none)."""
    import ray

    connected_here = not ray.is_initialized()
    if connected_here:
        connect(options.address, options.workers)
    try:
        # Through Ray's client this process is on no node of the cluster.
        remote = (options.address or "").startswith("ray://")
        yield ray, "" if remote else ray.get_runtime_context().get_node_id()
    finally:
        if connected_here:
            ray.shutdown()


def _keep(top: Storage, job: _Job, key: str, seconds: float, rows: list[dict[str, Any]]) -> None:
    """Write down what a job measured, what that depends on, and when, where and with what."""
    content = {
        "key": key,
        "seconds": seconds,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "versions": versions(),
        "rows": rows,
    }
    write_or_stop(top.write, f"{job.folder}/{MEASURED}", json.dumps(content).encode())


def _measured(top: Storage, job: _Job, key: str | None = None) -> Any:
    """What a job measured, or one entry of it; None if it is not there or is damaged."""
    try:
        content = json.loads(top.read(f"{job.folder}/{MEASURED}"))
    except (OSError, ValueError):
        return None
    return content if key is None else content.get(key)


def _told(top: Storage, job: _Job) -> str:
    """A line's worth of what a job measured."""
    rows = _measured(top, job, "rows") or []
    accuracies = [row["accuracy"] for row in rows]
    if not accuracies:
        return ""
    if len(accuracies) == 1:
        return f"test accuracy {accuracies[0]:.3f}"
    return f"test accuracy {min(accuracies):.3f} to {max(accuracies):.3f}"


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

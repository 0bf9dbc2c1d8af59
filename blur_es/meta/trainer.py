"""Meta-training: the loop of ask, evaluate, tell and checkpoint, from config to genome."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from blur_es.config import ExperimentConfig
from blur_es.errors import InputError, RunError, nearest
from blur_es.evaluator import EpisodeRange, Evaluator
from blur_es.fleet.failures import FatalGenomeError
from blur_es.genome import PRESETS, Genome, SearchSpace, adapt_genome
from blur_es.genomes import find_genome, genome_names
from blur_es.inner import DeviceBatchTooLargeError
from blur_es.keys import Phase, Stream, random_generator
from blur_es.meta.method import Method, Outcome, make_method
from blur_es.meta.selection import Archive, Selection, select
from blur_es.meta.stop import Progress, StopReason, stop_reason
from blur_es.run.checkpoint import Checkpoint
from blur_es.run.folder import RunFolder
from blur_es.run.interrupt import Interrupted, InterruptGuard
from blur_es.run.metrics import fitness_summary
from blur_es.run.names import GENOME, INITIAL, POINTER, RESULT
from blur_es.run.progress import ProgressLine
from blur_es.run.retry import RefusedError, write_or_stop
from blur_es.run.versions import versions
from blur_es.util.callbacks import MessageCallback, ignore_message

FATAL_GENOME = "fatal-genome.npz"


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingResult:
    """What a run ended with; `genome` is None if it was interrupted."""

    reason: StopReason
    progress: Progress
    genome: Genome | None = None
    selection: Selection | None = None


def initial_genome(config: ExperimentConfig, run: RunFolder | None = None) -> Genome:
    """The genome that an experiment starts from: a preset, a genome file, or one that ships.

    A loaded genome may belong to a slightly different rule: `adapt_genome` says how different.
    If the run folder has a copy of the genome, that copy is used: the original file may have
    changed since the run started.

    Raises `InputError` if there is no such genome, or if it was made for another rule.
    """
    if config.genome.init in PRESETS:
        generator = random_generator(config.seed, Stream.GENOME)
        return PRESETS[config.genome.init](config.rule, generator, config.layers)
    loaded = _load_initial(config.genome.init, run)
    try:
        return adapt_genome(loaded, config.rule)
    except InputError as error:
        raise InputError(f"genome.init: {config.genome.init}: {error}") from error


def _load_initial(init: str, run: RunFolder | None) -> Genome:
    """The genome of a file or of a name, or the copy of it in a run folder."""
    try:
        if run is not None and run.storage.exists(INITIAL):
            return Genome.read(run.storage, INITIAL)
        genome = find_genome(init)
    except OSError as error:
        raise InputError(
            f"genome.init: {error.filename}: cannot read it: {error.strerror or error}"
        ) from error
    except InputError as error:
        raise InputError(f"genome.init: {error}") from error
    if genome is None:
        known = [*PRESETS, *genome_names()]
        raise InputError(
            f"genome.init: {init!r} is no preset{nearest(init, known)}, no genome that ships "
            f"and no such file is there; expected one of {', '.join(dict.fromkeys(known))} or "
            "the path or URL of a genome file or run folder"
        )
    return genome


def search_space(config: ExperimentConfig, initial: Genome) -> SearchSpace:
    """The learned fields of an experiment's genome, around their initial values."""
    space = SearchSpace.create(
        initial.replace(config.genome.values), config.genome.learn, config.genome.scales
    )
    if config.meta.method == "gradient":
        # A descent moves the values themselves, unless the experiment scales them.
        given = [
            np.full(initial.fields[name].size, config.genome.scales.get(name, 1.0))
            for name in space.learned
        ]
        return dataclasses.replace(space, scale=np.concatenate(given))
    # Strategies begin with steps of about 1: how far that reaches is decided here.
    return dataclasses.replace(space, scale=config.meta.sigma * space.scale)


@dataclasses.dataclass
class Line:
    """One of the runs side by side: its method, and the best points that it has seen."""

    method: Method
    archive: Archive

    def arrays(self, number: int) -> dict[str, npt.NDArray[Any]]:
        """For a checkpoint."""
        state = {f"method{name}": array for name, array in self.method.state_arrays().items()}
        prefix = f"line{number}."
        return {prefix + name: array for name, array in {**self.archive.arrays(), **state}.items()}

    def restore(self, number: int, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """From a checkpoint. Raises `InputError` or `KeyError` if it is another's."""
        prefix = f"line{number}."
        own = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
        archive = Archive.from_arrays(own)
        if archive.points.shape != (len(archive.fitness), self.archive.points.shape[1]):
            raise InputError(
                f"the archive of best points has shape {archive.points.shape}, expected "
                f"({len(archive.fitness)}, {self.archive.points.shape[1]})"
            )
        self.archive = archive
        self.method.restore(
            {n.removeprefix("method"): a for n, a in own.items() if n.startswith("method")}
        )

    def copy(self, other: Line) -> None:
        """Take up the state of another line."""
        self.method.restore(other.method.state_arrays())


class Trainer:
    """Runs an experiment in a run folder, from its beginning or from its last checkpoint.

    What it computes is a pure function of the experiment and of the kind of processor: not
    of the evaluator's number of workers, of interruptions or of the time.

    Args:
        config: the experiment.
        run: its folder, which `RunFolder.begin` has accepted.
        evaluator: who evaluates.
        guard: how a user interrupts.
        on_message: where warnings and news go.
        quiet: no progress line.
        watch: told of every line of metrics.
        mixed_hardware: go on although the processor's arithmetic differs from that which
            the run was begun with; its result is then marked as not reproducible.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        run: RunFolder,
        evaluator: Evaluator,
        *,
        guard: InterruptGuard | None = None,
        on_message: MessageCallback = ignore_message,
        quiet: bool = True,
        watch: Callable[[Mapping[str, Any]], None] = lambda line: None,
        mixed_hardware: bool = False,
    ) -> None:
        self.config = config
        self.run = run
        self.evaluator = evaluator
        self._initial = initial_genome(config, run)
        self.space = search_space(config, self._initial)
        self.lines = [
            Line(make_method(config, self.space, line), Archive.empty(self.space.dimensions))
            for line in range(config.meta.runs)
        ]
        self.progress = Progress()
        self.reproducible = evaluator.reproducible
        self._experiment = config.identity_sha256
        self._digest: dict[str, str] = {}
        # Size of the device batch by the generation from which it holds; JSON keys are strings.
        self._device_batches: dict[str, int] = {}
        self._guard = guard or InterruptGuard()
        self._on_message = on_message
        self._quiet = quiet
        self._watch = watch
        self._mixed_hardware = mixed_hardware
        self._checkpoint: Checkpoint | None = None
        self._written = -1
        self._warned = False
        # Of this process alone: what the progress line tells of its fleet.
        self._lost_workers = 0
        self._repeated_chunks = 0

    def train(self) -> TrainingResult:
        """Train to the end, or to an interruption, and choose the genome.

        Raises `InputError` if the checkpoint is another's or of other hardware, `RunError`
        if the work cannot go on; the last checkpoint is whole in each case.
        """
        try:
            self._take_up()
            reason = self._generations()
            selection = self._select()
        except Interrupted:
            self._keep_checkpoint()
            return TrainingResult(StopReason.INTERRUPTED, self.progress)
        except FatalGenomeError as error:
            self._keep_checkpoint()
            raise self._fatal(error) from error
        except RefusedError:
            # It was tried for long enough.
            raise
        except Exception:
            # Whatever it is: what was computed until now should not be lost with it.
            with contextlib.suppress(RunError):
                self._keep_checkpoint()
            raise
        genome = dataclasses.replace(
            self.space.genome(selection.point),
            provenance=self._provenance(selection),
        )
        write_or_stop(self.run.metrics.finish)
        write_or_stop(self.run.storage.write, GENOME, genome.to_bytes())
        write_or_stop(self.run.write_json, RESULT, self.result(reason, genome, selection))
        return TrainingResult(reason, self.progress, genome, selection)

    def _fatal(self, error: FatalGenomeError) -> RunError:
        """Keep the genome that kills workers, and say what can be done about it."""
        genome = Genome.from_vector(self.config.rule, error.vector, self.config.layers)
        write_or_stop(self.run.storage.write, FATAL_GENOME, genome.to_bytes())
        kept = self.run.storage.locate(FATAL_GENOME)
        return RunError(
            f"{error}\nIts SHA-256 is {genome.sha256}; it is kept as {kept}, "
            "and the checkpoint before it is intact: --resume tries again. If it needs too much "
            "memory, lower episode.batch_size or give workers more; --set "
            "fleet.on_fatal_genome=diverged goes on without it, and the result is then marked as "
            "not reproducible"
        )

    def result(self, reason: StopReason, genome: Genome, selection: Selection) -> dict[str, Any]:
        """The content of `result.json`."""
        progress = self.progress
        self._note_reproducibility()
        return {
            "name": self.config.name,
            "seed": self.config.seed,
            "stopped": reason.value,
            "generations": progress.generation,
            # A run may be made longer: then this is of another experiment until it ends.
            "experiment_sha256": self.config.sha256,
            "genome_sha256": genome.sha256,
            "fitness": selection.fitness,
            "fitness_measure": self.config.fitness.measure,
            "validation_accuracy": selection.accuracy,
            "selected": selection.source,
            "evaluations": progress.evaluations,
            "seconds": progress.seconds,
            "evaluations_per_second": progress.evaluations / max(progress.seconds, 1e-9),
            "reproducible": self.reproducible,
            "pieces": self._device_batches,
            "versions": versions(),
        }

    def _take_up(self) -> None:
        """Restore the last checkpoint, or write the one before generation 1."""
        digest = {"evaluation": self.evaluator.digest, "strategy": strategy_digest()}
        checkpoint, warnings = self.run.checkpoints.latest(self._restore)
        for warning in warnings:
            self._on_message(f"warning: {warning}")
        if checkpoint is not None and warnings:
            self._on_message(f"warning: using the checkpoint of generation {checkpoint.generation}")
        if checkpoint is None:
            if self.run.metrics.read():
                raise InputError(
                    f"{self.run.location}: there are metrics of a run here but no checkpoints, "
                    "without which it cannot be continued; put them back (with "
                    f"{POINTER}) or choose another --run-dir"
                )
            self._digest = digest
            if self.evaluator.device_batch is not None:
                self._device_batches = {"1": self.evaluator.device_batch}
            if self.config.genome.init not in PRESETS:
                write_or_stop(self.run.storage.write, INITIAL, self._initial.to_bytes())
            self._checkpoint = self._make_checkpoint()
            self._keep_checkpoint()
            return
        if digest != self._digest:
            self._refuse_other_hardware(digest)
        if self._device_batches:
            self.evaluator.use_device_batch(
                self._device_batches[max(self._device_batches, key=int)]
            )
        write_or_stop(self.run.metrics.cut_after, checkpoint.generation)
        self._checkpoint, self._written = checkpoint, checkpoint.generation
        self._on_message(f"continuing after generation {checkpoint.generation}")

    def _restore(self, checkpoint: Checkpoint) -> None:
        """Take up a checkpoint's state; `InputError` if it is not one of this run."""
        facts = checkpoint.facts
        try:
            if facts["experiment"] != self._experiment:
                raise InputError("this checkpoint is another experiment's")
            progress = Progress(**facts["progress"])
            if progress.generation != checkpoint.generation:
                raise InputError("this checkpoint's progress is of another generation")
            reproducible, digest, device_batches = (
                bool(facts["reproducible"]),
                dict(facts["digest"]),
                {
                    str(int(since)): int(device_batch)
                    for since, device_batch in facts["pieces"].items()
                },
            )
            self._restore_lines(checkpoint)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"this checkpoint lacks what this run needs: {error!r}") from error
        self.progress = progress
        self.reproducible = self.evaluator.reproducible and reproducible
        self._digest, self._device_batches = digest, device_batches

    def _refuse_other_hardware(self, digest: dict[str, str]) -> None:
        different = ", ".join(name for name in digest if digest[name] != self._digest.get(name))
        if not self._mixed_hardware:
            raise InputError(
                f"{self.run.location}: this run was begun where arithmetic rounds differently (the "
                f"digest of a canonical computation differs: {different}), so the genome would "
                "not be the one that the first machine would have found. Continue on the same "
                "kind of processor with the same versions, or accept it with --mixed-hardware"
            )
        self.reproducible = False
        self._digest = digest

    def _generations(self) -> StopReason:
        meta = self.config.meta
        line = ProgressLine(meta.generations, self._quiet)
        with contextlib.closing(line):
            while (reason := stop_reason(self.progress, meta)) is None:
                try:
                    with self._guard.interruptible():
                        checkpoint, metrics = self._generation()
                except DeviceBatchTooLargeError as error:
                    self._halve_device_batch(error.device_batch)
                    continue
                # In this order, and where no signal comes between: a checkpoint has its metrics.
                write_or_stop(self.run.metrics.append, metrics)
                self._checkpoint = checkpoint
                self._watch(metrics)
                due = self.progress.generation % self.config.run.checkpoint_every == 0
                if due or stop_reason(self.progress, meta) is not None:
                    self._keep_checkpoint()
                line.update(self.progress.generation, self._progress_text(metrics))
        return reason

    def _generation(self) -> tuple[Checkpoint, dict[str, Any]]:
        """One generation: its checkpoint and its metrics."""
        began = time.perf_counter()
        generation = self.progress.generation + 1
        chosen = self._begin_stage(generation)
        outcomes = [self._advance(number, generation) for number in range(len(self.lines))]
        evaluated = sum(outcome.seconds for outcome in outcomes)
        evaluations = sum(outcome.evaluations for outcome in outcomes)
        summary = fitness_summary(
            np.concatenate([outcome.fitness for outcome in outcomes]),
            np.concatenate([outcome.accuracy for outcome in outcomes]),
        )
        progress = dataclasses.replace(
            self.progress,
            generation=generation,
            evaluations=self.progress.evaluations + evaluations,
        )
        if self.config.begins_stage(generation):
            progress.forget_stagnation()
        progress.note(summary["best"], summary["median"])
        ended = time.perf_counter()
        progress.seconds += ended - began
        self.progress = progress
        checkpoint = self._make_checkpoint()
        norms = [each.gradient_norm for each in outcomes if each.gradient_norm is not None]
        if norms and not all(norms) and not self._warned:
            self._warned = True
            self._on_message(
                f"warning: no gradient of generation {generation} is finite, so a run did not "
                "move; metrics show more of these as a gradient_norm of 0. Shorter unrolls at "
                "first (meta.curriculum) or a lower learning rate may help"
            )
        driver_seconds = ended - began - evaluated
        return checkpoint, {
            "generation": generation,
            "unroll": self.config.unroll(generation),
            "evaluations": progress.evaluations,
            **summary,
            "diverged": sum(outcome.diverged for outcome in outcomes),
            **({"gradient_norm": float(np.mean(norms))} if norms else {}),
            **({"synchronised_to": chosen} if chosen is not None else {}),
            "evaluations_per_second": evaluations / evaluated,
            "driver_seconds": driver_seconds,
            "seconds": ended - began,
            "workers": self.evaluator.workers,
            **self.evaluator.report(driver_seconds),
        }

    def _advance(self, number: int, generation: int) -> Outcome:
        """One generation of one line, on episodes that no other line sees."""
        line, replicas = self.lines[number], self.config.meta.replicas
        episodes = EpisodeRange(
            Phase.META_TRAINING,
            generation,
            replicas,
            number * replicas,
            self._unroll(generation),
            self._draw_tasks(generation, number),
        )
        outcome = line.method.advance(generation, self.space, self.evaluator, episodes)
        line.archive.add(outcome.points, outcome.fitness)
        return outcome

    def _unroll(self, generation: int) -> int | None:
        """The curriculum's; without one, tasks have their own."""
        return self.config.unroll(generation) if self.config.meta.curriculum else None

    def _draw_tasks(self, generation: int, number: int) -> tuple[int, ...] | None:
        """Which tasks a line faces in a generation; None for all."""
        drawn = self.config.tasks_drawn
        if drawn is None:
            return None
        generator = random_generator(self.config.seed, Stream.TASKS, generation, number)
        chosen = generator.choice(len(self.config.tasks), drawn, replace=False)
        return tuple(sorted(map(int, chosen)))

    def _begin_stage(self, generation: int) -> int | None:
        """Where the unroll grows, let all lines go on from the best; returns its number.

        They are held against each other on validation episodes of the new length. What was
        best at the old one is forgotten: fitness at another length is another fitness.
        """
        if not self.config.begins_stage(generation):
            return None
        for line in self.lines:
            line.archive = Archive.empty(self.space.dimensions)
        if len(self.lines) == 1:
            return None
        centers = np.stack([line.method.center for line in self.lines])
        evaluation = self.evaluator.evaluate(
            self.space.vectors(centers),
            EpisodeRange(
                Phase.VALIDATION,
                generation,
                self.config.meta.validation_episodes,
                unroll=self._unroll(generation),
            ),
        )
        best = int(np.argmax(evaluation.fitness[0].mean(axis=1)))
        for line in self.lines:
            if line is not self.lines[best]:
                line.copy(self.lines[best])
        return best

    def _halve_device_batch(self, device_batch: int) -> None:
        """Begin the generation in hand again with half as many evaluations at a time."""
        if device_batch < 2 or self._checkpoint is None:
            raise RunError(
                "a single life does not fit into the memory of the device: lower "
                "episode.batch_size, network.hidden or rule.states"
            )
        generation = self.progress.generation + 1
        self._on_message(
            f"warning: {device_batch} evaluations at a time do not fit the device; what follows "
            f"generation {generation - 1} is computed again with {device_batch // 2}"
        )
        self._restore_lines(self._checkpoint)
        self._device_batches[str(generation)] = device_batch // 2
        self.evaluator.use_device_batch(device_batch // 2)
        self._checkpoint = self._make_checkpoint()
        self._written = -1
        self._keep_checkpoint()

    def _restore_lines(self, checkpoint: Checkpoint) -> None:
        for number, line in enumerate(self.lines):
            line.restore(number, checkpoint.arrays)

    def _note_reproducibility(self) -> None:
        """What was ever left to chance stays in the result."""
        self.reproducible = self.reproducible and self.evaluator.reproducible

    def _make_checkpoint(self) -> Checkpoint:
        self._note_reproducibility()
        return Checkpoint(
            self.progress.generation,
            {
                "progress": dataclasses.asdict(self.progress),
                "reproducible": self.reproducible,
                "experiment": self._experiment,
                "digest": self._digest,
                "pieces": self._device_batches,
            },
            {
                name: array
                for number, line in enumerate(self.lines)
                for name, array in line.arrays(number).items()
            },
        )

    def _keep_checkpoint(self) -> None:
        """Write the checkpoint of the last whole generation, unless it is written."""
        if self._checkpoint is not None and self._checkpoint.generation > self._written:
            # Before the pointer: what is pointed at has its metrics.
            write_or_stop(self.run.metrics.flush)
            write_or_stop(self.run.checkpoints.write, self._checkpoint)
            self._written = self._checkpoint.generation

    def _select(self) -> Selection:
        while True:
            try:
                with self._guard.interruptible():
                    return self._select_once()
            except DeviceBatchTooLargeError as error:
                self._halve_device_batch(error.device_batch)

    def _select_once(self) -> Selection:
        episodes = self.config.meta.validation_episodes
        candidates = sum(1 + len(line.archive.points) for line in self.lines)
        lives = candidates * episodes * len(self.config.tasks)
        self._on_message(f"choosing among {candidates} genomes: {lives} lives of validation")
        return select(
            [line.method.center for line in self.lines],
            [line.archive for line in self.lines],
            self.space,
            self.evaluator,
            episodes,
        )

    def _provenance(self, selection: Selection) -> dict[str, Any]:
        """Where the genome is from: only what is the same on any machine of the kind."""
        self._note_reproducibility()
        before = {}
        if self.config.genome.init not in PRESETS:
            before = {"began_with": {"sha256": self._initial.sha256, **self._initial.provenance}}
        return before | {
            "experiment": self.config.identity(),
            "generations": self.progress.generation,
            "evaluations": self.progress.evaluations,
            "validation_fitness": selection.fitness,
            "validation_accuracy": selection.accuracy,
            "selected": selection.source,
            "reproducible": self.reproducible,
            "versions": versions()["packages"],
        }

    def _progress_text(self, metrics: dict[str, Any]) -> str:
        diverged = f"  diverged {metrics['diverged']}" if metrics["diverged"] else ""
        unroll = f"unroll {metrics['unroll']}  " if self.config.meta.curriculum else ""
        self._lost_workers += metrics.get("lost_workers", 0)
        self._repeated_chunks += metrics.get("repeated_chunks", 0)
        lost = f" ({self._lost_workers} lost)" if self._lost_workers else ""
        repeated = f"  {self._repeated_chunks} chunks repeated" if self._repeated_chunks else ""
        return (
            f"generation {metrics['generation']}/{self.config.meta.generations}  {unroll}"
            f"best {metrics['best']:.4f}  median {metrics['median']:.4f}  "
            f"accuracy {metrics['best_accuracy']:.3f}{diverged}  "
            f"{metrics['evaluations_per_second']:.0f} evaluations/s  "
            f"workers {metrics['workers']}{lost}{repeated}"
        )


def strategy_digest() -> str:
    """SHA-256 of a small eigendecomposition: what strategies use that rounds by machine."""
    import jax
    import jax.numpy as jnp

    matrix = jax.random.normal(jax.random.key(0), (48, 48))
    values, vectors = jnp.linalg.eigh(matrix @ matrix.T)
    content = np.asarray(values).tobytes() + np.asarray(vectors).tobytes()
    return hashlib.sha256(content).hexdigest()

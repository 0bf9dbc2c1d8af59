"""Meta-training: the loop of ask, evaluate, tell and checkpoint, from config to genome."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from blur_es.config import ExperimentConfig
from blur_es.episode import Phase, Stream, random_generator
from blur_es.errors import InputError
from blur_es.fleet.evaluator import EpisodeRange, Evaluator
from blur_es.genome import PRESETS, Genome, SearchSpace
from blur_es.meta.selection import Archive, Selection, select
from blur_es.meta.stop import Progress, StopReason, stop_reason
from blur_es.meta.strategy import Strategy
from blur_es.run.checkpoint import POINTER, Checkpoint
from blur_es.run.interrupt import Interrupted, InterruptGuard
from blur_es.run.metrics import fitness_summary
from blur_es.run.progress import ProgressLine
from blur_es.run.store import GENOME, RESULT, RunFolder, versions, write_or_stop

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingResult:
    """What a run ended with; `genome` is None if it was interrupted."""

    reason: StopReason
    progress: Progress
    genome: Genome | None = None
    selection: Selection | None = None


def search_space(config: ExperimentConfig) -> SearchSpace:
    """The learned fields of an experiment's genome, around their initial values."""
    layers = len(config.network.hidden) + 1
    if config.genome.init in PRESETS:
        generator = random_generator(config.seed, Stream.GENOME)
        initial = PRESETS[config.genome.init](config.rule, generator, layers)
    else:
        loaded = Genome.load(config.genome.init)
        if loaded.rule != config.rule:
            different = [
                name
                for name, value in loaded.rule.to_dict().items()
                if value != config.rule.to_dict()[name]
            ]
            raise InputError(
                f"genome.init: {config.genome.init} was made for another rule: it differs in "
                f"{', '.join(different)}"
            )
        initial = loaded
    space = SearchSpace.create(
        initial.replace(config.genome.values), config.genome.learn, config.genome.scales
    )
    # Strategies begin with steps of about 1: how far that reaches is decided here.
    return dataclasses.replace(space, scale=config.meta.sigma * space.scale)


class Trainer:
    """Runs an experiment in a run folder, from its beginning or from its last checkpoint.

    What it computes is a pure function of the experiment and of the kind of processor: not
    of the evaluator's number of workers, of interruptions or of the time.

    Args:
        config: the experiment.
        run: its folder, which `RunFolder.begin` has accepted.
        evaluator: who evaluates.
        guard: how a user interrupts.
        say: where warnings and news go.
        quiet: no progress line.
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
        say: Say = lambda message: None,
        quiet: bool = True,
        mixed_hardware: bool = False,
    ) -> None:
        self.config = config
        self.run = run
        self.evaluator = evaluator
        self.space = search_space(config)
        self.strategy = Strategy(
            config.meta.strategy,
            config.meta.population,
            self.space.dimensions,
            config.seed,
            config.meta.options,
        )
        self.progress = Progress()
        self.archive = Archive.empty(self.space.dimensions)
        self.reproducible = True
        self._digest: dict[str, str] = {}
        self._guard = guard or InterruptGuard()
        self._say = say
        self._quiet = quiet
        self._mixed_hardware = mixed_hardware
        self._checkpoint: Checkpoint | None = None
        self._written = -1

    def train(self) -> TrainingResult:
        """Train to the end, or to an interruption, and choose the genome.

        Raises `InputError` if the checkpoint is another's or of other hardware, `RunError`
        if the work cannot go on; the last checkpoint is whole in each case.
        """
        try:
            self._take_up()
            reason = self._generations()
            with self._guard.interruptible():
                selection = self._select()
        except Interrupted:
            self._keep_checkpoint()
            return TrainingResult(StopReason.INTERRUPTED, self.progress)
        genome = dataclasses.replace(
            self.space.genome(selection.point),
            provenance=self._provenance(selection),
        )
        write_or_stop(genome.save, self.run.path / GENOME)
        write_or_stop(self.run.write_json, RESULT, self.result(reason, genome, selection))
        return TrainingResult(reason, self.progress, genome, selection)

    def result(self, reason: StopReason, genome: Genome, selection: Selection) -> dict[str, Any]:
        """The content of `result.json`."""
        progress = self.progress
        return {
            "name": self.config.name,
            "seed": self.config.seed,
            "stopped": reason.value,
            "generations": progress.generation,
            "genome_sha256": genome.sha256,
            "fitness": selection.fitness,
            "fitness_measure": self.config.fitness.measure,
            "validation_accuracy": selection.accuracy,
            "selected": selection.source,
            "evaluations": progress.evaluations,
            "seconds": progress.seconds,
            "evaluations_per_second": progress.evaluations / max(progress.seconds, 1e-9),
            "reproducible": self.reproducible,
            "versions": versions(),
        }

    def _take_up(self) -> None:
        """Restore the last checkpoint, or write the one before generation 1."""
        digest = {"evaluation": self.evaluator.digest, "strategy": strategy_digest()}
        checkpoint, warnings = self.run.checkpoints.latest()
        for warning in warnings:
            self._say(f"warning: {warning}; using the one before")
        if checkpoint is None:
            if self.run.metrics.read():
                raise InputError(
                    f"{self.run.path}: there are metrics of a run here but no {POINTER}, without "
                    "which it cannot be continued; put it back or choose another --run-dir"
                )
            self._digest = digest
            self._checkpoint = self._make_checkpoint()
            self._keep_checkpoint()
            return
        try:
            facts = checkpoint.facts
            self.progress = Progress(**facts["progress"])
            self.reproducible = bool(facts["reproducible"])
            self._digest = dict(facts["digest"])
            self.archive = Archive.from_arrays(checkpoint.arrays)
            prefix = "strategy"
            self.strategy.restore(
                {
                    name.removeprefix(prefix): array
                    for name, array in checkpoint.arrays.items()
                    if name.startswith(prefix)
                }
            )
        except (KeyError, TypeError) as error:
            raise InputError(
                f"{self.run.path}: the last checkpoint lacks what this run needs: {error!r}"
            ) from error
        if digest != self._digest:
            self._refuse_other_hardware(digest)
        self.run.metrics.cut_after(checkpoint.generation)
        self._checkpoint, self._written = checkpoint, checkpoint.generation
        self._say(f"continuing after generation {checkpoint.generation}")

    def _refuse_other_hardware(self, digest: dict[str, str]) -> None:
        different = ", ".join(name for name in digest if digest[name] != self._digest.get(name))
        if not self._mixed_hardware:
            raise InputError(
                f"{self.run.path}: this run was begun where arithmetic rounds differently (the "
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
                with self._guard.interruptible():
                    metrics = self._generation()
                write_or_stop(self.run.metrics.append, metrics)
                due = self.progress.generation % self.config.run.checkpoint_every == 0
                if due or stop_reason(self.progress, meta) is not None:
                    self._keep_checkpoint()
                line.update(self.progress.generation, self._progress_text(metrics))
        return reason

    def _generation(self) -> dict[str, Any]:
        """One generation; leaves its checkpoint in `self._checkpoint` and returns metrics."""
        began = time.perf_counter()
        generation = self.progress.generation + 1
        points = self.strategy.ask(generation)
        vectors = self.space.vectors(points)
        asked = time.perf_counter()
        evaluation = self.evaluator.evaluate(
            vectors, EpisodeRange(Phase.META_TRAINING, generation, self.config.meta.replicas)
        )
        evaluated = time.perf_counter()
        fitness, accuracy = evaluation.fitness.mean(axis=2)
        self.strategy.tell(generation, points, fitness)
        self.archive.add(points, fitness)
        summary = fitness_summary(fitness, accuracy)
        progress = dataclasses.replace(
            self.progress,
            generation=generation,
            evaluations=self.progress.evaluations + evaluation.diverged.size,
        )
        progress.note(summary["best"], summary["median"])
        ended = time.perf_counter()
        progress.seconds += ended - began
        # Only now is the generation done: an interruption before this line undoes nothing.
        self.progress = progress
        self._checkpoint = self._make_checkpoint()
        return {
            "generation": generation,
            "evaluations": progress.evaluations,
            **summary,
            "diverged": int(evaluation.diverged.sum()),
            "evaluations_per_second": evaluation.diverged.size / (evaluated - asked),
            "head_seconds": (asked - began) + (ended - evaluated),
            "seconds": ended - began,
            "workers": self.evaluator.workers,
        }

    def _make_checkpoint(self) -> Checkpoint:
        return Checkpoint(
            self.progress.generation,
            {
                "progress": dataclasses.asdict(self.progress),
                "reproducible": self.reproducible,
                "digest": self._digest,
            },
            {
                **self.archive.arrays(),
                **{f"strategy{name}": a for name, a in self.strategy.state_arrays().items()},
            },
        )

    def _keep_checkpoint(self) -> None:
        """Write the checkpoint of the last whole generation, unless it is written."""
        if self._checkpoint is not None and self._checkpoint.generation > self._written:
            write_or_stop(self.run.checkpoints.write, self._checkpoint)
            self._written = self._checkpoint.generation

    def _select(self) -> Selection:
        return select(
            self.strategy.mean,
            self.archive,
            self.space,
            self.evaluator,
            self.config.meta.validation_episodes,
        )

    def _provenance(self, selection: Selection) -> dict[str, Any]:
        """Where the genome is from: only what is the same on any machine of the kind."""
        return {
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
        return (
            f"generation {metrics['generation']}/{self.config.meta.generations}  "
            f"best {metrics['best']:.4f}  median {metrics['median']:.4f}  "
            f"accuracy {metrics['best_accuracy']:.3f}{diverged}  "
            f"{metrics['evaluations_per_second']:.0f} evaluations/s  "
            f"workers {metrics['workers']}"
        )


def strategy_digest() -> str:
    """SHA-256 of a small eigendecomposition: what strategies use that rounds by machine."""
    import jax
    import jax.numpy as jnp

    matrix = jax.random.normal(jax.random.key(0), (48, 48))
    values, vectors = jnp.linalg.eigh(matrix @ matrix.T)
    content = np.asarray(values).tobytes() + np.asarray(vectors).tobytes()
    return hashlib.sha256(content).hexdigest()

"""Small experiments for the tests of the outer loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from blur_es.config import Experiment, load_config
from blur_es.errors import InputError
from blur_es.evaluator import EpisodeRange, Evaluator, LocalEvaluator, problem_of
from blur_es.inner import Evaluation
from blur_es.meta.results import TrainingResult
from blur_es.meta.trainer import Trainer
from blur_es.run.folder import RunFolder
from blur_es.run.interrupt import Interrupted, InterruptGuard
from blur_es.run.retry import RetryPolicy
from blur_es.util.arrays import FloatArray

SMALL = """\
name: small
seed: 3
rule: {states: 2, symmetric: true, normalize: both}
network: {hidden: [8]}
tasks: [{name: xor}, {name: two_moons}]
episode: {unroll: 4, batch_size: 16, query_batches: 2}
fitness: {measure: cross_entropy, temperature: 0.3}
meta: {population: 8, generations: 6, validation_episodes: 2, test_episodes: 2, compare: false}
"""


def write_small(folder: Path, text: str = SMALL) -> Path:
    """Write the small experiment to a file; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "small.yaml"
    path.write_text(text)
    return path


def small(folder: Path, *overrides: str) -> Experiment:
    """The small experiment with overrides, as for `--set`."""
    return load_config(write_small(folder), overrides)


class InterruptedEvaluator(LocalEvaluator):
    """Interrupts the run, as a signal would, in a given generation."""

    def __init__(self, config: Experiment, generation: int) -> None:
        super().__init__(problem_of(config))
        self.at = generation

    def evaluate(self, genomes: FloatArray, episodes: EpisodeRange) -> Evaluation:
        if episodes.generation == self.at:
            raise Interrupted
        return super().evaluate(genomes, episodes)


def train(config: Experiment, run_dir: str | Path, **options: Any) -> TrainingResult:
    """Begin or resume a run, in this process unless an evaluator is given."""
    guard = options.setdefault("guard", InterruptGuard())
    policy = RetryPolicy(guard, options.get("on_message", lambda message: None))
    run = RunFolder(run_dir, config.run.keep, policy)
    evaluator: Evaluator = options.pop("evaluator", None) or LocalEvaluator(problem_of(config))
    resume = options.pop("resume", False)
    with run.locked(resume=resume, take_over=options.pop("take_over", False)):
        run.check(config, resume=resume)
        trainer = Trainer(config, run, evaluator, **options)
        run.begin(config)
        return trainer.train()


def genome_hash(result: TrainingResult) -> str:
    """The SHA-256 of the learned genome; raises `InputError` if there is none."""
    if result.genome is None:
        raise InputError("this training was interrupted")
    return result.genome.sha256

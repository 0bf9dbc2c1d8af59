"""Meta-training with gradients and curricula, in one process and on a fleet."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blur_es.config import Experiment, FleetConfig
from blur_es.errors import InputError
from blur_es.evaluator import EpisodeRange, LocalEvaluator, largest_device_batch, problem_of
from blur_es.fleet.fleet import RayFleet
from blur_es.genome import Genome, random_genome
from blur_es.inner import DeviceBatchTooLargeError, Evaluation, GradientEvaluation
from blur_es.keys import Phase
from blur_es.meta.gradient import GradientDescent
from blur_es.meta.stop import StopReason
from blur_es.run.folder import RunFolder
from blur_es.run.interrupt import Interrupted
from blur_es.util.arrays import FloatArray
from tests.clusters import ray_warnings
from tests.experiments import genome_hash, small, train

pytestmark = ray_warnings

GRADIENT = (
    "meta.method=gradient",
    "meta.replicas=3",
    "meta.gradient.learning_rate=0.02",
    "meta.generations=5",
    "tasks=[{name: two_moons}]",
)
CURRICULUM = ("meta.curriculum={start: 2, step: 2, every: 3, stop: 4}", "meta.runs=2")


@pytest.mark.parametrize(
    "name",
    [
        "adam",
        "sgd",
        {"name": "lion", "b1": 0.8},
        [{"name": "clip", "max_delta": 1.0}, {"name": "adamw", "weight_decay": 1e-4}],
    ],
)
def test_an_optimiser_climbs_and_restores(name: Any) -> None:
    target = np.array([0.5, -0.3, 0.2])

    def ascend(descent: GradientDescent, steps: int) -> None:
        for _ in range(steps):
            point = descent.point
            descent.ascend(np.stack([target - point + noise for noise in (0.1, -0.1)]))

    descent = GradientDescent(name, 0.02, 10.0, 3)
    ascend(descent, 100)
    assert np.linalg.norm(descent.point - target) < 0.5 * np.linalg.norm(target)
    other = GradientDescent(name, 0.02, 10.0, 3)
    other.restore(descent.state_arrays())
    ascend(descent, 3)
    ascend(other, 3)
    np.testing.assert_array_equal(descent.point, other.point)


def test_gradients_are_clipped_and_infinite_ones_left_out() -> None:
    descent = GradientDescent("sgd", 1.0, 2.0, 2)
    norm = descent.ascend(np.array([[30.0, 40.0], [np.nan, 1.0], [np.inf, 0.0]]))
    assert norm == 50.0
    np.testing.assert_allclose(descent.point, [1.2, 1.6], rtol=1e-6)
    before = descent.point
    assert descent.ascend(np.full((2, 2), np.nan)) == 0.0
    np.testing.assert_array_equal(descent.point, before)


@pytest.mark.parametrize("size", [1e18, 1e25, 1e200])
def test_gradients_of_every_size_are_clipped(size: float) -> None:
    descent = GradientDescent("sgd", 1.0, 2.0, 2)
    descent.ascend(np.array([[size, 0.0]]))
    np.testing.assert_allclose(descent.point, [2.0, 0.0], rtol=1e-6)


def test_the_state_of_another_optimiser_is_refused() -> None:
    descent = GradientDescent("adam", 0.1, 1.0, 2)
    with pytest.raises(InputError, match=r"checkpoint: .* gradient descent expects float32 \(3,\)"):
        GradientDescent("adam", 0.1, 1.0, 3).restore(descent.state_arrays())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gradient")
    train(small(folder, *GRADIENT, *CURRICULUM), folder / "run")
    return folder / "run"


def hash_of(run: Path) -> str:
    return Genome.load(run / "genome.npz").sha256


def test_gradients_improve_the_fitness(tmp_path: Path) -> None:
    config = small(tmp_path, *GRADIENT, "meta.generations=60")
    train(config, tmp_path / "run")
    lines = RunFolder(tmp_path / "run").metrics.read()
    first, last = (np.mean([line["best"] for line in part]) for part in (lines[:10], lines[-10:]))
    assert last > first + 0.05
    assert all(line["gradient_norm"] > 0 for line in lines)
    # Three episodes of one task in each step.
    assert lines[-1]["evaluations"] == 60 * 3


def test_the_curriculum_is_followed(undisturbed: Path) -> None:
    lines = RunFolder(undisturbed).metrics.read()
    assert [line["unroll"] for line in lines] == [2, 2, 2, 4, 4]
    assert [line["generation"] for line in lines if "synchronised_to" in line] == [4]
    # Two runs on three episodes.
    assert lines[0]["evaluations"] == 6


class InterruptedEvaluator(LocalEvaluator):
    """Raises `Interrupted` in the second search run of a generation, as a signal would."""

    def __init__(self, config: Experiment, generation: int) -> None:
        super().__init__(problem_of(config))
        self.at = generation

    def gradients(
        self, genome: FloatArray, episodes: EpisodeRange, chosen: slice = slice(None)
    ) -> GradientEvaluation:
        training = episodes.phase is Phase.META_TRAINING
        if training and episodes.generation == self.at and episodes.first:
            raise Interrupted
        return super().gradients(genome, episodes, chosen)


# Before, in and after the generation in which the unroll and the center change.
@pytest.mark.parametrize(
    "generation",
    [pytest.param(2, marks=pytest.mark.slow), 4, pytest.param(5, marks=pytest.mark.slow)],
)
def test_interrupted_and_resumed_equals_undisturbed(
    tmp_path: Path, undisturbed: Path, generation: int
) -> None:
    config = small(tmp_path, *GRADIENT, *CURRICULUM)
    stopped = train(config, tmp_path / "run", evaluator=InterruptedEvaluator(config, generation))
    assert stopped.reason is StopReason.INTERRUPTED
    assert genome_hash(train(config, tmp_path / "run", resume=True)) == hash_of(undisturbed)


def test_a_curriculum_of_strategies_resumes_too(tmp_path: Path) -> None:
    config = small(tmp_path, *CURRICULUM, "meta.generations=5")
    whole = train(config, tmp_path / "whole")
    train(small(tmp_path, *CURRICULUM, "meta.generations=3"), tmp_path / "run")
    assert genome_hash(train(config, tmp_path / "run", resume=True)) == genome_hash(whole)
    lines = RunFolder(tmp_path / "whole").metrics.read()
    assert [line["unroll"] for line in lines] == [2, 2, 2, 4, 4]


def test_a_stage_begins_with_the_best_run(tmp_path: Path) -> None:
    """Both search runs continue from the second, which is better in the validation episodes."""

    class Favours(LocalEvaluator):
        def evaluate(self, genomes: FloatArray, episodes: EpisodeRange) -> Evaluation:
            found = super().evaluate(genomes, episodes)
            if episodes.phase is Phase.VALIDATION and episodes.generation:
                assert episodes.unroll == 4
                centers.append(genomes.copy())
                found.fitness[0, 1] += 100.0
            elif episodes.phase is Phase.META_TRAINING:
                seen.setdefault(episodes.generation, []).append(genomes.copy())
            return found

    centers: list[FloatArray] = []
    seen: dict[int, list[FloatArray]] = {}
    config = small(
        tmp_path,
        "meta.curriculum={start: 2, step: 2, every: 3, stop: 4}",
        "meta.runs=2",
        "meta.generations=4",
        "meta.strategy=snes",
    )
    train(config, tmp_path / "run", evaluator=Favours(problem_of(config)))
    assert [line.get("synchronised_to") for line in RunFolder(tmp_path / "run").metrics.read()] == [
        None,
        None,
        None,
        1,
    ]
    # Before, the search runs differ; their next populations are around the chosen center.
    assert not np.array_equal(seen[1][0], seen[1][1])
    for population in seen[4]:
        distance = np.linalg.norm(population.mean(axis=0) - centers[0], axis=1)
        assert distance[1] < distance[0]


class SmallDevice(LocalEvaluator):
    """A device whose memory holds two evaluations at a time; the first device batch has eight."""

    largest = 2

    def evaluate(self, genomes: FloatArray, episodes: EpisodeRange) -> Evaluation:
        device_batch = self.device_batch or 0
        if device_batch > self.largest and episodes.generation > 1:
            raise DeviceBatchTooLargeError(device_batch)
        return super().evaluate(genomes, episodes)


def test_a_device_batch_that_does_not_fit_is_halved_and_written_down(tmp_path: Path) -> None:
    config = small(tmp_path, "backend=jax", "jax.device_batch=8", "meta.generations=3")
    said: list[str] = []
    evaluator = SmallDevice(problem_of(config))
    whole = train(config, tmp_path / "whole", evaluator=evaluator, on_message=said.append)
    assert RunFolder(tmp_path / "whole").read_json("result.json")["device_batches"] == {
        "1": 8,
        "2": 2,
    }
    assert sum("is computed again" in message for message in said) == 2
    # A resumed run computes device batches of the size that was found.
    train(
        small(tmp_path, "backend=jax", "jax.device_batch=8", "meta.generations=2"),
        tmp_path / "run",
        evaluator=SmallDevice(problem_of(config)),
    )
    resumed = LocalEvaluator(problem_of(config))
    result = train(config, tmp_path / "run", evaluator=resumed, resume=True)
    assert resumed.device_batch == 2
    assert genome_hash(result) == genome_hash(whole)


class ShrinkingDevice(LocalEvaluator):
    """A device that loses memory in generations 3 and 12, and before the end."""

    def evaluate(self, genomes: FloatArray, episodes: EpisodeRange) -> Evaluation:
        generation = episodes.generation if episodes.phase is Phase.META_TRAINING else 99
        largest = 8 if generation < 3 else 4 if generation < 12 else 2 if generation < 99 else 1
        if (self.device_batch or 0) > largest:
            raise DeviceBatchTooLargeError(self.device_batch or 0)
        return super().evaluate(genomes, episodes)


@pytest.mark.slow
def test_the_last_of_several_device_batches_is_resumed(tmp_path: Path) -> None:
    overrides = ("backend=jax", "jax.device_batch=8", "tasks=[{name: xor}]", "meta.population=4")
    config = small(tmp_path, *overrides, "meta.generations=14")
    whole = train(config, tmp_path / "whole", evaluator=ShrinkingDevice(problem_of(config)))
    # JSON sorts the generations as text, so the last generation is not the last key.
    found = RunFolder(tmp_path / "whole").read_json("result.json")["device_batches"]
    assert {int(generation): device_batch for generation, device_batch in found.items()} == {
        1: 8,
        3: 4,
        12: 2,
        15: 1,
    }
    train(
        small(tmp_path, *overrides, "meta.generations=13"),
        tmp_path / "run",
        evaluator=InterruptedAtEnd(problem_of(config)),
    )
    resumed = ShrinkingDevice(problem_of(config))
    assert genome_hash(train(config, tmp_path / "run", evaluator=resumed, resume=True)) == (
        genome_hash(whole)
    )


class InterruptedAtEnd(ShrinkingDevice):
    """Interrupts the run when the genome is selected."""

    def evaluate(self, genomes: FloatArray, episodes: EpisodeRange) -> Evaluation:
        if episodes.phase is Phase.VALIDATION:
            raise Interrupted
        return super().evaluate(genomes, episodes)


def test_device_batches_leave_work_for_several_devices() -> None:
    found = [largest_device_batch(count) for count in (1, 64, 80, 1024, 10_000)]
    assert found == [8, 8, 16, 128, 2048]


def test_a_device_too_small_for_one_evaluation_ends_the_run(tmp_path: Path) -> None:
    from blur_es.errors import RunError

    config = small(tmp_path, "backend=jax", "jax.device_batch=4")
    evaluator = SmallDevice(problem_of(config))
    evaluator.largest = 0
    with pytest.raises(RunError, match="a single evaluation does not fit"):
        train(config, tmp_path / "run", evaluator=evaluator)


# On a fleet


@pytest.mark.parametrize(
    ("device_batch", "settings"),
    [
        pytest.param(1, CURRICULUM, marks=pytest.mark.slow),
        pytest.param(2, CURRICULUM, marks=pytest.mark.slow),
        (2, ("meta.generations=2",)),
    ],
)
def test_gradients_do_not_depend_on_the_workers(
    tmp_path: Path, ray_address: str, device_batch: int, settings: tuple[str, ...]
) -> None:
    """Three replicas for two workers: results do not depend on how the fleet divides them."""
    config = small(tmp_path, *GRADIENT, *settings, f"jax.device_batch={device_batch}")
    alone = genome_hash(train(config, tmp_path / "alone"))
    fleet = RayFleet(problem_of(config), FleetConfig(workers=2), address=ray_address)
    try:
        assert fleet.backends == ("jax",)
        spread = train(config, tmp_path / "run", evaluator=fleet)
    finally:
        fleet.close()
    assert genome_hash(spread) == alone


@pytest.mark.slow
def test_gradients_in_episodes_of_several_lengths_do_not_depend_on_the_workers(
    tmp_path: Path, ray_address: str
) -> None:
    tasks = "tasks=[{name: xor}, {name: two_moons, episode: {unroll: 7, batch_size: 8}}]"
    config = small(tmp_path, *GRADIENT, tasks, "meta.tasks_per_generation=1")
    alone = train(config, tmp_path / "alone")
    fleet = RayFleet(problem_of(config), FleetConfig(workers=2), address=ray_address)
    try:
        spread = train(config, tmp_path / "spread", evaluator=fleet)
    finally:
        fleet.close()
    assert genome_hash(spread) == genome_hash(alone)


def test_a_split_gives_each_backend_its_share_and_waits_for_it(
    tmp_path: Path, gpu_ray_address: str
) -> None:
    config = small(tmp_path, "fleet.split={jax: 1, numba: 3}")
    population = np.stack(
        [random_genome(config.rule, np.random.default_rng(i)).vector for i in range(12)]
    )
    episodes = EpisodeRange(Phase.META_TRAINING, 1, 2)
    by_backend = {
        backend: LocalEvaluator(problem_of(small(tmp_path, f"backend={backend}"))).evaluate(
            population, episodes
        )
        for backend in ("jax", "numba")
    }
    assert not np.array_equal(by_backend["jax"].fitness, by_backend["numba"].fitness)
    fleet = RayFleet(problem_of(config), config.fleet, address=gpu_ray_address)
    try:
        assert fleet.reproducible
        for _ in range(2):
            found = fleet.evaluate(population, episodes).fitness
            np.testing.assert_array_equal(found[:, :3], by_backend["jax"].fitness[:, :3])
            np.testing.assert_array_equal(found[:, 3:], by_backend["numba"].fitness[:, 3:])
        # A backend that has lost its workers gets its share when it has one again.
        for worker in list(fleet.pool.serving.values()):
            if worker.kind.backend == "jax":
                os.kill(worker.process, signal.SIGKILL)
        np.testing.assert_array_equal(fleet.evaluate(population, episodes).fitness, found)
    finally:
        fleet.close()
    assert fleet.telemetry.lost_workers == 1


# The fleet says that it is not reproducible, as with a genome that is left out.
@pytest.mark.slow
def test_split_any_is_not_reproducible(tmp_path: Path, gpu_ray_address: str) -> None:
    config = small(tmp_path, "fleet.split=any", "meta.generations=2")
    fleet = RayFleet(problem_of(config), FleetConfig(split="any"), address=gpu_ray_address)
    try:
        train(config, tmp_path / "run", evaluator=fleet)
    finally:
        fleet.close()
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["reproducible"] is False


def test_auto_is_numba_where_jax_finds_no_gpu(
    tmp_path: Path, gpu_ray_address: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The cluster says that it has a GPU, but JAX is installed without CUDA."""
    fleet = RayFleet(problem_of(small(tmp_path)), address=gpu_ray_address)
    try:
        assert fleet.backends == ("numba",)
        assert fleet.workers >= 1
    finally:
        fleet.close()
    assert "install JAX with CUDA there" in caplog.text
    assert "Numba workers on the cores are used instead" in caplog.text


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("meta.method=gradient", "backend=numba"), "numba has no gradients"),
        (("meta.method=gradient", "fitness.measure=accuracy"), "'accuracy' has no gradient"),
        (("meta.method=gradient", "fleet.split=any"), "uses JAX workers only"),
        (("fleet.split=any", "backend=jax"), "expected backend: auto"),
        (("fleet.split={jax: 1, numba: 1}", "fleet.workers=2"), "fleet.workers"),
        (
            ("fleet.autoscale={most: 2, gpus: true}", "backend=numba"),
            "fleet.autoscale.gpus: only JAX workers use GPUs",
        ),
        (("fleet.split={jax: 1}",), "fleet.split.numba: this key is missing"),
        (("fleet.split={jax: 1, numba: 1, cuda: 1}",), "fleet.split.cuda: unknown key"),
        (("fleet.split={jax: 9, numba: 0.1}",), "of a population of 8"),
        (
            ("meta.curriculum={start: 9, step: 1, every: 2}",),
            "meta.curriculum.start: the longest unroll .4. is shorter",
        ),
        (("meta.curriculum={start: 1, step: 1, every: 2, stop: 1000001}",), "curriculum.stop: fo"),
        (("meta.curriculum=5",), "meta.curriculum: found 5, expected keys and values"),
        (("meta.curriculum={start: 9, step: 1, evry: 2}",), "did you mean 'every'"),
        (("meta.gradient.optimizer=3",), "meta.gradient.optimizer: found 3"),
        (("jax.precision=float16",), "jax.precision"),
        (("jax.device_batch=0",), "jax.device_batch"),
    ],
)
def test_impossible_combinations_are_refused(
    tmp_path: Path, overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        small(tmp_path, *overrides)

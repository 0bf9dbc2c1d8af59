"""Meta-training is a pure function of the experiment, even if it is interrupted or damaged."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from blur_es.analysis.subject import load_subject
from blur_es.config import Experiment, load_config
from blur_es.errors import InputError, RunError
from blur_es.evaluator import EpisodeRange, LocalEvaluator, problem_of
from blur_es.genome import Genome, backprop_genome, widen_genome
from blur_es.genomes import load_genome
from blur_es.inner import Evaluation
from blur_es.keys import Phase
from blur_es.meta.initial import initial_genome
from blur_es.meta.selection import FITTEST, LATEST, Archive
from blur_es.meta.stop import StopReason
from blur_es.report.html import write_report
from blur_es.run.folder import RunFolder
from blur_es.run.interrupt import Interrupted, InterruptGuard
from blur_es.util.arrays import FloatArray
from tests.experiments import InterruptedEvaluator, genome_hash, small, train


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    train(small(folder), folder / "run")
    return folder / "run"


def hash_of(run: Path) -> str:
    return Genome.load(run / "genome.npz").sha256


def test_a_run_folder_has_metrics_genome_and_result(undisturbed: Path) -> None:
    run = RunFolder(undisturbed)
    lines = run.metrics.read()
    assert [line["generation"] for line in lines] == [1, 2, 3, 4, 5, 6]
    # Eight genomes on one episode of each of two tasks.
    assert [line["evaluations"] for line in lines] == [16, 32, 48, 64, 80, 96]
    for line in lines:
        assert line["q10"] <= line["q25"] <= line["median"] <= line["q75"] <= line["q90"]
        assert line["q90"] <= line["best"]
        assert line["driver_seconds"] <= line["seconds"]
    result = run.read_json("result.json")
    assert result["stopped"] == StopReason.GENERATIONS.value
    assert result["genome_sha256"] == hash_of(undisturbed)
    assert result["evaluations"] == 96
    assert result["reproducible"] is True
    assert load_config(undisturbed / "config.yaml").name == "small"
    assert "numpy" in run.read_json("versions.json")["packages"]


def nan(predictions: FloatArray, labels: FloatArray) -> float:
    return float("nan")


def test_a_fitness_that_says_nothing_is_warned_of_once_and_reported(tmp_path: Path) -> None:
    messages: list[str] = []
    config = small(tmp_path, f"fitness.measure={__name__}:nan", "meta.generations=3")
    train(config, tmp_path / "run", on_message=messages.append)
    found = [message for message in messages if "same fitness (-20)" in message]
    assert len(found) == 1
    assert f"fitness.measure ({__name__}:nan) may return NaN" in found[0]
    lines = RunFolder(tmp_path / "run").metrics.read()
    assert [line["equal_fitness"] for line in lines] == [True] * 3
    write_report(RunFolder(tmp_path / "run"))
    report = (tmp_path / "run" / "report.html").read_text()
    assert "In 3 generations of 3, all genomes had the same fitness" in report


def test_a_run_whose_search_overflows_ends_with_a_genome_of_finite_values(tmp_path: Path) -> None:
    config = small(tmp_path, "meta.sigma=1e307", "meta.generations=3")
    result = train(config, tmp_path / "run")
    assert result.genome is not None
    assert Genome.load(tmp_path / "run" / "genome.npz").sha256 == result.genome.sha256
    write_report(RunFolder(tmp_path / "run"))


def test_a_genome_of_huge_values_is_reported(tmp_path: Path) -> None:
    config = small(tmp_path, "genome.values={synapse.update: 1e308}", "meta.generations=2")
    train(config, tmp_path / "run")
    write_report(RunFolder(tmp_path / "run"))
    assert (tmp_path / "run" / "report.html").exists()


class MovingEvaluator(LocalEvaluator):
    """Renames or deletes the run folder in the third generation."""

    def __init__(self, config: Experiment, run: Path, target: Path | None) -> None:
        super().__init__(problem_of(config))
        self.run, self.target = run, target

    def evaluate(self, genomes: FloatArray, episodes: EpisodeRange) -> Evaluation:
        if episodes.generation == 3 and self.run.exists():
            if self.target is None:
                shutil.rmtree(self.run)
            else:
                self.run.rename(self.target)
        return super().evaluate(genomes, episodes)


@pytest.mark.parametrize("renamed", [True, False])
def test_a_run_folder_that_is_gone_in_mid_run_stops_the_run(
    tmp_path: Path, undisturbed: Path, renamed: bool
) -> None:
    config, run, target = small(tmp_path), tmp_path / "run", tmp_path / "renamed"
    evaluator = MovingEvaluator(config, run, target if renamed else None)
    with pytest.raises(RunError, match="was deleted or renamed while the run was using it"):
        train(config, run, evaluator=evaluator)
    assert not run.exists()
    if renamed:
        assert genome_hash(train(config, target, resume=True)) == hash_of(undisturbed)


def test_the_genome_carries_where_it_is_from(undisturbed: Path) -> None:
    genome = Genome.load(undisturbed / "genome.npz")
    assert genome.provenance["experiment"]["seed"] == 3
    assert genome.provenance["generations"] == 6
    assert genome.provenance["experiment"]["fleet"] == {"split": None}
    assert genome.spec.symmetric


def test_the_same_experiment_gives_the_same_file(tmp_path: Path, undisturbed: Path) -> None:
    train(small(tmp_path), tmp_path / "run")
    assert (tmp_path / "run/genome.npz").read_bytes() == (undisturbed / "genome.npz").read_bytes()


def test_another_seed_gives_another_genome(tmp_path: Path, undisturbed: Path) -> None:
    result = train(small(tmp_path, "seed=4"), tmp_path / "run")
    assert genome_hash(result) != hash_of(undisturbed)


class NotingEvaluator(LocalEvaluator):
    """Records the tasks of the generations."""

    def __init__(self, config: Experiment) -> None:
        super().__init__(problem_of(config))
        self.drawn: list[tuple[int, ...] | None] = []

    def evaluate(self, genomes: FloatArray, episodes: EpisodeRange) -> Evaluation:
        if episodes.phase is Phase.META_TRAINING:
            self.drawn.append(episodes.tasks)
        return super().evaluate(genomes, episodes)


def test_a_generation_draws_its_tasks(tmp_path: Path, undisturbed: Path) -> None:
    config = small(tmp_path, "meta.tasks_per_generation=1", "meta.generations=16")
    whole = NotingEvaluator(config)
    result = train(config, tmp_path / "whole", evaluator=whole)
    assert set(whole.drawn) == {(0,), (1,)}
    # Half of the evaluations of two tasks, and a genome that is chosen on both.
    last = RunFolder(tmp_path / "whole").metrics.read()[-1]
    assert last["evaluations"] == 16 * config.meta.population * config.meta.replicas
    early = small(tmp_path, "meta.tasks_per_generation=1", "meta.generations=7")
    train(early, tmp_path / "parts")
    resumed = NotingEvaluator(config)
    assert genome_hash(
        train(config, tmp_path / "parts", resume=True, evaluator=resumed)
    ) == genome_hash(result)
    assert resumed.drawn == whole.drawn[7:]
    # Drawing as many tasks as there are is the same as using all of them.
    train(small(tmp_path, "meta.tasks_per_generation=3"), tmp_path / "all")
    found = Genome.load(tmp_path / "all" / "genome.npz")
    np.testing.assert_array_equal(found.vector, Genome.load(undisturbed / "genome.npz").vector)


@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize("generation", [1, 4, 6])
def test_interrupted_and_resumed_equals_undisturbed(
    tmp_path: Path, undisturbed: Path, generation: int, every: int
) -> None:
    config = small(tmp_path, f"run.checkpoint_every={every}")
    stopped = train(config, tmp_path / "run", evaluator=InterruptedEvaluator(config, generation))
    assert stopped.reason is StopReason.INTERRUPTED
    checkpoint, _ = RunFolder(tmp_path / "run").checkpoints.latest()
    assert checkpoint is not None
    # Whatever `checkpoint_every` is, an interruption loses no complete generation.
    assert checkpoint.generation == generation - 1
    assert genome_hash(train(config, tmp_path / "run", resume=True)) == hash_of(undisturbed)
    lines = RunFolder(tmp_path / "run").metrics.read()
    assert [line["generation"] for line in lines] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("every", [1, 4])
def test_a_generation_whose_metrics_are_interrupted_is_done_again(
    tmp_path: Path, undisturbed: Path, every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise its checkpoint would exist, and its line of metrics would be missing for ever."""
    config = small(tmp_path, f"run.checkpoint_every={every}")
    reports = itertools.count(1)

    def report(evaluator: LocalEvaluator, driver_seconds: float) -> dict[str, object]:
        if next(reports) == 3:
            raise Interrupted
        return {}

    with monkeypatch.context() as patch:
        patch.setattr(LocalEvaluator, "report", report)
        assert train(config, tmp_path / "run").reason is StopReason.INTERRUPTED
    checkpoint, _ = RunFolder(tmp_path / "run").checkpoints.latest()
    assert checkpoint is not None
    assert checkpoint.generation == 2
    assert genome_hash(train(config, tmp_path / "run", resume=True)) == hash_of(undisturbed)
    lines = RunFolder(tmp_path / "run").metrics.read()
    assert [line["generation"] for line in lines] == [1, 2, 3, 4, 5, 6]


def test_more_generations_continue(tmp_path: Path, undisturbed: Path) -> None:
    train(small(tmp_path, "meta.generations=3"), tmp_path / "run")
    result = train(small(tmp_path), tmp_path / "run", resume=True)
    assert genome_hash(result) == hash_of(undisturbed)


def test_fewer_generations_than_are_done_are_refused(tmp_path: Path) -> None:
    train(small(tmp_path), tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=r"found 3, but .* has done 6 generations"):
        RunFolder(tmp_path / "run").check(small(tmp_path, "meta.generations=3"), True)
    assert before == {path: path.read_bytes() for path in before}


def test_a_result_names_its_experiment(tmp_path: Path) -> None:
    short, long = small(tmp_path, "meta.generations=3"), small(tmp_path)
    for config in (short, long):
        train(config, tmp_path / "run", resume=config is long)
        result = RunFolder(tmp_path / "run").read_json("result.json")
        assert result["experiment_sha256"] == config.sha256
    assert short.to_yaml() != long.to_yaml()


@pytest.mark.parametrize("name", ["config.yaml", "versions.json", "launches.json"])
def test_files_of_a_run_that_was_killed_at_its_start_do_not_matter(
    tmp_path: Path, name: str
) -> None:
    run = RunFolder(tmp_path / "run")
    (tmp_path / "run").mkdir()
    (tmp_path / f"run/.{name}.0a1b2c").write_text("name: sm")
    with run.locked():
        run.check(small(tmp_path), resume=False)


def test_resuming_an_ended_run_changes_nothing(tmp_path: Path, undisturbed: Path) -> None:
    config = small(tmp_path)
    train(config, tmp_path / "run")
    metrics = (tmp_path / "run/metrics.jsonl").read_bytes()
    assert genome_hash(train(config, tmp_path / "run", resume=True)) == hash_of(undisturbed)
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == metrics


def test_falls_back_over_a_damaged_checkpoint(tmp_path: Path, undisturbed: Path) -> None:
    config = small(tmp_path)
    train(config, tmp_path / "run", evaluator=InterruptedEvaluator(config, 5))
    pointer = json.loads((tmp_path / "run/checkpoint.json").read_text())
    newest = tmp_path / "run" / pointer["checkpoints"][0]["file"]
    newest.write_bytes(newest.read_bytes()[:-40])
    # The same crash damaged a line of metrics.
    with (tmp_path / "run/metrics.jsonl").open("a") as file:
        file.write('{"generation": 5, "be')
    messages: list[str] = []
    result = train(config, tmp_path / "run", resume=True, on_message=messages.append)
    assert any("damaged" in line for line in messages)
    assert genome_hash(result) == hash_of(undisturbed)
    lines = RunFolder(tmp_path / "run").metrics.read()
    assert [line["generation"] for line in lines] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("meta.stop.evaluations=40", StopReason.EVALUATIONS),
        ("meta.stop.fitness=-100", StopReason.FITNESS),
        ("meta.stop.stagnation=1", StopReason.STAGNATION),
        ("meta.stop.hours=1e-9", StopReason.HOURS),
    ],
)
def test_stops_early_for_the_reason_given(
    tmp_path: Path, override: str, reason: StopReason
) -> None:
    result = train(small(tmp_path, override, "meta.generations=50"), tmp_path / "run")
    assert result.reason is reason
    assert result.progress.generation < 50
    assert result.genome is not None


def test_another_experiment_is_refused_and_nothing_written_over(
    tmp_path: Path, undisturbed: Path
) -> None:
    before = {path: path.read_bytes() for path in undisturbed.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=r"meta\.population: 8 there, 10 now"):
        train(small(tmp_path, "meta.population=10"), undisturbed, resume=True)
    with pytest.raises(InputError, match="holds a run already"):
        train(small(tmp_path), undisturbed)
    after = {path: path.read_bytes() for path in undisturbed.rglob("*") if path.is_file()}
    assert before == after


def test_other_hardware_is_refused_unless_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small(tmp_path)
    train(config, tmp_path / "run", evaluator=InterruptedEvaluator(config, 3))
    monkeypatch.setattr(LocalEvaluator, "digest", "of another machine")
    with pytest.raises(InputError, match="--mixed-hardware"):
        train(config, tmp_path / "run", resume=True)
    result = train(config, tmp_path / "run", resume=True, mixed_hardware=True)
    assert result.genome is not None
    assert result.genome.provenance["reproducible"] is False


def test_diverging_genomes_are_counted_and_harmless(tmp_path: Path) -> None:
    config = small(
        tmp_path,
        "rule={states: 2, forward_activation: identity, backward_activation: identity, "
        "last_activation: identity}",
        "genome.values={synapse.update: 50.0, synapse.keep: 1e4}",
        "episode.unroll=60",
        "meta.generations=3",
    )
    result = train(config, tmp_path / "run")
    lines = RunFolder(tmp_path / "run").metrics.read()
    assert sum(line["diverged"] for line in lines) > 0
    assert result.genome is not None
    assert all(np.isfinite(line["mean"]) for line in lines)


def test_learns_something(tmp_path: Path) -> None:
    config = small(
        tmp_path,
        "tasks=[{name: and}, {name: two_moons}]",
        "episode={unroll: 10, batch_size: 32, query_batches: 4}",
        "meta.generations=40",
        "meta.population=24",
        "meta.replicas=2",
    )
    result = train(config, tmp_path / "run")
    lines = RunFolder(tmp_path / "run").metrics.read()
    assert result.selection is not None
    assert result.selection.accuracy > 0.8
    assert lines[-1]["median"] > lines[0]["median"]


def test_a_second_driver_on_the_folder_is_refused(tmp_path: Path) -> None:
    with (
        RunFolder(tmp_path / "run").locked(),
        pytest.raises(InputError, match="another blur-es train is using"),
        RunFolder(tmp_path / "run").locked(),
    ):
        pass


def test_a_failure_before_the_first_write_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown strategy"):
        train(small(tmp_path, "meta.strategy=cma"), tmp_path / "deep" / "run")
    assert not (tmp_path / "deep" / "run").exists()


def delete_checkpoints(run: Path) -> None:
    (run / "checkpoint.json").unlink()
    shutil.rmtree(run / "checkpoints")


def empty_config(run: Path) -> None:
    (run / "config.yaml").write_text("")


def delete_config(run: Path) -> None:
    (run / "config.yaml").unlink()


def spoil_metrics(run: Path) -> None:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("\n".join([lines[0], "{torn", *lines[2:]]) + "\n")


def metrics_folder(run: Path) -> None:
    (run / "metrics.jsonl").unlink()
    (run / "metrics.jsonl").mkdir()


def checkpoints_of_another(run: Path) -> None:
    pointer = json.loads((run / "checkpoint.json").read_text())
    for entry in pointer["checkpoints"]:
        (run / entry["file"]).write_bytes(b"not a checkpoint")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (delete_checkpoints, "no checkpoints"),
        (empty_config, "config.yaml: this file is damaged"),
        (delete_config, "config.yaml: cannot read"),
        (spoil_metrics, "metrics.jsonl:2"),
        (metrics_folder, "metrics.jsonl: cannot read"),
        (checkpoints_of_another, "no checkpoint of this run can be used"),
    ],
)
def test_damaged_run_folders_are_refused_and_left_alone(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    config = small(tmp_path, "meta.generations=3")
    train(config, tmp_path / "run")
    damage(tmp_path / "run")
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    with pytest.raises(InputError, match=message):
        train(config, tmp_path / "run", resume=True)
    for path, content in before.items():
        if path.name not in ("config.yaml", "versions.json", "launches.json"):
            assert path.read_bytes() == content


def test_the_archive_keeps_the_latest_and_the_fittest_one_of_each_generation() -> None:
    archive = Archive.empty(1)
    # Generation 3 had easy episodes: all its members look better than anything later.
    for generation in range(20):
        easy = 100.0 if generation == 3 else 0.0
        fitness = easy + np.array([-1.0, generation % 7, -2.0])
        archive.add(np.array([[-1.0], [generation], [-2.0]]), fitness)
    generations = archive.points[:, 0].astype(int).tolist()
    assert generations == [3, 6, 12, 13, 16, 17, 18, 19]
    assert archive.fitness.tolist() == [103.0, 6.0, 5.0, 6.0, 2.0, 3.0, 4.0, 5.0]
    assert archive.points.shape == (LATEST + FITTEST, 1)


def replaced_interrupt(kind: type[Exception]) -> None:
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
    except Interrupted as error:
        raise kind("returned a result with an exception set") from error


def test_a_signal_inside_is_passed_on_outside() -> None:
    outer, inner = InterruptGuard(), InterruptGuard()
    with outer.installed():
        with inner.installed():
            os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted):
            outer.check()


@pytest.mark.parametrize("kind", [SystemError, AttributeError])
def test_an_interrupt_that_a_library_replaced_is_one_all_the_same(kind: type[Exception]) -> None:
    guard = InterruptGuard()
    with pytest.raises(kind, match="not ours"), guard.interruptible():
        raise kind("not ours")
    with pytest.raises(Interrupted), guard.installed(), guard.interruptible():
        replaced_interrupt(kind)


def test_a_search_begins_with_a_genome_that_ships_or_with_one_of_fewer_states(
    tmp_path: Path,
) -> None:
    shipped = load_genome("mnist-2state-es")
    term = ("rule.oja=weights", "rule.oja_extra=1e-16", "rule.inputs=compressed")
    config = small(tmp_path, "genome.init=mnist-2state-es", *term)
    assert initial_genome(config).sha256 == shipped.sha256
    wide = small(tmp_path, "genome.init=mnist-2state-es", "rule.states=4", *term)
    assert initial_genome(wide).sha256 == widen_genome(shipped, 4).sha256
    mine = backprop_genome(config.rule)
    mine.save(tmp_path / "mine.npz")
    again = small(tmp_path, f"genome.init={tmp_path}/mine.npz", "rule.states=3", *term)
    assert initial_genome(again).sha256 == widen_genome(mine, 3).sha256
    train(wide, tmp_path / "run")
    kept = Genome.load(tmp_path / "run" / "initial.npz")
    assert kept.sha256 == widen_genome(shipped, 4).sha256
    before = load_genome(tmp_path / "run").provenance["began_with"]
    assert before == {"sha256": kept.sha256, **shipped.provenance}
    # A run folder stands for the genome in it.
    config = small(tmp_path, f"genome.init={tmp_path}/run", "rule.states=4", *term)
    assert initial_genome(config).sha256 == load_genome(tmp_path / "run").sha256


def test_names_that_ship_come_before_files_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train(small(tmp_path), tmp_path / "mnist-4state")
    for find in (lambda name: load_subject(name)[0], load_genome):
        assert find("mnist-4state").rule.states == 4
        assert find("./mnist-4state").rule.states == 2
        assert find(Path("mnist-4state")).rule.states == 2
    (tmp_path / "mnist-4state" / "genome.npz").unlink()
    for find in (lambda name: load_subject(name)[0], load_genome):
        with pytest.raises(InputError, match="has not ended and has no genome yet"):
            find("./mnist-4state")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["genome.init=mnist-4state-es"], "made for another rule: it differs in states"),
        (["genome.init=mnist-2state-es", "rule.states=4", "rule.symmetric=false"], "in symmetric"),
        (["genome.init=error.npz"], "in feedback"),
        (["genome.init=factor.npz"], "in oja, oja_multiplier"),
        (
            ["genome.init=mnist-5state"],
            r"did you mean 'mnist-[234]state'\?\), which is neither a preset",
        ),
    ],
)
def test_a_genome_of_another_rule_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    rule = load_genome("mnist-2state-es").spec
    backprop_genome(dataclasses.replace(rule, feedback="squared_error_gradient")).save("error.npz")
    factor = dataclasses.replace(rule, oja="activations", oja_extra=1.0, oja_multiplier=True)
    backprop_genome(factor).save("factor.npz")
    with pytest.raises(InputError, match=message):
        initial_genome(small(tmp_path, *overrides))


@pytest.mark.parametrize(
    "change",
    [
        ["rule.feedback=standardized_label"],
        ["rule.oja=activations", "rule.oja_extra=0.1"],
        ["rule.inputs=equalized"],
        ["rule.inputs=partially_whitened"],
        ["rule.inputs=compressed"],
        ["rule.calibration_temperature=0.3"],
        [],
    ],
)
def test_a_search_may_continue_with_other_labels_inputs_or_oja_term(
    tmp_path: Path, change: list[str]
) -> None:
    shipped = load_genome("mnist-2state-es")
    config = small(tmp_path, "genome.init=mnist-2state-es", *change)
    initial = initial_genome(config)
    assert initial.rule == config.rule
    np.testing.assert_array_equal(initial.vector, shipped.vector)

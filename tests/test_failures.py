"""Real failures of workers, which do not change the results."""

from __future__ import annotations

import collections
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blur_es.config import FleetConfig
from blur_es.errors import RunError
from blur_es.evaluator import LocalEvaluator, problem_of
from blur_es.fleet import failures
from blur_es.fleet.calls import Calls
from blur_es.fleet.chaos import Chaos, ChaosCalls, Fault
from blur_es.fleet.failures import CallError
from blur_es.fleet.fleet import RayFleet
from blur_es.fleet.pool import Worker
from blur_es.genome import Genome
from blur_es.run.folder import RunFolder
from tests.clusters import TRAINING, random_population, ray_warnings
from tests.experiments import genome_hash, small, train
from tests.processes import COMMAND, FLEET_WORKERS, running, wait_for_generation, wait_until

pytestmark = ray_warnings

# A measure that returns a number computed from the predictions. In a worker it also does what a
# file says: "ACTION VALUE TIMES" does the action at this value, this many times (0: always).
MEASURE = """
import os, signal, sys, time, zlib
from pathlib import Path
import numpy as np

FOLDER = Path({folder!r})

def value(predictions, labels):
    found = zlib.crc32(np.ascontiguousarray(predictions).tobytes()) % 1_000_003
    if (FOLDER / "todo").exists() and os.getpid() != {head}:
        action, at, times = (FOLDER / "todo").read_text().split()
        if int(at) in (found, -1):
            with open(FOLDER / "done", "a+") as done:
                done.seek(0)
                if int(times) and len(done.readlines()) >= int(times):
                    return float(found)
                done.write("once\\n")
            if action == "kill": os.kill(os.getpid(), signal.SIGKILL)
            if action == "stop": os.kill(os.getpid(), signal.SIGSTOP)
            if action == "exit": sys.exit(3)
            if action == "memory": raise MemoryError("no room")
            if action == "error": explode()
    return float(found)

def explode():
    raise ValueError("the measure is broken")
"""


class Mine:
    """A folder with the measure, and the file that tells the measure what to do."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "mine.py").write_text(MEASURE.format(folder=str(folder), head=os.getpid()))

    def let(self, action: str, at: int = -1, times: int = 0) -> None:
        (self.folder / "todo").write_text(f"{action} {at} {times}")

    def let_be(self) -> None:
        """Let the measure do nothing but compute, and count from 0 again."""
        for name in ("todo", "done"):
            (self.folder / name).unlink()

    @property
    def times(self) -> int:
        done = self.folder / "done"
        return len(done.read_text().splitlines()) if done.exists() else 0


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mine]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield Mine(tmp_path)
    sys.modules.pop("mine", None)


SETTINGS = ("fitness.measure='mine:value'", "tasks=[{name: xor}]", "meta.replicas=1")


ACTIONS = {
    "error": failures.Failure.ERROR,
    "exit": failures.Failure.ERROR,
    "memory": failures.Failure.OUT_OF_MEMORY,
    "kill": failures.Failure.KILLED,
    "stop": failures.Failure.HUNG,
}


def test_work_is_repeated_after_every_kind_of_failure(
    mine: Mine,
    ray_address: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """This is one test, because its parts need the same worker, which takes long to start."""
    config = small(mine.folder, *SETTINGS)
    population = random_population(config, 9)
    expected = LocalEvaluator(problem_of(config)).evaluate(population, TRAINING)
    fleet = RayFleet(problem_of(config), FleetConfig(workers=1), address=ray_address)
    try:
        # By then the duration of an evaluation is known.
        for _ in range(2):
            np.testing.assert_array_equal(
                fleet.evaluate(population, TRAINING).fitness, expected.fitness
            )
        fleet.report(0.0)
        for action, failure in ACTIONS.items():
            if action == "stop":
                monkeypatch.setattr(failures, "LEAST_DEADLINE_SECONDS", 2.0)
            caplog.clear()
            mine.let(action, times=1)
            found = fleet.evaluate(population, TRAINING)
            report = fleet.report(0.0)
            np.testing.assert_array_equal(found.fitness, expected.fitness, err_msg=action)
            assert mine.times == 1
            mine.let_be()
            assert set(report["failures"]) == {failure.value}
            count = report["failures"][failure.value]
            # On a very busy machine, a slow worker may count as hung.
            assert count == 1 or action == "stop"
            assert report["repeated_chunks"] >= 1
            assert report["lost_workers"] == (0 if failure is failures.Failure.ERROR else count)
            assert any(
                failure.value in record.message or "trying again" in record.message
                for record in caplog.records
            )
    finally:
        fleet.close()


def test_a_users_error_stops_the_run_with_its_traceback_and_a_checkpoint(
    mine: Mine, ray_address: str
) -> None:
    config = small(mine.folder, *SETTINGS, "run.checkpoint_every=100", "meta.generations=100000")
    fleet = RayFleet(problem_of(config), FleetConfig(workers=1), address=ray_address)
    run = mine.folder / "run"

    def break_it() -> None:
        wait_for_generation(run, 3)
        mine.let("error")

    threading.Thread(target=break_it).start()
    try:
        with pytest.raises(RunError) as error:
            train(config, run, evaluator=fleet)
    finally:
        fleet.close()
    message = str(error.value)
    assert "failed 2 times" in message
    assert 'mine.py", line' in message
    assert "explode()" in message
    assert "ValueError: the measure is broken" in message
    assert "blur_es/fleet" not in message
    assert mine.times == 2
    checkpoint, _ = RunFolder(run).checkpoints.latest()
    assert checkpoint is not None
    assert checkpoint.generation >= 3
    (mine.folder / "todo").unlink()
    longer = f"meta.generations={checkpoint.generation + 2}"
    resumed = train(small(mine.folder, *SETTINGS, longer), run, resume=True)
    undisturbed = train(small(mine.folder, *SETTINGS, longer), mine.folder / "undisturbed")
    assert genome_hash(resumed) == genome_hash(undisturbed)


def poison(mine: Mine, config: Any, population: Any, index: int) -> None:
    """Make the evaluation of one genome kill its worker, whatever the rest of its chunk is."""
    values = LocalEvaluator(problem_of(config)).evaluate(population, TRAINING).fitness[0]
    mine.let("kill", int(values[index, 0]))


def test_a_genome_that_kills_workers_is_found(
    mine: Mine, ray_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One worker dies, then those of the halves, then a fresh one."""
    # Three by default, which tests of chunks show.
    monkeypatch.setattr(failures, "DEATHS", 1)
    config = small(mine.folder, *SETTINGS)
    population = random_population(config, 8)
    expected = LocalEvaluator(problem_of(config)).evaluate(population, TRAINING)
    poison(mine, config, population, 5)
    fleet = RayFleet(
        problem_of(config), FleetConfig(workers=2, on_fatal_genome="diverged"), address=ray_address
    )
    try:
        found = fleet.evaluate(population, TRAINING)
        assert not fleet.reproducible
        assert fleet.report(0.0)["failures"][failures.Failure.KILLED.value] == mine.times
    finally:
        fleet.close()
    assert found.diverged[5].all()
    assert not found.diverged[:5].any()
    others = [0, 1, 2, 3, 4, 6, 7]
    np.testing.assert_array_equal(found.fitness[:, others], expected.fitness[:, others])
    assert (found.fitness[:, 5] == [[-20.0], [0.0]]).all()
    assert mine.times <= 2 * failures.DEATHS + 3


def test_a_genome_that_kills_workers_stops_the_run_and_is_kept(
    mine: Mine, ray_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "DEATHS", 1)
    config = small(mine.folder, *SETTINGS)
    # The fifth genome of the first generation.
    asked: list[Any] = []

    class Asked(LocalEvaluator):
        def evaluate(self, genomes: Any, episodes: Any) -> Any:
            found = super().evaluate(genomes, episodes)
            asked.append((genomes, found))
            return found

    undisturbed = train(config, mine.folder / "undisturbed", evaluator=Asked(problem_of(config)))
    population, found = asked[0]
    mine.let("kill", int(found.fitness[0, 4, 0]))
    run = mine.folder / "run"
    fleet = RayFleet(problem_of(config), FleetConfig(workers=2), address=ray_address)
    try:
        with pytest.raises(RunError, match=r"genome 4 of generation 1 kills") as error:
            train(config, run, evaluator=fleet)
    finally:
        fleet.close()
    kept = Genome.load(run / "fatal-genome.npz")
    np.testing.assert_array_equal(kept.vector, population[4])
    assert kept.sha256 in str(error.value)
    (mine.folder / "todo").unlink()
    assert genome_hash(train(config, run, resume=True)) == genome_hash(undisturbed)


class CallsToAFullStore(Calls):
    """Calls to workers, the first two of which find Ray's object store full."""

    refused = 0

    def send(
        self, worker: Worker, method: str, arguments: Any, name: str, expected: float | None
    ) -> Any:
        if self.refused < 2:
            self.refused += 1
            raise CallError(failures.Failure.STORE_FULL, "no room")
        return super().send(worker, method, arguments, name, expected)


def test_the_fleet_waits_while_the_object_store_is_full(tmp_path: Path, ray_address: str) -> None:
    """Results need no room in the store, and arguments are sent again until there is room."""
    import ray

    config = small(tmp_path)
    population = random_population(config, 9)
    expected = LocalEvaluator(problem_of(config)).evaluate(population, TRAINING)
    fleet = RayFleet(
        problem_of(config), FleetConfig(workers=1), address=ray_address, calls=CallsToAFullStore()
    )
    try:
        held = [ray.put(np.zeros(2**20)) for _ in range(11)]
        found = fleet.evaluate(population, TRAINING)
        report = fleet.report(0.0)
        del held
    finally:
        fleet.close()
    np.testing.assert_array_equal(found.fitness, expected.fitness)
    assert report["failures"] == {failures.Failure.STORE_FULL.value: 2}


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param("kill-worker:0.06", marks=pytest.mark.slow),
        "kill-worker:0.05,slow-worker:0.1,drop-result:0.1,hang-worker:0.03,kill-node:1",
    ],
)
def test_chaos_changes_nothing(
    tmp_path: Path, ray_address: str, faults: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = {"chaos", "chaos_result_dropped"}
    if "hang" in faults:
        # On a very busy machine, a slow worker may count as hung.
        monkeypatch.setattr(failures, "LEAST_DEADLINE_SECONDS", 2.0)
        named.add("deadline_missed")
    config = small(tmp_path, "meta.generations=12", "meta.population=12")
    undisturbed = train(config, tmp_path / "undisturbed")
    # A seed with each kind of fault among the first calls.
    wanted = {Fault(part.split(":")[0]) for part in faults.split(",")} - {Fault.KILL_NODE}
    chaos = next(
        chaos
        for chaos in (Chaos.parse(faults, seed) for seed in range(1000))
        if {each.fault for call in range(1, 13) if (each := chaos.injection(call))} == wanted
    )
    fleet = RayFleet(
        problem_of(config), FleetConfig(workers=2), address=ray_address, calls=ChaosCalls(chaos)
    )
    try:
        disturbed = train(config, tmp_path / "run", evaluator=fleet)
    finally:
        fleet.close()
    assert genome_hash(disturbed) == genome_hash(undisturbed)
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    found = collections.Counter[str]()
    for line in lines:
        found.update(line["failures"])
    injected = found["chaos"] + found["chaos_result_dropped"]
    assert injected > 0
    assert set(found) <= named
    assert sum(line["repeated_chunks"] for line in lines) >= injected


@pytest.mark.slow
def test_a_killed_head_leaves_no_worker_on_its_cluster(tmp_path: Path, ray_address: str) -> None:
    small(tmp_path)
    command = [*COMMAND, "train", "small.yaml", "--run-dir", "run"]
    options = ["--address", ray_address, "--set", "meta.generations=100000"]
    with subprocess.Popen(
        [*command, *options], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as head:
        try:
            wait_for_generation(tmp_path / "run", 3)
            assert len(running(FLEET_WORKERS)) > 0
        finally:
            head.send_signal(signal.SIGKILL)
            head.communicate()
    wait_until(lambda: not running(FLEET_WORKERS), "the end of the workers")


def test_chaos_is_for_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from blur_es.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    small(tmp_path)
    assert main(["train", "small.yaml", "--local", "--chaos", "kill-worker:0.1"]) == 2
    assert "--local: --chaos" in capsys.readouterr().err
    assert main(["train", "small.yaml", "--chaos", "kill-wroker:0.1"]) == 2
    assert "did you mean 'kill-worker'" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.yaml"]

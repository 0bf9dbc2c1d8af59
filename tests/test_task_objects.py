"""Tasks that are Python objects: in experiments, in run folders, and on workers."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blur_es.analysis.evaluate import evaluate
from blur_es.config import Experiment, build_config
from blur_es.errors import InputError, RunError
from blur_es.genome import random_genome
from blur_es.keys import Phase
from blur_es.tasks import ArrayTask, Samples, check_task_options, make_task
from blur_es.tasks.objects import name_object, pack_objects, receive_objects, with_object_name
from tests.clusters import ray_warnings
from tests.drawing import draw
from tests.experiments import genome_hash, train


class Stripes:
    """The class is the parity of an input times a scale."""

    name = "stripes"
    inputs = 2
    classes = outputs = 2
    pooled_standardization = False
    test_size: int | None = None
    offset = 0.0

    def __init__(self, scale: float = 2.0) -> None:
        self.scale = np.array([scale])

    def sample(
        self, phase: Phase, support: int, query: int, generator: np.random.Generator
    ) -> Samples:
        inputs = generator.uniform(-1, 1, (support + query, 2))
        classes = (np.floor(inputs[:, 0] * self.scale + self.offset) % 2).astype(np.int64)
        return Samples(inputs[:support], classes[:support], inputs[support:], classes[support:])


def arrays(rows: int = 60, seed: int = 0) -> tuple[Any, Any]:
    inputs = np.random.default_rng(seed).standard_normal((rows, 3))
    return inputs, inputs[:, 0] > 0


def experiment(*tasks: Any, **changes: Any) -> Experiment:
    meta = {"population": 4, "generations": 3, "validation_episodes": 1, "compare": False}
    tree = {
        "name": "objects",
        "rule": {"symmetric": True},
        "network": {"hidden": [4]},
        "tasks": list(tasks),
        "episode": {"unroll": 3, "batch_size": 8, "query_batches": 1},
        "meta": meta | changes,
    }
    return build_config(tree)


def test_objects_and_classes_stand_in_an_experiment() -> None:
    instance, own = Stripes(3.0), {"hidden": [5]}
    config = experiment(instance, Stripes, {"name": Stripes, "scale": 4.0, "network": own})
    first, second, third = config.tasks
    assert first["name"].startswith("Stripes@")
    assert second["name"] == third["name"] != first["name"]
    assert (third["scale"], third["network"]) == (4.0, own)
    assert make_task(first) is instance
    [made] = [make_task(options) for options in config.task_options[2:]]
    assert isinstance(made, Stripes)
    assert made.scale == 4.0
    # Everything stored is plain data, from which this process makes the same tasks.
    again = build_config(config.to_dict())
    assert again.tasks == config.tasks
    assert make_task(again.tasks[0]) is instance


def test_the_name_of_an_object_follows_from_its_values() -> None:
    assert name_object(Stripes(1.5)) == name_object(Stripes(1.5)) != name_object(Stripes(1.6))
    assert name_object(ArrayTask(*arrays())) == name_object(ArrayTask(*arrays()))
    assert name_object(ArrayTask(*arrays())) != name_object(ArrayTask(*arrays(seed=1)))
    moved = type("Stripes", (Stripes,), {"offset": 0.5})
    assert name_object(moved(1.5)) != name_object(Stripes(1.5))
    task = Stripes(1.5)
    name = name_object(task)
    task.scale = np.array([9.0])
    assert name_object(task) == name


def test_the_name_is_the_same_in_every_process(tmp_path: Path) -> None:
    code = (
        "import numpy as np\nfrom blur_es.tasks.objects import name_object\n"
        "class Own:\n"
        "    size = 3\n"
        "    def __init__(self):\n"
        "        self.parts = {'a': [1, 2.5, None], 'b': {'x', 'y', 'z'}, 'c': np.arange(4)}\n"
        "    def sample(self, *_): pass\n"
        "print(name_object(Own()))\n"
    )
    names = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
        for _ in range(2)
    }
    assert len(names) == 1
    assert names.pop().startswith("Own@")


def test_a_name_without_an_object_is_refused() -> None:
    for name in ("Stripes@0123456789abcdef", "@", "os:system@"):
        with pytest.raises(InputError, match="an object that this process does not have; pass"):
            check_task_options({"name": name})


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"name": Stripes(), "scale": 3.0}, "the options scale, but it is an instance"),
        ({"name": Stripes, "scales": 3.0}, "does not take the options"),
        (lambda: 3, "gave a int that lacks name"),
        (Samples, "does not take the options"),
    ],
)
def test_objects_that_are_no_tasks(found: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_task(found)


def test_what_cannot_be_sent_is_named() -> None:
    task: Any = Stripes(7.0)
    task.lock = threading.Lock()
    with pytest.raises(InputError, match=r"Stripes@\w+ cannot be sent to workers: .*lock"):
        pack_objects([with_object_name(task)])


def test_an_object_that_a_worker_cannot_read_is_named() -> None:
    receive_objects({"Odd@1": b"no pickle"})
    with pytest.raises(RunError, match="reading the object 'Odd@1' that the driver sent failed"):
        make_task({"name": "Odd@1"})


def test_a_run_is_resumed_with_an_equal_object_only(tmp_path: Path) -> None:
    whole = train(experiment(ArrayTask(*arrays())), tmp_path / "whole")
    train(experiment(ArrayTask(*arrays()), generations=1), tmp_path / "run")
    with pytest.raises(InputError, match="tasks"):
        train(experiment(ArrayTask(*arrays(seed=1))), tmp_path / "run", resume=True)
    resumed = train(experiment(ArrayTask(*arrays())), tmp_path / "run", resume=True)
    assert genome_hash(resumed) == genome_hash(whole)


def test_a_genome_is_evaluated_on_an_object() -> None:
    config = experiment({"name": "xor"})
    genome = random_genome(config.rule, np.random.default_rng(0))
    task = ArrayTask(*arrays(), name="mine")
    found = evaluate(genome, task, experiment=config, episodes=2)
    assert found.labels == ("mine",)
    others = [ArrayTask(*arrays(seed=seed), name="mine") for seed in (1, 2)]
    labels = evaluate(genome, others, experiment=config, episodes=1).labels
    assert labels[0].startswith("ArrayTask@")
    assert labels[0] != labels[1]
    assert found == evaluate(genome, [task], experiment=config, episodes=2)
    first = draw(make_task(task), 8, 4)
    np.testing.assert_array_equal(first.support_inputs, draw(task, 8, 4).support_inputs)


# The task is defined in `__main__`, in a folder that no worker has on its import path.
SCRIPT = """
import sys
import numpy as np
from blur_es import ArrayTask
from blur_es.config import FleetConfig, build_config
from blur_es.evaluator import EpisodeRange, LocalEvaluator, problem_of
from blur_es.fleet.fleet import RayFleet
from blur_es.genome import random_genome
from blur_es.keys import Phase
from blur_es.tasks import Samples

LEVEL = 0.25

def label(inputs):
    return (inputs[:, 0] > LEVEL).astype(np.int64)

class Above:
    name, inputs, classes, outputs, test_size = "above", 2, 2, 2, None
    pooled_standardization = False

    def sample(self, phase, support, query, generator):
        inputs = generator.standard_normal((support + query, 2))
        labels = label(inputs)
        return Samples(inputs[:support], labels[:support], inputs[support:], labels[support:])

inputs = np.random.default_rng(0).standard_normal((60, 3))
config = build_config({
    "name": "script", "network": {"hidden": [4]},
    "tasks": [
        Above(), {"name": Above, "network": {"hidden": [3]}}, ArrayTask(inputs, label(inputs))
    ],
    "episode": {"unroll": 3, "batch_size": 8, "query_batches": 1},
})
genomes = np.stack(
    [random_genome(config.rule, np.random.default_rng(i)).vector for i in range(6)]
)
wanted = EpisodeRange(Phase.META_TRAINING, 1, 2)
local = LocalEvaluator(problem_of(config)).evaluate(genomes, wanted)
fleet = RayFleet(problem_of(config), FleetConfig(workers=2), address=sys.argv[1])
try:
    found = fleet.evaluate(genomes, wanted)
    same = np.array_equal(found.fitness, local.fitness)
    print(fleet.workers, same, len(np.unique(local.fitness)))
finally:
    fleet.close()
"""


@ray_warnings
def test_a_task_of_main_on_two_workers(tmp_path: Path, ray_address: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, script, ray_address], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    workers, same, different = done.stdout.split()
    assert (workers, same) == ("2", "True")
    assert int(different) > 6

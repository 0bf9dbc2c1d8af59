"""Genome files and run folders are data: nothing that they name is run unless they are trusted."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blur_es.analysis.evaluate import evaluate
from blur_es.analysis.subject import load_subject, resolve_subject
from blur_es.classifier import BlurClassifier
from blur_es.cli import main
from blur_es.config import load_config
from blur_es.errors import InputError
from blur_es.genome import Genome, neutral_genome
from blur_es.genomes import load_genome
from blur_es.meta.initial import initial_genome
from blur_es.rule import RuleSpec
from blur_es.storage.names import CONFIG, GENOME
from tests.experiments import SMALL

HOSTILE = "hostile_module:run"


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The calls of a function that must not be called."""
    calls: list[Any] = []
    module = types.ModuleType("hostile_module")
    module.run = lambda *arguments, **options: calls.append((arguments, options))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "hostile_module", module)
    return calls


def experiment(**changes: Any) -> dict[str, Any]:
    tree: dict[str, Any] = yaml.safe_load(SMALL)
    for dotted, value in changes.items():
        section, _, key = dotted.partition("__")
        if key:
            tree.setdefault(section, {})[key] = value
        else:
            tree[section] = value
    return tree


def genome_with(tree: Any) -> Genome:
    genome = neutral_genome(RuleSpec(), 2)
    return dataclasses.replace(genome, provenance={"experiment": tree})


def hostile_trees() -> list[dict[str, Any]]:
    return [
        experiment(tasks=[{"name": "xor"}, {"name": HOSTILE, "command": "x"}]),
        experiment(fitness__measure=HOSTILE),
    ]


@pytest.fixture(params=[0, 1], ids=["task", "measure"])
def hostile(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """A genome file and a run folder with an import path."""
    tree = hostile_trees()[request.param]
    genome = genome_with(tree)
    genome.save(tmp_path / "other.npz")
    run = tmp_path / "run"
    run.mkdir()
    genome.save(run / GENOME)
    (run / CONFIG).write_text(yaml.safe_dump(tree))
    return str(tmp_path / "other.npz"), str(run)


@pytest.mark.parametrize("command", ["evaluate", "compare", "analyze"])
@pytest.mark.parametrize("kind", [0, 1], ids=["file", "run"])
def test_commands_refuse_an_import_path_that_the_user_did_not_give(
    hostile: tuple[str, str],
    ran: list[Any],
    command: str,
    kind: int,
    current_folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([command, hostile[kind]]) == 2
    error = capsys.readouterr().err
    assert HOSTILE in error
    assert "--trust" in error
    assert not ran


def test_functions_refuse_an_import_path_that_the_user_did_not_give(
    hostile: tuple[str, str], ran: list[Any]
) -> None:
    for subject in (*hostile, load_genome(hostile[0])):
        with pytest.raises(InputError, match="trust=True"):
            evaluate(subject)
    with pytest.raises(InputError, match="trust=True"):
        load_subject(hostile[0])
    BlurClassifier(hostile[0], random_state=0).fit(np.eye(4), [0, 1, 0, 1])
    assert not ran


def test_a_genome_to_start_from_gives_numbers_only(
    hostile: tuple[str, str], ran: list[Any], tmp_path: Path
) -> None:
    for location in hostile:
        tree = experiment(genome={"init": location}, rule={})
        path = tmp_path / "e.yaml"
        path.write_text(yaml.safe_dump(tree))
        initial_genome(load_config(path))
    assert not ran


def test_import_paths_that_the_user_gives_are_followed(ran: list[Any]) -> None:
    task, measure = hostile_trees()
    with pytest.raises(InputError, match=r"tasks\.1\.name"):
        resolve_subject(genome_with(task), settings=["tasks.0.name=and"])
    # The path is replaced, given by the user, or trusted.
    resolve_subject(genome_with(task), settings=["tasks=[{name: xor}]"])
    resolve_subject(genome_with(task), "xor")
    resolve_subject(genome_with(task), settings=[f"tasks.1.name={HOSTILE}"])
    resolve_subject(genome_with(task), trust=True)
    resolve_subject(genome_with(measure), settings=["fitness.measure=accuracy"])
    resolve_subject(genome_with(measure), trust=True)
    resolve_subject(genome_with(task), experiment=measure)
    assert not ran


@pytest.mark.parametrize(
    "changes",
    [
        {"meta__test_episodes": 10_000, "tasks": [{"name": "xor"}] * 100},
        {"meta__test_episodes": 1000, "episode__query_batches": 10_000, "network__hidden": [4000]},
        {"episode__unroll": 1_000_000},
        {"network__hidden": [100_000, 100_000]},
        {"network__hidden": 1_000_000},
        {"network__hidden": [1] * 5000},
        {"tasks": [{"name": "xor"}] * 3000},
        {"tasks": [{"name": "tables", "rows": 1_000_000, "inputs": 1000}] * 9},
        {"tasks": [{"name": "xor", "episode": {"batch_size": 1_000_000}}]},
    ],
)
def test_an_experiment_of_unknown_origin_asks_for_a_bounded_amount_of_work(
    changes: dict[str, Any],
) -> None:
    genome = genome_with(experiment(**changes))
    with pytest.raises(
        InputError, match=r"asks for .* (rows|synapses|episodes|products|layers|tasks).*--trust"
    ):
        resolve_subject(genome)
    resolve_subject(genome, trust=True)


def nested(levels: int, wrap: Callable[[Any], Any]) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = wrap(value)
    return value


@pytest.mark.parametrize("levels", [60, 400, 900])
@pytest.mark.parametrize("wrap", [lambda v: [v], lambda v: {"a": v}], ids=["lists", "mappings"])
def test_deep_provenance_is_refused(
    tmp_path: Path, levels: int, wrap: Callable[[Any], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    genome_with(nested(levels, wrap)).save(tmp_path / "deep.npz")
    with pytest.raises(InputError, match="nested levels"):
        load_genome(tmp_path / "deep.npz")
    assert main(["evaluate", str(tmp_path / "deep.npz")]) == 2


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.sampled_from(["", "a:b", "s3://x//y", "\x00", "1e5", "digits", HOSTILE]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=6,
)
KEYS = st.sampled_from(
    sorted({*experiment(), "genome", "backend", "jax", "fleet", "run", "nonsense"})
)


@settings(
    deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(key=KEYS, value=VALUES, inside=st.booleans(), data=st.data())
def test_strange_provenance_is_used_or_refused_with_a_sentence(
    ran: list[Any], key: str, value: Any, inside: bool, data: st.DataObject
) -> None:
    tree = experiment()
    if inside and isinstance(tree.get(key), dict):
        tree[key][data.draw(st.sampled_from(sorted(tree[key])))] = value
    else:
        tree[key] = value
    genome = genome_with(json.loads(json.dumps(tree)))
    for chosen in ((), ("network.hidden=[4]", "episode.unroll=3")):
        with contextlib.suppress(InputError):
            resolve_subject(genome, settings=chosen)
    assert not ran


def test_an_untrusted_experiment_connects_to_nothing() -> None:
    table = {"name": "table", "path": "http://127.0.0.1:9/t.csv", "target": "a"}
    with pytest.raises(InputError, match=r"would read 'http://.*' \(tasks\.0\.path\); add --trust"):
        resolve_subject(genome_with(experiment(tasks=[table])))

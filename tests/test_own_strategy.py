"""Strategies of the user's own: what they may keep in their state, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from blur_es.config import build_config, load_config, vary_config
from blur_es.config.sections import RestartConfig
from blur_es.errors import InputError, RunError
from blur_es.meta.strategy import Strategy
from blur_es.meta.trees import restored_tree, structure, tree_arrays
from blur_es.storage.npz import npz_bytes, parse_npz
from tests.experiments import InterruptedEvaluator, small, train

TOP = Path(__file__).parents[1]


EPISODE = {"unroll": 2, "batch_size": 4, "query_batches": 1}


class Pair(NamedTuple):
    first: Any
    second: Any


@dataclasses.dataclass(frozen=True)
class Inner:
    std: Any
    flags: tuple[Any, ...]


@dataclasses.dataclass
class Unusual:
    """A state of nested dataclasses, tuples, keys, whole numbers and truth values."""

    mean: Any
    keys: Pair
    inner: Inner
    others: dict[str, Any]


class UnusualStrategy:
    """Follows the mean of the best points, with its own random numbers."""

    def __init__(self, population_size: int, solution: Any, shrink: float = 0.95) -> None:
        self.shape = (population_size, solution.size)
        self.shrink = shrink

    def init(self, key: Any, mean: Any, params: Any) -> Unusual:
        others = {"history": [np.zeros(3)], "half": jnp.zeros(2, jnp.bfloat16), "name": "unusual"}
        pair = Pair(key, np.random.default_rng(0).integers(2**31, size=2))
        return Unusual(np.asarray(mean), pair, Inner(1.0, (True, 0, None)), others)

    def ask(self, key: Any, state: Unusual, params: Any) -> tuple[Any, Unusual]:
        own = jax.random.fold_in(state.keys.first, state.inner.flags[1])
        noise = np.asarray(jax.random.normal(own, self.shape))
        return state.mean + state.inner.std * noise, state

    def tell(
        self, key: Any, points: Any, fitness: Any, state: Unusual, params: Any
    ) -> tuple[Unusual, dict[str, Any]]:
        best = np.asarray(points)[np.argsort(np.asarray(fitness))[:3]]
        positive, count, _ = state.inner.flags
        inner = Inner(state.inner.std * self.shrink, (not positive, count + 1, None))
        history = np.roll(state.others["history"][0], 1) + state.inner.std
        others = {**state.others, "history": [history], "half": state.others["half"] + 0.1}
        return dataclasses.replace(state, mean=best.mean(axis=0), inner=inner, others=others), {}


def test_a_tree_is_restored_bit_for_bit_with_its_types() -> None:
    tree: dict[str, Any] = {
        "key": jax.random.key(3, impl="rbg"),
        "numbers": Pair(10**30, (True, float("nan"), None, "ü")),
        "inner": Inner(np.float32(0.1), (np.asfortranarray(np.ones((2, 3))), jnp.asarray(1.5))),
        "half": jnp.ones(3, jnp.bfloat16),
        "complex": np.array(1 + 2j),
    }
    arrays = parse_npz(npz_bytes(tree_arrays(tree)), "a checkpoint")
    found = restored_tree(tree, arrays, "test")
    assert structure(found) == structure(tree)
    assert {name: array.tobytes() for name, array in tree_arrays(found).items()} == {
        name: array.tobytes() for name, array in arrays.items()
    }
    assert found["numbers"].first == 10**30
    assert found["numbers"].second[0] is True
    assert type(found["inner"].std) is np.float32
    assert found["inner"].flags[0].flags.f_contiguous
    assert found["inner"].flags[1].weak_type
    np.testing.assert_array_equal(
        jax.random.normal(found["key"], (3,)), jax.random.normal(tree["key"], (3,))
    )


def test_damaged_arrays_are_refused() -> None:
    tree = {"a": jnp.zeros(3), "b": 1, "c": jax.random.key(0)}
    arrays = tree_arrays(tree)
    for name, value in (
        ("['a']", np.zeros(4, np.float32)),
        ("['b']!value", np.array("{")),
        ("['c']!key:threefry2x32", np.zeros(7, np.uint32)),
    ):
        with pytest.raises(InputError, match="checkpoint: "):
            restored_tree(tree, {**arrays, name: value}, "test")
    with pytest.raises(InputError, match=r"\['b'\] is nothing"):
        restored_tree(tree, {"['a']": arrays["['a']"]}, "test")


@pytest.mark.parametrize("restart", [None, RestartConfig(scheme="bipop", stagnation=2)])
def test_an_unusual_state_is_restored(restart: RestartConfig | None) -> None:
    def make() -> Strategy:
        return Strategy(UnusualStrategy, 6, 4, 0, {"shrink": 1.0 if restart else 0.9}, 0, restart)

    strategy, other = make(), make()
    for generation in range(1, 12):
        points = strategy.ask(generation)
        strategy.tell(generation, points, -np.square(points - 1.0).sum(axis=1))
    other.restore(parse_npz(npz_bytes(strategy.state_arrays()), "a checkpoint"))
    if restart is not None:
        assert strategy.restarts
        assert len(strategy.means) == strategy.restarts + 1
    for each in (strategy, other):
        for generation in (12, 13, 14):
            points = each.ask(generation)
            each.tell(generation, points, -np.square(points - 1.0).sum(axis=1))
    np.testing.assert_array_equal(strategy.ask(15), other.ask(15))
    np.testing.assert_array_equal(strategy.means, other.means)


def test_a_run_with_an_own_strategy_resumes_to_the_same_genome(tmp_path: Path) -> None:
    path = "meta.strategy=tests.test_own_strategy:UnusualStrategy"
    config = small(tmp_path, path, "meta.options={shrink: 0.9}", "backend=numpy")
    whole = train(config, tmp_path / "whole")
    train(config, tmp_path / "run", evaluator=InterruptedEvaluator(config, 4))
    resumed = train(config, tmp_path / "run", resume=True)
    assert whole.genome is not None
    assert resumed.genome is not None
    assert resumed.genome.sha256 == whole.genome.sha256
    # From Python, the class itself stands for its path.
    tree = config.to_dict()
    tree["meta"]["strategy"] = UnusualStrategy
    same = build_config(tree)
    assert same.to_dict()["meta"]["strategy"] == "tests.test_own_strategy:UnusualStrategy"
    assert same.sha256 == config.sha256
    [(_, varied)] = vary_config(same, {"seed": [5]})
    assert varied.meta.strategy is UnusualStrategy
    genome = train(same, tmp_path / "object").genome
    assert genome is not None
    assert genome.sha256 == whole.genome.sha256


def test_algorithms_that_begin_with_a_population() -> None:
    strategy, other = (Strategy("evosax.algorithms:PSO", 8, 3, 0) for _ in range(2))
    for generation in range(1, 5):
        points = strategy.ask(generation)
        strategy.tell(generation, points, -np.square(points - 1.0).sum(axis=1))
        if generation in (1, 3):
            other.restore(strategy.state_arrays())
            np.testing.assert_array_equal(strategy.ask(9), other.ask(9))
    assert np.square(strategy.mean - 1.0).sum() < 3.0  # the origin


class Keeps(UnusualStrategy):
    """Counts in an attribute instead of its state."""

    count = 0

    def ask(self, key: Any, state: Unusual, params: Any) -> tuple[Any, Unusual]:
        self.count += 1
        points, state = super().ask(key, state, params)
        return points * self.count, state


class Grows(UnusualStrategy):
    def tell(self, *arguments: Any) -> tuple[Unusual, dict[str, Any]]:
        state, metrics = super().tell(*arguments)
        history = [*state.others["history"], np.zeros(3)]
        return dataclasses.replace(state, others={**state.others, "history": history}), metrics


class Generator(UnusualStrategy):
    def init(self, key: Any, mean: Any, params: Any) -> Unusual:
        state = super().init(key, mean, params)
        return dataclasses.replace(state, mean=np.random.default_rng(0))


class Narrow(UnusualStrategy):
    def ask(self, key: Any, state: Unusual, params: Any) -> tuple[Any, Unusual]:
        points, state = super().ask(key, state, params)
        return points[:3], state


class Forgets(UnusualStrategy):
    def tell(self, *arguments: Any) -> Any:
        return super().tell(*arguments)[0]


class Fails(UnusualStrategy):
    def ask(self, key: Any, state: Unusual, params: Any) -> Any:
        raise KeyError("missing")


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (Keeps, "gave two results .ask: points.*keep what changes in the state"),
        (Grows, r"tell changes the structure .*history'\]\[1\] is new"),
        (Generator, "the state: .mean is numpy.random.*Generator, which a checkpoint cannot hold"),
        (Narrow, r"ask returned points of shape \(3, 4\).*expected numbers of shape \(6, 4\)"),
        (Forgets, "tell returned a Unusual, expected a tuple of state and metrics"),
        (Fails, "ask failed: KeyError"),
        (dict, "cannot be called with population_size|gave a dict that lacks init, ask, tell"),
        ("tests.test_own_strategy:Nothing", "has no 'Nothing'"),
        ("tests.test_own_strategy:TOP", "without init, ask, tell"),
    ],
)
def test_what_cannot_be_resumed_is_refused_before_the_run(strategy: Any, message: str) -> None:
    with pytest.raises((InputError, RunError), match=message):
        Strategy(strategy, 6, 4, 0)


def test_objects_are_checked() -> None:
    tree = {"name": "x", "tasks": [{"name": "xor"}], "episode": EPISODE}
    with pytest.raises(InputError, match=r"meta.strategy: found 3, expected the name of a strat"):
        build_config({**tree, "meta": {"strategy": 3}})
    instance = UnusualStrategy(6, np.zeros(4))
    assert Strategy(instance, 6, 4, 0).ask(1).shape == (6, 4)
    with pytest.raises(InputError, match="give the class or function that makes it"):
        Strategy(instance, 6, 4, 0, restart=RestartConfig())
    with pytest.raises(InputError, match=r"meta.options.shrin: .* has no such option"):
        Strategy(UnusualStrategy, 6, 4, 0, {"shrin": 1})


def test_the_example_of_the_page_runs(current_folder: Path) -> None:
    text = (TOP / "docs/own_strategy.md").read_text(encoding="utf-8")
    [program] = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(program.strip().splitlines()) <= 30
    namespace: dict[str, Any] = {"__name__": "my_strategies"}
    exec(compile(program, "own_strategy.md", "exec", dont_inherit=True), namespace)
    strategy = Strategy(namespace["CrossEntropyMethod"], 16, 4, 0, {"keep": 0.2})
    for generation in range(1, 16):
        points = strategy.ask(generation)
        strategy.tell(generation, points, -np.square(points - 1.0).sum(axis=1))
    assert np.square(strategy.mean - 1.0).sum() < 2.0


def test_options_of_the_page_are_accepted(tmp_path: Path) -> None:
    text = (TOP / "docs/own_strategy.md").read_text(encoding="utf-8")
    sections = re.findall(r"^```yaml\nmeta:\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(sections) == 3
    for number, section in enumerate(sections):
        path = tmp_path / f"{number}.yaml"
        head = f"name: x\ntasks: [{{name: xor}}]\nepisode: {json.dumps(EPISODE)}\nmeta:\n"
        path.write_text(head + section)
        meta = load_config(path).meta
        Strategy(meta.strategy, 8, 3, 0, meta.options, 0, meta.restart)


def test_means_of_earlier_starts_are_candidates(tmp_path: Path) -> None:
    config = small(
        tmp_path,
        "meta.restart={stagnation: 1}",
        "meta.strategy=tests.test_own_strategy:UnusualStrategy",
        "backend=numpy",
    )
    told: list[str] = []
    train(config, tmp_path / "run", on_message=told.append)
    metrics = _metrics(tmp_path / "run")
    restarts = metrics[-1]["restarts"]
    assert restarts >= 1
    assert {each["genomes"] for each in metrics} > {8}
    assert [each["restarts"] for each in metrics] == sorted(each["restarts"] for each in metrics)
    candidates = next(int(each.split()[2]) for each in told if each.startswith("choosing"))
    assert candidates >= 1 + restarts
    # An interrupted run ends in the same genome.
    other = tmp_path / "other"
    train(config, other, evaluator=InterruptedEvaluator(config, 5))
    train(config, other, resume=True)
    assert (other / "genome.npz").read_bytes() == (tmp_path / "run/genome.npz").read_bytes()


def _metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]

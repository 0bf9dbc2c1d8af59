"""All errors in an experiment's YAML are reported at once, each with its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from blur_es.config import Experiment, load_config, override_config, vary_config
from blur_es.episode import EpisodeSpec
from blur_es.errors import InputError
from blur_es.evaluator import EpisodeRange, LocalEvaluator, problem_of
from blur_es.keys import Phase
from tests.experiments import SMALL

EXPERIMENTS = sorted((Path(__file__).parents[1] / "experiments").glob("*.yaml"))


def load(folder: Path, text: str, *overrides: str) -> Experiment:
    path = folder / "e.yaml"
    path.write_text(text)
    return load_config(path, overrides)


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_experiments_that_ship_are_right(path: Path, tmp_path: Path) -> None:
    config = load_config(path)
    assert config.name == path.stem
    assert load(tmp_path, config.to_yaml()).to_dict() == config.to_dict()


def test_defaults_and_overrides(tmp_path: Path) -> None:
    config = load(tmp_path, SMALL, "meta.population=80", "meta.stop.hours=1e-1", "tasks.1.name=or")
    assert config.meta.population == 80
    assert config.meta.stop.hours == 0.1
    assert [task["name"] for task in config.tasks] == ["xor", "or"]
    assert config.meta.strategy == "cma_es"
    assert override_config(config, ["seed=9"]).seed == 9


def test_plain_yaml_values_have_the_expected_types(tmp_path: Path) -> None:
    text = SMALL.replace("name: small", "name: no").replace("temperature: 0.3", "temperature: 3e-1")
    config = load(tmp_path, text)
    assert (config.name, config.fitness.temperature) == ("no", 0.3)


def test_identity_leaves_out_how_long_and_where(tmp_path: Path) -> None:
    base = load(tmp_path, SMALL).identity()
    for same in (
        "meta.generations=9",
        "meta.stop.hours=1",
        "meta.compare=true",
        "meta.test_episodes=9",
        "fleet.workers=7",
        "run.keep=9",
    ):
        assert load(tmp_path, SMALL, same).identity() == base
    for other in ("seed=9", "meta.sigma=0.1", "rule.states=3", "tasks.0.name=and", "name=x"):
        assert load(tmp_path, SMALL, other).identity() != base


def test_a_new_option_does_not_change_the_identity_of_older_runs(
    tmp_path: Path,
) -> None:
    config = load(tmp_path, SMALL)
    assert config.to_dict()["rule"]["inputs"] == "standardized"
    assert "inputs" not in config.identity()["rule"]
    equalized = override_config(config, ["rule.inputs=equalized"])
    assert equalized.identity() != config.identity()
    assert equalized.to_dict()["rule"]["inputs"] == "equalized"
    assert override_config(equalized, ["rule.inputs=standardized"]).identity() == config.identity()


def test_credentials_are_not_stored(tmp_path: Path) -> None:
    text = SMALL.replace(
        "rule:",
        "genome: {values: {}, init: random}\nrule:",
    ).replace(
        "{name: xor}",
        "{name: 'mine:Own', url: 's3://me:hunter2@host/x?a=1&X-Amz-Signature=abc&token=xyz'}",
    )
    stored = load(tmp_path, text).to_yaml()
    assert "s3://***@host/x?a=1" in stored
    for secret in ("hunter2", "abc", "xyz"):
        assert secret not in stored
    assert yaml.safe_load(stored)["name"] == "small"


def test_all_faults_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        load(tmp_path, SMALL.replace("seed: 3", "seed: x\nbakend: auto") + "fleet: {workers: 0}\n")
    lines = str(error.value).splitlines()
    assert len(lines) == 3
    assert f"{tmp_path / 'e.yaml'}:2: seed: found 'x', expected a whole number" in str(error.value)
    assert any(":3: bakend: unknown key (did you mean 'backend'?)" in line for line in lines)
    assert any(":10: fleet.workers: found 0" in line for line in lines)


BROKEN = [
    # (what is replaced, by what, expected in the message)
    ("name: small", "name: 'a/b'", ":1: name: found 'a/b'"),
    ("name: small", "nmae: small", "did you mean 'name'"),
    ("name: small\n", "", "name: this key is missing"),
    ("name: small", "name: small\nname: again", ":2: name: this key occurs twice"),
    ("seed: 3", "seed: -1", ":2: seed: found -1"),
    ("seed: 3", "seed: 1.5", ":2: seed: found 1.5, expected a whole number"),
    ("seed: 3", "seed: true", ":2: seed: found True"),
    ("seed: 3", "seed: 99999999999999999999999999999999", ":2: seed: found 9"),
    ("states: 2", "states: 1", "needs at least 2 states"),
    ("states: 2", "states: two", ":3: rule.states: found 'two'"),
    ("states: 2", "stats: 2", ":3: rule.stats: unknown key (did you mean 'states'?)"),
    ("normalize: both", "normalize: bath", "did you mean 'both'"),
    ("normalize: both", "normalize: none, query_statistics: batch", "normalised forward pass"),
    ("symmetric: true", "symmetric: yes", "expected true or false"),
    ("hidden: [8]", "hidden: [0]", ":4: network.hidden.0: found 0"),
    ("hidden: [8]", "hidden: wide", ":4: network.hidden: found 'wide', expected a list"),
    ("hidden: [8]", "hidden: [-1, 2.5]", "network.hidden.1: found 2.5"),
    ("hidden: [8]", "hiden: [8]", "did you mean 'hidden'"),
    ("hidden: [8]", "Hidden: [8]", ":4: network.Hidden: unknown key (did you mean 'hidden'?)"),
    ("name: small", "Name: small", ":1: Name: unknown key (did you mean 'name'?)"),
    ("name: small", "'': small", ":1: : unknown key"),
    ("{name: xor}", "{name: xor, network: {hidden: [0]}}", ":5: tasks.0.network.hidden.0: found 0"),
    ("{name: xor}", "{name: xor, network: {hiden: [8]}}", "hiden: unknown key (did you mean 'hid"),
    ("{name: xor}", "{name: xor, network: [8]}", ":5: tasks.0.network: found [8], expected"),
    ("{name: xor}", "{name: xor, network: }", ":5: tasks.0.network: found None"),
    ("{name: xor}", "{name: xor, epsiode: {unroll: 3}}", "no option 'epsiode' (did you mean 'epi"),
    ("{name: xor}", "{name: xor, episode: 3}", ":5: tasks.0.episode: found 3, expected"),
    ("{name: xor}", "{name: xor, episode: {unroll: 0}}", ":5: tasks.0.episode.unroll: found 0"),
    ("{name: xor}", "{name: xor, episode: {unrol: 3}}", "unknown key (did you mean 'unroll'?)"),
    ("[{name: xor}, {name: two_moons}]", "[]", ":5: tasks"),
    ("[{name: xor}, {name: two_moons}]", "xor", ":5: tasks"),
    ("[{name: xor}, {name: two_moons}]", "[{nam: xor}]", ":5: tasks.0"),
    ("name: xor", "name: xorr", "did you mean 'xor'"),
    ("name: xor", "name: digits, classes: [3, 99]", ":5: tasks.0"),
    ("name: xor", "name: digits, classes: 3", ":5: tasks.0"),
    ("name: xor", "name: digits, size: 0", ":5: tasks.0"),
    ("name: xor", "name: digits, size: 9", ":5: tasks.0"),
    ("name: xor", "name: mnist, siez: 14", "did you mean 'size'"),
    ("unroll: 4", "unroll: 0", ":6: episode.unroll: found 0"),
    ("unroll: 4", "unroll: 4.0", ":6: episode.unroll: found 4.0"),
    ("unroll: 4, ", "", "episode.unroll: this key is missing"),
    ("batch_size: 16", "batch_size: 1e9", "episode.batch_size: found 1000000000.0"),
    ("measure: cross_entropy", "measure: cross_entrpy", "did you mean 'cross_entropy'"),
    ("measure: cross_entropy", "measure: 'nowhere_at_all:x'", "cannot import"),
    ("temperature: 0.3", "temperature: 0", "fitness.temperature: found 0"),
    ("temperature: 0.3", "temperature: .nan", "fitness.temperature: found nan"),
    ("population: 8", "population: 0", ":8: meta.population: found 0"),
    ("population: 8", "population: '8'", "meta.population: found '8'"),
    ("population: 8", "stop: {fitnes: 1}", "did you mean 'fitness'"),
    ("population: 8", "method: es, options: [x]", "meta.options: found"),
    ("generations: 6", "generations: 0", "meta.generations: found 0"),
    ("generations: 6", "tasks_per_generation: 0", "meta.tasks_per_generation: found 0"),
    ("compare: false", "compare: maybe", "meta.compare: found 'maybe'"),
    ("compare: false}", "compare: false", "not valid YAML"),
    ("compare: false}", "compare: false}\nbackend: cuda", "backend: found 'cuda'"),
    ("compare: false}", "compare: false}\ngenome: {learn: [neuron.kep]}", "did you mean"),
    ("compare: false}", "compare: false}\ngenome: {values: {neuron.keep: [1, 2]}}", "neuron.keep"),
    ("compare: false}", "compare: false}\nrun: {keep: 0}", ":9: run.keep: found 0"),
    ("compare: false}", "compare: false}\n? [a]\n: b", "as a key, expected a word"),
    ("name: small", "\tname: small", "not valid YAML"),
]


@pytest.mark.parametrize(("old", "new", "message"), BROKEN)
def test_broken_files(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in SMALL
    with pytest.raises(InputError) as error:
        load(tmp_path, SMALL.replace(old, new, 1))
    assert message in str(error.value)
    assert str(tmp_path / "e.yaml") in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"# nothing\n", "the file is empty"),
        (b"- a\n- b\n", "expected keys and values"),
        (b"small", "expected keys and values"),
        (b"\xff\xfe\x00", "not a UTF-8 text file"),
        (b"a: " + b"[" * 5000, "e.yaml"),
        (b"x" * 2**20 + b"y", "expected an experiment of at most"),
        (b"a: &a [x, x, x, x, x, x, x, x, x, x]\n" + b"".join(
            b"%c: &%c [%s]\n" % (n + 1, n + 1, b", ".join([b"*%c" % n] * 10))
            for n in range(97, 104)
        ), "more than 10000 values"),
        (b"name: {{x}}\n", "e.yaml:1"),
        (b"name: !!python/object/apply:os.system ['true']\n", "e.yaml"),
    ],
)  # fmt: skip
def test_files_that_are_not_an_experiment(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "e.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        load_config(path)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("meta.populaton=3", "did you mean 'population'"),
        ("meta.population", "expected dotted.key=value"),
        ("=3", "expected dotted.key=value"),
        ("meta..x=3", "expected dotted.key=value"),
        ("tasks.7.name=or", "found '7', expected 0 to 1"),
        ("seed.x=1", "is a value and has no keys"),
        ("rule={", "cannot be read as YAML"),
    ],
)
def test_wrong_overrides(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        load(tmp_path, SMALL, override)
    assert f"--set {override}" in str(error.value)
    assert message in str(error.value)


@pytest.mark.parametrize("path", ["nowhere.yaml", "."])
def test_files_that_cannot_be_read(tmp_path: Path, path: str) -> None:
    with pytest.raises(InputError, match="cannot read the experiment"):
        load_config(tmp_path / path)


def test_a_grid_of_experiments(tmp_path: Path) -> None:
    config = load(tmp_path, SMALL)
    tasks = [{"name": "xor"}, {"name": "two_moons"}]
    axes: dict[str, list[Any]] = {"network.hidden": [[8], [8, 4]], "tasks.0": tasks, "seed": [5]}
    points = vary_config(config, axes)
    assert [settings for settings, _ in points] == [
        {"network.hidden": hidden, "tasks.0": task, "seed": 5}
        for hidden in ([8], [8, 4])
        for task in tasks
    ]
    for settings, point in points:
        assert list(point.network.hidden) == settings["network.hidden"]
        assert point.tasks[0] == settings["tasks.0"]
        assert point.seed == 5
    assert [point.to_dict() for _, point in vary_config(config, {})] == [config.to_dict()]
    with pytest.raises(InputError, match=r"network.hiden = \[3\]: network.hiden: unknown key"):
        vary_config(config, {"network.hiden": [[3]]})


def test_a_task_may_have_a_network_of_its_own(tmp_path: Path) -> None:
    own = SMALL.replace("{name: xor}", "{name: xor, network: {hidden: [6, 5]}}")
    config = load(tmp_path, own)
    assert config.hidden == ((6, 5), (8,))
    problem = problem_of(config)
    assert problem.hidden == config.hidden
    assert problem.tasks == ({"name": "xor"}, {"name": "two_moons"})
    assert load(tmp_path, config.to_yaml()).to_dict() == config.to_dict()
    episodes = LocalEvaluator(problem).episodes(EpisodeRange(Phase.META_TRAINING, 1, 2))
    assert [episode.sizes for episode in episodes] == [(2, 6, 5, 1)] * 2 + [(2, 8, 1)] * 2
    assert load(tmp_path, own, "network.hidden=[4]").hidden == ((6, 5), (4,))
    # A learned genome is measured in the network that is requested.
    for asked in ("network.hidden=[4]", "network={hidden: [4]}"):
        assert override_config(config, [asked]).hidden == ((4,), (4,))
    assert override_config(config, ["seed=4"]).hidden == config.hidden


def test_a_task_may_have_episodes_of_its_own(tmp_path: Path) -> None:
    own = SMALL.replace("{name: xor}", "{name: xor, episode: {unroll: 7, batch_size: 5}}")
    config = load(tmp_path, own)
    usual = config.episode
    assert config.episodes == (EpisodeSpec(7, 5, usual.query_batches), usual)
    problem = problem_of(config)
    assert problem.tasks == ({"name": "xor"}, {"name": "two_moons"})
    assert load(tmp_path, config.to_yaml()).to_dict() == config.to_dict()
    both = EpisodeRange(Phase.META_TRAINING, 1, 2)
    lengths = [(7, 5)] * 2 + [(usual.unroll, usual.batch_size)] * 2
    for wanted, expected in (
        (both, lengths),
        (both._replace(tasks=(1,)), lengths[2:]),
        (both._replace(unroll=3), [(3, 5)] * 2 + [(3, usual.batch_size)] * 2),
    ):
        episodes = LocalEvaluator(problem).episodes(wanted)
        assert [episode.support_inputs.shape[:2] for episode in episodes] == expected
        assert problem.unrolls(wanted) == [steps for steps, _ in expected]
    # A learned genome is measured in the episodes that are requested.
    assert override_config(config, ["episode.unroll=9"]).episodes == (
        EpisodeSpec(9, 5, usual.query_batches),
        EpisodeSpec(9, usual.batch_size, usual.query_batches),
    )
    whole = "episode={unroll: 9, batch_size: 8, query_batches: 1}"
    assert override_config(config, [whole]).episodes == (EpisodeSpec(9, 8, 1),) * 2
    assert override_config(config, ["seed=4"]).episodes == config.episodes
    with pytest.raises(InputError, match=r":5: tasks\.0\.episode\.unroll: meta\.curriculum alr"):
        load(tmp_path, own, "meta.curriculum={start: 1, step: 1, every: 1}")


def test_a_genome_of_every_layer_its_own_is_for_one_depth(tmp_path: Path) -> None:
    own = SMALL.replace("{name: xor}", "{name: xor, network: {hidden: [6, 5]}}")
    with pytest.raises(InputError, match="tasks: their networks have 1 and 2 hidden layers"):
        load(tmp_path, own, "rule.per_layer=true")
    deep = load(tmp_path, own.replace("hidden: [8]", "hidden: [4, 4]"), "rule.per_layer=true")
    assert deep.layers == 3

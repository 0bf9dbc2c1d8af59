"""Training and evaluation from Python: what the functions of `blur_es` itself do."""

from __future__ import annotations

import inspect
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import blur_es
from blur_es.config import load_config
from blur_es.experiment.contents import RunMetrics
from blur_es.experiment.loop import Generations
from blur_es.util.threads import ONE_THREAD
from tests.clusters import ray_warnings
from tests.experiments import SMALL, write_small

pytestmark = pytest.mark.usefixtures("reports_without_pictures")

TOP = str(Path(__file__).parents[1])
EXPERIMENT: dict[str, Any] = yaml.safe_load(SMALL)


def stop_after(generation: int) -> Any:
    return lambda metrics: metrics["generation"] < generation


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> blur_es.Run:
    """A run without interruptions."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return blur_es.train(EXPERIMENT, folder, local=True, quiet=True)


def test_importing_the_package_imports_no_other_package() -> None:
    program = "import sys; import blur_es; dir(blur_es); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.append({TOP!r}); {program}"],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded <= {*sys.stdlib_module_names, "blur_es", "__main__"}
    assert not loaded & {
        "asyncio",
        "dataclasses",
        "inspect",
        "logging",
        "pathlib",
        "typing_extensions",
    }


def test_only_public_names_are_listed() -> None:
    assert dir(blur_es) == sorted(dir(blur_es))
    assert set(dir(blur_es)) == {*blur_es.__all__, "__version__"}
    for name in blur_es.__all__:
        assert inspect.getdoc(getattr(blur_es, name)), name
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        _ = blur_es.trian


def test_a_callback_that_returns_false_stops_like_any_other_end(
    tmp_path: Path, whole: blur_es.Run
) -> None:
    seen: list[Mapping[str, Any]] = []
    run = blur_es.train(
        EXPERIMENT,
        tmp_path / "run",
        local=True,
        quiet=True,
        # NumPy's False stops too; None does not.
        callbacks=[seen.append, lambda metrics: np.bool_(metrics["generation"] < 2)],
    )
    assert [line["generation"] for line in seen] == [1, 2]
    assert "callback" in run.result["stopped"]
    assert run.result["genome_sha256"] == run.genome.sha256 != whole.genome.sha256
    assert {"checkpoint.json", "genome.npz", "report.html"} <= set(os.listdir(run.location))
    assert run.resume().genome.sha256 == whole.genome.sha256
    assert run.metrics["generation"].tolist() == [1, 2, 3, 4, 5, 6]
    np.testing.assert_array_equal(run.metrics["best"], whole.metrics["best"])


def test_a_loop_over_generations_can_be_left(tmp_path: Path, whole: blur_es.Run) -> None:
    search = blur_es.generations(EXPERIMENT, tmp_path / "run", local=True)
    handler = signal.getsignal(signal.SIGINT)
    for metrics in search:
        # While the body runs, Ctrl-C does what it always does.
        assert signal.getsignal(signal.SIGINT) is handler
        if metrics["generation"] == 2:
            break
    assert search.run.result["generations"] == 2
    assert os.path.exists(search.run.report)
    with pytest.raises(blur_es.InputError, match="one loop"):
        list(search)
    opened = blur_es.open_run(search.run.location)
    assert opened.resume(local=True, quiet=True).genome.sha256 == whole.genome.sha256


def test_a_loop_over_all_generations_trains_to_the_end(tmp_path: Path, whole: blur_es.Run) -> None:
    search = blur_es.generations(EXPERIMENT, tmp_path / "run", local=True)
    best = [metrics["best"] for metrics in search]
    np.testing.assert_array_equal(best, whole.metrics["best"])
    assert search.run.genome.sha256 == whole.genome.sha256


def test_an_error_where_a_loop_is_left_is_raised_by_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise blur_es.RunError("no genome")

    monkeypatch.setattr("blur_es.meta.trainer.select", fail)
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    search = blur_es.generations(EXPERIMENT, tmp_path / "run", local=True)
    for _ in search:
        break
    with pytest.raises(blur_es.RunError, match="no genome"):
        _ = search.run


def interrupt(metrics: Mapping[str, Any]) -> None:
    if metrics["generation"] == 2:
        os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_leaves_a_complete_checkpoint(tmp_path: Path, whole: blur_es.Run) -> None:
    settings = ["run.checkpoint_every=5"]
    with pytest.raises(KeyboardInterrupt, match="resume") as caught:
        blur_es.train(
            EXPERIMENT,
            tmp_path / "run",
            local=True,
            quiet=True,
            settings=settings,
            callbacks=[interrupt],
        )
    assert isinstance(caught.value, blur_es.TrainingInterrupted)
    run = caught.value.run
    assert run is not None
    assert repr(run) == f"<run {run.location}: 2 generations so far>"
    with pytest.raises(blur_es.InputError, match="has not ended"):
        _ = run.genome
    assert run.figures == ["fitness", "time"]
    assert run.resume().genome.sha256 == whole.genome.sha256


def test_an_interruption_in_another_thread_leaves_a_complete_checkpoint(
    tmp_path: Path, whole: blur_es.Run
) -> None:
    raised: list[BaseException] = []

    def interrupt_thread(metrics: Mapping[str, Any]) -> None:
        if metrics["generation"] == 2:
            raise KeyboardInterrupt

    def work() -> None:
        try:
            blur_es.train(
                EXPERIMENT, tmp_path, local=True, quiet=True, callbacks=[interrupt_thread]
            )
        except KeyboardInterrupt as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(raised) == 1
    run = blur_es.open_run(tmp_path)
    assert run.metrics["generation"].tolist() == [1, 2]
    assert run.resume(local=True, quiet=True).genome.sha256 == whole.genome.sha256


def test_a_run_goes_on_beyond_its_generations(whole: blur_es.Run, tmp_path: Path) -> None:
    shorter = {**EXPERIMENT, "meta": {**EXPERIMENT["meta"], "generations": 3}}
    run = blur_es.train(shorter, tmp_path / "run", local=True, quiet=True)
    assert run.result["generations"] == 3
    assert run.resume(generations=6).genome.sha256 == whole.genome.sha256
    with pytest.raises(blur_es.InputError, match="has done 6"):
        run.resume(generations=5)


KILLED = """
import json, os, signal, sys, blur_es

def kill(metrics):
    if metrics["generation"] == 3:
        os.kill(os.getpid(), signal.SIGKILL)

blur_es.train(json.loads(sys.argv[1]), sys.argv[2], local=True, quiet=True, callbacks=[kill])
"""


@pytest.mark.slow
def test_a_killed_script_resumes_to_the_same_genome(tmp_path: Path, whole: blur_es.Run) -> None:
    # Unlike the command, a script does not limit the threads of its process.
    environment = {name: value for name, value in os.environ.items() if name not in ONE_THREAD}
    arguments = [json.dumps(EXPERIMENT), str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments], env=environment | {"PYTHONPATH": TOP}
    )
    assert done.returncode == -signal.SIGKILL
    run = blur_es.open_run(tmp_path / "run")
    assert run.metrics["generation"].tolist() == [1, 2, 3]
    # The lease of the killed driver is known to be void, because it was on this machine.
    assert run.resume(local=True, quiet=True).genome.sha256 == whole.genome.sha256


def test_a_search_begins_with_a_genome_or_a_run(whole: blur_es.Run, tmp_path: Path) -> None:
    runs = []
    for number, source in enumerate((whole, whole.genome, Path(whole.location))):
        begun = {**EXPERIMENT, "genome": {"init": source}}
        settings = ["meta.generations=1"]
        folder = tmp_path / str(number)
        runs.append(blur_es.train(begun, folder, local=True, quiet=True, settings=settings))
    assert len({run.genome.sha256 for run in runs}) == 1
    assert f"genome {whole.genome.sha256}" in (tmp_path / "0/config.yaml").read_text()
    opened = blur_es.open_run(tmp_path / "0")
    longer = opened.resume(generations=2, local=True, quiet=True)
    assert longer.genome.provenance["began_with"]["sha256"] == whole.genome.sha256
    with pytest.raises(blur_es.InputError, match="found 3, expected a name"):
        blur_es.GenomeConfig(init=3)


def test_wrong_input_is_found_before_anything_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    cases: list[tuple[Any, dict[str, Any], str]] = [
        ({**EXPERIMENT, "sede": 1}, {}, r"sede: unknown key \(did you mean 'seed'\?\)"),
        (tmp_path / "none.yaml", {}, "none.yaml"),
        (EXPERIMENT, {"take_over": True}, "resume"),
        (EXPERIMENT, {"settings": ["meta.sigma=no"]}, "meta.sigma"),
        (EXPERIMENT, {"address": "auto"}, "local: found an address"),
        ({**EXPERIMENT, "genome": {"init": "mnist-5state"}}, {}, "mnist-4state"),
    ]
    for experiment, options, message in cases:
        options = {"local": True, "quiet": True, **options}
        with pytest.raises(blur_es.InputError, match=message):
            blur_es.train(experiment, folder, **options)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("written", "hostile"),
    [
        (r"name: xor", "name: harmful_module:Task"),
        (r"strategy: \w+", "strategy: harmful_module:Task"),
        (r"measure: \w+", "measure: harmful_module:Task"),
    ],
)
def test_an_opened_run_imports_nothing(
    written: str, hostile: str, tmp_path: Path, whole: blur_es.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "harmful_module.py").write_text("raise SystemExit('it was imported')")
    monkeypatch.syspath_prepend(tmp_path)
    config = Path(whole.location, "config.yaml").read_text()
    folder = tmp_path / "run"
    folder.mkdir()
    changed, count = re.subn(written, hostile, config)
    assert count == 1
    (folder / "config.yaml").write_text(changed)
    run = blur_es.open_run(folder)
    assert hostile in run.experiment.to_yaml()
    assert "not begun" in run._repr_html_() or "0 generations" in run._repr_html_()
    with pytest.raises(blur_es.InputError, match=r"harmful_module:Task.*trust=True"):
        run.resume(local=True)
    with pytest.raises(blur_es.InputError, match="not a run folder"):
        blur_es.open_run(tmp_path)


def test_metrics_are_arrays_by_column(whole: blur_es.Run) -> None:
    metrics = whole.metrics
    assert metrics["generation"].dtype == np.int64
    assert metrics["best"].shape == (6,)
    assert (metrics["best"] >= metrics["median"]).all()
    frame = metrics.to_pandas()
    assert frame.index.name == "generation"
    assert frame["median"].tolist() == metrics["median"].tolist()
    sparse = RunMetrics(
        [
            {"generation": 1, "best": 0.5},
            {"generation": 2, "best": 1.0, "failures": {"node_lost": 2}, "equal_fitness": True},
        ]
    )
    assert list(sparse) == ["generation", "best", "failures/node_lost", "equal_fitness"]
    np.testing.assert_array_equal(sparse["failures/node_lost"], [np.nan, 2.0])
    assert "2 generations" in repr(sparse)


def test_figures_of_a_run_are_drawn_by_name(whole: blur_es.Run) -> None:
    assert whole.figures == ["genome", "fitness", "time"]
    picture = whole.figure("fitness")
    assert picture._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]
    with pytest.raises(blur_es.InputError, match=r"did you mean 'fitness'.*genome, fitness"):
        whole.figure("fitnes")


def test_an_experiment_of_keyword_arguments_is_that_of_a_file(tmp_path: Path) -> None:
    experiment = blur_es.Experiment(
        name="small",
        seed=3,
        rule=blur_es.RuleSpec(states=2, symmetric=True, normalize="both"),
        network=blur_es.NetworkConfig(hidden=[8]),
        tasks=[{"name": "xor"}, {"name": "two_moons"}],
        episode=blur_es.EpisodeSpec(unroll=4, batch_size=16, query_batches=2),
        fitness=blur_es.FitnessConfig(measure="cross_entropy", temperature=0.3),
        meta=blur_es.MetaConfig(
            population=8, generations=6, validation_episodes=2, test_episodes=2, compare=False
        ),
    )
    assert experiment.to_dict() == load_config(write_small(tmp_path)).to_dict()
    assert experiment.sha256 == load_config(write_small(tmp_path)).sha256
    assert "two_moons" in experiment._repr_html_()


def test_wrong_keyword_arguments_are_named() -> None:
    with pytest.raises(blur_es.InputError, match="MetaConfig: population: found 0, expected"):
        blur_es.MetaConfig(population=0)
    tasks = [{"name": "digits", "network": {"hiden": [3]}}]
    with pytest.raises(blur_es.InputError, match=r"tasks\.0\.network\.hiden.*'hidden'"):
        blur_es.Experiment(name="x", tasks=tasks, episode=blur_es.EpisodeSpec(4, 16, 2))
    with pytest.raises(blur_es.InputError, match=r"tasks\.0.*did you mean 'digits'"):
        blur_es.Experiment(
            name="x", tasks=[{"name": "digts"}], episode=blur_es.EpisodeSpec(4, 16, 2)
        )


def test_one_hidden_layer_needs_no_list() -> None:
    experiment = {**EXPERIMENT, "network": {"hidden": 128}}
    assert blur_es.config.build_config(experiment).network.hidden == [128]
    assert blur_es.NetworkConfig(hidden=(8, 4)).hidden == [8, 4]  # type: ignore[arg-type]


def test_the_configuration_in_a_run_folder_has_every_key(whole: blur_es.Run) -> None:
    written = yaml.safe_load(Path(whole.location, "config.yaml").read_text())
    for name, section in blur_es.Experiment.model_json_schema()["properties"].items():
        assert name in written, name
        kinds = [section, *section.get("anyOf", ()), *section.get("allOf", ())]
        for reference in filter(None, (kind.get("$ref") for kind in kinds)):
            definitions = blur_es.Experiment.model_json_schema()["$defs"]
            keys = definitions[reference.rpartition("/")[2]]["properties"]
            assert set(keys) == set(written[name]), name
    assert {"inputs", "calibration_temperature"} <= set(written["rule"])


def test_every_argument_that_takes_a_genome_takes_the_same(
    whole: blur_es.Run, tmp_path: Path
) -> None:
    genome = whole.genome
    file = tmp_path / "genome.npz"
    genome.save(file)
    url = f"file://{file}"
    for source in (genome, whole, file, str(file), url, whole.location, Path(whole.location)):
        assert blur_es.load_genome(source).sha256 == genome.sha256
        assert blur_es.Genome.load(source).sha256 == genome.sha256
        classifier = blur_es.BlurClassifier(source, hidden_layers=4, steps=2, random_state=0)
        inputs = np.random.default_rng(0).normal(size=(40, 3))
        classifier.fit(inputs, np.arange(40) % 2)
        assert classifier.genome_.sha256 != ""
        found = blur_es.evaluate(source, "xor", hidden=4, steps=2, episodes=1)
        assert found.genome_sha256 == genome.sha256
    name = "mnist-4state"
    assert blur_es.Genome.load(name).sha256 == blur_es.load_genome(name).sha256
    for wrong in (3, None):
        with pytest.raises(blur_es.InputError, match="expected a name, a path, a URL, a run"):
            blur_es.load_genome(wrong)  # type: ignore[arg-type]
    with pytest.raises(blur_es.InputError, match="did you mean 'mnist-4state'"):
        blur_es.Genome.load("mnist-4stat")


@ray_warnings
def test_the_same_evaluation_in_process_on_ray_and_by_the_command(
    whole: blur_es.Run, ray_address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from blur_es.cli import main

    here = blur_es.evaluate(whole, episodes=3)
    there = blur_es.evaluate(whole, episodes=3, address=ray_address)
    assert main(["evaluate", whole.location, "--episodes", "3", "--json"]) == 0
    assert here.to_json() == there.to_json() == json.loads(capsys.readouterr().out)
    assert all(label in here._repr_html_() for label in here.labels)


@ray_warnings
def test_a_run_on_ray_after_one_in_this_process(whole: blur_es.Run, tmp_path: Path) -> None:
    # The threads of JAX, which `whole` has started, would not survive a fork.
    assert "jax" in sys.modules
    run = blur_es.train(EXPERIMENT, tmp_path / "run", workers=1, quiet=True)
    assert run.genome.sha256 == whole.genome.sha256


def test_results_and_genomes_have_tables_for_notebooks(whole: blur_es.Run) -> None:
    swept = blur_es.sweep(whole, {"hidden": [2, 4]}, "xor", episodes=1)
    assert swept._repr_html_().count("<tr>") == 3
    compared = blur_es.compare(
        whole,
        "xor",
        steps=3,
        optimizers=["sgd"],
        schedules=["constant"],
        classifiers=[],
        episodes=1,
    )
    assert "&gt;" in compared._repr_html_()
    assert whole.genome.sha256 in whole.genome._repr_html_()
    assert whole.genome.sha256 in whole._repr_html_()
    assert "<genome" in repr(whole.genome)
    evaluated = blur_es.evaluate(whole, "xor", episodes=1)
    for result in (swept, compared, compared.comparisons[0], evaluated):
        assert repr(result) == result.table()


def test_html_is_escaped() -> None:
    from blur_es.util.html import description, table

    for text in (description("<b>", {"<i>": "<u>"}), table("<b>", [["<i>"], ["<u>"]], ["<s>"])):
        assert "&lt;b&gt;" in text
        for tag in ("<i>", "<u>", "<s>"):
            assert tag not in text


def test_a_signal_between_generations_interrupts_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: blur_es.Run
) -> None:
    original = Generations._train  # the generations themselves offer no such place

    def signalling(search: Generations, between: Any) -> Iterator[dict[str, Any]]:
        for number, metrics in enumerate(original(search, between), 1):
            if number == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            yield metrics

    with monkeypatch.context() as patch:
        patch.setattr(Generations, "_train", signalling)
        with pytest.raises(blur_es.TrainingInterrupted, match="--resume"):
            blur_es.train(EXPERIMENT, tmp_path / "run", local=True, quiet=True)
    assert len(blur_es.open_run(tmp_path / "run").metrics["generation"]) == 3
    resumed = blur_es.train(EXPERIMENT, tmp_path / "run", local=True, quiet=True, resume=True)
    assert resumed.genome.sha256 == whole.genome.sha256

"""Metrics of a fleet: in `metrics.jsonl`, in the progress line, at Ray's metrics endpoint."""

from __future__ import annotations

import importlib.util
import json
import re
import urllib.request
from pathlib import Path

import pytest

from blur_es.config import FleetConfig
from blur_es.evaluator import problem_of
from blur_es.fleet.fleet import RayFleet
from tests.clusters import TRAINING, make_cluster, random_population, ray_warnings
from tests.experiments import small, train
from tests.processes import wait_until

pytestmark = ray_warnings


def test_metrics_of_a_run_carry_the_fleet(
    tmp_path: Path, ray_address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import ray

    config = small(tmp_path)
    fleet = RayFleet(problem_of(config), FleetConfig(workers=2), address=ray_address)
    try:
        ray.kill(next(iter(fleet.pool.serving.values())).actor)
        train(config, tmp_path / "run", evaluator=fleet, quiet=False)
    finally:
        fleet.close()
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    for line in lines:
        assert line["chunks"] >= 1
        assert 0 < line["chunk_seconds"] <= line["longest_chunk_seconds"]
        assert line["driver_seconds"] > 0
        assert line["late_results"] >= 0
    assert sum(line["lost_workers"] for line in lines) == 1
    assert sum(line["failures"].get("worker_killed", 0) for line in lines) == 1
    shown = capsys.readouterr().err
    assert re.search(r"workers \d \(1 lost\)  \d+ chunks? repeated", shown)


# Such a cluster takes long to start.
@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("opentelemetry") is None or importlib.util.find_spec("grpc") is None,
    reason="Ray has a metrics endpoint with ray[default] alone",
)
def test_rays_metrics_endpoint_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setenv("RAY_metrics_report_interval_ms", "500")
    config = small(tmp_path)
    with make_cluster(metrics=True, num_cpus=2) as cluster:
        fleet = RayFleet(
            problem_of(config), FleetConfig(workers=2), address=cluster.address, run="scraped"
        )
        try:
            node = ray.nodes()[0]  # type: ignore[no-untyped-call]
            url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
            expected = {
                "evaluations_total": None,
                "workers": 2.0,
                "chunk_seconds_count": None,
                "driver_seconds_count": 1.0,
            }
            fleet.evaluate(random_population(config, 8), TRAINING)
            fleet.report(0.01)

            def all_found() -> bool:
                try:
                    text = urllib.request.urlopen(url).read().decode()
                except OSError:
                    # The node's agent still starts.
                    return False
                for name, value in list(expected.items()):
                    found = re.search(
                        rf'^ray_blur_es_{name}{{.*run="scraped".*}} (\S+)$', text, re.MULTILINE
                    )
                    if found and (value is None or float(found[1]) == value):
                        del expected[name]
                return not expected

            wait_until(all_found, "the metrics", every=0.5)
        finally:
            fleet.close()

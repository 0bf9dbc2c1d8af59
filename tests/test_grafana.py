"""The Grafana dashboard asks for metrics and tags that the code exports, in valid PromQL."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from blur_es.fleet.telemetry import Telemetry

DASHBOARD = json.loads((Path(__file__).parent.parent / "cluster/grafana.json").read_bytes())
QUERIES = [
    (panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel["targets"]
]


def exported(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[str, ...]]:
    """The tags of every metric that a fleet has, by the metric's name at Ray's endpoint."""
    metrics = pytest.importorskip("ray.util.metrics")
    found: dict[str, tuple[str, ...]] = {}

    def kind(*endings: str) -> Any:
        class Recorded:
            def __init__(self, name: str, description: str, *rest: Any) -> None:
                found.update({f"ray_{name}{ending}": rest[-1] for ending in endings})

            def set_default_tags(self, tags: dict[str, str]) -> None:
                pass

        return Recorded

    monkeypatch.setattr(metrics, "Counter", kind("_total"))
    monkeypatch.setattr(metrics, "Gauge", kind(""))
    monkeypatch.setattr(metrics, "Histogram", kind("_bucket", "_sum", "_count"))
    Telemetry(None, "run")
    return found


def test_every_metric_and_tag_is_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    known = exported(monkeypatch)
    shown = set()
    for title, query in QUERIES:
        names = set(re.findall(r"ray_\w+", query))
        assert names, title
        assert names <= set(known), title
        shown |= names
        for name in names:
            tags = {
                tag for group in re.findall(r"by \(([^)]*)\)", query) for tag in group.split(", ")
            }
            tags |= set(re.findall(r"[{,] *(\w+)=", query))
            assert tags - {"le"} <= set(known[name]), title
    families = {re.sub("_(bucket|sum|count)$", "", name) for name in known}
    assert {re.sub("_(bucket|sum|count)$", "", name) for name in shown} == families
    variable = next(each for each in DASHBOARD["templating"]["list"] if each["name"] == "run")
    name, tag = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]).groups()  # type: ignore[union-attr]
    assert tag in known[name]


@pytest.mark.parametrize(("title", "query"), QUERIES)
def test_queries_are_valid(title: str, query: str) -> None:
    promql_parser = pytest.importorskip("promql_parser")
    # Grafana fills in its variables before Prometheus sees a query.
    filled = query.replace("$__rate_interval", "1m").replace("$run", "mine")
    assert "$" not in filled
    promql_parser.parse(filled)
    with pytest.raises(ValueError, match=r"parse|expected|unexpected|unclosed|invalid"):
        promql_parser.parse(filled + ")")


def test_panels_have_places_of_their_own() -> None:
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(places)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(places)

"""Tables and picture of `docs/scaling.md`, and the model of a generation's time that it states."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import nnls

from blur_es.util.markdown import markdown_table
from docs.generated.common import PICTURES, origin, read

# The efficiency that dispatch is meant to reach, and a higher one for comparison.
WANTED, HIGHER = 0.85, 0.95
# Seconds that a small request to an object store in the same region takes, as providers state it.
REQUEST_SECONDS = 0.05
STATED = (100, 1000, 10_000)
# Genomes per core in the simulated generations.
GENOMES = 25
# The cores of a worker that has several.
EACH = 32


def _rows(results: dict[str, Any], each: int) -> list[dict[str, Any]]:
    """The simulated generations of workers with `each` cores."""
    return [row for row in results["simulation"]["large"] if row["cores_each"] == each]


def cost_of_a_call(results: dict[str, Any]) -> float:
    """Seconds of the driver's thread per call: Ray's share and the driver's own bookkeeping.

    The bookkeeping is taken from the shortest simulated generation of about a thousand workers,
    in which the driver is never idle.
    """
    calls = results["costs"]["calls"]
    row = next(row for row in _rows(results, 1) if row["cores"] >= STATED[1])
    return float(calls["submit"] + calls["get"] + row["own_seconds"] / row["calls"])


def model(results: dict[str, Any]) -> tuple[float, float, float]:
    """The constants (k, g, r) of the model, fitted to the simulated generations.

    With W workers, an ideal time of T seconds and genomes of e seconds each, a generation takes
    T + k h W + g e + r, where h is the cost of a call.
    """
    rows = results["simulation"]["large"]
    excess = np.array([row["seconds"] - row["ideal_seconds"] for row in rows])
    terms = [
        [
            cost_of_a_call(results) * row["cores"] / row["cores_each"],
            row["ideal_seconds"] / row["items"],
            1.0,
        ]
        for row in rows
    ]
    # Relative errors count, and no term may be negative.
    ideal = np.array([row["ideal_seconds"] for row in rows])
    (times, genomes, constant), _ = nnls(np.array(terms) / ideal[:, None], excess / ideal)
    return float(times), float(genomes), float(constant)


def lost_seconds(results: dict[str, Any], workers: float, ideal: float) -> float:
    """Seconds that a generation takes beyond the ideal according to the model."""
    times, genomes, constant = model(results)
    return times * cost_of_a_call(results) * workers + genomes * ideal / GENOMES + constant


def least_generation(results: dict[str, Any], workers: float, wanted: float = WANTED) -> float:
    """Ideal seconds of the shortest generation that reaches an efficiency, by the model."""
    times, genomes, constant = model(results)
    fixed = times * cost_of_a_call(results) * workers + constant
    return fixed / ((1 - wanted) / wanted - genomes / GENOMES)


def largest_error(results: dict[str, Any]) -> float:
    """Largest difference between the model's efficiencies and the simulated ones."""
    return max(
        abs(
            row["efficiency"]
            - ideal / (ideal + lost_seconds(results, row["cores"] / row["cores_each"], ideal))
        )
        for row in results["simulation"]["large"]
        for ideal in [row["ideal_seconds"]]
    )


def _needed() -> list[str]:
    results = read("scaling")
    rows = []
    for cores in STATED:
        for each in (1, EACH) if cores > STATED[0] else (1,):
            seconds = least_generation(results, cores / each)
            rows.append([f"{cores:,}", str(each), f"{seconds:.1f} s"])
    return markdown_table(
        ["cores", "cores per worker", f"work per core for {WANTED:.0%} efficiency"], rows
    )


def _constants() -> list[str]:
    results = read("scaling")
    times, genomes, constant = model(results)
    return markdown_table(
        ["h, ms", "k", "g", "r, s", "largest error of an efficiency"],
        [
            [
                f"{1e3 * cost_of_a_call(results):.2f}",
                f"{times:.1f}",
                f"{genomes:.1f}",
                f"{constant:.2f}",
                f"{largest_error(results):.2f}",
            ]
        ],
    )


def _threads() -> list[str]:
    return markdown_table(
        ["P1 on two cores", "evaluations/s"],
        [[name, f"{rate:.1f}"] for name, rate in read("scaling")["threads"].items()],
    )


def _fleets() -> list[str]:
    results = read("scaling")
    checks = iter(results["simulation"]["checks"])
    rows = []
    for fleet in results["fleets"]:
        for row in fleet["generations"]:
            check = next(checks)
            rows.append(
                [
                    *(str(fleet["workers"]), str(fleet["cores_each"])),
                    *(str(row["items"]), f"{row['calls']:.0f}"),
                    f"{row['items'] * row['evaluation_seconds']:.2f}",
                    *(f"{row['seconds']:.2f}", f"{row['efficiency']:.2f}"),
                    f"{check['efficiency']:.2f}",
                ]
            )
    return markdown_table(
        [
            *("workers", "cores each", "evaluations per core", "calls", "ideal, s", "measured, s"),
            *("efficiency", "simulated"),
        ],
        rows,
    )


def _costs() -> list[str]:
    results = read("scaling")
    cost = cost_of_a_call(results)
    last = _largest(results)
    longest = last["generations"][-1]
    calls, bulk, bucket = results["costs"]["calls"], results["costs"]["bulk"], results["bucket"]
    waiting = results["costs"]["waiting"]
    largest = max(waiting, key=int)
    requests = bucket["requests_a_generation"]
    own = cost - calls["submit"] - calls["get"]
    ray_seconds = bulk["process_seconds"] - bulk["main_thread_seconds"]
    return markdown_table(
        ["what", "cost"],
        [
            ["driver's thread, per call: Ray sends it", f"{1e3 * calls['submit']:.2f} ms"],
            ["driver's thread, per call: Ray fetches its result", f"{1e3 * calls['get']:.2f} ms"],
            [
                f"driver's thread, per call: bookkeeping, with {STATED[1]:,} workers",
                f"{1e3 * own:.2f} ms",
            ],
            [
                "driver's thread: asking Ray which results have arrived",
                f"{1e3 * calls['wait']:.2f} ms, and {1e6 * calls['wait_each']:.2f} µs for each "
                f"pending call ({1e3 * waiting[largest]:.1f} ms for {int(largest):,})",
            ],
            [
                "4,000 calls at once to 4 actors on the same two cores, per call",
                f"{1e3 * bulk['seconds']:.2f} ms, of which the driver's thread takes "
                f"{1e3 * bulk['main_thread_seconds']:.2f} ms; Ray's own threads take "
                f"{1e3 * ray_seconds:.2f} ms in parallel",
            ],
            [
                "driver: memory per worker",
                f"{last['driver_bytes_a_worker'] / 1e6:.1f} MB with {last['workers']} workers "
                f"({results['fleets'][0]['driver_bytes_a_worker'] / 1e6:.1f} MB with one)",
            ],
            [
                "Ray's GCS and raylet: processor time",
                f"{longest['daemon_cpu_seconds'] / longest['seconds']:.0%} of a core with "
                f"{last['workers']} workers",
            ],
            ["worker: memory", f"{last['worker_bytes'] / 1e6:.0f} MB"],
            [
                "network: bytes per call, both ways, with Ray's own messages",
                f"{_wire(results) / 1e3:.1f} kB",
            ],
            [
                "object store",
                f"{last['object_store_bytes']:.0f} bytes: results and most calls are sent inline; "
                "a call or result of more than 100 kB is not",
            ],
            [
                "bucket: requests per generation, with a checkpoint in each",
                f"{sum(requests.values()):.1f}: "
                + ", ".join(f"{count:.1f} {name}" for name, count in requests.items() if count),
            ],
            [
                "bucket: bytes written per generation",
                f"{bucket['bytes_written_a_generation'] / 1e3:.1f} kB",
            ],
        ],
    )


def _largest(results: dict[str, Any]) -> dict[str, Any]:
    """The measured fleet with the most workers."""
    found: dict[str, Any] = max(results["fleets"], key=lambda fleet: fleet["workers"])
    return found


def _wire(results: dict[str, Any]) -> float:
    """Mean bytes on the network per call."""
    rows = _largest(results)["generations"]
    return float(sum(row["wire_bytes"] for row in rows) / sum(row["calls"] for row in rows))


def _simulated() -> list[str]:
    head = ["cores", "cores per worker", "work per core, s", "genomes", "calls", "time, s"]
    return markdown_table(
        [*head, "efficiency", "first generation, s"],
        [
            [
                *(f"{row['cores']:,}", str(row["cores_each"]), f"{row['ideal_seconds']:.0f}"),
                *(f"{row['cores'] * row['items']:,}", f"{row['calls']:,}"),
                *(f"{row['seconds']:.2f}", f"{row['efficiency']:.2f}"),
                f"{row['first_seconds']:.2f}",
            ]
            for row in read("scaling")["simulation"]["large"]
        ],
    )


def _predicted() -> list[str]:
    results = read("scaling")
    rows = []
    for cores in STATED:
        for each in (1, EACH) if cores > STATED[0] else (1,):
            least, better = (least_generation(results, cores / each, w) for w in (WANTED, HIGHER))
            evaluations = cores * least / results["simulation"]["evaluation_seconds"]
            rows.append(
                [
                    *(f"{cores:,}", str(each)),
                    f"{lost_seconds(results, cores / each, 1.0):.2f}",
                    *(f"{least:.1f}", f"{float(f'{evaluations:.2g}'):,.0f}"),
                    f"{better:.1f}" if better > 0 else "-",
                ]
            )
    return markdown_table(
        [
            *("cores", "cores per worker", "lost in a generation of 1 s, s"),
            *(f"work per core for {WANTED:.0%}, s", "P1 evaluations in that generation"),
            f"work per core for {HIGHER:.0%}, s",
        ],
        rows,
    )


def _limits() -> list[str]:
    results = read("scaling")
    requests = sum(results["bucket"]["requests_a_generation"].values())
    wire = 8 * _wire(results) / cost_of_a_call(results) / 1e6
    return markdown_table(
        ["limit", "value"],
        [
            ["network traffic of a driver that does nothing but make calls", f"{wire:.0f} Mbit/s"],
            [
                f"a checkpoint in a bucket, at {1e3 * REQUEST_SECONDS:.0f} ms per request",
                f"{requests * REQUEST_SECONDS:.2f} s",
            ],
        ],
    )


PARTS: dict[str, Callable[[], list[str]]] = {
    "origin": lambda: origin(read("scaling")),
    "needed": _needed,
    "fleets": _fleets,
    "costs": _costs,
    "simulated": _simulated,
    "constants": _constants,
    "predicted": _predicted,
    "limits": _limits,
    "threads": _threads,
}


def draw() -> None:
    """Draw efficiency by number of cores; lines differ in markers and dashes, not in colour."""
    results = read("scaling")
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9.0, 3.8), sharey=True)
    for axis, each in zip(axes, (1, EACH), strict=True):
        rows = _rows(results, each)
        lengths = sorted({row["ideal_seconds"] for row in rows})
        for seconds, marker, style in zip(lengths, "o^sD", ("-", "--", "-.", ":"), strict=True):
            chosen = [row for row in rows if row["ideal_seconds"] == seconds]
            axis.plot(
                [row["cores"] for row in chosen],
                [row["efficiency"] for row in chosen],
                color="black",
                linestyle=style,
                marker=marker,
                markersize=5,
                label=f"simulated, {seconds:.0f} s of work per core",
            )
        measured = [
            (fleet["workers"] * fleet["cores_each"], fleet["generations"][1]["efficiency"])
            for fleet in results["fleets"]
            if (fleet["cores_each"] == 1) == (each == 1)
        ]
        axis.plot(
            *zip(*measured, strict=True),
            color="0.5",
            marker="x",
            markersize=8,
            linestyle="",
            label="measured, 1 s of work per core",
        )
        axis.axhline(WANTED, color="0.7", linewidth=0.8)
        axis.set_xscale("log")
        axis.set_ylim(0, 1.05)
        axis.set_xlabel("cores")
        axis.set_title(
            "one worker per core" if each == 1 else f"{each} cores per worker (measured: 4, 8)"
        )
    axes[0].set_ylabel("efficiency: ideal over actual time")
    axes[0].legend(loc="lower left", fontsize=8)
    figure.tight_layout()
    figure.savefig(PICTURES / "scaling.png", dpi=110)
    pyplot.close(figure)

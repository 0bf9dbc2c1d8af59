"""Tables and picture of `docs/performance.md`."""

from __future__ import annotations

from collections.abc import Callable

from blur_es.util.markdown import markdown_table
from blur_es.util.style import Picture, new_axes
from docs.generated.common import Row, origin, read, save

# Colours of the package's backends and of plain programs.
OWN, OTHERS = "#0b3c5d", "#a9bccb"


def _summary() -> list[str]:
    ratios = [bench["ratio"] for bench in read("inner_loop")["benches"]]
    [gpu] = [
        row["evaluations_per_second"] / row["core_evaluations_per_second"]
        for row in read("gpu")["rates"]
        if (row["config"], row["precision"], row["device_batch"]) == ("P1", "float32", 1024)
    ]
    device = read("gpu")["machine"]["device"]
    return [
        f"In short: on a CPU, the Numba backend evaluates genomes at {min(ratios):.0%} to "
        f"{max(ratios):.0%} of the speed of plain matrix products of the same shapes. One "
        f"{device} evaluates the paper's network (P1) in float32 as fast as about "
        f"{round(gpu, -1):.0f} CPU cores. The driver takes "
        f"{read('driver')['share']['driver_cpu_share']:.1%} of a core."
    ]


def _configurations() -> list[str]:
    return [
        f"- {bench['config']}: {'-'.join(map(str, bench['sizes']))}, {bench['states']} states, "
        f"batch size {bench['batch_size']}, {bench['unroll']} steps, {bench['query_batches']} "
        "query batches"
        for bench in read("inner_loop")["benches"]
    ]


def _inner_loop() -> list[str]:
    head = ["Numba", "evaluations/s", "useful GFLOP/s", "sgemm, same shapes", "sgemm, 2048³"]
    head += ["ratio", "normalisation", "mixing", "first call cold, s", "cached, s"]
    return markdown_table(
        [*head, "peak memory, MB"],
        [
            [
                bench["config"],
                f"{bench['evaluations_per_second']:.1f}",
                f"{bench['useful_gflops']:.1f}",
                f"{bench['sgemm_gflops_same_shapes']:.1f}",
                f"{bench['sgemm_gflops_2048']:.1f}",
                f"{bench['ratio']:.2f}",
                f"{bench['time_shares']['normalization_and_activations']:.2f}",
                f"{bench['time_shares']['mixing']:.2f}",
                f"{bench['first_call_seconds_cold']:.1f}",
                f"{bench['first_call_seconds_cached']:.1f}",
                f"{bench['peak_memory_bytes'] / 1e6:.0f}",
            ]
            for bench in read("inner_loop")["benches"]
        ],
    )


def _comparisons() -> list[str]:
    comparisons = read("inner_loop")["comparisons"]
    return markdown_table(
        ["configuration", *(entry["name"] for entry in comparisons[0]["entries"])],
        [
            [
                comparison["config"],
                *(f"{entry['evaluations_per_second']:.1f}" for entry in comparison["entries"]),
            ]
            for comparison in comparisons
        ],
    )


def _headline_summary() -> list[str]:
    results = read("headline")
    last = results["stages"][-1]
    paper = results["paper_accuracy"]
    reached = [stage for stage in results["stages"] if stage["test_accuracy"] >= paper]
    first = reached[0] if reached else None
    return markdown_table(
        ["workers", "generations", "evaluations", "minutes", f"accuracy {paper} is reached after"],
        [
            [
                str(results["workers"]),
                str(last["generations"]),
                f"{last['evaluations']:,}",
                f"{last['seconds_of_training'] / 60:.1f}",
                f"{first['generations']} generations, {first['evaluations']:,} evaluations, "
                f"{first['seconds_of_training']:.0f} s"
                if first
                else "never",
            ]
        ],
    )


def _headline() -> list[str]:
    results = read("headline")
    return markdown_table(
        [
            *("generations", "evaluations", "seconds"),
            f"test accuracy, {results['test_episodes']} episodes",
        ],
        [
            [
                str(stage["generations"]),
                f"{stage['evaluations']:,}",
                f"{stage['seconds_of_training']:.0f}",
                f"{stage['test_accuracy']:.3f} ± {stage['test_accuracy_std']:.3f}",
            ]
            for stage in results["stages"]
        ],
    )


def _device_limits() -> list[str]:
    results = read("accelerator")
    rows = [
        ["memory bandwidth", f"{results['bandwidth'] / 1e12:.2f} TB/s"],
        *(
            [f"products in {precision}", f"{flops / 1e12:.1f} TFLOP/s"]
            for precision, flops in results["flops"].items()
        ),
        ["assumed fraction of each", f"{results['reached']:.0%}"],
    ]
    return markdown_table(["H100 (SXM), data sheet", "value"], rows)


def _expected() -> list[str]:
    head = ["configuration", "precision", "GFLOP", "MB", "arithmetic limit", "bandwidth limit"]
    return markdown_table(
        [*head, "expected evaluations/s"],
        [
            [
                row["config"],
                row["precision"],
                f"{row['gigaflops_per_evaluation']:.2f}",
                f"{row['megabytes_per_evaluation']:.0f}",
                f"{row['arithmetic_limit']:.0f}",
                f"{row['bandwidth_limit']:.0f}",
                f"{row['evaluations_per_second']:.0f}",
            ]
            for row in read("accelerator")["expected"]
        ],
    )


def _inspected() -> list[str]:
    return markdown_table(
        [
            *("configuration", "genomes", "arrays that repeat an episode's data for every genome"),
            *("arguments, MB", "temporary memory per genome, MB"),
        ],
        [
            [
                row["config"],
                str(row["genomes"]),
                str(len(row["arrays_with_data_per_genome"])),
                f"{row['argument_megabytes']:.1f}",
                f"{row['temporary_megabytes_per_genome']:.1f}",
            ]
            for row in read("accelerator")["inspected"]
        ],
    )


def _gpu_origin() -> list[str]:
    results = read("gpu")
    commit = str(results["versions"]["commit"])
    changed = " with changes" if commit.endswith("-dirty") else ""
    return [
        f"{origin(results)[0]} GPU: one {results['machine']['device']}; JAX "
        f"{results['versions']['packages']['jax']}, commit {commit[:7]}{changed}."
    ]


def _gpu_rates() -> list[str]:
    return markdown_table(
        [
            *("configuration", "precision", "device batch", "evaluations/s"),
            *("of the derived rate", "CPU cores of equal speed"),
        ],
        [
            [
                *(row["config"], row["precision"], str(row["device_batch"])),
                f"{row['evaluations_per_second']:.0f}",
                f"{row['of_derived']:.0%}" if row["of_derived"] else "",
                f"{row['evaluations_per_second'] / row['core_evaluations_per_second']:.0f}",
            ]
            for row in read("gpu")["rates"]
        ],
    )


def _gpu_gradients() -> list[str]:
    return markdown_table(
        ["configuration", "precision", "device batch", "gradients/s"],
        [
            [
                *(row["config"], row["precision"], str(row["device_batch"])),
                f"{row['gradients_per_second']:.0f}",
            ]
            for row in read("gpu")["gradients"]
        ],
    )


def _gpu_profiles() -> list[str]:
    results = read("gpu")
    profiles = [(what, row) for what in ("rates", "gradients") for row in results[what]]
    kinds = list(profiles[0][1]["shares"])
    names = {"rates": "evaluations", "gradients": "gradients", "nothing": "idle"}
    return markdown_table(
        [
            *("configuration", "of", "precision", "device batch"),
            *(names.get(kind, kind) for kind in kinds),
        ],
        [
            [
                *(row["config"], names[what], row["precision"], str(row["device_batch"])),
                *(f"{row['shares'][kind]:.0%}" for kind in kinds),
            ]
            for what, row in profiles
        ],
    )


def _gpu_repeats() -> list[str]:
    return markdown_table(
        ["configuration", "genomes", "two processes give the same bits"],
        [
            [row["config"], str(row["genomes"]), "yes" if row["same_bits"] else "NO"]
            for row in read("gpu")["repeats"]
        ],
    )


def _gpu_training() -> list[str]:
    return markdown_table(
        ["settings", "generations", "evaluations", "seconds", "test accuracy"],
        [
            [
                ", ".join(f"`{override}`" for override in row["overrides"]),
                str(row["generations"]),
                f"{row['evaluations']:,}",
                f"{row['seconds_of_training']:.0f}",
                f"{row['test_accuracy']:.3f} ± {row['test_accuracy_std']:.3f}",
            ]
            for row in read("gpu")["training"]
        ],
    )


def _driver() -> list[str]:
    results = read("driver")
    share, dispatch = results["share"], results["dispatch"]
    return markdown_table(
        ["measured", "population", "workers", "result"],
        [
            [
                "P1: seconds per generation",
                str(share["population"]),
                str(share["workers"]),
                f"{share['seconds_per_generation']:.2f} s",
            ],
            [
                "P1: ask, tell and bookkeeping, of the time of a generation",
                str(share["population"]),
                str(share["workers"]),
                f"{share['driver_share']:.2%}",
            ],
            [
                "P1: all computation of the driver, with dispatch and checkpoints",
                str(share["population"]),
                str(share["workers"]),
                f"{share['driver_cpu_share']:.2%}",
            ],
            [
                f"evaluations of {1e3 * dispatch['seconds_per_evaluation']:.2f} ms: time divided "
                "by the ideal time",
                str(dispatch["population"]),
                str(dispatch["workers"]),
                f"{dispatch['times_ideal']:.2f}",
            ],
        ],
    )


def _driver_memory() -> list[str]:
    return markdown_table(
        ["generation", "driver, MB", "workers, MB"],
        [
            [
                f"{sample['generation']:,}",
                f"{sample['driver_bytes'] / 1e6:.1f}",
                ", ".join(f"{size / 1e6:.1f}" for size in sample["worker_bytes"]),
            ]
            for sample in read("driver")["memory"]["samples"]
        ],
    )


def _dispatch() -> list[str]:
    return markdown_table(
        [
            *("population", "ideal, s", "measured, s", "efficiency"),
            *("lowest of the generations", "late results per generation"),
        ],
        [
            [
                str(row["population"]),
                f"{row['generations'][-1]['ideal_seconds']:.2f}",
                f"{row['generations'][-1]['seconds']:.2f}",
                f"{row['efficiency']:.2f}",
                f"{row['least_efficiency']:.2f}",
                f"{row['late_results'] / len(row['generations']):.1f}",
            ]
            for row in read("dispatch")["efficiencies"]
        ],
    )


def _origin_of(name: str) -> Callable[[], list[str]]:
    return lambda: origin(read(name))


PARTS: dict[str, Callable[[], list[str]]] = {
    "summary": _summary,
    "inner_loop_origin": _origin_of("inner_loop"),
    "configurations": _configurations,
    "inner_loop": _inner_loop,
    "comparisons": _comparisons,
    "headline_origin": _origin_of("headline"),
    "headline_summary": _headline_summary,
    "headline": _headline,
    "accelerator_origin": _origin_of("accelerator"),
    "device_limits": _device_limits,
    "expected": _expected,
    "inspected": _inspected,
    "gpu_origin": _gpu_origin,
    "gpu_rates": _gpu_rates,
    "gpu_gradients": _gpu_gradients,
    "gpu_profiles": _gpu_profiles,
    "gpu_repeats": _gpu_repeats,
    "gpu_training": _gpu_training,
    "driver_origin": _origin_of("driver"),
    "driver": _driver,
    "driver_memory": _driver_memory,
    "dispatch_origin": _origin_of("dispatch"),
    "dispatch": _dispatch,
}


def draw() -> None:
    """Draw evaluations per second; the backends of this package are darker than plain programs."""
    comparisons: list[Row] = read("inner_loop")["comparisons"]
    figure = Picture(figsize=(9.0, 3.0), layout="constrained")
    for place, comparison in enumerate(comparisons, 1):
        axes = new_axes(figure, "evaluations per second", "", (1, len(comparisons), place))
        entries = comparison["entries"][::-1]
        rates = [entry["evaluations_per_second"] for entry in entries]
        names = [entry["name"] for entry in entries]
        colors = [OWN if name.startswith("blur_es") else OTHERS for name in names]
        bars = axes.barh(range(len(names)), rates, color=colors, height=0.7)
        labels = [f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}" for rate in rates]
        axes.bar_label(bars, labels, padding=3, fontsize=10)
        # The names are the same in every panel.
        axes.set_yticks(range(len(names)), names if place == 1 else [""] * len(names), fontsize=10)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.margins(x=0.22)
        axes.set_title(comparison["config"], fontsize=11)
    save(figure, "performance")

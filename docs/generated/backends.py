"""Tables of `docs/backends.md`."""

from __future__ import annotations

from collections.abc import Callable

from blur_es.util.markdown import markdown_table
from docs.generated.common import Row, origin, read


def _versions(results: Row) -> list[str]:
    packages = results["versions"]["packages"]
    [line] = origin(results)
    return [f"{line} JAX {packages['jax']}, Numba {packages['numba']}."]


def _agreement(name: str) -> Callable[[], list[str]]:
    return lambda: markdown_table(
        [
            *("pair", "fitness: median difference", "largest difference"),
            *("accuracy: largest difference", "diverged in one only"),
        ],
        [
            [
                row["pair"],
                f"{row['fitness_median']:.1e}",
                f"{row['fitness_largest']:.1e}",
                f"{row['accuracy_largest']:.1e}",
                str(row["diverged_differently"]),
            ]
            for row in read(name)["agreement"]
        ],
    )


def _golden() -> list[str]:
    [golden] = read("gpu")["conformance"]
    return markdown_table(
        ["golden trajectories", "reproduced", "tolerance", "largest relative error"],
        [
            [
                str(golden["cases"]),
                str(golden["passed"]),
                f"{golden['tolerance']:.0e}",
                f"{golden['largest_error']:.1e}",
            ]
        ],
    )


def _memory() -> list[str]:
    return markdown_table(
        ["unroll", "everything kept, MB", "checkpointed, MB"],
        [
            [
                str(row["unroll"]),
                f"{row['all_kept_megabytes']:.0f}",
                f"{row['checkpointed_megabytes']:.0f}",
            ]
            for row in read("backends")["gradient_memory"]
        ],
    )


PARTS: dict[str, Callable[[], list[str]]] = {
    "origin": lambda: _versions(read("backends")),
    "agreement": _agreement("backends"),
    "gpu_origin": lambda: _versions(read("gpu")),
    "gpu_agreement": _agreement("gpu"),
    "golden": _golden,
    "memory": _memory,
}

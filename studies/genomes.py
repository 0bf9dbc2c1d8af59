"""Accuracy of the shipped genomes by task, unroll and depth, compared with tuned baselines.

    python -m studies.genomes [--workers N] [--data-dir DIR]

writes `docs/results/genomes.json`, for `docs/genomes.md`. Needs MNIST. A measurement is made again
only if its command or its genome has changed since then; to make all of them, delete the file.
"""

from __future__ import annotations

from blur_es.analysis.bench import machine
from blur_es.genomes import FOR_REGRESSION, genome_names, load_genome
from docs.record import read_results, write_results
from studies.measure import Measurement, Resources, comparison_rows, sweep_rows

SHIPPED = [name for name in genome_names() if name not in ("backprop", *FOR_REGRESSION)]

EPISODES = 8
# The default genome, and the one that was the default before.
MAIN, BEFORE = "mnist-3state", "mnist-4state"
ONE_LAYER, TWO_LAYERS = "network.hidden=[128]", "network.hidden=[128, 128]"
MNIST = "tasks=[{name: mnist, size: 14}]"
IMAGES = "tasks=[{name: mnist, size: 14}, {name: mnist, size: 28}, {name: digits}]"
KINDS = (
    "tasks=[{name: mnist, size: 14}, {name: mnist, size: 14, classes: [4, 9]}, {name: mnist, "
    "size: 14, classes: [1, 3, 5, 7, 8]}, {name: mnist, size: 14, rotations: 2}, {name: mnist, "
    "size: 14, rotations: 4}, {name: mnist, size: 28}, {name: tables}]"
)
DEPTHS = "tasks=[{name: mnist, size: 14}, {name: mnist, size: 14, rotations: 4}, {name: tables}]"
THREE = "sgd,momentum,adam"
SHORT_AND_LONG = ("unroll=15,100",)

MEASUREMENTS = {
    **{
        f"lengths of {name}": Measurement(
            name,
            EPISODES,
            (MNIST, TWO_LAYERS if name.endswith("deep") else ONE_LAYER),
            vary=("unroll=15,100,1000",),
        )
        for name in SHIPPED
    },
    "kinds": Measurement(BEFORE, EPISODES, (KINDS, ONE_LAYER), optimizers=THREE),
    **{
        f"kinds of {name}": Measurement(name, EPISODES, (KINDS, ONE_LAYER), vary=SHORT_AND_LONG)
        for name in (MAIN, BEFORE)
    },
    "single": Measurement("mnist-4state-single", EPISODES, (IMAGES, ONE_LAYER)),
    "single, lengths": Measurement(
        "mnist-4state-single", EPISODES, (IMAGES, ONE_LAYER), vary=SHORT_AND_LONG
    ),
    "deep": Measurement("mnist-4state-deep", EPISODES, (DEPTHS, TWO_LAYERS), optimizers=THREE),
    "depths": Measurement(
        "mnist-4state-deep",
        EPISODES,
        (DEPTHS,),
        vary=("hidden=128,128-128,64-64-64,64-64-64-64", *SHORT_AND_LONG),
    ),
}


def main() -> None:
    """Measure and write the results."""
    resources = Resources.parse(__doc__)
    digests = {name: load_genome(name).sha256 for name in SHIPPED}
    old = read_results("genomes")
    found = {}
    for number, (name, measurement) in enumerate(MEASUREMENTS.items(), 1):
        genome = measurement.genome
        if (
            old.get("commands", {}).get(name) == measurement.command
            and old["genomes"].get(genome) == digests[genome]
        ):
            found[name] = old["found"][name]
            continue
        print(f"{number}/{len(MEASUREMENTS)} blur-es {measurement.command}", flush=True)
        if measurement.vary:
            found[name] = sweep_rows(measurement.evaluate(resources))
        else:
            found[name] = comparison_rows(measurement.compare(resources))
    results = {
        "machine": machine(),
        "genomes": digests,
        "commands": {name: each.command for name, each in MEASUREMENTS.items()},
        "found": found,
    }
    write_results("genomes", results, "python -m studies.genomes")


if __name__ == "__main__":
    main()

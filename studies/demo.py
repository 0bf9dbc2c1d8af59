"""The demo with several seeds: how its rule ranks among tuned optimisers.

    for seed in 0 1 2 3; do blur-es train experiments/demo.yaml --set seed=$seed; done
    python -m studies.demo runs/demo-seed0 runs/demo-seed1 runs/demo-seed2 runs/demo-seed3

reads the comparison at the end of each run and writes `docs/results/demo.json`, for the README.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from blur_es.analysis.bench import machine
from blur_es.analysis.compare import LEARNED_RULE
from docs.record import write_results


def of_run(folder: Path) -> dict[str, Any]:
    """Seed, time, accuracy of the rule and the best baseline of one run."""
    result = json.loads((folder / "result.json").read_text())
    (comparison,) = json.loads((folder / "comparison.json").read_text())["comparisons"]
    entries = comparison["entries"]
    (rule,) = (entry for entry in entries if entry["method"] == LEARNED_RULE)
    best = max((e for e in entries if e["method"] != LEARNED_RULE), key=lambda e: float(e["mean"]))
    return {
        "seed": result["seed"],
        "genome": result["genome_sha256"],
        "seconds": round(result["seconds"]),
        "rank": 1 + sum(entry["mean"] > rule["mean"] for entry in entries),
        "entries": len(entries),
        "mean": round(rule["mean"], 4),
        "best": best["method"] + (", normalised" if best["normalized"] else ""),
        "best_mean": round(best["mean"], 4),
    }


def main() -> None:
    """Read the runs and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="a run folder")
    runs = [of_run(folder) for folder in parser.parse_args().runs]
    write_results("demo", {"machine": machine(), "runs": runs}, "python -m studies.demo RUN ...")


if __name__ == "__main__":
    main()

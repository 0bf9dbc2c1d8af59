"""What the first run of docs/first_run.md prints, and the summary of its report.

    blur-es train experiments/demo.yaml
    python -m studies.first_run runs/demo-seed0

reads the run folder and writes `docs/results/first_run.json`.
"""

from __future__ import annotations

import argparse

from blur_es.analysis.bench import machine
from blur_es.report.contents import read_run
from blur_es.report.summary import summary
from blur_es.run.folder import RunFolder
from docs.record import write_results


def main() -> None:
    """Read the run and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", metavar="RUN", help="the run folder")
    run = read_run(RunFolder(parser.parse_args().run))
    assert run.result is not None
    assert run.comparisons
    content = {
        "machine": machine(),
        "genome": run.result["genome_sha256"],
        "seconds": round(run.result["seconds"]),
        "stopped": run.result["stopped"],
        "tables": [comparison.table(brief=True) for comparison in run.comparisons],
        "summary": summary(run.config, run.genome, run.metrics, run.result, run.comparisons),
    }
    write_results("first_run", content, "python -m studies.first_run runs/demo-seed0")


if __name__ == "__main__":
    main()

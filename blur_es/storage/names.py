"""Names of the files in a run folder."""

from __future__ import annotations

CONFIG = "config.yaml"
VERSIONS, LAUNCHES = "versions.json", "launches.json"
INITIAL = "initial.npz"
METRICS, METRICS_FOLDER = "metrics.jsonl", "metrics"
POINTER, CHECKPOINT_FOLDER = "checkpoint.json", "checkpoints"
LEASE = "lease.json"
GENOME = "genome.npz"
FATAL_GENOME = "fatal-genome.npz"
RESULT = "result.json"
COMPARISON = "comparison.json"
REPORT = "report.html"

"""Benchmarks: documented commands that write result files; see docs/performance.md."""

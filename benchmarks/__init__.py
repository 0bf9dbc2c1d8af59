"""Benchmarks: how fast the inner loops, the driver and a fleet are."""

"""Measurements: each module is a command that writes a results file and a page from it."""

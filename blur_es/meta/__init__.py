"""The outer loop: what searches for genomes."""

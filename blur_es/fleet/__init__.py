"""Evaluation of genomes and gradients on Ray workers."""

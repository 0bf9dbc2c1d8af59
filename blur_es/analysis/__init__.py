"""Measurements of a finished genome on episodes that meta-training never used."""

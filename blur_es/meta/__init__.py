"""Meta-training: the outer loop, which searches for genomes."""

"""Studies: accuracy of the shipped genomes on many data sets, compared with baselines."""

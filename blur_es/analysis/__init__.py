"""What a finished genome is worth: comparisons on episodes that meta-training never saw."""

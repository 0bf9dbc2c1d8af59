"""Studies: what the genomes that ship are worth, on which data and compared with what."""

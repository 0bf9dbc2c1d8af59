"""Who evaluates genomes: this process, or a fleet of Ray workers."""

"""The run folder: what a meta-training leaves on disk, and how it goes on from there."""

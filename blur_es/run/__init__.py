"""The run folder: the files of a meta-training, and how it resumes from them."""

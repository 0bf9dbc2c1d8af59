"""A whole run: training, comparison and report, and the run folder afterwards."""

from __future__ import annotations

from blur_es.experiment.loop import Generations, Run, TrainingInterrupted
from blur_es.experiment.training import generations, open_run, train

__all__ = ["Generations", "Run", "TrainingInterrupted", "generations", "open_run", "train"]

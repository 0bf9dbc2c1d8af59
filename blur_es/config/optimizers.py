"""Names of the optimisers of optax that a descent may follow."""

from __future__ import annotations

OPTIMIZERS = ("adam", "adamw", "nadam", "rmsprop", "sgd")

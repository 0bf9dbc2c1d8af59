"""The interface of rules: what the rest of the program needs to know of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from blur_es.rule.fields import GenomeField
from blur_es.rule.spec import Activation, Feedback, Inputs, QueryStatistics
from blur_es.util.arrays import FloatArray


class Rule(Protocol):
    """A rule whose numbers a genome holds: a `RuleSpec` or a `CustomRule`.

    Rules with equal names and options are equal. `blur_es.inner.make_inner_loop` makes the inner
    loop of a rule.
    """

    @property
    def backends(self) -> tuple[str, ...]:
        """The backends that implement the rule, the preferred one without a GPU first."""
        ...

    @property
    def states(self) -> int:
        """The number of states of an episode's initial noise."""
        ...

    @property
    def inputs(self) -> Inputs:
        """How inputs are transformed after they are standardised."""
        ...

    @property
    def per_layer(self) -> bool:
        """Whether every field has an additional leading axis over the synapse layers."""
        ...

    @property
    def reset_neurons(self) -> bool:
        """Whether a prediction is independent of the batches before it."""
        ...

    @property
    def normalizes_forward(self) -> bool:
        """Whether the forward pass normalises activations over the batch."""
        ...

    @property
    def feedback(self) -> Feedback:
        """How labels enter the network; `label` if the rule sees them as they are."""
        ...

    @property
    def calibration_temperature(self) -> float:
        """0 unless the outputs are shifted by the frequencies of classes."""
        ...

    @property
    def forward_activation(self) -> Activation:
        """The activation function of the networks of baselines that the rule is compared with."""
        ...

    @property
    def query_statistics(self) -> QueryStatistics:
        """The statistics with which these networks normalise query batches."""
        ...

    def genome_fields(self) -> tuple[GenomeField, ...]:
        """The fields of a genome, in the order in which its vector holds them."""
        ...

    def random_values(
        self, generator: np.random.Generator, shapes: Mapping[str, tuple[int, ...]]
    ) -> Mapping[str, FloatArray | float]:
        """Values of the fields that do not start a search at their neutral value.

        Args:
            generator: the source of random numbers.
            shapes: the shape of every field in the genome.
        """
        ...

    def to_dict(self) -> dict[str, Any]:
        """The options by name, for JSON, YAML and digests."""
        ...

    def require_code(self) -> None:
        """Raise `InputError` if the rule's code is not known; see `CustomRule`."""
        ...

    def __hash__(self) -> int: ...

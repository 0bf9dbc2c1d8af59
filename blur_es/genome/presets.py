"""Genomes to start a search from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from blur_es.errors import InputError
from blur_es.genome.fields import field_shapes, genome_fields
from blur_es.genome.genome import Genome
from blur_es.rule import Rule, RuleSpec, family_rule

# The steepness of gates that are nearly 0 or 1, for normalised activations.
GATE_SCALE = 8.0


def neutral_genome(rule: Rule, layers: int | None = None) -> Genome:
    """Identity transforms, synapses that keep their values, and a learning rate η̃ of 0.

    `layers`, the number of synapse layers, is needed for per-layer rules only.
    """
    shapes = field_shapes(rule, layers)
    return Genome(
        rule,
        {
            field.name: np.broadcast_to(field.neutral, shapes[field.name])
            for field in genome_fields(rule)
        },
    )


def random_genome(rule: Rule, generator: np.random.Generator, layers: int | None = None) -> Genome:
    """The `random` preset: a starting point that assumes nothing about learning.

    See `blur_es.rule.fields.family_values`; a custom rule starts from its own initial values.
    """
    genome = neutral_genome(rule, layers)
    shapes = {name: array.shape for name, array in genome.fields.items()}
    return genome.replace(rule.random_values(generator, shapes))


def backprop_genome(
    rule: Rule, generator: np.random.Generator | None = None, layers: int | None = None
) -> Genome:
    """The `backprop` preset: gradient descent with learning rate 0.1 (paper, section 3.1).

    Under `RuleSpec.backprop()` the genome is exactly gradient descent. Under other rules with
    two or more states it is the paper's way to start a search near gradient descent (section
    4.5); states after the second are not used. With `feedback: label_and_error` it is
    `cross_entropy_descent`. `generator` is ignored. Raises `InputError` for a rule with one state,
    and for a custom rule.
    """
    rule = family_rule(rule, "genome preset 'backprop'")
    if rule.states < 2:
        raise InputError("genome preset 'backprop' needs at least 2 states, found 1")
    if rule.feedback == "label_and_error":
        return cross_entropy_descent(rule, layers)
    k = rule.states
    forward, post, identity = np.zeros((k, k)), np.eye(k), np.eye(k)
    forward[0, :2] = 1.0
    post[:2, :2] = [[0.0, 1.0], [1.0, 0.0]]
    genome = neutral_genome(rule, layers)
    values: dict[str, Any] = {
        "neuron.forward": forward,
        "neuron.backward": identity,
        "synapse.pre": identity,
        "synapse.post": post,
        "synapse.update": -0.1,
    }
    return genome.replace(values)


def cross_entropy_descent(rule: RuleSpec, layers: int | None = None) -> Genome:
    """Descent of the cross entropy with learning rate 1, for `feedback: label_and_error`.

    State 0 predicts; state 2 carries the error back. With `forward_activation: relu_with_gate`,
    `backward_update: multiplicative_second_state` and `normalize: both`, state 2 of a hidden neuron
    is a steep gate: nearly the derivative of its ReLU. Normalisation replaces the size of the
    propagated error by 1, as normalised gradient descent does. If the rule averages synapses, the
    window is about a third of the age.
    """
    k = rule.states
    forward, back, pre, post = np.zeros((4, k, k))
    forward[0] = 1.0
    back[1, 1] = back[2, 2] = 1.0
    pre[0, 0] = 1.0
    post[0, 2] = 1.0
    genome = neutral_genome(rule, layers)
    values: dict[str, Any] = {
        "neuron.forward": forward,
        "neuron.backward": back,
        "synapse.pre": pre,
        "synapse.post": post,
        "synapse.update": 1.0,
        "synapse.averaging": 1.0,
        "normalization.hidden_offset": 0.5,
        "normalization.forward_scale": [1.0] + [GATE_SCALE] * (k - 1),
    }
    return genome.replace({name: values[name] for name in values if name in genome.fields})


# The names that `genome.init` of an experiment accepts in addition to names and paths of genomes.
PRESETS: dict[str, Callable[[Rule, np.random.Generator, int | None], Genome]] = {
    "random": random_genome,
    "backprop": backprop_genome,
}

"""Random episodes, rules and genomes, and the states that inner loops reach with them."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from blur_es.episode import Episode, initial_noise
from blur_es.errors import InputError
from blur_es.genome import Genome, neutral_genome
from blur_es.inner.base import InnerLoop, NetworkState
from blur_es.rule import RuleSpec
from blur_es.util.arrays import Float32Array, FloatArray


def make_random_episode(
    sizes: Sequence[int],
    states: int,
    *,
    unroll: int = 3,
    batch: int = 6,
    queries: int = 2,
    seed: int = 0,
) -> Episode:
    """An episode with normally distributed inputs and random labels of -1 and 1."""
    generator = np.random.default_rng(seed)

    def inputs(count: int) -> Float32Array:
        return generator.standard_normal((count, batch, sizes[0]), dtype=np.float32)

    def labels(count: int) -> Float32Array:
        chosen = generator.random((count, batch, sizes[-1])) < 0.5
        return np.where(chosen, -1.0, 1.0).astype(np.float32)

    noise = [initial_noise(sizes, layer, states, generator) for layer in range(len(sizes) - 1)]
    return Episode(
        support_inputs=inputs(unroll),
        support_labels=labels(unroll),
        query_inputs=inputs(queries),
        query_labels=labels(queries),
        forward_noise=tuple(forward for forward, _ in noise),
        backward_noise=tuple(backward for _, backward in noise),
    )


def moderate_genome(rule: RuleSpec, layers: int, seed: int = 0) -> Genome:
    """A random genome that keeps all values near 1, where float32 is precise."""
    generator = np.random.default_rng(seed)
    genome = neutral_genome(rule, layers)
    values: dict[str, Any] = {}
    for name, array in genome.fields.items():
        noise = generator.standard_normal(array.shape)
        if name.endswith((".pre", ".post", "neuron.forward", "neuron.backward")):
            values[name] = noise / np.sqrt(rule.states)
        elif name.endswith("synapse.update"):
            values[name] = 0.05 * noise
        elif name.endswith("synapse.keep"):
            values[name] = 0.95 + 0.02 * noise
        elif name.endswith("_aging"):
            values[name] = 0.5 * noise
        elif name.endswith(("_log_time", "averaging")):
            values[name] = noise
        elif name.startswith("neuron."):
            values[name] = 0.7 + 0.1 * noise
        else:
            values[name] = array + 0.2 * noise
    return genome.replace(values)


SMOOTH = ("identity", "tanh", "sigmoid")
OPTIONS: dict[str, tuple[Any, ...]] = {
    "states": (1, 2, 3, 4),
    "forward_activation": (*SMOOTH, "relu_tanh", "relu", "sigmoid_with_grad", "relu_with_gate"),
    "backward_activation": (*SMOOTH, "relu_tanh", "relu"),
    "last_activation": (*SMOOTH, "relu_tanh", "sigmoid_with_grad"),
    "synapse_activation": ("identity", "tanh"),
    "backward_update": ("additive", "multiplicative", "multiplicative_second_state", "replace"),
    "symmetric": (False, True),
    "single_state": (False, True),
    "reset_neurons": (True, False),
    "supervised_every": (1, 2),
    "feedback": (
        "label",
        "standardized_label",
        "label_and_error",
        "squared_error_gradient",
        "replace",
    ),
    "forward_synapse_update": (False, True),
    "forward_pre_states": (False, True),
    "oja": ("none", "activations", "weights"),
    "oja_extra": (1.0, 0.5),
    "oja_multiplier": (False, True),
    "saturation": ("none", "exp_update"),
    "saturation_epsilon": (0.0, 0.1),
    "normalize": ("none", "forward", "backward", "both"),
    "query_statistics": ("support", "batch"),
    "normalize_synapses": ("none", "stored", "effective", "both"),
    "rescale_synapses": (False, True),
    "per_layer": (False, True),
    "batch_reduction": ("mean", "sum"),
    "calibration_temperature": (0.0, 0.5),
    "aging": ("none", "rates"),
    "per_state_rates": (False, True),
    "averaging": ("none", "synapses"),
    "normalize_last": (True, False),
    "hidden_offsets": (False, True),
}


def build_rule(options: dict[str, Any]) -> RuleSpec | None:
    """The rule with these options, or None if they exclude each other."""
    try:
        return RuleSpec(**options)
    except InputError:
        return None


def random_rules() -> st.SearchStrategy[RuleSpec]:
    """A Hypothesis strategy: rules with any combination of `OPTIONS`."""
    drawn = st.fixed_dictionaries(
        {name: st.sampled_from(values) for name, values in OPTIONS.items()}
    )
    return drawn.map(_fitting).map(lambda options: RuleSpec(**options))


@functools.cache
@functools.cache
def covering_rules(candidates: int = 2000, seed: int = 0) -> list[RuleSpec]:
    """A small set of rules that contains every possible pair of option values.

    Each rule is the one of the candidates with the most pairs that are still missing.
    """
    generator = np.random.default_rng(seed)

    def draw() -> dict[str, Any]:
        return {name: values[generator.integers(len(values))] for name, values in OPTIONS.items()}

    rules = [RuleSpec(**_fitting(draw())) for _ in range(candidates)]
    pairs = [rule_pairs(rule) for rule in rules]
    columns = {pair: column for column, pair in enumerate(set().union(*pairs))}
    contains = np.zeros((candidates, len(columns)), dtype=np.float32)
    for number, found in enumerate(pairs):
        contains[number, [columns[pair] for pair in found]] = 1.0
    missing = np.ones(len(columns), dtype=np.float32)
    chosen = []
    while missing.any():
        best = int(np.argmax(contains @ missing))
        chosen.append(rules[best])
        missing *= 1.0 - contains[best]
    return chosen


def rule_pairs(rule: RuleSpec) -> set[tuple[tuple[str, Any], tuple[str, Any]]]:
    """All pairs of (option, value) tuples of a rule."""
    return set(itertools.combinations(vars(rule).items(), 2))


def _fitting(options: dict[str, Any]) -> dict[str, Any]:
    """Change options that do not fit the others to values that do."""
    k = options["states"]
    if k == 1:
        options["feedback"] = "replace"
    elif options["feedback"] == "replace" or (
        k != 2 and options["feedback"] == "squared_error_gradient"
    ):
        options["feedback"] = "label"
    if k < 3 and options["feedback"] == "label_and_error":
        options["feedback"] = "label"
    if k != 2:
        for name in ("forward_activation", "last_activation"):
            if options[name] == "sigmoid_with_grad":
                options[name] = "tanh"
    if k == 1 and options["backward_update"] == "multiplicative_second_state":
        options["backward_update"] = "multiplicative"
    if options["oja"] == "none":
        options |= {"oja_extra": 1.0, "oja_multiplier": False}
    if options["saturation"] == "none":
        options["saturation_epsilon"] = 0.0
    if options["normalize_synapses"] == "none":
        options["rescale_synapses"] = False
    if options["normalize"] in ("none", "backward"):
        options |= {
            "query_statistics": "support",
            "normalize_last": True,
            "hidden_offsets": False,
        }
    if options["supervised_every"] != 1 or options["query_statistics"] == "batch":
        options["calibration_temperature"] = 0.0
    return options


def arrays_of(states: list[NetworkState], last: FloatArray) -> list[FloatArray]:
    """All arrays of the states of a network, and one more array."""
    found = [last]
    for state in states:
        found += [*state.neurons, *state.forward, state.prediction]
        found += [weights for weights in state.backward if weights is not None]
        found += state.average or ()
    return found


def trajectory(loop: InnerLoop, genome: Genome, episode: Episode) -> list[FloatArray]:
    """All arrays of every step of an episode, and the query predictions."""
    return arrays_of(list(loop.unroll(genome, episode)), loop.query(genome, episode))

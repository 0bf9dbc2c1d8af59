"""The reference backend: the equations of `docs/equations.md` in NumPy.

It is meant to be read together with that page. In float32 it suits small work, as it needs no
compiling. Docstrings cite the headings of the page in quotes. Arrays are those of `NetworkState`.
Index letters: b is a row of the batch, p a neuron of the lower layer, j a neuron of the upper
layer, and c, d, e, o are states.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from blur_es.episode import Episode
from blur_es.fitness import Measure
from blur_es.genome import Genome
from blur_es.inner.aging import aged_keep, aged_update, averaged
from blur_es.inner.base import (
    ACTIVATION_EPSILON,
    STATISTICS_BATCHES,
    SYNAPSE_EPSILON,
    Evaluation,
    NetworkState,
    check_fit,
    check_steps,
    in_precision,
    initial_synapses,
    layer_field,
    pools_support,
    relative_offsets,
    score,
)
from blur_es.inner.calibration import class_offsets
from blur_es.inner.numpy_activations import ACTIVATIONS
from blur_es.inner.numpy_feedback import feedback
from blur_es.inner.numpy_products import (
    mixed,
    states_first,
    summed_over_rows,
    through,
    with_bias,
    zeros,
)
from blur_es.inner.support import COMMON, activation_options, check_implemented
from blur_es.rule import RuleSpec
from blur_es.util.arrays import FloatArray

Statistics = list[tuple[FloatArray, FloatArray]]


IMPLEMENTED = COMMON | activation_options(ACTIVATIONS)


class NumpyInnerLoop:
    """The reference backend; see `InnerLoop`.

    Args:
        rule: the rule of all genomes.
        dtype: float64 as the reference, float32 for half the time.

    Raises `InputError` for a rule that it does not implement.
    """

    def __init__(self, rule: RuleSpec, dtype: npt.DTypeLike = np.float64) -> None:
        check_implemented("numpy", IMPLEMENTED, rule)
        self.rule = rule
        self.dtype = np.dtype(dtype)

    def evaluate(
        self, genomes: FloatArray, episodes: Sequence[Episode], measures: Sequence[Measure]
    ) -> Evaluation:
        """See `InnerLoop.evaluate`."""
        fitness = np.empty((len(measures), len(genomes), len(episodes)))
        diverged = np.zeros((len(genomes), len(episodes)), dtype=bool)
        for g, vector in enumerate(genomes):
            for r, episode in enumerate(episodes):
                layers = len(episode.sizes) - 1
                genome = Genome.from_vector(self.rule, vector, layers)
                run = _Run(self.rule, genome, episode, self.dtype)
                # Values of a diverging genome overflow: this is a result, not an error.
                with np.errstate(all="ignore"):
                    answers = np.stack(run.query_at(episode.scored_steps))
                diverged[g, r] = not (run.finite and bool(np.all(np.isfinite(answers))))
                labels = episode.query_labels.reshape(-1, episode.sizes[-1])
                predictions = [answer[..., 0].reshape(labels.shape) for answer in answers]
                fitness[:, g, r] = score(measures, predictions, labels, diverged[g, r])
        return Evaluation(fitness, diverged)

    def unroll(self, genome: Genome, episode: Episode) -> Iterator[NetworkState]:
        """See `InnerLoop.unroll`."""
        yield from _silently(_Run(self.rule, genome, episode, self.dtype).steps())

    def learn(
        self, genome: Genome, episode: Episode, network: NetworkState | None = None, age: int = 0
    ) -> NetworkState:
        """See `ContinuingInnerLoop.learn`."""
        *_, last = _silently(_Run(self.rule, genome, episode, self.dtype, network, age).steps())
        return last

    def ask(self, genome: Genome, episode: Episode, network: NetworkState) -> FloatArray:
        """See `ContinuingInnerLoop.ask`."""
        with np.errstate(all="ignore"):
            return _Run(self.rule, genome, episode, self.dtype, network).query()

    def query(self, genome: Genome, episode: Episode) -> FloatArray:
        """See `InnerLoop.query`."""
        return self.query_at(genome, episode, (len(episode.support_inputs),))[0]

    def query_at(self, genome: Genome, episode: Episode, steps: Sequence[int]) -> FloatArray:
        """See `InnerLoop.query_at`."""
        check_steps(episode, steps)
        with np.errstate(all="ignore"):
            return np.stack(_Run(self.rule, genome, episode, self.dtype).query_at(steps))


def _silently(steps: Iterator[NetworkState]) -> Iterator[NetworkState]:
    """The same steps without warnings: values of a diverging genome overflow."""
    while True:
        with np.errstate(all="ignore"):
            state = next(steps, None)
        if state is None:
            return
        yield state


class _Run:
    """One episode with one genome: call `steps` until it ends, then `query`.

    It starts with a `network` that has learned `age` steps, or else with initial synapses.
    """

    def __init__(
        self,
        rule: RuleSpec,
        genome: Genome,
        episode: Episode,
        dtype: npt.DTypeLike = np.float64,
        network: NetworkState | None = None,
        age: int = 0,
    ) -> None:
        self.genome = in_precision(genome, dtype)
        self.rule = rule
        self.episode = episode
        self.age = age
        self.done = len(episode.support_inputs)
        self.finite = True
        if network is not None:
            check_fit(rule, genome, episode, network)
            self.neurons = [states_first(values, dtype) for values in network.neurons]
            self.average = network.average
            forward, backward = list(network.forward), list(network.backward)
        else:
            rows, states = episode.support_inputs.shape[1], rule.states
            self.neurons = [zeros(rows, size, states, dtype) for size in episode.sizes]
            self.average = None
            forward, backward = initial_synapses(rule, genome, episode)
        self.forward = [states_first(layer, dtype) for layer in forward]
        self.backward = [
            None if layer is None else states_first(layer, dtype) for layer in backward
        ]

    def query_at(self, steps: Sequence[int]) -> list[FloatArray]:
        """Run the steps; the last layer on the query batches after each of `steps`."""
        answers = []
        for done, state in enumerate(self.steps(), start=1):
            self.done = done
            self.finite = self.finite and state.is_finite()
            if done in steps:
                answers.append(self.query())
            if done == steps[-1]:
                break
        return answers

    def steps(self) -> Iterator[NetworkState]:
        """Run the steps one after the other ("One step")."""
        for age, (inputs, labels) in enumerate(
            zip(self.episode.support_inputs, self.episode.support_labels, strict=True),
            start=self.age,
        ):
            supervised = age % self.rule.supervised_every == 0
            state = inner_step(
                self.genome,
                self.forward,
                self.backward,
                self.neurons,
                inputs,
                labels,
                supervised,
                age,
            )
            if self.rule.averaging == "synapses":
                self.average = averaged(self.genome, self.average, state.forward, age)
                state = dataclasses.replace(state, average=self.average)
            self.neurons = list(state.neurons)
            self.forward, self.backward = list(state.forward), list(state.backward)
            yield state

    def query(self) -> FloatArray:
        """The last layer of the trained network on the query batches ("Query batches")."""
        rule, genome, episode = self.rule, self.genome, self.episode
        forward = self.forward if self.average is None else list(self.average)
        if rule.normalize_synapses in ("stored", "both"):
            forward, _ = normalize_synapses(genome, forward, self.backward)
        if rule.normalize_synapses in ("effective", "both"):
            forward, _ = normalize_synapses(genome, forward, self.backward)
        statistics: Statistics | None = None
        offsets = np.zeros(episode.sizes[-1])
        if pools_support(rule):
            last_batches = slice(max(0, self.done - STATISTICS_BATCHES), self.done)
            pooled = episode.support_inputs[last_batches].reshape(-1, episode.sizes[0])
            statistics = []
            start = self._start(len(pooled))
            *_, known = forward_pass(genome, forward, start, pooled, record=statistics)
            if rule.calibration_temperature:
                labels = episode.support_labels[last_batches].reshape(len(pooled), -1)
                offsets = class_offsets(rule, np.asarray(known[..., 0]), labels)
        last = np.stack(
            [
                forward_pass(genome, forward, self._start(len(inputs)), inputs, statistics)[-1]
                for inputs in episode.query_inputs
            ]
        )
        last[..., 0] += offsets
        return last

    def _start(self, rows: int) -> list[FloatArray] | None:
        """The neurons before a forward pass of `rows` rows, which are whole batches."""
        if self.rule.reset_neurons:
            return None
        return [np.concatenate([neurons] * (rows // len(neurons))) for neurons in self.neurons]


def inner_step(
    genome: Genome,
    forward: Sequence[FloatArray],
    backward: Sequence[FloatArray | None],
    neurons: Sequence[FloatArray],
    inputs: FloatArray,
    labels: FloatArray,
    supervised: bool = True,
    age: int = 0,
) -> NetworkState:
    """One step of learning ("One step"); the arguments are not changed.

    Args:
        genome: the genome, with its rule.
        forward: forward synapses before the step, as in `NetworkState`.
        backward: backward synapses before the step, as in `NetworkState`.
        neurons: values of the neurons before the step, for every layer (B, n_l, k).
        inputs: (B, n_0).
        labels: (B, n_L).
        supervised: whether this step sees the labels.
        age: number of steps that the network has learned before this one.
    """
    rule = genome.spec
    before = None if rule.reset_neurons else neurons
    if rule.normalize_synapses in ("stored", "both"):
        forward, backward = normalize_synapses(genome, forward, backward)
    neurons = forward_pass(genome, _effective(genome, forward, backward)[0], before, inputs)
    prediction = neurons[-1]
    after_forward = neurons
    if rule.forward_synapse_update:
        forward, backward = _update_synapses(
            genome, "forward_synapse", forward, backward, neurons, neurons, age
        )
    if supervised:
        neurons = [*neurons[:-1], feedback(genome, prediction, labels)]
        neurons = backward_pass(genome, _effective(genome, forward, backward)[1], neurons)
        lower = after_forward if rule.forward_pre_states else neurons
        forward, backward = _update_synapses(
            genome, "synapse", forward, backward, lower, neurons, age
        )
    return NetworkState(tuple(neurons), prediction, tuple(forward), tuple(backward))


def _effective(
    genome: Genome, forward: Sequence[FloatArray], backward: Sequence[FloatArray | None]
) -> tuple[Sequence[FloatArray], Sequence[FloatArray | None]]:
    """The synapses that the passes use: normalised, where the rule says `effective`."""
    if genome.spec.normalize_synapses in ("effective", "both"):
        return normalize_synapses(genome, forward, backward)
    return forward, backward


def _update_synapses(
    genome: Genome,
    part: str,
    forward: Sequence[FloatArray],
    backward: Sequence[FloatArray | None],
    lower: Sequence[FloatArray],
    upper: Sequence[FloatArray],
    age: int,
) -> tuple[list[FloatArray], list[FloatArray | None]]:
    """The synapse update of every layer."""
    updated = [
        synapse_update(genome, part, i, forward[i], backward[i], lower[i], upper[i + 1], age)
        for i in range(len(forward))
    ]
    return [ahead for ahead, _ in updated], [back for _, back in updated]


def forward_pass(
    genome: Genome,
    forward: Sequence[FloatArray],
    neurons: Sequence[FloatArray] | None,
    inputs: FloatArray,
    statistics: Statistics | None = None,
    record: Statistics | None = None,
) -> list[FloatArray]:
    """Neurons (B, n_l, k) of every layer after a forward pass ("Forward pass").

    Args:
        genome: the genome, with its rule.
        forward: the forward synapses that the pass uses.
        neurons: values of the neurons before the pass; None for zeros.
        inputs: (B, n_0).
        statistics: mean and variance of every layer for normalisation; None for those of the
            batch itself.
        record: a list to which mean and variance of every layer are appended.
    """
    rule = genome.spec
    rows, width = inputs.shape
    first = zeros(rows, width, rule.states, forward[0].dtype)
    first[..., 0] = inputs
    result = [first]
    for i, synapses in enumerate(forward):
        # u = Σ_p Σ_c a_pc ν_cd w_pjd
        u = through(mixed(with_bias(result[i]), layer_field(genome, "neuron.forward", i)), synapses)
        keep = layer_field(genome, "neuron.keep", i)
        update = layer_field(genome, "neuron.update", i)
        z: FloatArray = update * u if neurons is None else keep * neurons[i + 1] + update * u
        last = i == len(forward) - 1
        if rule.normalizes_forward:
            mean, variance = statistics[i] if statistics else (z.mean(axis=0), z.var(axis=0))
            if record is not None:
                record.append((mean, variance))
            if rule.normalize_last or not last:
                z = normalize_activations(genome, "forward", i, z, mean, variance)
                if rule.hidden_offsets and not last:
                    z = z + hidden_offsets(genome, i, z.shape[1]).astype(z.dtype)
        result.append(ACTIVATIONS[rule.last_activation if last else rule.forward_activation](z))
    return result


def backward_pass(
    genome: Genome, backward: Sequence[FloatArray | None], neurons: Sequence[FloatArray]
) -> list[FloatArray]:
    """Neurons of every layer after a backward pass from the last one ("Backward pass")."""
    rule = genome.spec
    result = list(neurons)
    for i in range(len(backward) - 1, 0, -1):
        synapses = backward[i]
        assert synapses is not None
        # v = Σ_j Σ_c a_jc µ_cd w_jpd
        v = through(mixed(result[i + 1], layer_field(genome, "neuron.backward", i)), synapses)
        keep = layer_field(genome, "neuron.keep", i)
        z: FloatArray
        if rule.backward_update == "additive":
            z = keep * result[i] + layer_field(genome, "neuron.update", i) * v
        elif rule.backward_update == "multiplicative":
            z = keep * result[i] * v
        elif rule.backward_update == "multiplicative_second_state":
            z = keep * np.concatenate(
                [result[i][..., :1], result[i][..., 1:] * v[..., 1:]], axis=-1
            )
        else:
            z = v
        if rule.normalizes_backward:
            z = normalize_activations(genome, "backward", i, z, z.mean(axis=0), z.var(axis=0))
        result[i] = ACTIVATIONS[rule.backward_activation](z)
    return result


def synapse_update(
    genome: Genome,
    part: str,
    layer: int,
    forward: FloatArray,
    backward: FloatArray | None,
    lower: FloatArray,
    upper: FloatArray,
    age: int = 0,
) -> tuple[FloatArray, FloatArray | None]:
    """New forward and backward synapses of one layer ("Synapse update", "Oja term").

    Args:
        genome: the genome, with its rule.
        part: `synapse` or `forward_synapse`, the genome fields that are used.
        layer: number of the synapse layer.
        forward: its forward synapses.
        backward: its backward synapses; None for the first layer.
        lower: neurons of the layer below, (B, n_i, k).
        upper: neurons of the layer above, (B, n_{i+1}, k).
        age: number of steps that the network has learned before this one.
    """
    rule = genome.spec
    pre = layer_field(genome, f"{part}.pre", layer)
    post = layer_field(genome, f"{part}.post", layer)
    reduction = 1.0 / len(lower) if rule.batch_reduction == "mean" else 1.0

    def hebbian(source: FloatArray, target: FloatArray) -> FloatArray:
        # Σ_b Σ_e Σ_d a_pe ν̃_eo µ̃_od a_jd
        return reduction * summed_over_rows(mixed(source, pre), mixed(target, post.T))

    d_forward = hebbian(with_bias(lower), upper)
    d_backward = None
    if backward is not None:
        d_backward = d_forward[:-1].transpose(1, 0, 2) if rule.symmetric else hebbian(upper, lower)
    if rule.single_state:
        d_forward = np.repeat(d_forward[..., :1], rule.states, axis=-1)
        if d_backward is not None:
            d_backward = np.repeat(d_backward[..., :1], rule.states, axis=-1)

    def new_value(weights: FloatArray, change: FloatArray, target: FloatArray) -> FloatArray:
        keep, update = rates(genome, part, layer, age)
        if rule.oja != "none":
            if rule.oja == "activations":
                r = reduction * np.sum(mixed(target, post.T) ** 2, axis=0)
            else:
                r = np.sum(weights**2, axis=0)
            factor = rule.oja_extra * np.sign(update)
            if rule.oja_multiplier:
                factor = factor * np.abs(layer_field(genome, f"{part}.oja_multiplier", layer))
            change = change - weights * r * factor
        if rule.saturation == "exp_update":
            damping = rule.saturation_epsilon + np.abs(
                layer_field(genome, f"{part}.saturation", layer)
            )
            drive = (keep - 1.0) * weights + update * change
            value = weights + drive * np.exp(-np.abs(weights) * damping)
        else:
            value = keep * weights + update * change
        return ACTIVATIONS[rule.synapse_activation](value)

    new_forward = new_value(forward, d_forward, upper)
    if backward is None or d_backward is None:
        return new_forward, None
    return new_forward, new_value(backward, d_backward, lower)


def rates(genome: Genome, part: str, layer: int, age: int) -> tuple[FloatArray, FloatArray]:
    """f̃ and η̃ of a layer at an age: numbers, or (k,) with rates per state ("Rates")."""
    keep = layer_field(genome, f"{part}.keep", layer)
    update = layer_field(genome, f"{part}.update", layer)
    if genome.spec.aging == "none":
        return keep, update
    exponents, times = (
        [layer_field(genome, f"{part}.{rate}_{name}", layer) for rate in ("keep", "update")]
        for name in ("aging", "log_time")
    )
    return (
        aged_keep(np, keep, exponents[0], times[0], age),
        aged_update(np, update, exponents[1], times[1], age),
    )


def normalize_activations(
    genome: Genome,
    passing: str,
    layer: int,
    z: FloatArray,
    mean: FloatArray,
    variance: FloatArray,
) -> FloatArray:
    """Normalised values z (B, n, k) of a pass ("Activation normalization")."""
    scale = layer_field(genome, f"normalization.{passing}_scale", layer)
    shift = layer_field(genome, f"normalization.{passing}_shift", layer)
    return (z - mean) * (scale / np.sqrt(variance + ACTIVATION_EPSILON)) + shift


def hidden_offsets(genome: Genome, layer: int, neurons: int) -> FloatArray:
    """Offsets (neurons, k) of the normalised values of a hidden layer ("Hidden offsets")."""
    scale = layer_field(genome, "normalization.forward_scale", layer)
    largest = layer_field(genome, "normalization.hidden_offset", layer)
    return relative_offsets(neurons)[:, None] * (largest * scale)


def normalize_synapses(
    genome: Genome, forward: Sequence[FloatArray], backward: Sequence[FloatArray | None]
) -> tuple[list[FloatArray], list[FloatArray | None]]:
    """Synapses normalised over the sources of each direction ("Synapse normalization")."""

    def normalized(weights: FloatArray, layer: int) -> FloatArray:
        result = weights / np.sqrt(np.sum(weights**2, axis=0) + SYNAPSE_EPSILON)
        if genome.spec.rescale_synapses:
            result = result * layer_field(genome, "synapse.rescale", layer)
        return result

    return (
        [normalized(weights, i) for i, weights in enumerate(forward)],
        [None if weights is None else normalized(weights, i) for i, weights in enumerate(backward)],
    )

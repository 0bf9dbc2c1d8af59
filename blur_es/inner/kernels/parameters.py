"""The fields of a genome as arrays with an axis over synapse layers, as kernels read them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from blur_es.errors import InputError
from blur_es.genome import field_slices
from blur_es.inner.aging import aged_keep, aged_update, averaging_weight
from blur_es.rule import RuleSpec
from blur_es.util.arrays import Float32Array, FloatArray, Int64Array


class NeuronParameters(NamedTuple):
    """Fields that the neuron passes use, for L synapse layers and k states, float32."""

    forward: Float32Array  # (L, k, k), (state before, state after)
    backward: Float32Array  # (L, k, k)
    keep: Float32Array  # (L,)
    update: Float32Array  # (L,)
    initial_scale: Float32Array  # (L,), of the initial synapses
    forward_scale: Float32Array  # (L, k), of activation normalisation, as the next three
    forward_shift: Float32Array  # (L, k)
    backward_scale: Float32Array  # (L, k)
    backward_shift: Float32Array  # (L, k)
    hidden_offset: Float32Array  # (L, k), largest offset of a hidden neuron
    feedback_gain: Float32Array  # (L,), of outputs in the error


class SynapseParameters(NamedTuple):
    """Fields of one synapse update, for L synapse layers and k states, float32.

    T is the number of steps, or 1 where all steps have the same rates.

    The genome multiplies post-synaptic states by `post` transposed. It is stored transposed, so
    that kernels can mix states by every matrix in the same way.
    """

    pre: Float32Array  # (L, k, k), (state of the neuron, state of the synapse)
    post: Float32Array  # (L, k, k), as `pre`
    keep: Float32Array  # (T, L, k)
    update: Float32Array  # (T, L, k)
    oja_multiplier: Float32Array  # (L,)
    saturation: Float32Array  # (L,)


class Parameters(NamedTuple):
    """A genome, float32. Fields it lacks are 0.

    Kernels take only the part that they use, because every array costs time in every call.
    `stack_parameters` gives every array another axis in front, over genomes.
    """

    neuron: NeuronParameters
    synapse: SynapseParameters  # of the synapse update
    forward_synapse: SynapseParameters  # of the forward synapse update
    rescale: Float32Array  # (L,), of normalised synapses
    averaging: Float32Array  # (T, L), weight of the newest synapses in their average


def stack_parameters(
    rule: RuleSpec, vectors: FloatArray, layers: int, ages: Int64Array
) -> Parameters:
    """The fields of P genomes; every array has an axis over genomes in front.

    Args:
        rule: the rule of the genomes.
        vectors: (P, D) as `Genome.vector` gives them.
        layers: number L of synapse layers.
        ages: (T,), the age of the network before every step.

    Raises:
        InputError: the vectors have another length than genomes of this rule.
    """
    slices, shapes, dimensions = field_slices(rule, layers)
    if vectors.shape[1:] != (dimensions,):
        raise InputError(
            f"genome: vectors of shape {vectors.shape[1:]}, expected {dimensions} values each"
        )
    count, k = len(vectors), rule.states
    ages = ages if rule.aging != "none" or rule.averaging != "none" else ages[:1]
    age = ages.astype(np.float64)[:, None, None]

    def field(name: str, *shape: int) -> Float32Array:
        found = np.zeros((count, layers, *shape), np.float32)
        if name in slices:
            values = vectors[:, slices[name]].reshape(count, *shapes[name])
            # A genome that is not per layer has the same values for all layers.
            found[:] = values if rule.per_layer else values[:, None]
        return found

    def rate(name: str) -> FloatArray:
        """A field that is multiplied into synapses: (P, 1, L or 1, k or 1) float64."""
        values = vectors[:, slices[name]].reshape(count, 1, *shapes[name])
        if not rule.per_layer:
            values = values[:, :, None]
        return values if rule.per_state_rates else values[..., None]

    def keep_and_update(part: str) -> tuple[Float32Array, Float32Array]:
        """The rates of a synapse update in every step: (P, T, L, k)."""
        keep, update = np.zeros((2, count, len(ages), layers, k), np.float32)
        if f"{part}.keep" in slices:
            keep[:], update[:] = rate(f"{part}.keep"), rate(f"{part}.update")
            if rule.aging == "rates":
                exponent, log_time = rate(f"{part}.keep_aging"), rate(f"{part}.keep_log_time")
                keep[:] = aged_keep(np, rate(f"{part}.keep"), exponent, log_time, age)
                exponent, log_time = rate(f"{part}.update_aging"), rate(f"{part}.update_log_time")
                update[:] = aged_update(np, rate(f"{part}.update"), exponent, log_time, age)
        return keep, update

    def averaging_weights() -> Float32Array:
        """The weights of the newest synapses in every step: (P, T, L)."""
        weights = np.zeros((count, len(ages), layers), np.float32)
        if rule.averaging == "synapses":
            values = vectors[:, slices["synapse.averaging"]].reshape(count, 1, -1)
            weights[:] = averaging_weight(np, values, age[..., 0])
        return weights

    def synapse_update(part: str) -> SynapseParameters:
        keep, update = keep_and_update(part)
        return SynapseParameters(
            pre=field(f"{part}.pre", k, k),
            post=field(f"{part}.post", k, k).swapaxes(-1, -2).copy(),
            keep=keep,
            update=update,
            oja_multiplier=field(f"{part}.oja_multiplier"),
            saturation=field(f"{part}.saturation"),
        )

    # A value beyond float32 becomes infinite, and the genome diverges as it should.
    with np.errstate(over="ignore", invalid="ignore"):
        return Parameters(
            neuron=NeuronParameters(
                forward=field("neuron.forward", k, k),
                backward=field("neuron.backward", k, k),
                keep=field("neuron.keep"),
                update=field("neuron.update"),
                initial_scale=field("initial_scale"),
                forward_scale=field("normalization.forward_scale", k),
                forward_shift=field("normalization.forward_shift", k),
                backward_scale=field("normalization.backward_scale", k),
                backward_shift=field("normalization.backward_shift", k),
                hidden_offset=field("normalization.hidden_offset")[..., None]
                * field("normalization.forward_scale", k),
                feedback_gain=field("feedback.gain"),
            ),
            synapse=synapse_update("synapse"),
            forward_synapse=synapse_update("forward_synapse"),
            rescale=field("synapse.rescale"),
            averaging=averaging_weights(),
        )


def genome_parameters(stacked: Parameters, index: int) -> Parameters:
    """The parameters of one of the genomes in `stack_parameters`."""
    return Parameters(
        neuron=NeuronParameters(*(array[index] for array in stacked.neuron)),
        synapse=SynapseParameters(*(array[index] for array in stacked.synapse)),
        forward_synapse=SynapseParameters(*(array[index] for array in stacked.forward_synapse)),
        rescale=stacked.rescale[index],
        averaging=stacked.averaging[index],
    )

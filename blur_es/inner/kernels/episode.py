"""The kernel that Python calls: the steps of an episode, then its queries.

Headings in quotes are those of docs/equations.md.
"""

# Numba infers the types of kernels from their calls.
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import numpy as np

from blur_es.inner.kernels.columns import all_finite, copy, fill
from blur_es.inner.kernels.compiling import compiled, entry
from blur_es.inner.kernels.passes import backward_pass, forward_pass, give_feedback
from blur_es.inner.kernels.synapses import average_synapses, normalize_synapses, update_synapses


@entry
def run_episode(
    options, shape, parameters, buffers, data, rows, query_rows, predictions, step, end, age
):
    """Run the steps from `step` to `end`, then predict the query rows.

    Steps and queries share one loop, because Numba compiles a kernel again for every place from
    which it is called.

    Args:
        options: see `Options`.
        shape: see `Shape`.
        parameters: see `Parameters`.
        buffers: see `Buffers`. They hold the synapses and neurons to continue with; the first step
            of a network initialises them.
        data: see `Data`.
        rows: rows B of a support batch.
        query_rows: rows of a pass over query rows.
        predictions: result, (k, rows of all query batches, n_L) as a flat float32 array; empty
            to predict nothing.
        step: first step to run, an index of support batches.
        end: the step to stop before.
        age: steps that the network has learned before these support batches.

    Returns:
        Whether all values stayed finite. A step with a NaN or infinite value ends the episode.
    """
    sizes, k = shape.sizes, options.states
    layers = len(sizes) - 1
    outputs = sizes[layers]
    forward, backward = buffers.forward, buffers.backward
    if options.normalize_effective:
        forward, backward = buffers.effective_forward, buffers.effective_backward
    total = len(predictions) // (k * outputs)
    # The pass over the pooled support rows comes before the query rows, which are counted from 0.
    pooled = options.pooled_batches * rows if total > 0 else 0
    position = -pooled
    if step + age == 0:
        _initialize(shape, parameters.neuron.initial_scale, buffers, data)
    while step < end or position < total:
        learning = step < end
        # The input rows of this pass, and the memory for its neurons.
        if learning:
            count, neurons = rows, buffers.neurons
            inputs = data.support_inputs[step * rows * sizes[0] : (step + 1) * rows * sizes[0]]
        elif position < 0:
            count, neurons = pooled, buffers.query_neurons
            inputs = data.support_inputs[len(data.support_inputs) - pooled * sizes[0] :]
        else:
            count, neurons = min(query_rows, total - position), buffers.query_neurons
            inputs = data.query_inputs[position * sizes[0] : (position + count) * sizes[0]]
        if options.averaging and not learning and position == -pooled:
            # No step follows the first query: from here on the average replaces the synapses.
            copy(buffers.average, buffers.forward)
        if learning or position == -pooled:
            if options.normalize_stored:
                normalize_synapses(
                    options, shape, parameters.rescale, buffers, buffers.forward, buffers.backward
                )
            if options.normalize_effective:
                normalize_synapses(options, shape, parameters.rescale, buffers, forward, backward)
        if not learning and not options.reset_neurons:
            _hold_neurons(options, shape, buffers, rows, count // rows)
        initial = learning and step + age == 0
        if options.normalize_stored or options.normalize_effective:
            initial = False
        initial_product = data.initial_product[: len(data.initial_product) if initial else 0]
        own_statistics = learning or position < 0 or pooled == 0
        forward_pass(
            options,
            shape,
            parameters.neuron,
            buffers,
            inputs,
            count,
            neurons,
            forward,
            initial_product,
            own_statistics,
        )
        if not learning:
            outputs_start = shape.neuron_starts[layers - 1] * count
            last_layer = buffers.query_neurons[outputs_start:]
            if position < 0:
                copy(last_layer[: count * outputs], buffers.pooled_outputs)
            else:
                _store_predictions(last_layer, k, count, outputs, position, total, predictions)
            position += count
            continue
        time = min(step, len(parameters.averaging) - 1)
        # The synapse update may use these values; callers get those of the last layer.
        last = shape.neuron_starts[layers - 1] * rows
        kept = 0 if options.forward_pre_states or options.forward_synapse_update else last
        copy(buffers.neurons[kept:], buffers.after_forward[kept:])
        finite = all_finite(buffers.neurons[last:])
        supervised = (step + age) % options.supervised_every == 0
        for after_backward in (False, True):
            lower, upper = buffers.after_forward, buffers.after_forward
            part = parameters.forward_synapse
            if not after_backward and not options.forward_synapse_update:
                continue
            if after_backward:
                if not supervised:
                    continue
                batch = rows * outputs
                labels = data.support_labels[step * batch : (step + 1) * batch]
                give_feedback(options, parameters.neuron, outputs, labels, buffers.neurons[last:])
                if options.normalize_effective:
                    normalize_synapses(
                        options, shape, parameters.rescale, buffers, forward, backward
                    )
                backward_pass(options, shape, parameters.neuron, buffers, rows, backward)
                part, upper = parameters.synapse, buffers.neurons
                if not options.forward_pre_states:
                    lower = buffers.neurons
            update_synapses(options, shape, part, buffers, time, inputs, rows, lower, upper)
        if options.averaging:
            average_synapses(shape, parameters.averaging, buffers, time)
        if not (finite and all_finite(buffers.forward) and all_finite(buffers.backward)):
            return False
        step += 1
    return all_finite(predictions)


@compiled
def _initialize(shape, initial_scale, buffers, data):
    """Set the synapses to their initial values and the neurons to 0 ("Initial values")."""
    for starts, weights, noise in (
        (shape.forward_starts, buffers.forward, data.forward_noise),
        (shape.backward_starts, buffers.backward, data.backward_noise),
    ):
        for i in range(len(starts) - 1):
            scale = initial_scale[i]
            for n in range(starts[i], starts[i + 1]):
                weights[n] = scale * noise[n]
    fill(buffers.neurons, np.float32(0.0))


@compiled
def _hold_neurons(options, shape, buffers, rows, batches):
    """Let query passes continue from the neurons of the last step, if neurons are not reset.

    Args:
        options: see `Options`.
        shape: see `Shape`.
        buffers: `neurons` (rows of one batch) are copied to `query_neurons`.
        rows: rows of a batch.
        batches: number of batches in the next pass; each gets the same values.
    """
    for i in range(len(shape.sizes) - 1):
        size = rows * shape.sizes[i + 1]
        for state in range(options.states):
            start = shape.neuron_starts[i] * rows + state * size
            held = buffers.neurons[start : start + size]
            for batch in range(batches):
                copy(held, buffers.query_neurons[start * batches + batch * size :])


@compiled
def _store_predictions(last_layer, k, rows, outputs, position, total, predictions):
    """Store the last layer of a pass over query rows.

    Args:
        last_layer: (k, rows, outputs) at the front of a flat float32 array.
        k: number of states.
        rows: number of rows of the pass.
        outputs: number of neurons of the last layer.
        position: the first row of the pass, among all query rows.
        total: number of all query rows.
        predictions: (k, total, outputs) as a flat float32 array; the rows of the pass are set.
    """
    for state in range(k):
        values = last_layer[state * rows * outputs : (state + 1) * rows * outputs]
        copy(values, predictions[(state * total + position) * outputs :])

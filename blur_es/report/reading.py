"""A reading of a genome's matrices in sentences, with the numbers of the genome."""

from __future__ import annotations

import numpy as np

from blur_es.genome import Genome
from blur_es.rule import RuleSpec
from blur_es.util.arrays import FloatArray
from blur_es.util.style import significant


def reading(genome: Genome) -> list[str]:
    """How to read the matrices, and what their largest numbers say.

    A genome per layer has no such numbers, and the fields of a custom rule have no known meaning.
    """
    if not isinstance(genome.rule, RuleSpec):
        return []
    sentences = [
        "The number in row c and column l says how much of state c of the sender arrives in state "
        "l of the receiver."
    ]
    if genome.layers is not None or genome.rule.states == 1:
        return sentences
    forward, backward = (genome.fields[f"neuron.{name}"] for name in ("forward", "backward"))
    source, share = _largest(forward[:, 0])
    gradient = genome.rule.feedback == "squared_error_gradient"
    what = "the gradient of the squared error" if gradient else "the label"
    target, spread = _largest(backward[1])
    keep = genome.fields["synapse.keep"]
    sentences += [
        f"On the way up, state 0, which becomes the prediction, takes most from state {source} of "
        f"the neurons below (ν: {share}).",
        f"On the way down, {what}, in state 1 of the last layer, reaches the neurons below "
        f"most in state {target} (µ: {spread}).",
    ]
    if keep.ndim == 0:
        change = "grow" if keep > 1.0 else "shrink" if keep < 1.0 else "stay as they are"
        at_first = " in the first steps" if genome.rule.aging != "none" else ""
        sentences.append(
            f"Apart from updates, the values of synapses {change}{at_first} "
            f"(f̃ = {significant(float(keep))})."
        )
    return sentences


def _largest(values: FloatArray) -> tuple[int, str]:
    """The index of the largest size, and its value as text."""
    index = int(np.argmax(np.abs(values)))
    return index, significant(float(values[index]))

"""Replays trajectories that the authors' own code computed, and compares.

Each golden case is an `.npz` file with the inputs of a short episode and the neurons and synapses
after every step. `tests/golden/README.md` describes the files.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from blur_es.episode import Episode
from blur_es.errors import InputError
from blur_es.genome import Genome, genome_fields, neutral_genome
from blur_es.inner.base import InnerLoop
from blur_es.rule import RuleSpec
from blur_es.storage import open_file, read_npz
from blur_es.util.options import from_options

Arrays = dict[str, npt.NDArray[Any]]

_FULL_MATRIX = (
    "the authors' Oja term from weights also sums over matrix blocks that feed nothing and that "
    "blur_es does not store (docs/equations.md, Conformance with the authors' code)"
)


@dataclasses.dataclass(frozen=True)
class CaseResult:
    """The result of one golden case.

    Attributes:
        case: name of the file without its suffix.
        status: whether the errors are within the tolerance, or the case is not supported.
        errors: largest |difference| / largest |reference| for each group of outputs.
        reason: why the case is not supported.
    """

    case: str
    status: Literal["pass", "fail", "not supported"]
    errors: dict[str, float]
    reason: str = ""


def golden_files(folder: Path) -> list[Path]:
    """The golden cases in a folder, sorted by name. Raises `InputError` if there are none."""
    files = sorted(folder.glob("*.npz")) if folder.is_dir() else []
    if not files:
        raise InputError(f"{folder}: expected a folder with golden .npz cases, found none there")
    return files


def replay(path: Path, make_loop: Any, tolerance: float) -> CaseResult:
    """Replay one golden case on a backend.

    Args:
        path: the file of the case.
        make_loop: a function of a rule that builds the backend's inner loop and raises
            `InputError` for a rule that the backend does not implement.
        tolerance: the largest relative error that passes.

    Raises `InputError` for a file that is not a golden case.
    """
    arrays = read_npz(*open_file(path), "golden case")
    try:
        meta = json.loads(str(arrays["meta"]))
        full = not meta["split_sufficient"]
    except (KeyError, ValueError) as error:
        raise InputError(f"{path}: not a golden case: {error!r}") from error
    if full:
        return CaseResult(path.stem, "not supported", {}, _FULL_MATRIX)
    try:
        rule = golden_rule(meta["k"], meta["spec"])
        loop = make_loop(rule)
    except InputError as error:
        return CaseResult(path.stem, "not supported", {}, str(error))
    try:
        genome = golden_genome(rule, arrays, len(meta["sizes"]) - 1)
        episode = golden_episode(arrays, len(meta["sizes"]) - 1)
        errors = _compare(loop, genome, episode, arrays)
    except KeyError as error:
        raise InputError(f"{path}: array {error} is missing from this golden case") from error
    passed = all(error <= tolerance for error in errors.values())
    return CaseResult(path.stem, "pass" if passed else "fail", errors)


def golden_rule(states: int, spec: dict[str, Any]) -> RuleSpec:
    """The rule of a case; a table in `tests/golden/README.md` explains the authors' names."""
    oja = spec["ojas"] if spec["ojas"] and spec["ojas"]["use_ojas_rule"] else None
    normalization = spec["normalization"] or {}
    stored = bool(normalization.get("normalize_synapses"))
    effective = bool(normalization.get("normalize_in_activations"))
    return from_options(
        RuleSpec,
        {
            "states": states,
            "forward_activation": spec["forward_activation"],
            "backward_activation": spec["backward_activation"],
            "last_activation": spec["last_layer_activation"],
            "synapse_activation": spec["synapse_activation"],
            "backward_update": {"none": "replace"}.get(
                spec["backward_update"], spec["backward_update"]
            ),
            "symmetric": spec["symmetric_in_out_synapses"],
            "single_state": spec["symmetric_states_synapses"],
            "reset_neurons": spec["zero_out_neurons"],
            "supervised_every": spec["supervised_every"] or 1,
            "feedback": {
                "ground_truth": "label",
                "mse_grad": "squared_error_gradient",
                "replace_state0": "replace",
            }[spec["feedback"]],
            "forward_synapse_update": spec["forward_synapse_update"],
            "forward_pre_states": spec["use_forward_activations_for_synapse_update"],
            "oja": "none"
            if not oja
            else "weights"
            if oja["use_synapse_weights"]
            else "activations",
            "oja_extra": float(oja["extra_multiplier"]) if oja else 1.0,
            "oja_multiplier": bool(oja and oja["use_multiplier"]),
            "saturation": spec["synapse_saturation_type"] or "none",
            "saturation_epsilon": float(spec["synapse_saturation_eps"] or 0.0),
            "normalize_synapses": {
                (False, False): "none",
                (True, False): "stored",
                (False, True): "effective",
                (True, True): "both",
            }[stored, effective],
            "rescale_synapses": bool((stored or effective) and normalization.get("rescale", False)),
            "per_layer": spec["per_layer_genome"],
            "batch_reduction": "sum",
        },
        "rule",
    )


def golden_genome(rule: RuleSpec, arrays: Arrays, layers: int) -> Genome:
    """The genome of a case. Its `initial_scale` is 1: cases contain the initial synapses."""
    k = rule.states
    values: dict[str, Any] = {}
    for field in genome_fields(rule):
        part, _, name = field.name.partition(".")
        if field.name == "neuron.forward":
            values[field.name] = arrays["genome.neuron.transform"][..., :k, k:]
        elif field.name == "neuron.backward":
            values[field.name] = arrays["genome.neuron.transform"][..., k:, :k]
        elif part in ("neuron", "synapse", "forward_synapse"):
            key = {"rescale": "rescale_to", "oja_multiplier": "ojas_multiplier"}.get(name, name)
            values[field.name] = arrays[f"genome.{part}.{key}"]
    return neutral_genome(rule, layers).replace(values)


def golden_episode(arrays: Arrays, layers: int) -> Episode:
    """The data and initial synapses of a case, as an episode with one query batch."""
    return Episode(
        support_inputs=arrays["data.x"],
        support_labels=arrays["data.y"],
        query_inputs=arrays["val.x"][None],
        query_labels=arrays["val.y"][None],
        forward_noise=tuple(arrays[f"init.syn{i}.fwd"] for i in range(layers)),
        backward_noise=tuple(arrays[f"init.syn{i}.bwd"] if i else None for i in range(layers)),
    )


def _compare(loop: InnerLoop, genome: Genome, episode: Episode, arrays: Arrays) -> dict[str, float]:
    """The largest relative error of each group: neurons, synapses, predictions, query."""
    layers = len(episode.forward_noise)
    states = list(loop.unroll(genome, episode))
    groups: dict[str, list[tuple[Any, str]]] = {
        "neurons": [
            ([state.neurons[layer] for state in states], f"out.f64.layer{layer}")
            for layer in range(1, layers + 1)
        ],
        "prediction": [([state.prediction for state in states], "out.f64.pred")],
        "forward": [
            ([state.forward[i] for state in states], f"out.f64.syn{i}.fwd") for i in range(layers)
        ],
        "backward": [
            ([state.backward[i] for state in states], f"out.f64.syn{i}.bwd")
            for i in range(1, layers)
        ],
        "query": [(loop.query(genome, episode)[0], "val.f64.last")],
    }
    return {
        group: max(_relative_error(np.asarray(found), arrays[name]) for found, name in members)
        for group, members in groups.items()
        if members
    }


def _relative_error(found: npt.NDArray[Any], reference: npt.NDArray[Any]) -> float:
    if found.shape != reference.shape:
        raise InputError(
            f"golden case: found an array of shape {found.shape}, expected {reference.shape} as "
            "in the reference"
        )
    scale = max(float(np.abs(reference).max()), np.finfo(np.float64).tiny)
    error = float(np.abs(found - reference).max()) / scale
    return error if np.isfinite(error) else float("inf")


def replay_all(folder: Path, make_loop: Any, tolerance: float) -> Iterator[CaseResult]:
    """Replay every golden case in a folder, sorted by name."""
    for path in golden_files(folder):
        yield replay(path, make_loop, tolerance)

"""The genome: the meta-learned parameters of an update rule, as named fields.

Sandler et al., arXiv 2104.04657, table 1. A `Genome` belongs to a `RuleSpec`, which says
which fields exist. It has two other forms: a flat vector of all its fields, which is what
crosses the wire to the inner loops, and an `.npz` file. What an outer loop searches is a
`SearchSpace`: some of the fields, shifted and scaled.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from blur_es.errors import InputError, nearest
from blur_es.rule import RuleSpec
from blur_es.storage import Storage, open_file, read_npz
from blur_es.storage.files import npz_bytes
from blur_es.util.arrays import FloatArray
from blur_es.util.options import from_options

FORMAT_VERSION = 1
_PREFIX = "genome."


@dataclasses.dataclass(frozen=True)
class GenomeField:
    """One named field: its shape for one synapse layer and its neutral value."""

    name: str
    shape: tuple[int, ...]
    neutral: FloatArray
    meaning: str


def genome_fields(rule: RuleSpec) -> tuple[GenomeField, ...]:
    """The fields that a genome of this rule has, in the order of its vector.

    Shapes are those of one synapse layer; with `rule.per_layer` every array has a leading
    axis over synapse layers in front of them.
    """
    k = rule.states
    square = (k, k)
    fields = [
        GenomeField("neuron.forward", square, np.eye(k), "ν, forward transform (source, target)"),
        GenomeField("neuron.backward", square, np.eye(k), "µ, backward transform (source, target)"),
        GenomeField("neuron.keep", (), np.ones(()), "f, what a neuron keeps of its value"),
        GenomeField("neuron.update", (), np.ones(()), "η, how much it takes of the new"),
    ]
    parts = ["synapse"] + (["forward_synapse"] if rule.forward_synapse_update else [])
    for part in parts:
        when = "" if part == "synapse" else ", in the update after the forward pass"
        fields += [
            GenomeField(f"{part}.pre", square, np.eye(k), f"ν̃, pre-synaptic transform{when}"),
            GenomeField(f"{part}.post", square, np.eye(k), f"µ̃, post-synaptic transform{when}"),
            GenomeField(f"{part}.keep", (), np.ones(()), f"f̃, what a synapse keeps{when}"),
            GenomeField(f"{part}.update", (), np.zeros(()), f"η̃, the rate of learning{when}"),
        ]
        if rule.oja_multiplier:
            fields.append(
                GenomeField(f"{part}.oja_multiplier", (), np.ones(()), f"Oja multiplier{when}")
            )
        if rule.saturation != "none":
            fields.append(GenomeField(f"{part}.saturation", (), np.zeros(()), f"saturation{when}"))
    if rule.rescale_synapses:
        fields.append(
            GenomeField("synapse.rescale", (), np.ones(()), "factor of normalised synapses")
        )
    for passing, normalizes in (
        ("forward", rule.normalizes_forward),
        ("backward", rule.normalizes_backward),
    ):
        if normalizes:
            fields += [
                GenomeField(
                    f"normalization.{passing}_scale",
                    (k,),
                    np.ones(k),
                    f"deviation of normalised {passing} activations, per state",
                ),
                GenomeField(
                    f"normalization.{passing}_shift",
                    (k,),
                    np.zeros(k),
                    f"mean of normalised {passing} activations, per state",
                ),
            ]
    fields.append(
        GenomeField("initial_scale", (), np.ones(()), "s, deviation of the initial synapses")
    )
    return tuple(fields)


@dataclasses.dataclass(frozen=True, eq=False)
class Genome:
    """A genome: its rule, a float64 array for every field of the rule, and where it is from.

    Raises `InputError` if a field is missing, unknown, of another shape or not of numbers.
    Values that are not finite are let through: a search may come to them, and they diverge.
    """

    rule: RuleSpec
    fields: Mapping[str, FloatArray]
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        specs = genome_fields(self.rule)
        names = [spec.name for spec in specs]
        for name in self.fields:
            if name not in names:
                raise InputError(
                    f"genome: unknown field {name!r}{nearest(name, names)}; "
                    f"this rule has {', '.join(names)}"
                )
        arrays: dict[str, FloatArray] = {}
        layers: int | None = None
        for spec in specs:
            if spec.name not in self.fields:
                raise InputError(
                    f"genome: field {spec.name!r} is missing; expected it of this rule"
                )
            given = np.asarray(self.fields[spec.name])
            if given.dtype.kind not in "iuf":
                raise InputError(
                    f"genome: field {spec.name!r} holds {given.dtype}, expected numbers"
                )
            array = np.array(given, dtype=np.float64)
            if self.rule.per_layer:
                layers = array.shape[0] if layers is None and array.ndim else layers
                expected: tuple[int, ...] = (layers or 1, *spec.shape)
            else:
                expected = spec.shape
            if array.shape != expected:
                raise InputError(
                    f"genome: field {spec.name!r} has shape {array.shape}, expected {expected}"
                )
            array.flags.writeable = False
            arrays[spec.name] = array
        object.__setattr__(self, "fields", arrays)

    @property
    def layers(self) -> int | None:
        """Number of synapse layers that a per-layer genome is for; None if it fits any."""
        if not self.rule.per_layer:
            return None
        return int(self.fields["neuron.keep"].shape[0])

    @property
    def vector(self) -> FloatArray:
        """All fields, raveled one after the other in the order of `genome_fields`: (D,)."""
        return np.concatenate([array.ravel() for array in self.fields.values()])

    @classmethod
    def from_vector(cls, rule: RuleSpec, vector: FloatArray, layers: int | None = None) -> Genome:
        """The genome of a vector (D,); `layers` is needed for per-layer rules only."""
        shapes = _shapes(rule, layers)
        sizes = [math.prod(shape) for _, shape in shapes]
        if len(vector) != sum(sizes):
            raise InputError(f"genome: a vector of {len(vector)} values, expected {sum(sizes)}")
        pieces = np.split(np.asarray(vector, dtype=np.float64), np.cumsum(sizes)[:-1])
        return cls(
            rule,
            {
                name: piece.reshape(shape)
                for (name, shape), piece in zip(shapes, pieces, strict=True)
            },
        )

    @property
    def sha256(self) -> str:
        """Digest of what the genome does: its rule and the values of its fields."""
        digest = hashlib.sha256(json.dumps(self.rule.to_dict(), sort_keys=True).encode())
        for name, array in self.fields.items():
            digest.update(f"{name}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array, dtype="<f8").tobytes())
        return digest.hexdigest()

    def replace(self, values: Mapping[str, Any]) -> Genome:
        """A copy with some fields replaced; a number fills a whole field.

        Where every layer has its own, the values of one layer are taken for all. Raises
        `InputError` for a field that is unknown, of another shape or not finite.
        """
        fields = dict(self.fields)
        one_layer = {field.name: field.shape for field in genome_fields(self.rule)}
        for name, value in values.items():
            if name not in fields:
                raise InputError(
                    f"genome: unknown field {name!r}{nearest(name, fields)}; "
                    f"this rule has {', '.join(fields)}"
                )
            shape = fields[name].shape
            array = _numbers(value)
            if array is None or array.shape not in ((), shape, one_layer[name]):
                raise InputError(
                    f"genome: field {name!r} has shape {shape}; "
                    f"found {value!r:.200}, expected a number or nested lists of that shape"
                )
            if not np.all(np.isfinite(array)):
                raise InputError(
                    f"genome: field {name!r}: found {value!r:.200}, expected finite numbers"
                )
            fields[name] = np.broadcast_to(array, shape)
        return Genome(self.rule, fields, self.provenance)

    def to_bytes(self) -> bytes:
        """The genome as the bytes of an `.npz` file: no pickle, and always the same bytes."""
        header = {
            "format": "blur_es genome",
            "format_version": FORMAT_VERSION,
            "rule": self.rule.to_dict(),
            "sha256": self.sha256,
            "provenance": dict(self.provenance),
        }
        arrays: dict[str, npt.NDArray[Any]] = {
            "header": np.array(json.dumps(header, sort_keys=True))
        }
        arrays |= {_PREFIX + name: np.asarray(array) for name, array in self.fields.items()}
        return npz_bytes(arrays)

    def save(self, path: str | Path) -> None:
        """Write the genome as one `.npz` at a path or URL, whole or not at all.

        Raises `OSError`, and `InputError` for a URL that no installed package knows.
        """
        storage, name = open_file(path)
        storage.write(name, self.to_bytes())

    @classmethod
    def load(cls, path: str | Path) -> Genome:
        """Read a genome file at a path or URL.

        Raises `InputError` naming the file, what was found and what was expected.
        """
        return cls.read(*open_file(path))

    @classmethod
    def read(cls, storage: Storage, name: str) -> Genome:
        """Read a genome file of a folder; like `load`."""
        path = storage.locate(name)
        arrays = read_npz(storage, name, "genome file")
        header = _header(path, arrays)
        try:
            rule = from_options(RuleSpec, header["rule"], "rule")
            genome = cls(
                rule,
                {
                    name.removeprefix(_PREFIX): array
                    for name, array in arrays.items()
                    if name.startswith(_PREFIX)
                },
                header["provenance"],
            )
        except (InputError, TypeError, ValueError) as error:
            raise InputError(f"{path}: not a usable genome file: {error}") from error
        for name, array in genome.fields.items():
            if not np.all(np.isfinite(array)):
                raise InputError(
                    f"{path}: field {name!r} of this genome file holds values that are not "
                    "finite, expected finite numbers"
                )
        if genome.sha256 != header["sha256"]:
            raise InputError(
                f"{path}: this genome file is damaged: its contents have SHA-256 "
                f"{genome.sha256}, its header says {header['sha256']}"
            )
        return genome


def _numbers(value: Any) -> FloatArray | None:
    """An array of a number or of nested lists of numbers; None for anything else."""
    try:
        array = np.asarray(value)
    except ValueError:  # ragged lists
        return None
    return array.astype(np.float64) if array.dtype.kind in "iuf" else None


def _header(path: str, arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, Any]:
    expected = "expected a genome file written by blur_es"
    if "header" not in arrays:
        found = ", ".join(sorted(arrays)[:5]) or "no arrays at all"
        raise InputError(f"{path}: not a genome file: found {found}; {expected}")
    try:
        header = json.loads(str(arrays["header"]))
        kind, version = header["format"], header["format_version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: the header is damaged ({error!r:.200}); {expected}") from error
    if kind != "blur_es genome":
        raise InputError(f"{path}: found {kind!r}; {expected}")
    if version != FORMAT_VERSION:
        raise InputError(
            f"{path}: genome format version {version!r}, this blur_es reads version "
            f"{FORMAT_VERSION}; use a blur_es that knows it"
        )
    for name, kinds in (("rule", dict), ("provenance", dict), ("sha256", str)):
        if not isinstance(header.get(name), kinds):
            raise InputError(f"{path}: the header lacks {name!r}; {expected}")
    return dict(header)


def field_slices(
    rule: RuleSpec, layers: int
) -> tuple[dict[str, slice], dict[str, tuple[int, ...]], int]:
    """Where every field stands in the vector of a genome, its shape, and the vector's length."""
    slices: dict[str, slice] = {}
    start = 0
    shapes = _shapes(rule, layers)
    for name, shape in shapes:
        slices[name] = slice(start, start + math.prod(shape))
        start = slices[name].stop
    return slices, dict(shapes), start


def _shapes(rule: RuleSpec, layers: int | None) -> list[tuple[str, tuple[int, ...]]]:
    if rule.per_layer and not layers:
        raise InputError("genome: a per-layer rule needs to know the number of synapse layers")
    lead = (layers,) if rule.per_layer and layers else ()
    return [(field.name, (*lead, *field.shape)) for field in genome_fields(rule)]


def neutral_genome(rule: RuleSpec, layers: int | None = None) -> Genome:
    """Identity transforms, everything kept, nothing learned (η̃ = 0)."""
    shapes = dict(_shapes(rule, layers))
    return Genome(
        rule,
        {
            field.name: np.broadcast_to(field.neutral, shapes[field.name])
            for field in genome_fields(rule)
        },
    )


def random_genome(
    rule: RuleSpec, generator: np.random.Generator, layers: int | None = None
) -> Genome:
    """The `random` preset: where a search starts that knows nothing about learning.

    Transforms are normal with deviation 1/√k, so that mixing k states of unit size gives
    states of unit size. Neurons forget what they held and synapses do not; the rate of
    learning is small and positive, and the transforms decide its direction.
    """
    genome = neutral_genome(rule, layers)
    transforms = {
        name: generator.standard_normal(array.shape) / np.sqrt(rule.states)
        for name, array in genome.fields.items()
        if name.endswith((".forward", ".backward", ".pre", ".post"))
    }
    rates = {name: 0.1 for name in genome.fields if name.endswith("synapse.update")}
    return genome.replace(transforms | rates)


def backprop_genome(
    rule: RuleSpec, generator: np.random.Generator | None = None, layers: int | None = None
) -> Genome:
    """The `backprop` preset: gradient descent with learning rate 0.1 (paper, section 3.1).

    Exactly so under `RuleSpec.backprop()`; under other rules with two or more states it is
    the paper's way to start a search close to it (section 4.5). States after the second are
    left alone.
    """
    if rule.states < 2:
        raise InputError("genome preset 'backprop' needs at least 2 states, found 1")
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


def widen_genome(genome: Genome, states: int) -> Genome:
    """The same rule in more states: the first ones are and do exactly what they did.

    The new states hold values of their own, which no old state takes up; a search that begins
    here decides what to make of them. Raises `InputError` for fewer states than there are and
    for a rule that there is not with so many.
    """
    old = genome.rule.states
    if states < old:
        raise InputError(f"genome: found {old} states, expected {states} or fewer")
    rule = dataclasses.replace(genome.rule, states=states)
    fields: dict[str, FloatArray] = {}
    for spec in genome_fields(rule):
        given = genome.fields[spec.name]
        shape = given.shape[:1] * rule.per_layer + spec.shape
        widened = np.array(np.broadcast_to(spec.neutral, shape))
        # Neutral transforms are identities: nothing passes from the new states to the old.
        corner: tuple[Any, ...] = (..., *(slice(old) for _ in spec.shape))
        widened[corner] = given
        fields[spec.name] = widened
    return Genome(rule, fields, genome.provenance)


PRESETS: dict[str, Callable[[RuleSpec, np.random.Generator, int | None], Genome]] = {
    "random": random_genome,
    "backprop": backprop_genome,
}

# How far one unit of the search moves a field, unless the experiment says otherwise:
# gates and rates matter at a finer scale than the entries of the transforms.
DEFAULT_SCALES = {
    "neuron.keep": 0.3,
    "neuron.update": 0.3,
    "keep": 0.1,
    "update": 0.1,
    "oja_multiplier": 0.1,
    "saturation": 0.1,
    "initial_scale": 0.3,
}


def default_scale(name: str) -> float:
    """The scale of a field that the experiment does not give one for."""
    return DEFAULT_SCALES.get(name, DEFAULT_SCALES.get(name.rsplit(".", 1)[-1], 1.0))


@dataclasses.dataclass(frozen=True, eq=False)
class SearchSpace:
    """What an outer loop searches: learned fields of a genome around their initial values.

    A point z (d,) of the space is the genome whose learned values are
    `initial + scale * z`; z = 0 is the initial genome.

    Attributes:
        initial: the genome at z = 0.
        learned: names of the learned fields, in the order of the genome's vector.
        index: (d,) positions of the learned values in the genome's vector.
        scale: (d,) how far one unit of z moves each.
    """

    initial: Genome
    learned: tuple[str, ...]
    index: npt.NDArray[np.intp]
    scale: FloatArray

    @classmethod
    def create(
        cls,
        initial: Genome,
        learn: str | Sequence[str] = "all",
        scales: Mapping[str, float] | None = None,
    ) -> SearchSpace:
        """Choose the learned fields (`all` or their names) and their scales by field name."""
        scales = scales or {}
        names = list(initial.fields)
        wanted = names if learn == "all" else [learn] if isinstance(learn, str) else list(learn)
        for key, given in (("learn", wanted), ("scales", scales)):
            for name in given:
                if name not in names:
                    raise InputError(
                        f"genome.{key}: unknown field {name!r}{nearest(name, names)}; "
                        f"this rule has {', '.join(names)}"
                    )
        for name, scale in scales.items():
            if not 0.0 < scale < float("inf"):
                raise InputError(f"genome.scales.{name}: found {scale}, expected a number above 0")
            if name not in wanted:
                raise InputError(f"genome.scales.{name}: this field is not learned")
        if not wanted:
            raise InputError("genome.learn: nothing is learned; expected 'all' or names of fields")
        index, scale_of = [], []
        start = 0
        for name, array in initial.fields.items():
            if name in wanted:
                index.append(np.arange(start, start + array.size))
                scale_of.append(np.full(array.size, scales.get(name, default_scale(name))))
            start += array.size
        return cls(
            initial,
            tuple(name for name in names if name in wanted),
            np.concatenate(index),
            np.concatenate(scale_of),
        )

    @property
    def dimensions(self) -> int:
        """d, the number of learned values."""
        return len(self.index)

    def vectors(self, points: FloatArray) -> FloatArray:
        """Genome vectors (P, D) in float64 of points (P, d)."""
        vectors = np.tile(self.initial.vector, (len(points), 1))
        vectors[:, self.index] += self.scale * np.asarray(points, dtype=np.float64)
        return vectors

    def genome(self, point: FloatArray) -> Genome:
        """The genome at a point (d,)."""
        vector = self.vectors(np.asarray(point)[None, :])[0]
        return Genome.from_vector(self.initial.rule, vector, self.initial.layers)

"""A genome: the values of a rule's parameters, as named arrays, as a vector and as a file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from blur_es.errors import InputError, nearest
from blur_es.genome.fields import field_slices, genome_fields
from blur_es.genome.stored_rule import attach, read_rule, rule_header
from blur_es.rule import Rule, RuleSource, RuleSpec, family_rule
from blur_es.storage import Storage, open_file, read_npz
from blur_es.storage.npz import MAXIMUM_GENOME_BYTES, npz_bytes
from blur_es.util.arrays import FloatArray
from blur_es.util.html import description

FORMAT_VERSION = 1
# Rule and provenance as JSON; NumPy stores four bytes for each character.
MAXIMUM_HEADER_BYTES = 2**25
MAXIMUM_DEPTH = 50

_PREFIX = "genome."


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Genome:
    """The learned parameters of a rule.

    A genome is immutable; its arrays are read-only. Values may be infinite or NaN: a search
    can propose such genomes, and their episodes diverge.

    Attributes:
        rule: the rule that the parameters belong to.
        fields: a float64 array for every field of `genome_fields(rule)`; with `rule.per_layer`
            with a leading axis over the synapse layers.
        provenance: how the genome was found; values that JSON can hold.

    Raises `InputError` if a field is missing or unknown, or if its array has another shape or
    holds something other than numbers.
    """

    rule: Rule
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
                    f"genome: field {spec.name!r} is missing; this rule has {', '.join(names)}"
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
        """The number of synapse layers of a per-layer genome; None for a genome that fits any."""
        if not self.rule.per_layer:
            return None
        return int(self.fields["neuron.keep"].shape[0])

    @property
    def vector(self) -> FloatArray:
        """The values of all fields, one after the other in the order of `genome_fields`: (D,)."""
        return np.concatenate([array.ravel() for array in self.fields.values()])

    @classmethod
    def from_vector(cls, rule: Rule, vector: FloatArray, layers: int | None = None) -> Genome:
        """The genome with the values of a vector (D,).

        `layers`, the number of synapse layers, is needed for per-layer rules only. Raises
        `InputError` for a vector of another length.
        """
        slices, shapes, length = field_slices(rule, layers)
        if len(vector) != length:
            raise InputError(f"genome: found a vector of {len(vector)} values, expected {length}")
        values = np.asarray(vector, dtype=np.float64)
        return cls(
            rule, {name: values[place].reshape(shapes[name]) for name, place in slices.items()}
        )

    @property
    def spec(self) -> RuleSpec:
        """The options of a rule of the built-in family. Raises `InputError` for a custom rule."""
        return family_rule(self.rule, "genome")

    @property
    def sha256(self) -> str:
        """SHA-256 of the rule and of the values of all fields; the provenance does not count."""
        digest = hashlib.sha256(json.dumps(self.rule.to_dict(), sort_keys=True).encode())
        for name, array in self.fields.items():
            digest.update(f"{name}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array, dtype="<f8").tobytes())
        return digest.hexdigest()

    def __repr__(self) -> str:
        states = f"{self.rule.states} state{'s' * (self.rule.states != 1)}"
        return f"<genome {self.sha256[:12]}: {len(self.vector)} numbers, {states}>"

    def _repr_html_(self) -> str:
        facts: dict[str, Any] = {"SHA-256": self.sha256}
        defaults = RuleSpec().to_dict()
        options = {
            name: value
            for name, value in self.rule.to_dict().items()
            if value != defaults.get(name)
        }
        facts["rule"] = ", ".join(f"{name}: {value}" for name, value in options.items())
        facts |= {
            name: np.array2string(array, precision=4, suppress_small=True, threshold=64)
            for name, array in self.fields.items()
        }
        return description(f"genome of {len(self.vector)} numbers", facts)

    def replace(self, values: Mapping[str, Any]) -> Genome:
        """A copy of the genome in which some fields have other values.

        A number fills a whole field. In a per-layer genome, values of the shape of one layer
        are used for every layer. Raises `InputError` for an unknown field and for values of
        another shape or that are not finite.
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
        """The content of an `.npz` file with the genome: equal genomes give equal bytes."""
        header = {
            "format": "blur_es genome",
            "format_version": FORMAT_VERSION,
            "sha256": self.sha256,
            "provenance": dict(self.provenance),
            **rule_header(self.rule),
        }
        arrays: dict[str, npt.NDArray[Any]] = {
            "header": np.array(json.dumps(header, sort_keys=True))
        }
        arrays |= {_PREFIX + name: np.asarray(array) for name, array in self.fields.items()}
        return npz_bytes(arrays)

    def save(self, path: str | Path) -> None:
        """Write the genome to an `.npz` file at a path or URL, completely or not at all.

        Raises `OSError` if writing fails, and `InputError` for a URL whose protocol no installed
        package supports.
        """
        storage, name = open_file(path)
        storage.write(name, self.to_bytes())

    @classmethod
    def load(
        cls,
        source: GenomeSource,
        sha256: str | None = None,
        *,
        rule: RuleSource | None = None,
        trust: bool = False,
    ) -> Genome:
        """Load a genome: the same as `blur_es.load_genome`, which describes the arguments.

        Raises `InputError` as that does.
        """
        # Imported by name because that module, which finds and downloads genomes, needs this class.
        load = import_module("blur_es.genomes").load_genome
        genome: Genome = load(source, sha256, rule=rule, trust=trust)
        return genome

    def with_rule(self, rule: RuleSource | None = None, *, trust: bool = False) -> Genome:
        """The genome with the code of its custom rule; see `blur_es.load_genome`."""
        attached = attach(self.rule, rule, trust)
        return self if attached is self.rule else Genome(attached, self.fields, self.provenance)

    @classmethod
    def read(cls, storage: Storage, name: str) -> Genome:
        """Read the genome file `name` in a folder.

        Raises `InputError` if there is no such file or if it is not a valid genome file.
        """
        path = storage.locate(name)
        arrays = read_npz(storage, name, "genome file", MAXIMUM_GENOME_BYTES)
        header = _header(path, arrays)
        try:
            fields = {
                name.removeprefix(_PREFIX): array
                for name, array in arrays.items()
                if name.startswith(_PREFIX)
            }
            genome = cls(read_rule(header, fields), fields, header["provenance"])
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


@runtime_checkable
class HasGenome(Protocol):
    """A run, as a source of its genome."""

    @property
    def genome(self) -> Genome:
        """The learned genome. Raises `InputError` if there is none yet."""
        ...


# Whatever a public function takes as a genome: a genome, a run, the name of a genome that ships, or
# the path or URL of a genome file or a run folder.
GenomeSource = Genome | HasGenome | str | os.PathLike[str]


def _numbers(value: Any) -> FloatArray | None:
    """A number or nested lists of numbers as a float64 array; None for anything else."""
    try:
        array = np.asarray(value)
    except ValueError:  # ragged lists
        return None
    return array.astype(np.float64) if array.dtype.kind in "iuf" else None


def _check_depth(value: Any) -> None:
    """Raise `ValueError` for values that are nested deeper than anything that blur_es writes."""
    level = [value]
    for _ in range(MAXIMUM_DEPTH):
        children = [list(each.values()) if isinstance(each, dict) else each for each in level]
        level = [item for each in children if isinstance(each, list) for item in each]
        if not level:
            return
    raise ValueError(f"more than {MAXIMUM_DEPTH} nested levels")


def _header(path: str, arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, Any]:
    expected = "expected a genome file written by blur_es"
    if "header" not in arrays:
        found = ", ".join(sorted(arrays)[:5]) or "no arrays at all"
        raise InputError(f"{path}: not a genome file: found {found}; {expected}")
    try:
        if arrays["header"].nbytes > MAXIMUM_HEADER_BYTES:
            raise ValueError(f"{arrays['header'].nbytes} bytes")
        header = json.loads(str(arrays["header"]))
        _check_depth(header)
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

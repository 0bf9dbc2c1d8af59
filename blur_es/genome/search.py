"""The space that meta-training searches: the learned fields of a genome, shifted and scaled."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from blur_es.errors import InputError, nearest
from blur_es.genome.fields import genome_fields
from blur_es.genome.genome import Genome
from blur_es.util.arrays import FloatArray


@dataclasses.dataclass(frozen=True, eq=False)
class SearchSpace:
    """The learned values of a genome, as the coordinates in which an outer loop searches.

    A point z (d,) stands for the genome whose learned values are `initial + scale * z`.

    Attributes:
        initial: the genome at z = 0.
        learned: the names of the learned fields, in the order of the genome's vector.
        index: (d,) positions of the learned values in the genome's vector.
        scale: (d,) how far one unit of z moves each learned value.
        sparsity: weight of the penalty on learned values other than 0 and 1; see `penalized`.
    """

    initial: Genome
    learned: tuple[str, ...]
    index: npt.NDArray[np.intp]
    scale: FloatArray
    sparsity: float = 0.0

    @classmethod
    def create(
        cls,
        initial: Genome,
        learn: str | Sequence[str] = "all",
        scales: Mapping[str, float] | None = None,
    ) -> SearchSpace:
        """Build a search space around a genome.

        Args:
            initial: the genome at z = 0.
            learn: `all`, or the names of the learned fields.
            scales: scales by field name, in place of the default scales.

        Raises `InputError` for unknown fields, for scales that are not positive or not of a learned
        field, and if nothing is learned.
        """
        scales = scales or {}
        usual = {field.name: field.scale for field in genome_fields(initial.rule)}
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
                raise InputError(
                    f"genome.scales.{name}: this field is not learned; add it to genome.learn or "
                    "remove its scale"
                )
        if not wanted:
            raise InputError("genome.learn: nothing is learned; expected 'all' or names of fields")
        index, scale_of = [], []
        start = 0
        for name, array in initial.fields.items():
            if name in wanted:
                index.append(np.arange(start, start + array.size))
                scale_of.append(np.full(array.size, scales.get(name, usual[name])))
            start += array.size
        return cls(
            initial,
            tuple(name for name in names if name in wanted),
            np.concatenate(index),
            np.concatenate(scale_of),
        )

    @property
    def dimensions(self) -> int:
        """The number d of learned values."""
        return len(self.index)

    def vectors(self, points: FloatArray) -> FloatArray:
        """The genome vectors (P, D), float64, of points (P, d)."""
        vectors = np.tile(self.initial.vector, (len(points), 1))
        # Values that overflow are infinite, and their episodes diverge.
        with np.errstate(over="ignore", invalid="ignore"):
            vectors[:, self.index] += self.scale * np.asarray(points, dtype=np.float64)
        return vectors

    def penalized(self, fitness: FloatArray, vectors: FloatArray) -> FloatArray:
        """Fitness (P,) minus the penalty on the learned values of genome vectors (P, D).

        The penalty is `sparsity` times the sum over learned values v of min(|v|, |v - 1|). With a
        weight of 0 the result is `fitness` itself.
        """
        if not self.sparsity:
            return fitness
        values = vectors[:, self.index]
        distances = np.minimum(np.abs(values), np.abs(values - 1.0))
        with np.errstate(over="ignore"):
            penalty = self.sparsity * distances.sum(axis=1)
        # A genome with infinite values has the worst fitness already.
        return np.asarray(fitness - np.where(np.isfinite(penalty), penalty, 0.0))

    def penalty_gradient(self, vector: FloatArray) -> FloatArray:
        """The gradient (d,) of the penalty with respect to the point of a genome vector (D,)."""
        values = vector[self.index]
        nearest_value = np.where(values < 0.5, 0.0, 1.0)
        return np.asarray(self.sparsity * np.sign(values - nearest_value) * self.scale)

    def genome(self, point: FloatArray) -> Genome:
        """The genome at a point (d,)."""
        vector = self.vectors(np.asarray(point)[None, :])[0]
        return Genome.from_vector(self.initial.rule, vector, self.initial.layers)

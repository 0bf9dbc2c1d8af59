"""The golden trajectories of the authors' own code, on every backend."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest

from blur_es.errors import InputError
from blur_es.inner import BACKENDS, make_inner_loop
from blur_es.inner.conformance import golden_files, replay

CASES = golden_files(Path(__file__).parent / "golden")


# JAX compiles every case, which takes long. Other tests compare it with NumPy under every option.
PLACES = [
    pytest.param(
        path, backend, marks=[pytest.mark.slow] * (backend == "jax" and number % 3 > 0), id=name
    )
    for number, path in enumerate(CASES)
    for backend in BACKENDS
    for name in [f"{path.stem}-{backend}"]
]


@pytest.mark.parametrize(("path", "backend"), PLACES)
def test_golden_case(path: Path, backend: str) -> None:
    result = replay(path, functools.partial(make_inner_loop, backend), BACKENDS[backend])
    if path.stem.endswith("_FULL"):
        assert result.status == "not supported"
        assert "matrix blocks that feed nothing" in result.reason
    else:
        assert result.status == "pass", result
        assert set(result.errors) >= {"neurons", "prediction", "forward", "query"}


@pytest.mark.parametrize(
    "array", ["out.f64.layer1", "out.f64.syn0.fwd", "val.f64.last", "out.f64.pred"]
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_changed_reference_fails(tmp_path: Path, backend: str, array: str) -> None:
    with np.load(CASES[0]) as arrays:
        changed = dict(arrays)
    changed[array] = changed[array] + 1e-4 * np.abs(changed[array]).max()
    np.savez(tmp_path / "changed.npz", **changed)
    result = replay(
        tmp_path / "changed.npz", functools.partial(make_inner_loop, backend), BACKENDS[backend]
    )
    assert result.status == "fail"


def test_damaged_cases_are_named(tmp_path: Path) -> None:
    (tmp_path / "torn.npz").write_bytes(CASES[0].read_bytes()[:1000])
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    for name in ("torn.npz", "other.npz"):
        with pytest.raises(InputError, match=name):
            replay(tmp_path / name, functools.partial(make_inner_loop, "numpy"), 1e-10)
    with pytest.raises(InputError, match="expected a folder"):
        golden_files(tmp_path / "nowhere")

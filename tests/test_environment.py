"""Settings in a user's shell neither stop the program nor change its results."""

from __future__ import annotations

import os
import subprocess
import sys

import jax
import pytest

from blur_es.errors import InputError
from blur_es.inner.canonical import canonical_digest
from blur_es.util.environment import jax_cpu_device, use_neutral_settings

SHELL = {
    "JAX_DEBUG_NANS": "1",
    "JAX_DISABLE_JIT": "1",
    "JAX_ENABLE_X64": "1",
    "JAX_NUMPY_DTYPE_PROMOTION": "strict",
    "JAX_PLATFORMS": "cuda",
    "NUMBA_DISABLE_JIT": "1",
    "NUMBA_NUM_THREADS": "garbage",
    "OPENBLAS_NUM_THREADS": "8",
}


def run_python(program: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=False,
    )


# With PYTHONOPTIMIZE, Numba compiles everything again.
@pytest.mark.parametrize(
    "more", [{}, pytest.param({"PYTHONOPTIMIZE": "2"}, marks=pytest.mark.slow)]
)
def test_settings_of_the_shell_change_nothing(more: dict[str, str]) -> None:
    program = (
        "import blur_es.cli\n"
        "from blur_es.inner.canonical import canonical_digest\n"
        "from blur_es.util.environment import jax_cpu_device\n"
        "import jax\n"
        "config = jax.config\n"
        "print(canonical_digest('numba'), jax_cpu_device().platform)\n"
        "print(config.jax_enable_x64, config.jax_debug_nans, config.jax_disable_jit)\n"
        "print(config.jax_numpy_dtype_promotion)\n"
    )
    found = run_python(program, **SHELL, **more)
    assert found.returncode == 0, found.stderr
    assert found.stdout.split() == [
        canonical_digest("numba"),
        "cpu",
        "False",
        "False",
        "False",
        "standard",
    ]


def test_the_command_needs_no_docstrings_and_assertions() -> None:
    found = run_python("from blur_es.cli import main; main(['tasks'])", PYTHONOPTIMIZE="2")
    assert found.returncode == 0, found.stderr
    assert "two_moons" in found.stdout


def test_kernels_that_are_not_to_be_compiled_name_the_setting() -> None:
    # Without the command, nothing resets the settings before Numba is imported.
    found = run_python("import blur_es.inner.numba_loop", NUMBA_DISABLE_JIT="1")
    assert "numba backend cannot run with NUMBA_DISABLE_JIT=1; unset it" in found.stderr


@pytest.mark.parametrize(
    ("before", "after"), [("cuda", "cuda,cpu"), ("cpu", "cpu"), ("cpu,cuda", "cpu,cuda"), ("", "")]
)
def test_jax_may_always_use_the_cpu(
    monkeypatch: pytest.MonkeyPatch, before: str, after: str
) -> None:
    monkeypatch.setattr(os, "environ", {"JAX_PLATFORMS": before})
    use_neutral_settings()
    assert os.environ["JAX_PLATFORMS"] == after


@pytest.mark.parametrize(
    ("error", "reason"),
    [(RuntimeError("unknown backend"), r" \(unknown backend\)"), (AssertionError(), "")],
)
def test_platforms_that_jax_cannot_start_are_named(
    monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    def fail(backend: str) -> None:
        raise error

    monkeypatch.setenv("JAX_PLATFORMS", "nonsense")
    monkeypatch.setattr(jax, "local_devices", fail)
    with pytest.raises(InputError, match=f"JAX_PLATFORMS=nonsense{reason}; unset it, or set it"):
        jax_cpu_device()

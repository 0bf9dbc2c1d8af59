"""Fixtures of all tests: one thread, one shared Ray cluster, and nothing left running."""

from __future__ import annotations

# The number of threads is fixed before NumPy and JAX are imported, as the command does.
from blur_es.util.threads import use_one_thread

use_one_thread()

import functools
import gc
import os
import platform
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.clusters import WITHOUT_DASHBOARD, make_cluster
from tests.processes import running, wait_until

# The tests' clusters listen on this machine only and need no token.
os.environ["RAY_AUTH_MODE"] = "disabled"
_path = os.environ.get("PYTHONPATH", "").split(os.pathsep)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, dict.fromkeys([WITHOUT_DASHBOARD, *_path])))
# Compiling takes longer than running here. Processes that the tests start do the same, so that all
# find the same bits.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
# XLA's older way to compile fused operations takes half as long.
FUSION_EMITTERS = "xla_cpu_use_fusion_emitters"
_flags = os.environ.get("XLA_FLAGS", "").split()
os.environ["XLA_FLAGS"] = " ".join(dict.fromkeys([*_flags, f"--{FUSION_EMITTERS}=false"]))

# On a busy machine, Hypothesis examples take long to draw and to run.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

# Raylets, commands and busy Ray workers. Idle workers do not count: the shared clusters keep some.
LEFT_BEHIND = r"raylet/raylet|blur_es\.cli|ray::(?!IDLE|DashboardAgent|RuntimeEnvAgent)\w"


def pytest_configure(config: pytest.Config) -> None:
    """Reset ignored signals, and let all tests and their processes share what JAX has compiled."""
    # Under `nohup` or in the background of a shell, child processes would ignore these too.
    for number, handler in (
        (signal.SIGHUP, signal.SIG_DFL),
        (signal.SIGINT, signal.default_int_handler),
    ):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
    cache: pytest.Cache | None = getattr(config, "cache", None)
    if cache is not None:
        # What is compiled for one kind of processor may not run on another.
        folder = cache.mkdir(f"jax-{platform.node()}")
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder))
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"


@pytest.fixture(scope="session", autouse=True)
def nobody_waits_for_the_disk() -> Iterator[None]:
    """Skip `fsync`: a run syncs every checkpoint, and no test ends with a power failure."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture
def current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, for tests that call the command's `main`."""
    monkeypatch.chdir(tmp_path)
    # `main` adds the current folder to the import path.
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


@pytest.fixture(autouse=True)
def nothing_left_running(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a worker, a cluster or a command running."""
    for cluster in ("ray_address", "gpu_ray_address"):
        if cluster in request.fixturenames:
            request.getfixturevalue(cluster)
    before = running(LEFT_BEHIND)
    yield
    wait_until(lambda: running(LEFT_BEHIND) <= before, "the end of the test's processes")


@pytest.fixture
def full_optimization(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have JAX compile as it does for users, for tests of what optimisations could change."""
    import jax

    as_users_do = functools.partial(jax.jit, compiler_options={FUSION_EMITTERS: True})
    monkeypatch.setattr(jax, "jit", as_users_do)
    jax.config.update("jax_disable_most_optimizations", False)  # type: ignore[no-untyped-call]
    yield
    jax.config.update("jax_disable_most_optimizations", True)  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module", autouse=True)
def compiled_programs_are_freed() -> Iterator[None]:
    """Free what JAX has compiled for the tests of a module.

    Each program takes several memory mappings. One process that runs all tests would
    otherwise reach Linux's limit of 65,530 mappings, where LLVM crashes.
    """
    yield
    if jax := sys.modules.get("jax"):
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="module")
def reports_without_pictures() -> Iterator[None]:
    """Leave pictures out of reports, because drawing takes most of a report's time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("blur_es.report.html.write_figure", lambda figure, folder, name: b"")
        patch.setattr("blur_es.report.html.render", lambda figure, kind: b"")
        yield


@pytest.fixture(scope="session")
def ray_address() -> Iterator[str]:
    """The address of a Ray cluster with two cores that all tests of a process share."""
    with make_cluster(num_cpus=2) as cluster:
        yield cluster.address


@pytest.fixture(scope="session")
def gpu_ray_address() -> Iterator[str]:
    """The address of a Ray cluster with two cores that claims to have a GPU."""
    with make_cluster(num_cpus=2, num_gpus=1) as cluster:
        yield cluster.address

"""What all tests share: one thread, one Ray cluster, and nothing left running."""

from __future__ import annotations

# Before NumPy and JAX, as the command does.
from blur_es.util.threads import use_one_thread

use_one_thread()

import contextlib
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

# Clusters of the tests listen on this machine only and need no token.
os.environ["RAY_AUTH_MODE"] = "disabled"


# Whatever the tests start inherits this, and so is told from what else runs on the machine.
MARK = f"BLUR_ES_TESTS={os.getpid()}"
os.environ["BLUR_ES_TESTS"] = str(os.getpid())


def running(*parts: str) -> set[int]:
    """Process ids of what these tests started, if the command line holds one of the parts."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                command = (
                    (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                )
                ours = MARK.encode() in (entry / "environ").read_bytes().split(b"\0")
                if ours and any(part in command for part in parts):
                    found.add(int(entry.name))
    return found


_OURS = (
    *("ray::EvaluationWorker", "ray::blur_es", "ray::score_job", "ray::score_entry"),
    *("raylet/raylet", "blur_es.cli"),
)

RAY_WARNINGS = (
    # Ray's own: sockets that it leaves to the garbage collector, and its use of old names.
    "ignore::ResourceWarning",
    "ignore::DeprecationWarning:ray",
    "ignore::FutureWarning:ray",
)


@pytest.fixture
def current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, for tests that call the command's `main`."""
    monkeypatch.chdir(tmp_path)
    # `main` puts the current folder there.
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


@pytest.fixture(autouse=True)
def nothing_left_running(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a worker, a cluster or a command behind."""
    for cluster in ("ray_address", "gpu_ray_address"):
        if cluster in request.fixturenames:
            request.getfixturevalue(cluster)
    before = running(*_OURS)
    yield
    deadline = time.monotonic() + 20
    while (left := running(*_OURS) - before) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left, f"processes left running: {left}"


@pytest.fixture(scope="module", autouse=True)
def compiled_programs_are_let_go() -> Iterator[None]:
    """Let go of what JAX has compiled for a module's tests.

    Every program is mapped into memory some times. Without this, one process that runs all
    tests reaches Linux's 65,530 mappings a process, and LLVM crashes.
    """
    yield
    if jax := sys.modules.get("jax"):
        jax.clear_caches()
        gc.collect()


_CLUSTER = """
import json, sys
from ray.cluster_utils import Cluster

node = {"num_cpus": 2, "object_store_memory": 100 * 2**20, "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args=node | json.loads(sys.argv[1]))
print("address", cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@contextlib.contextmanager
def _cluster(**resources: int) -> Iterator[str]:
    """The address of a cluster in a process of its own.

    Starting one forks, which the threads of JAX in this process do not survive.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", _CLUSTER, json.dumps(resources)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("address "):
            break
    else:
        pytest.fail("the Ray cluster of the tests did not start")
    yield line.split()[1]
    process.stdin.close()
    process.wait(timeout=60)
    process.stdout.close()


@pytest.fixture(scope="session")
def ray_address() -> Iterator[str]:
    """The address of a cluster of two cores that all tests share."""
    with _cluster() as address:
        yield address


@pytest.fixture(scope="module")
def gpu_ray_address() -> Iterator[str]:
    """The address of a cluster of two cores and, by its own word, a GPU."""
    with _cluster(num_gpus=1) as address:
        yield address

"""The script that `blur-es doctor` runs on every node; it answers in JSON.

A node may lack this package or have another version of it. So the source of this module is sent
to the node, and it imports only the standard library at its top. Other imports are part of the
checks; if one fails, the failure is part of the answer.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import json
import math
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

# Nodes need the driver's versions of these packages, which determine those of all others.
PACKAGES = ("ray", "blur_es", "numpy", "numba", "jax")


def run_script(source: str, question: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Run this module's source in a process of its own and return its answer.

    This is the Ray task. It ends the process after some seconds; the answer then only has an
    error.
    """
    environment = dict(os.environ)
    # On a node with GPUs, JAX looks for them, without taking memory from running workers.
    environment["JAX_PLATFORMS"] = "" if question.get("gpus") else "cpu"
    environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    # What the worker can import, including the working directory of a job.
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    flags = (environment.get("XLA_FLAGS", ""), "--xla_gpu_deterministic_ops=true")
    environment["XLA_FLAGS"] = " ".join(flags).strip()
    question = question | {"seconds": seconds}
    try:
        done = subprocess.run(
            [sys.executable, "-c", source, json.dumps(question)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=environment,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return {"errors": {"probe": f"no answer within {seconds:.0f} s"}}
    lines = done.stdout.splitlines()
    try:
        answer: dict[str, Any] = json.loads(lines[-1])
    except (IndexError, ValueError):
        last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        return {"errors": {"probe": f"it ended with code {done.returncode}: {last}"}}
    return answer


def read_clock() -> float:
    """Seconds since 1970 by the clock of this node."""
    return time.time()


def examine(question: dict[str, Any]) -> dict[str, Any]:
    """Describe this machine.

    Args:
        question: what to check besides the machine itself: `tasks` (options of tasks whose data
            should be here), `data_dir`, `import_paths` (folders of a user's own tasks),
            `run_dir` (a URL to write to), `backends` (to compute canonical digests with),
            `precision` (of the JAX backend) and `gpus` (whether to look for GPUs with JAX).

    Returns:
        What was found, in plain values; `errors` has a message for each check that failed.
    """
    sys.path.extend(path for path in question.get("import_paths", ()) if path not in sys.path)
    errors: dict[str, str] = {}

    def attempt(name: str, function: Callable[[], Any]) -> Any:
        try:
            return function()
        except Exception as error:
            own = type(error).__module__.startswith("blur_es.")
            errors[name] = str(error) if own else f"{type(error).__name__}: {error}"
            return None

    answer = {
        "host": socket.gethostname(),
        "python": ".".join(map(str, sys.version_info[:3])),
        "executable": sys.executable,
        "packages": {name: _version(name) for name in PACKAGES},
        "source": attempt("source", _source_digest),
        "cores": attempt("cores", _cores),
        "memory": attempt("memory", _memory),
        "disk": attempt("disk", _disk),
        "gpus": attempt("gpus", _gpus) if question.get("gpus") else None,
        "tasks": {
            str(options.get("name")): attempt(
                f"data of {options.get('name')}",
                functools.partial(_task_digest, options, question.get("data_dir")),
            )
            for options in question.get("tasks", ())
        },
        "digests": {
            backend: attempt(
                f"digest of {backend}",
                functools.partial(_canonical, backend, question.get("precision", "float32")),
            )
            for backend in question.get("backends", ())
        },
        "speeds": {
            backend: attempt(
                f"speed of {backend}",
                functools.partial(_speed, backend, question.get("precision", "float32")),
            )
            for backend in question.get("backends", ())
        },
        "threads": attempt("threads", _threads) if question.get("backends") else None,
    }
    if run_dir := question.get("run_dir"):
        attempt("storage", lambda: check_storage(run_dir))
    return answer | {"errors": errors}


def check_storage(url: str) -> None:
    """Write, read and delete a small file in a folder given by URL or path.

    Raises whatever goes wrong.
    """
    import fsspec

    content = uuid.uuid4().bytes
    store, folder = fsspec.core.url_to_fs(url)
    local = "file" in (store.protocol if isinstance(store.protocol, tuple) else (store.protocol,))
    made = local and not store.exists(folder)
    if local:
        # Object stores have no folders; making one could create a bucket.
        store.makedirs(folder, exist_ok=True)
    name = f"{folder.rstrip('/')}/.blur-es-doctor-{uuid.uuid4().hex}"
    try:
        store.pipe_file(name, content)
        try:
            found = store.cat_file(name)
        finally:
            store.rm_file(name)
        if found != content:
            raise OSError(f"{url}: what was read differs from what was written")
    finally:
        if made:
            with contextlib.suppress(OSError):
                os.rmdir(folder)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _source_digest() -> str | None:
    """Digest of the package's source, because two checkouts of one version may differ."""
    found = importlib.util.find_spec("blur_es")
    if found is None or not found.submodule_search_locations:
        return None
    root = Path(next(iter(found.submodule_search_locations)))
    total = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        total.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return total.hexdigest()


def _cores() -> int:
    """Number of cores that this process may use, by its affinity and its control group."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.exists():
        limit, period = quota.read_text().split()
        if limit != "max":
            cores = min(cores or 1, max(1, math.ceil(int(limit) / int(period))))
    return cores or 1


def _memory() -> dict[str, int]:
    """Total and available memory in bytes, of the machine or of its control group."""
    lines = dict(
        line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines() if ":" in line
    )
    total, available = (1024 * int(lines[name].split()[0]) for name in ("MemTotal", "MemAvailable"))
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and (text := limit.read_text().strip()) != "max":
        total = min(total, int(text))
        available = min(available, total - int(used.read_text()))
    return {"total": total, "available": max(0, available)}


def _disk() -> dict[str, int]:
    """Total and free bytes of the disk on which Ray keeps its session."""
    usage = shutil.disk_usage(os.environ.get("RAY_TMPDIR") or "/tmp")
    return {"total": usage.total, "free": usage.free}


def _gpus() -> int:
    import jax

    return sum(device.platform == "gpu" for device in jax.devices())


def _task_digest(options: dict[str, Any], data_dir: str | None) -> str:
    """Digest of a few rows of a task, which shows whether nodes have the same data."""
    import numpy as np

    from blur_es.keys import Phase
    from blur_es.tasks import make_task

    task = make_task(options, data_dir)
    samples = task.sample(Phase.META_TRAINING, 64, 64, np.random.Generator(np.random.Philox(0)))
    total = hashlib.sha256()
    for rows in samples:
        total.update(np.ascontiguousarray(rows).tobytes())
    return total.hexdigest()


def _canonical(backend: str, precision: Any) -> str:
    from blur_es.inner.canonical import canonical_digest

    return canonical_digest(backend, precision)


def _speed(backend: str, precision: Any) -> dict[str, Any]:
    """The kind of processor, and the shortest time in seconds of a small evaluation on it."""
    kind, clock = _processor(), time.process_time
    if backend == "jax":
        import jax

        if (device := jax.devices()[0]).platform == "gpu":
            # The process waits for the GPU, which takes none of its own time.
            kind, clock = device.device_kind, time.perf_counter
    times = []
    for _ in range(5):
        began = clock()
        _canonical(backend, precision)
        times.append(clock() - began)
    return {"kind": kind, "seconds": min(times)}


def _processor() -> str:
    """The name of the processor."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _threads() -> int:
    """The largest number of threads of the linear algebra libraries in a worker."""
    import threadpoolctl

    return max((each["num_threads"] for each in threadpoolctl.threadpool_info()), default=1)


def _main() -> None:
    question = json.loads(sys.argv[1])
    if seconds := question.get("seconds"):
        # End this process even if the one that started it has died.
        signal.alarm(math.ceil(seconds) + 1)
    began = time.monotonic()
    answer = examine(question)
    print(json.dumps(answer | {"seconds": time.monotonic() - began}))


if __name__ == "__main__":
    _main()

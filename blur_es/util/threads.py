"""One computing thread per process, so that results do not depend on the number of cores.

OpenBLAS and XLA round differently with other numbers of threads, and the thread pools of several
workers on one machine slow each other down.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Any

# Environment of a process that computes with one thread.
ONE_THREAD = dict.fromkeys(
    ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NPROC"), "1"
)


def use_one_thread() -> None:
    """Limit this process, and those that it starts, to one computing thread.

    Call it before NumPy and JAX are imported, since XLA reads its number of threads (`NPROC`)
    only once.
    """
    os.environ.update(ONE_THREAD)
    # Nothing on the driver needs an accelerator, so JAX should not take one.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")


@contextlib.contextmanager
def one_xla_thread() -> Iterator[None]:
    """Let XLA use one CPU thread if it starts in this block; it then keeps that number.

    A number that the user has set (`NPROC`) is kept.
    """
    if "NPROC" in os.environ:
        yield
        return
    os.environ["NPROC"] = "1"
    try:
        yield
    finally:
        os.environ.pop("NPROC", None)


def accelerator_environment() -> dict[str, str]:
    """Environment of a process whose JAX may take the accelerator that it finds.

    Kernels whose bits differ from run to run are switched off, and so is autotuning, which may
    choose other kernels the next time.
    """
    flags = (os.environ.get("XLA_FLAGS", ""), "--xla_gpu_deterministic_ops=true")
    return {"JAX_PLATFORMS": "", "XLA_FLAGS": " ".join(flags).strip()}


def limit_loaded_libraries() -> None:
    """Limit the BLAS libraries that this process has loaded to one thread."""
    import threadpoolctl

    threadpoolctl.threadpool_limits(limits=1)


_lock = threading.Lock()
_holders = 0
_limit: Any = None


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit BLAS to one thread while the block runs.

    The limit holds for the whole process. If several threads are in such a block, the last one
    that leaves removes it.
    """
    global _holders, _limit
    import threadpoolctl

    with _lock:
        if _holders == 0:
            _limit = threadpoolctl.threadpool_limits(1, "blas")
        _holders += 1
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if _holders == 0:
                _limit.restore_original_limits()

"""A process of its own that starts a local Ray cluster and holds it until its standard input ends.

It runs as a script and imports nothing of blur_es:

    python starter.py OPTIONS

`OPTIONS` are those of `ray.init` as JSON. It prints the address of the cluster, after lines of
other programs perhaps, as a line `address HOST:PORT`. If Ray does not start, it prints the reason
as a line `failure REASON`.

Ray starts its processes with a fork, after which the threads of JAX in the driver may block each
other. This process has no such threads.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
from typing import Any

PREFIX, FAILURE = "address ", "failure "


def main() -> None:
    """Start the cluster, wait until the driver closes the standard input, and end it."""
    # A signal to the driver's terminal must not end the cluster before the driver.
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    import ray
    from ray._private import ray_constants

    # See `blur_es.fleet.local_cluster._loopback_only`.
    ray_constants.ENABLE_RAY_CLUSTER = False
    options: dict[str, Any] = json.loads(sys.argv[1])
    try:
        ray.init(address="local", log_to_driver=False, logging_level=logging.ERROR, **options)
    except Exception as error:
        # Ray raises a bare `Exception` if one of its processes does not start in time.
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        print(f"{FAILURE}{reason}", flush=True)
        sys.exit(1)
    print(f"{PREFIX}{ray.get_runtime_context().gcs_address}", flush=True)
    sys.stdin.buffer.read()
    ray.shutdown()


if __name__ == "__main__":
    main()

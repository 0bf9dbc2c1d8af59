#!/usr/bin/env bash
# Health check of a container. If Ray runs here, the raylet must be alive and the head node must
# answer. Otherwise the package must be importable.
set -euo pipefail
if [ -s /tmp/ray/ray_current_cluster ]; then
    grep -qsx raylet /proc/[0-9]*/comm
    timeout 25 ray health-check
else
    timeout 25 python3 -c 'import blur_es'
fi

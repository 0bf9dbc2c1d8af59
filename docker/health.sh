#!/usr/bin/env bash
# Is this container well? Where Ray runs, its node must be there and the head must answer; else the
# package must work.
set -euo pipefail
if [ -s /tmp/ray/ray_current_cluster ]; then
    grep -qsx raylet /proc/[0-9]*/comm
    timeout 25 ray health-check
else
    timeout 25 python3 -c 'import blur_es'
fi

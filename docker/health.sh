#!/usr/bin/env bash
# Is this container well? Where Ray runs, its node must answer; else the package must work.
set -euo pipefail
if [ -s /tmp/ray/ray_current_cluster ]; then
    timeout 25 ray health-check
else
    timeout 25 python3 -c 'import blur_es'
fi

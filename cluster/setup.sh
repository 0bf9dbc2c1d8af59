#!/usr/bin/env bash
# Run on every machine of cluster/local.yaml: finds or makes the environment that Ray runs in, and
# writes ~/ray_env, which puts it on the PATH. A second call is done in a second.
set -euo pipefail
checkout=$(cd "$(dirname "$0")/.." && pwd)
environment=~/blur_es_env
wanted=$(sed -n 's/^ray==//p' "$checkout/constraints.txt")

# Home folders may be shared between machines: one of them sets up, the others wait for it.
exec 9> ~/.blur_es_setup.lock
flock 9

fits() { # whether the Python on the PATH has Ray as it should be and what blur_es needs
    PYTHONPATH=$checkout python3 - "$wanted" <<'CHECK' 2>/dev/null
import sys
import aiohttp, blur_es, evosax, jax, numba, optax, ray
sys.exit(ray.__version__ != sys.argv[1])
CHECK
}

if ! fits; then
    PATH=$environment/bin:$PATH
    if ! fits; then
        echo "making $environment"
        python3 -c 'import sys; sys.version_info >= (3, 11) or sys.exit("blur_es needs Python 3.11 or newer")'
        python3 -m venv "$environment"
        "$environment/bin/pip" install --quiet --only-binary :all: \
            --constraint "$checkout/constraints.txt" "${checkout}[train,cluster]"
        fits || { echo "the environment in $environment does not work" >&2; exit 1; }
    fi
fi

# PYTHONPATH: all machines run the code of this checkout. A job that is stopped has 25 s for its
# checkpoint, and a machine that is lost is noticed within seconds rather than minutes.
cat > ~/ray_env <<ENVIRONMENT
export PATH=$(dirname "$(command -v ray)"):\$PATH
export PYTHONPATH=$checkout
export RAY_AUTH_MODE=token
export RAY_USAGE_STATS_ENABLED=0
export RAY_JOB_STOP_WAIT_TIME_S=25
export RAY_health_check_initial_delay_ms=0
export RAY_health_check_period_ms=1000
export RAY_health_check_timeout_ms=2000
export RAY_health_check_failure_threshold=3
ENVIRONMENT

# Compile once, before a worker for every core would do the same at the same time.
# shellcheck source=/dev/null
. ~/ray_env
python3 -c 'from blur_es.fleet.evaluator import canonical_digest; print(canonical_digest("numba"))'

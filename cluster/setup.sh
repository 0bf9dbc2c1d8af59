#!/usr/bin/env bash
# Runs on every host of cluster/local.yaml. It finds or makes the environment that Ray runs in and
# writes ~/ray_env, which puts it on the PATH. A second call takes a second.
set -euo pipefail
checkout=$(cd "$(dirname "$0")/.." && pwd)
environment=~/blur_es_env
wanted=$(sed -n 's/^ray==//p' "$checkout/constraints.txt")

# Hosts may share home folders. One host sets up the environment, and the others wait for it.
exec 9> ~/.blur_es_setup.lock
flock 9

fits() { # whether the Python on the PATH has the right version of Ray and what blur_es needs
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

# PYTHONPATH makes all hosts run the code of this checkout. A stopped job has 25 s for its
# checkpoint. A lost host is noticed within seconds instead of minutes.
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

# Compile once, so that the workers on all cores do not compile at the same time.
# shellcheck source=/dev/null
. ~/ray_env
python3 -c 'from blur_es.evaluator import canonical_digest; print(canonical_digest("numba"))'

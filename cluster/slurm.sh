#!/usr/bin/env bash
# Slurm: an experiment on several nodes, with a worker on each core or GPU. Copy the file, change the
# lines with #SBATCH, and run it from the root of a checkout, with an environment of its own
# (docs/clusters.md, "Slurm"):
#
#   mkdir -p runs && sbatch cluster/slurm.sh experiments/digits.yaml
#   sbatch --nodes 8 --gpus-per-node 4 cluster/slurm.sh my_experiment.yaml --set seed=3
#
# The run continues by itself after a preemption, the loss of a node, and the time limit. Options
# after the file go to `blur-es train`. BLUR_ES_ENV is the environment to activate (.venv), and
# BLUR_ES_RUNS a folder or URL that all nodes reach (runs).
#SBATCH --job-name=blur-es
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --time=04:00:00
# A preempted job waits in the queue again, and its log is continued. The loss of a node ends nothing,
# unless it is the first.
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --no-kill
#SBATCH --output=runs/slurm-%j.log
# Two minutes before the time limit this script gets SIGUSR1. A preempted or cancelled job gets SIGTERM.
#SBATCH --signal=B:USR1@120
set -euo pipefail

experiment=${1:?give an experiment file: sbatch cluster/slurm.sh experiments/digits.yaml}
shift
name=$(basename "$experiment")
run=${BLUR_ES_RUNS:-runs}/${name%.*}-$SLURM_JOB_ID

# shellcheck source=/dev/null
. "${BLUR_ES_ENV:-.venv}/bin/activate"
# A cluster of its own for each job: a secret token, ports that other jobs on the nodes do not use, and
# a folder for sockets, whose path must be short.
umask 077
port=$((20000 + 20 * (SLURM_JOB_ID % 1000)))
RAY_AUTH_TOKEN=$(python3 -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
export RAY_TMPDIR=/tmp/ray-$SLURM_JOB_ID
# A lost node is noticed within seconds instead of minutes.
export RAY_health_check_initial_delay_ms=0 RAY_health_check_period_ms=1000
export RAY_health_check_timeout_ms=2000 RAY_health_check_failure_threshold=3

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$(getent ahostsv4 "$head" | awk 'NR == 1 { print $1 }')

# One task on each node: Ray, with the cores and GPUs that Slurm grants there. The first node is the
# head node.
# shellcheck disable=SC2016 # the variables are those of the tasks
srun --ntasks-per-node=1 --cpus-per-task="$SLURM_CPUS_ON_NODE" --no-kill \
    --kill-on-bad-exit=0 bash -c '
        mkdir -p "$RAY_TMPDIR"
        trap "rm -rf $RAY_TMPDIR" EXIT
        options=(--block --num-cpus="$SLURM_CPUS_ON_NODE" --object-store-memory=200000000)
        if [ -n "${SLURM_GPUS_ON_NODE:-}" ]; then options+=(--num-gpus="$SLURM_GPUS_ON_NODE"); fi
        if [ "$SLURM_PROCID" = 0 ]; then
            options+=(--head --node-ip-address="$1" --port="$2" --include-dashboard=false
                --ray-client-server-port=$(($2 + 1)))
        else
            options+=(--address="$1:$2")
        fi
        # Ray gives up if the head node is not ready, or after 30 s, which is too short where its files
        # come from a slow disk.
        until ray start "${options[@]}" || ((SECONDS > 600)); do sleep 3; done
    ' ray "$address" "$port" &
cluster=$!

driver=
stopped=
# shellcheck disable=SC2317 # called by the traps
stop() {
    [ -z "$stopped" ] || return 0
    stopped=yes
    echo "slurm.sh: $1: writing a checkpoint"
    if [ -n "$driver" ]; then kill -TERM "$driver" 2> /dev/null || true; fi
}
trap 'stop "the time limit is near"' USR1
trap 'stop "the job is preempted or cancelled"' TERM

ready() {
    python3 -c 'import ray, sys; ray.init(sys.argv[1], log_to_driver=False)' "$address:$port" \
        > /dev/null 2>&1
}
until ready; do
    if ! kill -0 "$cluster" || ((SECONDS > 600)); then
        echo "slurm.sh: Ray did not start on $head" >&2
        exit 1
    fi
    sleep 1
done

# `--resume` starts a run in an empty folder, and continues it after a requeue.
blur-es train "$experiment" --resume --run-dir "$run" --address "$address:$port" "$@" &
driver=$!
if [ -n "$stopped" ]; then kill -TERM "$driver"; fi
while kill -0 "$driver" 2> /dev/null; do
    # Before a preemption, Slurm sends SIGTERM to the tasks of `srun` but not to this script.
    kill -0 "$cluster" 2> /dev/null || stop "the job is preempted or cancelled"
    sleep 1 &
    wait $! || true
done
status=0
wait "$driver" || status=$?
kill -TERM "$cluster" 2> /dev/null || true
# 0 done, 1 failed, 2 wrong input, 130 interrupted after a checkpoint was written.
echo "slurm.sh: blur-es ended with $status"
# Back into the queue, unless somebody has cancelled the job.
if [ -n "$stopped" ] && [ "$status" = 130 ] &&
    scontrol show job "$SLURM_JOB_ID" | grep -q JobState=RUNNING; then
    scontrol requeue "$SLURM_JOB_ID"
    # Slurm ends this script.
    sleep 60 &
    wait $! || true
fi
exit "$status"

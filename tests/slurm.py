"""A Slurm of two nodes, h1 and h2, on hosts in network namespaces."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.hosts import Hosts
from tests.processes import wait_until

# Without accounts and munge; a job in the partition `urgent` preempts those in `usual`.
_CONFIG = """
ClusterName=tests
SlurmctldHost=h1
AuthType=auth/none
CredType=cred/none
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/linear
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_interval=5
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=30
ReturnToService=2
SlurmctldTimeout=60
SlurmdTimeout=60
NodeName=h[1-2] CPUs={cores} RealMemory=1000 State=UNKNOWN
PartitionName=usual Nodes=h[1-2] Default=YES PriorityTier=1 MaxTime=INFINITE GraceTime=60 State=UP
PartitionName=urgent Nodes=h[1-2] PriorityTier=10 MaxTime=INFINITE PreemptMode=OFF State=UP
"""


def missing() -> str | None:
    """The reason why this machine has no Slurm; None if it has one."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    lacking = [
        tool for tool in ("slurmctld", "slurmd", "sbatch") if not shutil.which(tool, path=path)
    ]
    return "needs the package slurm-wlm (apt-get install)" if lacking else None


def start_slurm(place: Hosts, cores: int = 1) -> dict[str, str]:
    """Start the daemons on h1 and h2; returns the environment for Slurm's commands."""
    folder = place.key.parent / "slurm"
    for part in ("state", "spool-h1", "spool-h2"):
        (folder / part).mkdir(parents=True)
    config = folder / "slurm.conf"
    config.write_text(_CONFIG.format(folder=folder, cores=cores))
    settings = {"SLURM_CONF": str(config)}
    place.start("h1", f"exec slurmctld -D > {folder}/slurmctld.log 2>&1", settings)
    for name in ("h1", "h2"):
        place.start(name, f"exec slurmd -D -N {name} > {folder}/slurmd-{name}.log 2>&1", settings)

    def idle() -> bool:
        found = place.run(
            "h1", "sinfo --noheader --partition usual --format '%T %D'", False, settings
        )
        return found.stdout.strip() == "idle 2"

    wait_until(idle, "Slurm's nodes")
    return settings


def submit(place: Hosts, settings: dict[str, str], command: str) -> int:
    """Submit a job from h1; returns its number."""
    return int(place.run("h1", f"sbatch --parsable {command}", True, settings).stdout.split()[-1])


def _fields(place: Hosts, settings: dict[str, str], job: int) -> dict[str, str]:
    said = place.run("h1", f"scontrol show job {job}", True, settings).stdout
    return dict(each.split("=", 1) for each in said.split() if "=" in each)


def state(place: Hosts, settings: dict[str, str], job: int) -> str:
    """The state of a job, such as RUNNING or COMPLETED, and how often it was requeued."""
    fields = _fields(place, settings, job)
    return f"{fields['JobState']} {fields['Restarts']}"


def minutes_running(place: Hosts, settings: dict[str, str], job: int) -> int:
    """For how many whole minutes a job has been running."""
    hours, minutes, _ = _fields(place, settings, job)["RunTime"].split(":")
    return 60 * int(hours) + int(minutes)


def log_of(folder: Path, job: int) -> str:
    """What a job has printed so far."""
    path = folder / f"slurm-{job}.log"
    return path.read_text() if path.exists() else ""

"""How much room a process has for compiled programs.

XLA maps some 900 parts of memory for one compiled gradient on a processor. Linux lets a process
have 65,530 with its usual limit, and XLA says that it "cannot allocate memory" beyond, with most of
it free: after 70 shapes of episodes.
"""

from __future__ import annotations

from pathlib import Path

# The share of the mappings that a process may have at which compiled programs are let go of.
LARGEST_SHARE = 0.75


def is_short_of_mappings() -> bool:
    """Whether this process may soon have as many mappings as Linux lets it; elsewhere never."""
    try:
        limit = int(Path("/proc/sys/vm/max_map_count").read_text())
        mapped = Path("/proc/self/maps").read_bytes().count(b"\n")
    except OSError:
        return False
    return mapped > LARGEST_SHARE * limit


def peak_memory() -> int:
    """The most memory that this process has held, in bytes."""
    import resource
    import sys
    from pathlib import Path

    status = Path("/proc/self/status")
    if status.exists():
        # Linux's `ru_maxrss` includes what the parent held when it started this process.
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

"""How much memory this process has used, and how many memory mappings it may still make.

XLA makes about 900 memory mappings for one compiled gradient on a CPU. Linux limits a process to
65,530 by default. Beyond that, after about 70 shapes of episodes, XLA reports that it "cannot
allocate memory" although most of the memory is free.
"""

from __future__ import annotations

from pathlib import Path

# Compiled programs are released when this share of the allowed mappings is in use.
LARGEST_SHARE = 0.75


def is_short_of_mappings() -> bool:
    """Whether this process is near the limit of memory mappings; always False outside Linux."""
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
        # On Linux `ru_maxrss` includes the memory of the parent when it started this process.
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

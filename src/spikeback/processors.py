"""How many processors there are for this process."""

import os


def processors() -> int:
    """Those that this process may run on where the system says so (Linux), else all of the machine; at least one."""
    if count := getattr(os, "process_cpu_count", None):  # Python 3.13
        return count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1

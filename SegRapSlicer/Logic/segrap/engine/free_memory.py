"""How much memory a process may still take: the computer's, a container's or a batch system's limit, whichever is
lowest."""

from __future__ import annotations

import os
from pathlib import Path

try:
    import resource
except ImportError:  # Windows, which has no such limits
    resource = None  # type: ignore[assignment]


def free_bytes() -> int | None:
    """What this process can still take without others having to give: of the computer's memory, within the limits of
    its control group (containers, batch systems) and of its address space (`ulimit -v`). None where psutil is not
    installed."""
    try:
        import psutil
    except ImportError:
        return None
    found = [int(psutil.virtual_memory().available), *_free_in_control_groups()]
    if resource is not None and hasattr(resource, "RLIMIT_AS"):
        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            found.append(int(limit - psutil.Process().memory_info().vms))
    return max(0, min(found))


def _free_in_control_groups() -> list[int]:
    """What is left within each memory limit that Linux sets this process; files that were only read do not count."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers == "":
            root, limit, usage, cache = "/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            root, limit, usage = "/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            cache = "total_inactive_file"
        else:
            continue
        here = Path(root + os.path.normpath("/" + name))
        # A container sees its own group as the root, whatever name the outside gives it.
        for group in dict.fromkeys([here, *here.parents, Path(root)]):
            if group.is_relative_to(root) and (left := _left_in_group(group, limit, usage, cache)) is not None:
                found.append(left)
    return found


def _left_in_group(group: Path, limit: str, usage: str, cache: str) -> int | None:
    try:
        most = int((group / limit).read_text(encoding="ascii"))  # "max" where there is none
        used = int((group / usage).read_text(encoding="ascii"))
        entries = (line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
        return most - used + sum(int(value) for name, value in entries if name == cache)
    except (OSError, ValueError):
        return None

"""How much memory there is, by one setting: for models, and for the engine, which spills the rest.

`RECSYS_MEMORY` tells it in GiB; without it, it is what the machine and its container leave.
"""

import os
import shutil
import socket
from pathlib import Path
from uuid import uuid4

from recsys_utils import LabError

SETTING = "RECSYS_MEMORY"
GIB = 1 << 30
CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
ENGINE_SHARE = 0.5  # of the memory; the rest is for arrays and frames
ENGINE_LEAST = GIB // 4  # below it the engine cannot work, whatever is told


def available_memory() -> int:
    """Bytes that may be used: `RECSYS_MEMORY`, or what the machine and its container leave."""
    given = os.environ.get(SETTING)
    if given:
        return in_bytes(given)
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))
    limits = [path.read_text().strip() for path in CGROUP_LIMITS if path.exists()]
    return min([free, *(int(limit) for limit in limits if limit.isdigit())])


def in_bytes(given: str) -> int:
    """GiB as a text, in bytes; LabError where it is no positive number.

    >>> in_bytes("0.5") == GIB // 2
    True
    """
    try:
        size = float(given)
    except ValueError:
        size = 0.0
    if not 0 < size < float("inf"):
        raise LabError(f"{SETTING}={given} (or --memory) is no number above 0: give it in GiB")
    return int(size * GIB)


def engine_limits(parent: Path) -> list[str]:
    """SQL that bounds the memory of one DuckDB, which puts what does not fit below a folder.

    Into `.spill-…`, which it makes when needed and removes at its end. Every DuckDB has one of its
    own: their files have the same names.
    """
    parent.mkdir(parents=True, exist_ok=True)
    spill = parent / f"{of_this_process(parent, 'spill')}-{uuid4().hex[:8]}"
    limit = max(ENGINE_LEAST, int(available_memory() * ENGINE_SHARE))
    folder = str(spill).replace("'", "''")
    return [f"SET memory_limit = '{limit}B'", f"SET temp_directory = '{folder}'"]


def of_this_process(parent: Path, kind: str) -> str:
    """The start of a name for this process's scratch below a folder: `.kind-<machine>-<pid>`.

    What processes of this machine left there that were killed is removed.
    """
    start = f".{kind}-{socket.gethostname()}-"  # the folder may be shared
    for left in parent.glob(f"{start}*"):
        pid = left.name.removeprefix(start).split("-")[0]
        if not Path("/proc", pid).exists():
            shutil.rmtree(left, ignore_errors=True)
    return f"{start}{os.getpid()}"

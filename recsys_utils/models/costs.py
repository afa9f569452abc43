"""What a model needs before it starts, and whether this machine has it."""

import os
from pathlib import Path

from recsys_utils import LabError

GIB = 1 << 30
CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


class TooLarge(LabError):
    """A model that needs more memory than there is: it is left out, the others go on."""


def available_memory() -> int:
    """Bytes that may be used: `RECSYS_MEMORY_GB`, or what the machine and its container leave."""
    given = os.environ.get("RECSYS_MEMORY_GB")
    if given:
        try:
            return int(float(given) * GIB)
        except ValueError as error:
            raise LabError(f"RECSYS_MEMORY_GB={given} is no number: give it in GiB") from error
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))
    limits = [path.read_text().strip() for path in CGROUP_LIMITS if path.exists()]
    return min([free, *(int(limit) for limit in limits if limit.isdigit())])


def require_memory(model: str, needed: int, shop: str) -> None:
    """Raise TooLarge, with the cure, where a model needs more bytes than there are."""
    available = available_memory()
    if needed > available:
        raise TooLarge(
            f"{model} is left out: it needs about {needed / GIB:.1f} GiB for {shop}, and"
            f" {available / GIB:.1f} GiB are free; a smaller catalogue or more memory"
            " (RECSYS_MEMORY_GB) brings it back"
        )

"""Helpers of the Retail RecSys Lab: notebooks make recommendation tables, one judge scores them."""

import os
import platform
import sys
import warnings
from pathlib import Path

__version__ = "0.1.0"

# The last digits of a sum, and the order of ties in a sort, depend on the processor's vector
# instructions. These settings choose one kind of arithmetic, which every x86-64 processor with
# AVX2 and FMA has (Intel since 2013, AMD since 2015), so that all of them make the same lists.
# They count only if they are set before numpy and torch load. They do not reach MKL's functions of
# vectors, by which torch takes square roots: hence Adam is `fused` everywhere, which does without.
ARITHMETIC = {
    "OPENBLAS_CORETYPE": "Haswell",  # linear algebra of numpy and scipy
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",  # numpy's functions and sorting
    "ATEN_CPU_CAPABILITY": "avx2",  # torch's own kernels
    "MKL_CBWR": "COMPATIBLE",  # torch's linear algebra, which otherwise asks who made the chip
}

# A sum that threads share depends on how many there are, so no library starts any of its own.
THREADS = {
    "OPENBLAS_NUM_THREADS": "1",  # numpy and scipy; implicit is twice as fast so
    "MKL_NUM_THREADS": "1",  # torch, whose batches are too small for a second thread
    # LightGBM's threads otherwise keep a core busy while they wait for one another.
    "OMP_WAIT_POLICY": "PASSIVE",
}


class LabError(ValueError):
    """Bad input, in one sentence that names the file, column, row or parameter and the cure."""


def settings() -> dict[str, str]:
    """Environment variables that a process needs before numpy loads: equal numbers, and speed."""
    cpu = Path("/proc/cpuinfo")
    has_avx2 = cpu.exists() and "avx2" in cpu.read_text()
    if platform.machine() == "x86_64" and has_avx2:
        return THREADS | ARITHMETIC
    return THREADS


def _apply_settings() -> None:
    """Set them all, whatever the shell had; doubt is said where numpy came first."""
    wanted = settings()
    is_late = any(os.environ.get(name) != value for name, value in wanted.items())
    os.environ.update(wanted)
    if is_late and "numpy" in sys.modules:
        warnings.warn(
            "numpy was loaded before recsys_utils, so the last digits of results may differ from"
            " those on other processors: import recsys_utils first, or start with ./run_all.sh",
            stacklevel=3,
        )


_apply_settings()

# implicit imports tqdm's notebook bar, which complains where no widgets are installed.
warnings.filterwarnings("ignore", message="IProgress not found")

"""Exact top-k with a fixed order of ties, on blocks of scores."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from threadpoolctl import threadpool_limits

CHUNKS_PER_K = 4  # more chunks: a tighter threshold, a longer list of maxima
CROWD = 64  # survivors per row beyond k that are sorted rather than thinned first
WORKERS = 2
BLOCK_BYTES = 8 << 20  # scores of one block: what the cache of a laptop's processor holds


def top_k(scores: np.ndarray, k: int) -> np.ndarray:
    """Columns of the k largest values per row, best first, the lower column first among equals.

    scores: (rows, n) float, may hold −inf, no NaN. Returns (rows, min(k, n)) int64. The k-th
    largest of the maxima of disjoint chunks is a lower bound of the k-th largest value. Few values
    reach it, so one pass finds them and only they are sorted.

    >>> top_k(np.array([[0.1, 0.5, 0.5, 0.9]]), 3).tolist()
    [[3, 1, 2]]
    """
    rows, n = scores.shape
    k = min(k, n)
    bound = _lower_bound(scores, k)[:, None]
    reach = scores >= bound
    flat = np.flatnonzero(reach)
    starts = np.searchsorted(flat, np.arange(rows + 1) * n)
    crowded = np.flatnonzero(np.diff(starts) > k + CROWD)
    if len(crowded):
        reach[crowded] = _first_of_equals(scores[crowded], bound[crowded], k)
        flat = np.flatnonzero(reach)
        starts = np.searchsorted(flat, np.arange(rows + 1) * n)
    row = np.repeat(np.arange(rows), np.diff(starts))
    # Stable: equal scores stay in order of columns.
    order = np.lexsort((-scores.ravel()[flat], row))
    return (flat - row * n)[order][starts[:-1, None] + np.arange(k)]


def in_blocks(n: int, size: int, work: Callable[[slice], object]) -> Iterator[object]:
    """Run `work` on slices of 0..n in a few threads (numpy frees the lock), results in order."""
    with (
        threadpool_limits(1, "blas"),
        ThreadPoolExecutor(WORKERS) as pool,
    ):  # threads of BLAS inside ours would halve the speed
        yield from pool.map(
            work, (slice(start, min(start + size, n)) for start in range(0, n, size))
        )


def _lower_bound(scores: np.ndarray, k: int) -> np.ndarray:
    rows, n = scores.shape
    chunk = max(1, min(32, n // (CHUNKS_PER_K * k)))
    # Strided chunks: the maximum runs along contiguous memory.
    maxima = scores[:, : n // chunk * chunk].reshape(rows, chunk, -1).max(axis=1)
    return np.partition(maxima, maxima.shape[1] - k, axis=1)[:, -k]


def _first_of_equals(scores: np.ndarray, bound: np.ndarray, k: int) -> np.ndarray:
    """Everything above the bound, and the first columns of what equals it, up to k."""
    above = scores > bound
    equal = scores == bound
    missing = k - above.sum(axis=1, keepdims=True)
    return above | (equal & (np.cumsum(equal, axis=1, dtype=np.int32) <= missing))

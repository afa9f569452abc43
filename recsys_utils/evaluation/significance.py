"""How sure a number or a lead is: bootstrap intervals, paired permutation tests, Holm, letters."""

from dataclasses import dataclass
from string import ascii_lowercase

import numpy as np
import pandas as pd

RESAMPLES = 1000
MIN_FLIPS = 10_000
FLIPS_PER_PAIR = 60  # with fewer, Holm's correction would swallow the smallest p
CHUNK = 4_000_000  # random numbers held at once


@dataclass(frozen=True)
class Interval:
    """A mean over shoppers with the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def holds_zero(self) -> bool:
        """Whether chance alone explains the value."""
        return self.low <= 0 <= self.high


def intervals(columns: np.ndarray, seed: int = 0) -> list[Interval]:
    """The bootstrap interval of each column of (users, columns); all share their resamples.

    >>> intervals(np.array([[0.0], [0.2], [0.4]]))[0].holds_zero
    True
    """
    ends = bootstrap(columns, np.random.default_rng(seed))
    return [Interval(*map(float, each)) for each in zip(*ends)]


def bootstrap(
    values: np.ndarray, rng: np.random.Generator, times: int = RESAMPLES
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over axis 0, and the low and high end of its 95 % percentile interval.

    values: (users, …); all columns share their resamples (Efron 1979).

    >>> mean, low, high = bootstrap(np.array([0.0, 0.2, 0.4, 0.6]), np.random.default_rng(0))
    >>> bool(low < mean < high), round(float(mean), 2)
    (True, 0.3)
    """
    n = len(values)
    shape = values.shape[1:]
    columns = values.reshape(n, -1)
    step = max(1, CHUNK // n)
    means = []
    for start in range(0, times, step):
        counts = rng.multinomial(n, np.full(n, 1 / n), size=min(step, times - start))
        means.append(counts @ columns / n)
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975], axis=0)
    # Where all values are equal, the means differ from them in the last digit.
    mean = columns.mean(axis=0)
    low, high = np.minimum(low, mean), np.maximum(high, mean)
    return mean.reshape(shape), low.reshape(shape), high.reshape(shape)


def paired_tests(values: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Two-sided paired permutation test of every pair of columns, Holm-corrected.

    values: users × models. If two models are alike, a user's difference has a random sign
    (Fisher 1935; Smucker et al. 2007).

    Returns model_a, model_b, difference of the means, p, p_holm.
    """
    names = np.array(values.columns)
    matrix = values.to_numpy(float)
    a, b = np.triu_indices(len(names), 1)
    totals = matrix.sum(axis=0)
    differences = totals[a] - totals[b]
    threshold = np.abs(differences) - 1e-9
    extreme = np.zeros(len(a))
    flips = max(MIN_FLIPS, FLIPS_PER_PAIR * len(a))
    step = max(1, CHUNK // max(1, len(values)))
    rng = np.random.default_rng(seed)
    for start in range(0, flips, step):
        coins = rng.integers(0, 2, (min(step, flips - start), len(values)), dtype=np.int8)
        signs = coins * np.float64(2) - 1
        # A pair's flipped difference is the difference of its models' flipped sums.
        sums = signs @ matrix
        extreme += (np.abs(sums[:, a] - sums[:, b]) >= threshold).sum(axis=0)
    p = (extreme + 1) / (flips + 1)
    return pd.DataFrame(
        {
            "model_a": names[a],
            "model_b": names[b],
            "difference": differences / max(1, len(values)),
            "p": p,
            "p_holm": holm(p),
        }
    )


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's step-down correction (1979) of p-values.

    >>> holm(np.array([0.01, 0.04, 0.03])).tolist()
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p)
    comparisons_left = np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * comparisons_left), 1)
    return adjusted


def letters(values: pd.DataFrame, alpha: float = 0.05) -> pd.DataFrame:
    """Models by mean value, best first: a letter each, and the letters of those they beat.

    values: users × models. A model beats another if `paired_tests` gives p_holm < alpha.
    """
    mean = values.mean().sort_values(ascending=False, kind="stable")
    letter = {model: _letter(n) for n, model in enumerate(mean.index)}
    beaten = {model: [] for model in mean.index}
    tests = paired_tests(values)
    for test in tests[tests["p_holm"] < alpha].itertuples():
        if test.difference > 0:
            beaten[test.model_a].append(letter[test.model_b])
        elif test.difference < 0:
            beaten[test.model_b].append(letter[test.model_a])
    return pd.DataFrame(
        {
            "letter": pd.Series(letter, dtype=object),
            "mean": mean,
            "beats": pd.Series({m: " ".join(sorted(b)) for m, b in beaten.items()}, dtype=object),
        }
    ).loc[mean.index]


def _letter(n: int) -> str:
    """a, b, … z, a1, b1, …"""
    return f"{ascii_lowercase[n % 26]}{n // 26 or ''}"

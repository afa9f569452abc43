"""How far a ranker is trusted against the best single model, by windows it has not learnt from.

This is for small shops, where a ranker has too few examples to be better by itself.
"""

from dataclasses import dataclass

import numpy as np

from recsys_utils.ensembles.candidates import Candidates, places

SHARES = (0, 0.25, 0.5, 0.75, 1)  # of the ranker's vote in the order
USUAL = 0.75  # that other shares have to beat beyond the noise
PLACES = 5  # a small number lets the first places decide
K = 5  # items of a list that count


@dataclass
class LeftOut:
    """A window, and what rankers that never saw it make of its candidates."""

    pairs: Candidates
    bought: np.ndarray  # (pairs,) bool
    score: np.ndarray  # (pairs,) of the rankers


def trusted(windows: list[LeftOut]) -> tuple[str, float]:
    """The best single generator, and the rankers' share of the vote against it.

    By precision@5 over the shoppers of all windows. The share is the usual one unless another is
    better by more than a standard error of the difference, paired over shoppers.
    """
    singles = {
        name: np.concatenate([precision(w, w.pairs.scores[name]) for w in windows]).mean()
        for name in windows[0].pairs.scores
    }
    single = max(singles, key=singles.get)
    of_share = {
        share: np.concatenate(
            [precision(w, voted(w.pairs, w.score, single, share)) for w in windows]
        )
        for share in SHARES
    }
    best = max(SHARES, key=lambda share: (of_share[share].mean(), -abs(share - USUAL)))
    gain = of_share[best] - of_share[USUAL]
    is_certain = gain.mean() > gain.std() / np.sqrt(len(gain))
    return single, best if is_certain else USUAL


def voted(pairs: Candidates, score: np.ndarray, single: str, share: float) -> np.ndarray:
    """(pairs,) the rankers' vote and a generator's: share / (5 + place), (1 − share) / (5 + place).

    Places are among the user's candidates, from 1 (reciprocal rank fusion).
    """
    votes = [1 / (PLACES + 1 + places(pairs.user, each)) for each in (score, pairs.scores[single])]
    return share * votes[0] + (1 - share) * votes[1]


def precision(window: LeftOut, score: np.ndarray) -> np.ndarray:
    """(users,) precision@5 of the candidates in the order of a score."""
    user = np.unique(window.pairs.user, return_inverse=True)[1]
    return np.bincount(user, window.bought & (places(user, score) < K)) / K

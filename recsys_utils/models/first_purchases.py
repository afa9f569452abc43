"""What shoppers take up next: models of first purchases, for lists of items new to the shopper."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.utils.extmath import randomized_svd

from recsys_utils.data.interactions import Interactions, fixed_sample, pair_ids
from recsys_utils.models.base import Recommender, check_params
from recsys_utils.models.next_basket import TIFUKNN


@dataclass
class NeighbourFinds(TIFUKNN):
    """What the k nearest shoppers bought lately for the first time.

    Neighbours are those of TIFU-KNN. Of what they bought, only each item's first basket counts,
    exp(−age in days / tau_neighbours): a find is news to people alike, a habit is not.
    """

    k: int = 1000
    alpha: float = 0.0

    def _fit(self, data: Interactions) -> None:
        super()._fit(data)
        weights = is_first(data).astype(float)
        if self.tau_neighbours is not None:
            weights *= np.exp(-data.age / self.tau_neighbours)
        self.near_ = data.matrix(weights=weights).astype(float)
        self.near_.eliminate_zeros()


@dataclass
class TakeUp(Recommender):
    """What shoppers of such a taste take up: a ridge regression of first purchases on tastes.

    It learns from `windows` stretches of `days` before the cut: for each, the tastes that those
    who came had before it, and which items they bought in it for the first time. A window counts
    exp(−age in days / fade). A taste is the square root of what was bought, decayed by tau, of
    length 1, in `factors` coordinates (truncated SVD); a constant beside it learns what everybody
    takes up now. learners: shoppers that it learns from, drawn at random where there are more.
    """

    family: ClassVar[str] = "factorization"
    factors: int = 64
    windows: int = 12
    days: float = 21
    tau: float = 60
    fade: float = 100
    regularization: float = 10.0
    learners: int = 20_000
    seed: int = 42

    def __post_init__(self) -> None:
        check_params(
            self,
            factors=(1, 4096),
            windows=(1, 1000),
            days=(0.01, 10_000),
            tau=(0.01, 100_000),
            fade=(0.01, 100_000),
            regularization=(1e-6, 1e6),
            learners=(1, 1e9),
        )

    def _fit(self, data: Interactions) -> None:
        taste = _tastes(data.matrix(self.tau))
        learners = fixed_sample(data.shape[0], self.learners)
        self.axes_ = self._axes(taste[learners])
        size = self.axes_.shape[1] + 1
        gram = np.diag([self.regularization] * (size - 1) + [1e-6])
        found = np.zeros((size, data.shape[1]))
        for before, first, weight in self._windows(data, learners):
            x = self._placed(before)
            gram += weight * (x.T @ x)
            found += weight * (first.T @ x).T
        self.weights_ = np.linalg.solve(gram, found).astype(np.float32)
        self.tastes_ = self._placed(taste).astype(np.float32)

    def _scores(self, users: np.ndarray) -> np.ndarray:
        return self.tastes_[users] @ self.weights_

    def _axes(self, taste: sparse.csr_matrix) -> np.ndarray:
        """(items, factors) coordinates in which tastes are told."""
        size = min(self.factors, *taste.shape)
        return randomized_svd(taste, size, n_iter=2, random_state=self.seed)[2].T

    def _placed(self, taste: sparse.csr_matrix) -> np.ndarray:
        """(users, factors + 1) float64 tastes in coordinates, and a constant."""
        return np.column_stack([taste @ self.axes_, np.ones(taste.shape[0])])

    def _windows(
        self, data: Interactions, learners: np.ndarray
    ) -> Iterator[tuple[sparse.csr_matrix, sparse.csr_matrix, float]]:
        """Of each window: tastes before it, first purchases in it, of who came; its weight."""
        shape = len(learners), data.shape[1]
        row = np.full(data.shape[0], -1)
        row[learners] = np.arange(len(learners))
        lines = np.flatnonzero(row[data.user] >= 0)
        user, item, age = row[data.user[lines]], data.item[lines], data.age[lines]
        first = is_first(data)[lines]
        for end in self.days * np.arange(self.windows):
            start = end + self.days
            past = age >= start
            then = (age >= end) & (age < start)
            decayed = np.exp(-(age[past] - start) / self.tau)
            before = sparse.csr_matrix((decayed, (user[past], item[past])), shape)
            came = np.intersect1d(user[past], user[then])
            found = then & first
            new = sparse.csr_matrix((np.ones(found.sum()), (user[found], item[found])), shape)
            new.data[:] = 1  # twice on one day is one find
            yield _tastes(before)[came], new[came], np.exp(-end / self.fade)


def is_first(data: Interactions) -> np.ndarray:
    """(lines,) bool: whether the shopper bought the item then for the first time."""
    pair = pair_ids(data.user, data.item, data.shape[1])
    return data.age == pd.Series(data.age).groupby(pair).transform("max").to_numpy()


def _tastes(bought: sparse.csr_matrix) -> sparse.csr_matrix:
    """Square roots of what each user bought, rows of length 1."""
    length = np.sqrt(np.asarray(bought.sum(axis=1), float).ravel())
    scale = np.repeat(1 / np.maximum(length, 1e-12), np.diff(bought.indptr))
    return sparse.csr_matrix(
        (np.sqrt(bought.data) * scale, bought.indices, bought.indptr), bought.shape
    )

"""Next-basket models TIFU-KNN and UP-CF: own habits by age, and those of similar shoppers."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import pandas as pd
from scipy import sparse

from recsys_utils.data.interactions import (
    Interactions,
    codes,
    distinct,
    fixed_sample,
    pair_ids,
)
from recsys_utils.models.base import Recommender, check_params
from recsys_utils.topk import BLOCK_BYTES, top_k


def basket_positions(data: Interactions) -> tuple[np.ndarray, np.ndarray]:
    """For each row, its basket's place among the shopper's (0: the last) and how many they have.

    Both int64.
    A basket is as old as its first line; of two at the same time, the higher id is the later one,
    where text is not ordered as numbers are.
    """
    basket = data.purchases["basket_id"]
    if not pd.api.types.is_integer_dtype(basket.dtype):
        basket = pd.Series(codes(basket, distinct(basket)))
    width = np.int64(basket.max()) + 1
    keys, row = np.unique(pair_ids(data.user, basket, width), return_inverse=True)
    age = np.zeros(len(keys))
    np.maximum.at(age, row, data.age)
    user = keys // width
    order = np.lexsort((-keys, age, user))
    place = np.empty(len(keys), np.int64)
    place[order] = np.arange(len(keys)) - np.searchsorted(user, user)  # keys, hence users, ascend
    return place[row], np.bincount(user, minlength=data.shape[0])[data.user]


@dataclass
class UserNeighbours(Recommender):
    """Scores from the habits of the k shoppers who are most alike.

    `_likeness` compares shoppers. Where there are more than `references`, neighbours are sought in
    a random sample of so many, so that the work grows with the shoppers and not with their square.
    """

    family: ClassVar[str] = "next basket"
    references: int = field(default=50_000, kw_only=True)

    @property
    def note(self) -> str:
        """That neighbours come from a sample, where they do."""
        n = len(self.user_ids_)
        if n <= self.references:
            return ""
        return (
            f"Neighbours are sought among a fixed sample of {self.references:,} of {n:,} shoppers."
        )

    @property
    def asked(self) -> np.ndarray:
        """Codes of the shoppers among whom neighbours are sought, ascending."""
        return fixed_sample(len(self.user_ids_), self.references)

    def _likeness(self, users: np.ndarray) -> np.ndarray:
        """(len(users), len(self.asked)) float64, higher is closer."""
        raise NotImplementedError

    def _nearest(self, users: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Codes and likeness of the k nearest other shoppers, nearest first."""
        size = max(1, 4 * BLOCK_BYTES // (8 * len(self.asked)))
        found = [
            self._nearest_of(users[start : start + size], k) for start in range(0, len(users), size)
        ]
        return tuple(np.concatenate(part) for part in zip(*found))

    def _nearest_of(self, users: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        asked = self.asked
        k = min(k, len(asked) - 1)
        if k < 1:
            return np.zeros((len(users), 0), np.int64), np.zeros((len(users), 0), np.float32)
        # Hides the last bits of sums: equal vectors are equally near.
        like = self._likeness(users).astype(np.float32)
        place = np.minimum(np.searchsorted(asked, users), len(asked) - 1)
        is_self = asked[place] == users
        like[is_self, place[is_self]] = -np.inf
        near = top_k(like, k)
        return asked[near], np.take_along_axis(like, near, axis=1)


@dataclass
class TIFUKNN(UserNeighbours):
    """Temporal item frequencies and nearest neighbours (Hu, He, Gao, Zhang 2020).

    A shopper's vector averages groups of m baskets, counted from the last: within a group a basket
    weighs r_b per step back, a group r_g per step. Score = alpha · own vector + (1 − alpha) · mean
    vector of the k nearest shoppers.

    Beyond the paper: a basket also counts exp(−age in days / tau), in the neighbours' vectors /
    tau_neighbours, as what alike shoppers buy now says more than what they bought. pooling="sum"
    does not divide by the number of baskets, so the less a shopper has bought the more their
    neighbours count. similarity="cosine" weighs neighbours by it. The paper is
    tau=tau_neighbours=None, pooling="mean", similarity="euclidean".
    """

    k: int = 300
    m: int = 3
    r_b: float = 1.0
    r_g: float = 0.9
    alpha: float = 0.6
    tau: float | None = 365
    tau_neighbours: float | None = 20
    pooling: Literal["sum", "mean"] = "sum"
    similarity: Literal["cosine", "euclidean"] = "cosine"

    def __post_init__(self) -> None:
        check_params(
            self,
            k=(1, 100_000),
            m=(1, 10_000),
            r_b=(0, 1),
            r_g=(0, 1),
            alpha=(0, 1),
            tau=(0.01, 100_000),
            tau_neighbours=(0.01, 100_000),
            references=(1, 1e9),
        )

    def _fit(self, data: Interactions) -> None:
        place, baskets = basket_positions(data)
        weights = float(self.r_b) ** (place % self.m) * float(self.r_g) ** (place // self.m)
        if self.pooling == "mean":
            groups = -(-baskets // self.m)
            weights /= groups * np.minimum(self.m, baskets - place // self.m * self.m)
        self.own_ = _vectors(data, weights, self.tau)
        self.near_ = _vectors(data, weights, self.tau_neighbours)
        square = np.asarray(self.own_.multiply(self.own_).sum(axis=1)).ravel()
        square = square[self.asked]
        cosine = self.similarity == "cosine"
        self.shoppers_ = (
            self.own_[self.asked].T
            @ sparse.diags_array(
                1 / np.maximum(np.sqrt(square), 1e-30) if cosine else np.ones(len(square))
            )
        ).tocsr()
        self.offset_ = np.zeros(len(square)) if cosine else -square / 2

    def _likeness(self, users: np.ndarray) -> np.ndarray:
        return (
            self.own_[users] @ self.shoppers_
        ).toarray() + self.offset_  # up to the shopper's own length, which ranks nothing

    def _scores(self, users: np.ndarray) -> np.ndarray:
        near, like = self._nearest(users, self.k)
        weights = like if self.similarity == "cosine" else np.ones_like(like)
        weights = weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-30)
        others = sparse_rows(weights, near, len(self.user_ids_)) @ self.near_
        return (
            self.alpha * self.own_[users].toarray() + (1 - self.alpha) * others.toarray()
        ).astype(np.float32)


@dataclass
class UPCF(UserNeighbours):
    """User popularity and collaborative filtering, UP-CF@r (Faggioli, Polato, Aiolli 2020).

    A shopper's popularity of an item is its share of their last r baskets (None: of all). Score = Σ
    likeness^q · popularity over shoppers, themselves included; likeness is the asymmetric cosine of
    their sets of items, |I_u ∩ I_v| / (|I_u|^alpha |I_v|^(1−alpha)). Beyond the paper: only the k
    nearest are asked, which bounds the work, and a basket counts exp(−age in days / tau).
    """

    r: int | None = 40
    alpha: float = 0.75
    q: float = 10.0
    k: int = 500
    tau: float | None = 120

    def __post_init__(self) -> None:
        check_params(
            self,
            r=(1, 100_000),
            alpha=(0, 1),
            q=(0, 1000),
            k=(1, 100_000),
            tau=(0.01, 100_000),
            references=(1, 1e9),
        )

    def _fit(self, data: Interactions) -> None:
        place, baskets = basket_positions(data)
        last = baskets if self.r is None else np.minimum(baskets, self.r)
        self.popularity_ = _vectors(data, (place < last) / last, self.tau)
        self.popularity_.eliminate_zeros()
        self.size_ = np.diff(data.seen.indptr).astype(float)
        bought = sparse.csr_matrix(
            (np.ones(data.seen.nnz), data.seen.indices, data.seen.indptr), data.shape
        )
        length = sparse.diags_array(self.size_[self.asked] ** (self.alpha - 1))
        self.shoppers_ = (bought[self.asked].T @ length).tocsr()

    def _likeness(self, users: np.ndarray) -> np.ndarray:
        mine = (self.seen_[users] > 0).astype(float)
        return (mine @ self.shoppers_).toarray() / self.size_[users, None] ** self.alpha

    def _scores(self, users: np.ndarray) -> np.ndarray:
        near, like = self._nearest(users, self.k - 1)
        near = np.column_stack([users, near])
        like = np.column_stack([np.ones(len(users), like.dtype), like])
        return (
            (sparse_rows(like**self.q, near, len(self.user_ids_)) @ self.popularity_)
            .toarray()
            .astype(np.float32)
        )


def _vectors(data: Interactions, weights: np.ndarray, tau: float | None) -> sparse.csr_matrix:
    """Users × items CSR float64: sums of decayed weights.

    All are divided by the mean shopper's total.
    """
    result = data.matrix(
        weights=weights if tau is None else weights * np.exp(-data.age / tau)
    ).astype(float)
    return result * (data.shape[0] / max(result.sum(), 1e-30))


def sparse_rows(values: np.ndarray, columns: np.ndarray, width: int) -> sparse.csr_matrix:
    """CSR of as many values in each row at the given columns."""
    ends = np.arange(len(columns) + 1) * columns.shape[1]
    return sparse.csr_matrix((values.ravel(), columns.ravel(), ends), (len(columns), width))

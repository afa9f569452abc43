"""The first stage of two-stage retail: own purchases, then ALS, then what everybody buys."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from scipy import sparse

from recsys_utils.data.attributes import hot, vocabulary
from recsys_utils.data.interactions import Interactions
from recsys_utils.models.base import check_params, min_max
from recsys_utils.models.factorization import ALS, Factors, weigh
from recsys_utils.models.next_basket import UserNeighbours, sparse_rows
from recsys_utils.topk import top_k

SIMILAR_USERS = 50


@dataclass
class MainRecommender(ALS, UserNeighbours):
    """Candidates of two-stage retail: the first `n_candidates` of a method, then recent popularity.

    method="all" puts own purchases first, by baskets and then by recency, and the mean of ALS and
    similar items after them; the others are its parts alone. It may be changed after fitting.
    attributes: weight of what the shop says of items (category, brand, …), as if for each value a
    shopper had bought all that has it; 0 leaves it out. fake_item: stands for what is outside a
    prefiltered catalogue; it teaches the factors and is never recommended.
    """

    family: ClassVar[str] = "two stage"
    factors: int = 50
    regularization: float = 0.001
    alpha: float = 1.0
    weighting: Literal["count", "log", "signal", "bm25"] = "bm25"
    tau: float | None = None
    n_candidates: int = 200
    method: Literal["all", "als", "own", "similar items", "similar users"] = "all"
    attributes: float = 0.0
    fake_item: str = "999999"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_params(self, n_candidates=(100, 200), attributes=(0, 1e6), references=(1, 1e9))

    @property
    def note(self) -> str:
        """That neighbours come from a sample, where they do and are asked."""
        return super().note if self.method == "similar users" else ""

    def _fit(self, data: Interactions) -> None:
        strengths = weigh(data, self.weighting, self.tau)
        if self.attributes:
            usual = strengths.data.mean() if strengths.nnz else 1.0
            strengths = sparse.vstack(
                [strengths, described(data) * (self.attributes * usual)], format="csr"
            )
        self.solve(strengths)
        self.user_factors_ = self.user_factors_[: data.shape[0]]
        self.own_ = habits(data)
        self.recent_[self.item_ids_ == self.fake_item] = -np.inf

    def _scores(self, users: np.ndarray) -> np.ndarray:
        """The method's first n above 0, all others by recent popularity from −1 to 0."""
        methods = {
            "all": self._all,
            "als": self._als,
            "own": self._own,
            "similar items": self._similar_items,
            "similar users": self._similar_users,
        }
        result = np.where(self.recent_ > -np.inf, methods[self.method](users), -np.inf).astype(
            np.float32
        )
        scores = np.repeat(
            (self.recent_ / (max(self.recent_.max(), 0) + 1) - 1)[None, :], len(users), axis=0
        )
        first = top_k(result, self.n_candidates)
        best = np.take_along_axis(result, first, axis=1)
        np.put_along_axis(
            scores,
            first,
            np.where(best > 0, best, np.take_along_axis(scores, first, axis=1)),
            axis=1,
        )
        return scores

    def _all(self, users: np.ndarray) -> np.ndarray:
        own = self._own(users)
        return np.where(
            own > 0,
            1 + own,
            (min_max(Factors._scores(self, users)) + min_max(self._similar_items(users))) / 2,
        )

    def _als(self, users: np.ndarray) -> np.ndarray:
        return 1 + min_max(Factors._scores(self, users))

    def _own(self, users: np.ndarray) -> np.ndarray:
        return self.own_[users].toarray()

    def _similar_items(self, users: np.ndarray) -> np.ndarray:
        """Cosines of an item's factors to those of each other item bought, summed over baskets."""
        unit = _length_one(self.item_factors_)
        bought = self.seen_[users]
        return np.maximum((bought @ unit) @ unit.T - bought.toarray(), 0)

    def _similar_users(self, users: np.ndarray) -> np.ndarray:
        """Baskets of the nearest shoppers, each times its cosine."""
        near, like = self._nearest(users, SIMILAR_USERS)
        return (sparse_rows(np.maximum(like, 0), near, len(self.user_ids_)) @ self.seen_).toarray()

    def _likeness(self, users: np.ndarray) -> np.ndarray:
        unit = _length_one(self.user_factors_)
        return unit[users] @ unit[self.asked].T


def habits(data: Interactions) -> sparse.csr_matrix:
    """Users × items CSR float32: baskets of a pair, ties broken by recency.

    A fraction is added, the larger the more recent the last of the baskets.
    """
    order = np.lexsort((data.age, data.item, data.user))
    first = np.diff(data.user[order] * np.int64(data.shape[1]) + data.item[order], prepend=-1) > 0
    last = data.age[order][first]
    result = data.seen.copy()
    result.data += ((1 - last / (last.max() + 1)) / 2).astype(np.float32)
    return result


def described(data: Interactions) -> sparse.csr_matrix:
    """Attribute values × items CSR: 1 where an item has the value; what is missing is no value."""
    vocab = vocabulary(data.items)
    return (
        hot(data.items, vocab).T.tocsr()[~np.char.endswith(vocab, "=")]
        if len(vocab)
        else sparse.csr_matrix((0, data.shape[1]), dtype=np.float32)
    )


def _length_one(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)

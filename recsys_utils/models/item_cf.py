"""Item neighbours: what is bought by the same shoppers, or in the same basket."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from implicit.nearest_neighbours import all_pairs_knn, bm25_weight, normalize, tfidf_weight
from scipy import sparse

from recsys_utils.data.interactions import Interactions
from recsys_utils.models.base import Recommender, check_params


def signal(data: Interactions) -> np.ndarray:
    """Implicit feedback of each line: √(spending · quantity), both log1p and clipped to 0.1…5.

    Spending is the line's price over the user's mean price, quantity its units over the item's mean
    units; a mean of zero or receipts without prices count as a ratio of 1.
    """
    rows = data.purchases
    quantity = _ratio(rows["quantity"].to_numpy(float), data.item)
    spending = (
        _ratio(rows["price"].to_numpy(float), data.user) if "price" in rows else np.ones(len(rows))
    )
    return np.sqrt(np.clip(np.log1p(spending), 0.1, 5) * np.clip(np.log1p(quantity), 0.1, 5))


def _ratio(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    mean = (np.bincount(group, values) / np.maximum(np.bincount(group), 1))[group]
    return np.divide(values, mean, out=np.ones_like(values), where=mean > 0)


@dataclass
class Neighbours(Recommender):
    """Score = the shopper's recency-weighted purchases times item similarity.

    An item is its own neighbour.
    """

    family: ClassVar[str] = "item neighbours"

    def _scores(self, users: np.ndarray) -> np.ndarray:
        return np.asarray((self.taste_[users] @ self.similarity_).todense(), np.float32)

    def _similar(self, item: int) -> np.ndarray:
        return self.similarity_[item].toarray()[0]


@dataclass
class ItemCF(Neighbours):
    """Neighbours by shoppers in common.

    Cosine, TF-IDF or BM25 of users × items (implicit's weights).

    neighbours: how many each item keeps, itself included. tau: a basket counts exp(−age in days /
    tau) in the shopper's taste, and in the similarity too unless that is binary. own: weight of an
    item's similarity to itself; 0 leaves repeats to other items.
    """

    weighting: Literal["cosine", "tfidf", "bm25"] = "bm25"
    similarity: Literal["binary", "decayed"] = "decayed"
    neighbours: int = 500
    tau: float | None = 60
    k1: float = 1.2
    b: float = 0.2
    own: float = 1.0

    def __post_init__(self) -> None:
        check_params(
            self, neighbours=(1, 100_000), tau=(0.01, 100_000), k1=(0, 1000), b=(0, 1), own=(0, 100)
        )

    def _fit(self, data: Interactions) -> None:
        self.taste_ = data.matrix(self.tau)
        x = (
            (data.seen > 0).astype(np.float64)
            if self.similarity == "binary"
            else self.taste_.astype(np.float64)
        )
        self.similarity_ = scale_diagonal(knn(self._weighted(x.T), self.neighbours), self.own)

    def _weighted(self, items_users: sparse.csr_matrix) -> sparse.csr_matrix:
        if self.weighting == "bm25":
            return bm25_weight(items_users, self.k1, self.b)
        return normalize(tfidf_weight(items_users) if self.weighting == "tfidf" else items_users)


@dataclass
class CoPurchase(Neighbours):
    """Item-item model: baskets in common, weighted by spending.

    The co-weight of two items in a basket is √(s₁s₂), normalised by √(Σs₁ Σs₂) over all baskets,
    single-item ones included: the cosine of √s columns, at most 1. The shopper's score is Σ
    similarity · signal / Σ signal.
    """

    neighbours: int = 100
    tau: float | None = 60
    threshold: float = 0.01
    own: float = 1.0

    def __post_init__(self) -> None:
        check_params(
            self, neighbours=(1, 100_000), tau=(0.01, 100_000), threshold=(0, 1), own=(0, 100)
        )

    def _fit(self, data: Interactions) -> None:
        worth = signal(data)
        basket = (
            data.purchases.groupby(["user_id", "basket_id"], sort=False, observed=True)
            .ngroup()
            .to_numpy()
        )
        baskets = sparse.csr_matrix(
            (np.sqrt(worth), (data.item, basket)), shape=(data.shape[1], basket.max() + 1)
        )
        similarity = knn(normalize(baskets), self.neighbours)
        similarity.data[similarity.data < self.threshold] = 0
        similarity.eliminate_zeros()
        self.similarity_ = scale_diagonal(similarity, self.own)
        taste = data.matrix(
            weights=worth * (1 if self.tau is None else np.exp(-data.age / self.tau))
        )
        self.taste_ = normalize_rows(taste)


def knn(items_users: sparse.csr_matrix, neighbours: int) -> sparse.csr_matrix:
    """Each item's nearest items by dot product of its row, itself included.

    Returns items × items CSR float32, where each row keeps its nearest only.
    """
    similarity = all_pairs_knn(
        items_users.T.tocsr(),
        min(neighbours, items_users.shape[0]),
        num_threads=1,
        show_progress=False,
    )
    similarity = similarity.tocsr().astype(np.float32)
    similarity.sort_indices()
    return similarity


def normalize_rows(x: sparse.csr_matrix) -> sparse.csr_matrix:
    """Rows divided by their sums."""
    sums = np.asarray(x.sum(axis=1)).ravel()
    return sparse.csr_matrix(
        (x.data / np.repeat(np.maximum(sums, 1e-9), np.diff(x.indptr)), x.indices, x.indptr),
        x.shape,
    )


def scale_diagonal(similarity: sparse.csr_matrix, own: float) -> sparse.csr_matrix:
    """Multiply each item's similarity to itself by `own`."""
    if own == 1:
        return similarity
    diagonal = sparse.diags_array(similarity.diagonal(), dtype=np.float32)
    scaled = (similarity + (own - 1) * diagonal).tocsr().astype(np.float32)
    scaled.eliminate_zeros()
    return scaled

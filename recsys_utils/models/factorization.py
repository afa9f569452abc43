"""Latent factors and their closed-form cousin: ALS, BPR, EASE."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
from implicit.cpu.als import AlternatingLeastSquares
from implicit.cpu.bpr import BayesianPersonalizedRanking
from implicit.nearest_neighbours import bm25_weight
from scipy import sparse
from threadpoolctl import threadpool_limits

from recsys_utils.data.interactions import Interactions
from recsys_utils.models.base import Recommender, check_params, cosines
from recsys_utils.models.item_cf import signal


def weigh(data: Interactions, weighting: str, tau: float | None) -> sparse.csr_matrix:
    """Users × items strengths.

    Basket counts (decayed by `tau`), their log, their BM25 weights (implicit's, items as
    documents), or the spending signal.
    """
    if weighting == "signal":
        return data.matrix(weights=signal(data) * (1 if tau is None else np.exp(-data.age / tau)))
    x = data.matrix(tau)
    if weighting == "bm25":
        # Who bought nearly everything would weigh less than nothing.
        return bm25_weight(x.T).T.tocsr().astype(np.float32).maximum(0)
    return x.log1p() if weighting == "log" else x


@dataclass
class Factors(Recommender):
    """Score = user factors · item factors."""

    family: ClassVar[str] = "factorization"

    def _scores(self, users: np.ndarray) -> np.ndarray:
        return self.user_factors_[users] @ self.item_factors_.T

    def _similar(self, item: int) -> np.ndarray:
        return cosines(self.item_factors_, item)

    def _keep(self, fitted: object) -> None:
        self.user_factors_ = np.ascontiguousarray(fitted.user_factors, np.float32)
        self.item_factors_ = np.ascontiguousarray(fitted.item_factors, np.float32)


@dataclass
class ALS(Factors):
    """Implicit-feedback ALS (Hu, Koren, Volinsky 2008).

    Confidence base + alpha · strength where something was bought, 1 elsewhere. With base = 0 a
    purchase that is old enough counts as unknown, neither liked nor disliked.
    """

    factors: int = 128
    regularization: float = 1.0
    alpha: float = 10.0
    iterations: int = 15
    weighting: Literal["count", "log", "signal", "bm25"] = "count"
    tau: float | None = 120
    seed: int = 42
    base: float = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        check_params(
            self,
            factors=(1, 4096),
            regularization=(0, 1e6),
            alpha=(0, 1e6),
            base=(0, 1e6),
            iterations=(1, 1000),
            tau=(0.01, 100_000),
        )

    def _fit(self, data: Interactions) -> None:
        self.solve(weigh(data, self.weighting, self.tau))

    def solve(self, strengths: sparse.csr_matrix) -> None:
        """Learn the factors of users × items strengths."""
        model = self._solver()
        # implicit has threads of its own; BLAS threads inside them halve the speed.
        with threadpool_limits(1, "blas"):
            model.fit(self._confidence(strengths), show_progress=False)
        self._keep(model)

    def folded_in(self, strengths: sparse.csr_matrix) -> np.ndarray:
        """(users, factors) float32 of users × items strengths, the items' factors as learnt."""
        model = self._solver()
        model.item_factors = self.item_factors_
        with threadpool_limits(1, "blas"):
            return model.recalculate_user(
                np.arange(strengths.shape[0]), self._confidence(strengths)
            )

    def _solver(self) -> AlternatingLeastSquares:
        return AlternatingLeastSquares(
            self.factors,
            regularization=self.regularization,
            alpha=1.0,
            iterations=self.iterations,
            random_state=self.seed,
        )

    def _confidence(self, strengths: sparse.csr_matrix) -> sparse.csr_matrix:
        result = strengths.copy()
        result.data = self.base + self.alpha * strengths.data
        return result


@dataclass
class BPR(Factors):
    """Bayesian personalised ranking: a bought item scores above a random one (Rendle et al. 2009).

    It knows bought from not bought, not how often or when: `days` lets it see recent purchases
    only. It runs on one thread, so that a seed gives the same result.
    """

    factors: int = 64
    learning_rate: float = 0.05
    regularization: float = 0.01
    iterations: int = 100
    days: float | None = 120
    seed: int = 42

    def __post_init__(self) -> None:
        check_params(
            self,
            factors=(1, 4096),
            learning_rate=(0, 10),
            regularization=(0, 100),
            iterations=(1, 10_000),
            days=(1, 100_000),
        )

    def _fit(self, data: Interactions) -> None:
        model = BayesianPersonalizedRanking(
            self.factors,
            learning_rate=self.learning_rate,
            regularization=self.regularization,
            iterations=self.iterations,
            num_threads=1,
            random_state=self.seed,
        )
        recent = data.matrix(
            weights=(data.age <= (np.inf if self.days is None else self.days)).astype(float)
        )
        recent.eliminate_zeros()
        model.fit(recent, show_progress=False)
        self._keep(model)


# Of a pair of items, at EASE's peak: the sparse counts, the matrix, its factors and its inverse.
BYTES_PER_PAIR = 40


@dataclass
class EASE(Recommender):
    """A linear item-item model in closed form (Steck 2019).

    Its diagonal is zero, so an item says nothing of itself; `own` > 0 adds repeats back.
    """

    family: ClassVar[str] = "factorization"
    regularization: float = 300.0
    weighting: Literal["count", "log", "signal"] = "count"
    tau: float | None = 120
    own: float = 0.0

    def __post_init__(self) -> None:
        check_params(self, regularization=(1e-6, 1e9), tau=(0.01, 100_000), own=(0, 100))

    def memory(self, users: int, items: int, lines: int) -> int:
        """As of every model, and the matrix of items with its inverse, in several copies."""
        return super().memory(users, items, lines) + BYTES_PER_PAIR * items**2

    def _fit(self, data: Interactions) -> None:
        self.taste_ = weigh(data, self.weighting, self.tau)
        gram = (self.taste_.T @ self.taste_).astype(np.float32).toarray()
        gram[np.diag_indices_from(gram)] += self.regularization
        weights = np.linalg.inv(gram)
        weights /= -np.diag(weights).copy()
        weights[np.diag_indices_from(gram)] = self.own
        self.weights_ = weights

    def _scores(self, users: np.ndarray) -> np.ndarray:
        return np.asarray(self.taste_[users] @ self.weights_, np.float32)

    def _similar(self, item: int) -> np.ndarray:
        return self.weights_[item]

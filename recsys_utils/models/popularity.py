"""The trivial recommenders that everything else has to beat."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..interactions import Interactions
from .base import Recommender, check_params


@dataclass
class Popular(Recommender):
    """The same list for everybody: lines sold in the last `days` (None: ever)."""

    family: ClassVar[str] = "popularity"
    days: float | None = 28

    def __post_init__(self) -> None:
        check_params(self, days=(1, 10_000))

    def _fit(self, data: Interactions) -> None:
        inside = data.age <= (np.inf if self.days is None else self.days)
        self.counts_ = np.bincount(data.item[inside], minlength=data.shape[1]).astype(np.float32)

    def _scores(self, users: np.ndarray) -> np.ndarray:
        return np.repeat(self.counts_[None, :], len(users), axis=0)


@dataclass
class OwnPurchases(Recommender):
    """What the shopper bought before, counted by basket; with `tau`, a basket counts exp(−age in days / tau).

    Ties and the rest of the list are recent popularity, so with tau=None this is GP-TopFreq (Hu et al. 2020).
    """

    family: ClassVar[str] = "repeat"
    tau: float | None = 180

    def __post_init__(self) -> None:
        check_params(self, tau=(0.01, 100_000))

    def _fit(self, data: Interactions) -> None:
        self.own_ = data.matrix(self.tau)

    def _scores(self, users: np.ndarray) -> np.ndarray:
        return self.own_[users].toarray()

"""A model of your own: what the shopper bought lately, best first by how often."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from recsys_utils.data.interactions import Interactions
from recsys_utils.models.base import Recommender, check_params


@dataclass
class LatelyBought(Recommender):
    """Baskets of the last `days` in which the shopper bought the item; ties by popularity."""

    family: ClassVar[str] = "repeat"
    days: float = 60

    def __post_init__(self) -> None:
        check_params(self, days=(1, 10_000))

    def _fit(self, data: Interactions) -> None:
        is_recent = data.age <= self.days  # one value for each line of the receipts
        self.bought_ = data.matrix(weights=is_recent.astype(float))  # shoppers × items

    def _scores(self, users: np.ndarray) -> np.ndarray:
        return self.bought_[users].toarray()

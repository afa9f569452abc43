"""The trivial recommenders that everything else has to beat."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from recsys_utils import LabError
from recsys_utils.data.interactions import Interactions
from recsys_utils.models.base import Recommender, check_params, min_max

MIX = (0.4, 0.4, 0.2)  # of lines, shoppers and units in the mixed popularity


@dataclass
class Popular(Recommender):
    """The same list for everybody.

    Lines sold, or distinct shoppers who bought, in the last `days` (None: ever).

    count="mixed" is the hybrid's popularity: 0.4 lines + 0.4 shoppers + 0.2 units, each min-max
    scaled over the catalogue, divided by the largest sum.

    >>> import pandas as pd
    >>> buys = pd.DataFrame({"user_id": list("aab"), "item_id": ["tea", "milk", "tea"]})
    >>> buys = buys.assign(basket_id=list("123"), ts=pd.Timestamp("2025-01-01"), quantity=1.0)
    >>> Popular().fit(Interactions.of(buys)).recommend(["b"], 1)["item_id"].tolist()
    ['tea']
    """

    family: ClassVar[str] = "popularity"
    days: float | None = 28
    count: Literal["lines", "users", "mixed"] = "lines"

    def __post_init__(self) -> None:
        check_params(self, days=(1, 10_000))

    def _fit(self, data: Interactions) -> None:
        inside = (data.age <= (np.inf if self.days is None else self.days)).astype(float)
        pairs = data.matrix(weights=inside)
        lines = np.asarray(pairs.sum(axis=0), float).ravel()
        shoppers = np.asarray((pairs > 0).sum(axis=0), float).ravel()
        if self.count == "mixed":
            units = np.bincount(
                data.item, data.purchases["quantity"].to_numpy(float) * inside, data.shape[1]
            )
            mixed = sum(weight * min_max(x) for weight, x in zip(MIX, (lines, shoppers, units)))
            self.counts_ = (mixed / max(mixed.max(), 1e-12)).astype(np.float32)
        else:
            self.counts_ = (shoppers if self.count == "users" else lines).astype(np.float32)

    def _scores(self, users: np.ndarray) -> np.ndarray:
        return np.repeat(self.counts_[None, :], len(users), axis=0)


@dataclass
class OwnPurchases(Recommender):
    """What the shopper bought before, counted by basket.

    With `tau`, a basket counts exp(−age in days / tau).

    Ties and the rest of the list are recent popularity, so with tau=None this is GP-TopFreq (Hu et
    al. 2020). ties="all_time" lets the number of shoppers who ever bought an item decide instead.

    >>> import pandas as pd
    >>> buys = pd.DataFrame({"user_id": list("aab"), "item_id": ["tea", "milk", "tea"]})
    >>> buys = buys.assign(basket_id=list("123"), quantity=1.0)
    >>> buys = buys.assign(ts=pd.to_datetime(["2025-01-01", "2025-02-01", "2025-01-01"]))
    >>> OwnPurchases(tau=30).fit(Interactions.of(buys)).recommend(["a"], 2)["item_id"].tolist()
    ['milk', 'tea']
    """

    family: ClassVar[str] = "repeat"
    tau: float | None = 180
    ties: Literal["recent", "all_time"] = "recent"

    def __post_init__(self) -> None:
        check_params(self, tau=(0.01, 100_000))
        if self.ties == "all_time" and self.tau is not None:
            raise LabError(
                "OwnPurchases(ties='all_time') decides between equal counts: give tau=None"
            )

    def _fit(self, data: Interactions) -> None:
        self.own_ = data.matrix(self.tau)
        buyers = np.bincount(data.seen.indices, minlength=data.shape[1])
        # At most 1e-3: below any difference of counts, above float32's grain up to a few thousand
        # baskets.
        self.tie_ = (1e-3 * buyers / buyers.max() * (self.ties == "all_time")).astype(np.float32)

    def _scores(self, users: np.ndarray) -> np.ndarray:
        return self.own_[users].toarray() + self.tie_

"""Progressive online as a model of the leaderboard.

A network trained once, then updated day by day with views, carts and purchases.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pandas as pd
from scipy import sparse
from tqdm import tqdm

from recsys_utils.data.interactions import Interactions, codes
from recsys_utils.data.registry import EVENT_WEIGHTS
from recsys_utils.models.base import Recommender, check_params, cosines, standardised
from recsys_utils.models.purchase_net import INTEREST, PurchaseNet, interest_of_all, labels


@dataclass
class Progressive(Recommender):
    """A network of interest in products, updated day by day, and a queue of what was looked at.

    It is trained on `days` of history, then updated with each of the last `online_days`. The score
    is the network's interest standardised per shopper, plus `own` times what they buy anyway, plus
    `queue` times the queue's score (view +1, cart +3, removal −1; none once it is bought). That
    score fades with `fade` days; with None it never fades. The rule never to recommend what was
    bought is `recommend(…, exclude="bought")`. A shop that keeps receipts only has purchases for
    events: then the queue is empty. network: parameters of `PurchaseNet`.
    """

    family: ClassVar[str] = "online"
    days: float = 180
    online_days: int = 21
    interest: float = INTEREST
    queue: float = 10.0
    fade: float | None = 3
    own: float = 2.0
    tau: float = 180
    network: dict = field(default_factory=dict)
    seed: int = 42

    def __post_init__(self) -> None:
        check_params(
            self,
            days=(0.01, 100_000),
            online_days=(0, 10_000),
            interest=(0, 1),
            queue=(0, 1e6),
            fade=(0.01, 100_000),
            own=(0, 100),
            tau=(0.01, 100_000),
        )
        PurchaseNet(**self.network)

    def _fit(self, data: Interactions) -> None:
        log = data.log
        age = (data.as_of - data.log["ts"]).dt.total_seconds().to_numpy() / 86400
        cold = (age >= self.online_days) & (age < self.online_days + self.days)
        if not cold.any():  # a history shorter than the stream: all of it is cold
            cold = age >= 0
        net = PurchaseNet.cold(labels(log[cold], interest=0), self.seed, **self.network)
        days = range(self.online_days - 1, -1, -1) if cold.sum() < len(log) else ()
        for day in tqdm(days, desc="days", leave=False, disable=None):
            today = (age >= day) & (age < day + 1)
            before = log[(age >= day + 1) & (log["event_type"] == "purchase").to_numpy()]
            net = net.updated(
                labels(
                    log[today],
                    pd.MultiIndex.from_frame(before[["user_id", "item_id"]]),
                    self.interest,
                ),
                self.seed + day,
            )
        self._keep(net, data, log, age)

    def _keep(
        self, net: PurchaseNet, data: Interactions, log: pd.DataFrame, age: np.ndarray
    ) -> None:
        w = net.with_mean()
        self.user_vectors_ = w["user"][net.user_ids.get_indexer(data.user_ids)]
        self.item_vectors_ = w["item"][net.item_ids.get_indexer(data.item_ids)]
        self.w1_ = w["w1"]
        self.b1_ = w["b1"]
        self.w2_ = w["w2"]
        self.b2_ = w["b2"]
        self.taste_ = data.matrix(self.tau)
        self.pool_ = self._pool(data, log, age)

    def _pool(self, data: Interactions, log: pd.DataFrame, age: np.ndarray) -> sparse.csr_matrix:
        """Users × items: what the queue says of pairs that are not bought yet, faded to `as_of`."""
        weight = log["event_type"].map(EVENT_WEIGHTS).fillna(0).to_numpy(float) * (
            np.exp(-age / self.fade) if self.fade else 1
        )
        user = codes(log["user_id"], data.user_ids)
        item = codes(log["item_id"], data.item_ids)
        known = (user >= 0) & (item >= 0) & (weight != 0)
        pool = sparse.csr_matrix((weight[known], (user[known], item[known])), shape=data.shape)
        return (pool - pool.multiply(data.seen > 0)).tocsr().astype(np.float32)

    def _scores(self, users: np.ndarray) -> np.ndarray:
        w = {"w1": self.w1_, "b1": self.b1_, "w2": self.w2_, "b2": self.b2_}
        standard = standardised(interest_of_all(w, self.user_vectors_[users], self.item_vectors_))
        return np.asarray(
            standard + self.own * self.taste_[users] + self.queue * self.pool_[users], np.float32
        )

    def _similar(self, item: int) -> np.ndarray:
        return cosines(self.item_vectors_, item)

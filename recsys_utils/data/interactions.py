"""Receipts as arrays: what every model is fitted on."""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import pandas as pd
from scipy import sparse

from recsys_utils import LabError

RECENT_DAYS = 28


@dataclass
class Interactions:
    """Purchases before `as_of` with dense user and item codes, one row per (user, item, basket).

    Items are numbered by purchases of the last 28 days (most first), then by id. The lower code
    therefore wins a tie everywhere, as the protocol asks, and popular items are the first columns
    of every matrix.
    """

    purchases: pd.DataFrame  # user_id, item_id, basket_id, ts, quantity, [price, …]
    as_of: pd.Timestamp
    items: pd.DataFrame  # attributes by item_id, of `item_ids` only
    users: pd.DataFrame  # attributes by user_id
    user_ids: pd.Index
    item_ids: pd.Index
    user: np.ndarray  # int32 codes, aligned with the rows of `purchases`
    item: np.ndarray
    # user_id, item_id, event_type, ts before `as_of`; None where the shop keeps receipts only
    events: pd.DataFrame | None = None

    @classmethod
    def of(
        cls,
        purchases: pd.DataFrame,
        items: pd.DataFrame | None = None,
        users: pd.DataFrame | None = None,
        as_of: pd.Timestamp | None = None,
        catalogue: pd.Series | None = None,
        events: pd.DataFrame | None = None,
        is_dated: bool = True,
    ) -> "Interactions":
        """Number the users and items of a purchases table.

        `as_of` defaults to the last timestamp of purchases and events. Where they have an order and
        no dates (is_dated=False), it is the day after every shopper's last basket.

        catalogue: ids that are on sale, though perhaps nobody bought them yet: they are numbered
        too.
        """
        if not is_dated:
            purchases, as_of = _on_own_clocks(purchases)
        logs = {
            name: rows["ts"].max()
            for name, rows in (("purchases", purchases), ("events", events))
            if rows is not None and len(rows)
        }
        as_of = pd.Timestamp(as_of if as_of is not None else max(logs.values(), default=pd.NaT))
        if late := [name for name in logs if logs[name] > as_of]:
            raise LabError(
                f"{late[0]} reach {logs[late[0]]}, after as_of {as_of}: a model may see none of"
                " them, cut first"
            )
        user_ids = distinct(purchases["user_id"])
        known = distinct(purchases["item_id"])
        if catalogue is not None:
            known = known.union(distinct(catalogue)).rename("item_id")
        recent = codes(
            purchases["item_id"][purchases["ts"] >= as_of - pd.Timedelta(days=RECENT_DAYS)], known
        )
        item_ids = known[np.argsort(-np.bincount(recent, minlength=len(known)), kind="stable")]
        return cls(
            purchases,
            as_of,
            _attributes(items, item_ids),
            _attributes(users, user_ids),
            user_ids,
            item_ids,
            codes(purchases["user_id"], user_ids),
            codes(purchases["item_id"], item_ids),
            events,
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Users × items."""
        return len(self.user_ids), len(self.item_ids)

    @cached_property
    def age(self) -> np.ndarray:
        """Days from each row to `as_of`, float64, never negative."""
        age = (self.as_of - self.purchases["ts"]).dt.total_seconds().to_numpy() / 86400
        return np.maximum(age, 0)

    @cached_property
    def recent(self) -> np.ndarray:
        """Purchases of each item in the last 28 days: the order of popularity, int64."""
        return np.bincount(self.item[self.age <= RECENT_DAYS], minlength=self.shape[1])

    @cached_property
    def sold(self) -> np.ndarray:
        """(items,) bool: whether anybody bought the item.

        False for those that are only in the catalogue.
        """
        return np.bincount(self.item, minlength=self.shape[1]) > 0

    @cached_property
    def log(self) -> pd.DataFrame:
        """Everything that happened before `as_of`, by time: user_id, item_id, event_type, ts.

        Receipts are its purchases, all of them without `events`.
        """
        columns = ["user_id", "item_id", "event_type", "ts"]
        bought = self.purchases.assign(event_type="purchase")[columns]
        browsed = bought[:0]
        if self.events is not None:
            browsed = self.events[self.events["event_type"] != "purchase"][columns]
        texts = dict.fromkeys(columns[:3], str)
        both = pd.concat([bought.astype(texts), browsed.astype(texts)])
        return both.sort_values(["ts", *columns[:3]], ignore_index=True)

    @cached_property
    def price(self) -> np.ndarray:
        """Median unit price of each item, float64; NaN where receipts have no prices."""
        if "price" not in self.purchases:
            return np.full(self.shape[1], np.nan)
        median = self.purchases["price"].groupby(self.item).median()
        return median.reindex(range(self.shape[1])).to_numpy(float)

    @cached_property
    def seen(self) -> sparse.csr_matrix:
        """Users × items CSR float32: number of baskets of each pair."""
        return self.matrix()

    def matrix(
        self, tau: float | None = None, weights: np.ndarray | None = None
    ) -> sparse.csr_matrix:
        """Users × items CSR float32, a sum over the baskets of each pair.

        Of exp(−age/tau), or of `weights` (one per line), or else the number of baskets.
        """
        if weights is None:
            weights = np.ones(len(self.user)) if tau is None else np.exp(-self.age / tau)
        # float64: sums are exact enough.
        result = sparse.csr_matrix((weights, (self.user, self.item)), shape=self.shape)
        result.sort_indices()
        return result.astype(np.float32)


def by_id(frame: pd.DataFrame, key: str) -> pd.DataFrame:
    """Attributes by id as text."""
    return frame.astype({key: str}).set_index(key)


def pair_ids(user: np.ndarray, item: np.ndarray, n_items: int) -> np.ndarray:
    """One number for each (user, item) pair of codes, int64; `divmod(pair, n_items)` takes it back.

    >>> pair_ids(np.array([0, 2]), np.array([1, 3]), 10)
    array([ 1, 23])
    """
    return np.asarray(user, np.int64) * n_items + item


def distinct(ids: pd.Series) -> pd.Index:
    """The distinct ids as sorted text.

    >>> list(distinct(pd.Series([10, 9, 10])))
    ['10', '9']
    """
    return pd.Index(np.sort(np.asarray(ids.unique()).astype(str)).astype(object), name=ids.name)


def codes(ids: pd.Series, vocabulary: pd.Index | None = None) -> np.ndarray:
    """Positions of ids in a vocabulary, −1 if absent, int32; without one, any dense numbering.

    Fast for categories.

    >>> codes(pd.Series(["tea", "rum"]), pd.Index(["milk", "tea"])).tolist()
    [1, -1]
    """
    if not isinstance(ids.dtype, pd.CategoricalDtype):
        ids = ids.astype(str).astype("category")
    if vocabulary is None:
        return ids.cat.codes.to_numpy(np.int32)
    # The last is for nulls.
    found = np.append(vocabulary.get_indexer(ids.cat.categories.astype(str)), -1).astype(np.int32)
    return found[ids.cat.codes]


@lru_cache(maxsize=8)
def fixed_sample(n: int, most: int) -> np.ndarray:
    """The numbers below n, or so many of them by chance, ascending: always the same ones.

    >>> fixed_sample(3, 5).tolist(), len(fixed_sample(9, 5))
    ([0, 1, 2], 5)
    """
    if n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng(0).choice(n, most, replace=False))


def _on_own_clocks(purchases: pd.DataFrame) -> tuple[pd.DataFrame, pd.Timestamp]:
    """Every shopper's last basket on the same day, and the day after it, of the next basket.

    The tables have it so for all receipts (`data/cleaning`); of a history baskets were cut off, of
    some shoppers more than of others.
    """
    last = purchases.groupby("user_id", observed=True)["ts"].transform("max")
    day = last.max()
    return purchases.assign(ts=purchases["ts"] + (day - last)), day + pd.Timedelta(days=1)


def _attributes(frame: pd.DataFrame | None, ids: pd.Index) -> pd.DataFrame:
    if frame is None or frame.empty:
        return pd.DataFrame(index=ids)
    return by_id(frame, ids.name).reindex(ids)

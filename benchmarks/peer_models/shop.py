"""What every peer is handed: a shop before the cut; and the table of lists that it hands back."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd


@dataclass
class Shop:
    """Receipts before `as_of`, what the shop knows of its items, and whom lists are for.

    receipts: user_id, item_id, basket_id, ts, quantity and, where there is one, price
    items, profiles: attributes of items and shoppers, by item_id and user_id
    users: the shoppers to be served, all of whom have bought before
    """

    receipts: pd.DataFrame
    items: pd.DataFrame
    profiles: pd.DataFrame
    users: list[str]
    as_of: pd.Timestamp

    @classmethod
    def read(cls, folder: Path) -> "Shop":
        """The shop as `peers.py` wrote it."""
        names = ("receipts", "items", "profiles", "users")
        tables = [pd.read_parquet(folder / f"{name}.parquet") for name in names]
        users = tables.pop()
        return cls(*tables, users["user_id"].tolist(), users["as_of"].iloc[0])

    def strengths(self, days: float | None) -> pd.DataFrame:
        """user_id, item_id, weight: baskets of each pair, decayed by age in days where given."""
        pair = ["user_id", "item_id"]
        baskets = self.receipts.drop_duplicates([*pair, "basket_id"])
        age = (self.as_of - baskets["ts"]).dt.total_seconds() / 86400
        weight = np.exp(-age / days) if days else np.ones(len(age))
        return baskets[pair].assign(weight=weight).groupby(pair, as_index=False)["weight"].sum()


def lists_of(users: Iterable[str], lists: Iterable[Iterable[str]]) -> pd.DataFrame:
    """user_id, item_id, rank from 1: the file that `--lists` takes."""
    rows = []
    for user, items in zip(users, lists):
        rows += [(user, item, rank) for rank, item in enumerate(items, 1)]
    return pd.DataFrame(rows, columns=["user_id", "item_id", "rank"])

"""What shoppers prefer: totals per product, and pairs of which one is above the other."""

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import pandas as pd
from scipy import sparse

from recsys_utils import LabError
from recsys_utils.data.interactions import Interactions

Signal = Literal["quantity", "spend", "price_adjusted"]
MOST = 200  # pairs per client among which examples are looked for


def preferences(
    data: Interactions, signal: Signal = "quantity", top_items: int = 50, tau: float | None = None
) -> sparse.csr_matrix:
    """Users × items CSR float64.

    What a client's purchases of a product add up to, for the `top_items` largest of each client.

    quantity: units. spend: money. price_adjusted: units × unit price / mean price of a unit in the
    item's category, so that rare purchases of a premium product can outweigh many of a cheap one.
    tau: a purchase counts exp(−age in days / tau).
    """
    worth = _worth(data, signal) * (1 if tau is None else np.exp(-data.age / tau))
    totals = sparse.csr_matrix((worth, (data.user, data.item)), shape=data.shape)
    totals.data = totals.data.round(6)  # equal sums stay equal in whatever order they were added
    user, order = _ranked(totals)
    best = order[np.arange(len(order)) - totals.indptr[user] < top_items]
    return sparse.csr_matrix(
        (totals.data[best], (user[best], totals.indices[best])), shape=data.shape
    )


@dataclass(frozen=True)
class Pairs:
    """All pairs of one client's products with the first strictly above the second, numbered.

    Any of them is found without the rest.
    """

    user: np.ndarray  # (cells,) by client, then value descending, then item code
    item: np.ndarray
    lower: np.ndarray  # (cells,) the client's first cell with a strictly lower value
    ends: np.ndarray  # (cells,) pairs that are numbered below this, cell by cell
    totals: np.ndarray  # (users,) pairs of each client

    @classmethod
    def of(cls, table: sparse.csr_matrix) -> Self:
        """Rank the cells of each row."""
        user, order = _ranked(table)
        value = table.data[order]
        fresh = np.append(True, (user[1:] != user[:-1]) | (value[1:] != value[:-1]))[
            : len(user)
        ]  # no equal of the cell before
        lower = np.append(np.flatnonzero(fresh), len(user))[np.cumsum(fresh)]
        below = table.indptr[user + 1].astype(np.int64) - lower
        return cls(
            user,
            table.indices[order].astype(np.int64),
            lower,
            np.cumsum(below),
            np.bincount(user, below, table.shape[0]).astype(np.int64),
        )

    def __len__(self) -> int:
        return int(self.totals.sum())

    def take(self, numbers: np.ndarray) -> np.ndarray:
        """(3, n) int64 of pairs by number: user, preferred, dispreferred."""
        cell = np.searchsorted(self.ends, numbers, side="right")
        other = self.lower[cell] + self.ends[cell] - 1 - numbers
        return np.stack([self.user[cell], self.item[cell], self.item[other]])

    def numbers(self, max_pairs_per_user: int | None = None, seed: int = 0) -> np.ndarray:
        """Numbers of all pairs, or of at most so many per client.

        These are evenly spread over a client's pairs, from a random start.
        """
        if max_pairs_per_user is None:
            return np.arange(len(self))
        each = np.minimum(self.totals, max_pairs_per_user)
        user = np.repeat(np.arange(len(each)), each)
        place = (
            np.arange(len(user))
            - (np.cumsum(each) - each)[user]
            + np.random.default_rng(seed).random(len(each))[user]
        )
        nth = np.minimum(
            (place * self.totals[user] / each[user]).astype(np.int64), self.totals[user] - 1
        )
        return (np.cumsum(self.totals) - self.totals)[user] + nth


def pairs(
    table: sparse.csr_matrix, max_pairs_per_user: int | None = None, seed: int = 0
) -> np.ndarray:
    """(3, n) int64: user, preferred and dispreferred product of each pair.

    A pair is two products of one client of which the first is strictly above the second.
    """
    result = Pairs.of(table)
    return result.take(result.numbers(max_pairs_per_user, seed))


def flips(data: Interactions, n: int | None = 5) -> pd.DataFrame:
    """Two alike products, both bought repeatedly, ordered otherwise by price than by quantity.

    One is ahead by `quantity`, the other by `price_adjusted`; clearest first, each client and
    premium product once. n=None: all of them. Alike: of one subcategory (or category), with the
    same numbers in their names, since a set of six is not compared with a single piece.
    Columns: client, more_units, units, price, premium, premium_units, premium_price, adjusted,
    premium_adjusted, and the item ids, item_id and premium_id. Empty without prices.
    """
    columns = [
        "client",
        "more_units",
        "units",
        "price",
        "premium",
        "premium_units",
        "premium_price",
        "adjusted",
        "premium_adjusted",
        "item_id",
        "premium_id",
    ]
    if "price" not in data.purchases:
        return pd.DataFrame(columns=columns)
    units = preferences(data, "quantity", data.shape[1])
    value = preferences(data, "price_adjusted", data.shape[1])
    user, a, b = pairs(preferences(data), MOST)
    group = alike(data)
    user, a, b = np.stack([user, a, b])[:, group[a] == group[b]]
    if not len(user):
        return pd.DataFrame(columns=columns)
    units_a = units[user, a].A1
    units_b = units[user, b].A1
    value_a = value[user, a].A1
    value_b = value[user, b].A1
    clear = np.minimum(units_a / units_b, value_b / np.maximum(value_a, 1e-9))
    best = np.argsort(-clear, kind="stable")
    best = best[(clear[best] > 1) & (units_b[best] > 1)]
    name = _names(data)
    ids = data.item_ids
    values = [data.user_ids[user], name[a], units_a, data.price[a]]
    values += [name[b], units_b, data.price[b], value_a, value_b, ids[a], ids[b]]
    found = pd.DataFrame({c: np.asarray(v)[best] for c, v in zip(columns, values)}).round(2)
    if n is not None:
        found = found.drop_duplicates("premium").drop_duplicates("client")[:n]
    return found.reset_index(drop=True)


def alike(data: Interactions) -> np.ndarray:
    """(items,) number of the kind of each item: what is compared with what.

    Products are alike that have one subcategory (or category) and the same numbers in their names.
    """
    kind = _categories(data)
    if "subcategory" in data.items:
        kind = data.items["subcategory"].astype("object").fillna("")
    numbers = pd.Series(_names(data)).str.findall(r"\d+").str.join(" ")
    return pd.factorize(kind.astype(str).to_numpy() + "\n" + numbers.to_numpy())[0]


def _names(data: Interactions) -> np.ndarray:
    """(items,) what people call them; the ids where the shop gives no names."""
    if "name" in data.items:
        return data.items["name"].fillna("").astype(str).to_numpy(object)
    return data.item_ids.to_numpy(object)


def _ranked(table: sparse.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    """(user, order) of a table's cells.

    Sorted by user, then by value descending, then by item code, as ties are broken everywhere.
    """
    user = np.repeat(np.arange(table.shape[0]), np.diff(table.indptr))
    return user, np.lexsort((table.indices, -table.data, user))


def _categories(data: Interactions) -> pd.Series:
    return (
        data.items["category"].astype("object").fillna("")
        if "category" in data.items
        else pd.Series("", data.item_ids)
    )


def _worth(data: Interactions, signal: Signal) -> np.ndarray:
    """(rows,) float64: units, money, or money in units of the category's mean price."""
    units = data.purchases["quantity"].to_numpy(float)
    if signal == "quantity":
        return units
    if "price" not in data.purchases:
        raise LabError(
            f"signal='{signal}' needs prices, and the receipts have none: take signal='quantity'"
        )
    money = units * data.purchases["price"].to_numpy(float)
    return money if signal == "spend" else money / _unit_price(data)[data.item]


def _unit_price(data: Interactions) -> np.ndarray:
    """(items,) float64: mean price of a unit sold in the item's category.

    Items without one form their own. Never 0.
    """
    group = pd.factorize(_categories(data))[0]
    units = data.purchases["quantity"].to_numpy(float)
    money = np.bincount(group[data.item], units * data.purchases["price"].to_numpy(float))
    sold = np.bincount(group[data.item], units)
    mean = np.divide(money, sold, out=np.ones(len(sold)), where=money > 0)
    return np.append(mean, np.ones(group.max() + 1 - len(mean)))[group]

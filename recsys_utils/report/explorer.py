"""The shopper explorer's data: sampled shoppers, what they bought, and each model's list.

Everything is a plain value for JSON. An item is its number in the list of names.
"""

import numpy as np
import pandas as pd

from recsys_utils.data.folds import Fold
from recsys_utils.report.style import colour
from recsys_utils.report.wording import display_name

LIST_LENGTH = 10
LATEST = 12  # items of the past that are shown
SHOPPERS = 30


class ItemNumbers(dict):
    """Numbers items in the order of first use, so that the page holds each name once."""

    def __missing__(self, item: str) -> int:
        """The next number."""
        self[item] = len(self)
        return self[item]


def explorer(
    fold: Fold,
    runs: dict[str, pd.DataFrame],
    families: dict[str, str],
    groups: dict[str, pd.Index],
    currency: str,
) -> dict:
    """Sampled shoppers, their past, what they then bought, and each model's list.

    runs: lists by model. families: by model, in the order to show. groups: users by group.
    """
    users = sample(groups)
    numbers = ItemNumbers()
    past = _rows_by_user(fold.testing.history.purchases, users)
    bought = _rows_by_user(fold.testing.truth, users)
    lists = [_lists_by_user(runs[model], users) for model in families]
    shoppers = []
    for user in users:
        user_lists = [by_user.get(user, []) for by_user in lists]
        shoppers.append(_shopper(user, past.get(user), bought[user], user_lists, numbers))
    return {
        "currency": currency,
        "models": [[display_name(model), colour(family)] for model, family in families.items()],
        "items": _names_and_prices(fold, list(numbers)),
        "shoppers": shoppers,
    }


def sample(groups: dict[str, pd.Index]) -> list[str]:
    """The same shoppers every time: some of each length of history, and one without."""
    rng = np.random.default_rng(0)
    lengths = [members for group, members in groups.items() if group.startswith("history: ")]
    per_length = -(-SHOPPERS // max(1, len(lengths)))
    shoppers = []
    for members in lengths:
        shoppers += _draw(members, per_length, rng)
    return shoppers + _draw(groups["cold"], 1, rng)


def _draw(members: pd.Index, n: int, rng: np.random.Generator) -> list[str]:
    return sorted(rng.choice(members.to_numpy(), min(n, len(members)), replace=False))


def _rows_by_user(rows: pd.DataFrame, users: list[str]) -> dict[str, pd.DataFrame]:
    return dict(iter(rows[rows["user_id"].isin(users)].groupby("user_id", observed=True)))


def _lists_by_user(recs: pd.DataFrame, users: list[str]) -> pd.Series:
    top = recs[(recs["rank"] <= LIST_LENGTH) & recs["user_id"].isin(users)].sort_values("rank")
    return top.groupby("user_id", observed=True)["item_id"].agg(list)


def _shopper(
    user: str,
    past: pd.DataFrame | None,
    bought: pd.DataFrame,
    lists: list[list[str]],
    numbers: ItemNumbers,
) -> dict:
    """One shopper: lines of the past (`_lines`) and of the window, and each model's items.

    again: listed items that the shopper had bought before.
    """
    shopper = {"id": user, "baskets": 0, "past": [], "again": []}
    if past is not None:
        listed = {item for items in lists for item in items}
        bought_items = past["item_id"].unique()
        shopper["baskets"] = int(past["basket_id"].nunique())
        shopper["past"] = _lines(past, numbers)[:LATEST]
        shopper["items"] = len(bought_items)
        shopper["again"] = sorted(numbers[item] for item in bought_items if item in listed)
    shopper["bought"] = _lines(bought, numbers)
    shopper["lists"] = [[numbers[item] for item in items] for items in lists]
    return shopper


def _lines(rows: pd.DataFrame, numbers: ItemNumbers) -> list[list]:
    """Purchases by item, latest first: item, last date, median price, number of baskets."""
    rows = rows.assign(price=rows.get("price", np.nan))
    by_item = rows.groupby("item_id", observed=True).agg(
        ts=("ts", "max"), price=("price", "median"), baskets=("basket_id", "nunique")
    )
    lines = []
    order = ["ts", "baskets", "item_id"]
    for row in (
        by_item.reset_index().sort_values(order, ascending=[False, False, True]).itertuples()
    ):
        lines.append([numbers[row.item_id], f"{row.ts:%Y-%m-%d}", _price(row.price), row.baskets])
    return lines


def _names_and_prices(fold: Fold, ids: list[str]) -> list[list]:
    """Name and price of items; the id where there is no name."""
    history = fold.testing.history
    items = fold.items.set_index("item_id")
    prices = pd.Series(history.price, history.item_ids).reindex(ids)
    names = pd.Series(None, ids, dtype=object)
    if "name" in items:
        names = items["name"].reindex(ids)
    result = []
    for item, name, price in zip(ids, names, prices):
        has_name = not pd.isna(name) and str(name).strip()
        result.append([str(name) if has_name else item, _price(price)])
    return result


def _price(value: float) -> float | None:
    return None if pd.isna(value) else round(float(value), 2)

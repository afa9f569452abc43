"""The shopper explorer's data: sampled shoppers, what they bought, and what every model suggested, as plain values for JSON."""

import numpy as np
import pandas as pd

from recsys_utils.data.folds import Fold
from recsys_utils.report.figures import colour, display_name

SHOWN, PAST, SHOPPERS = 10, 12, 30


class Shelf(dict):
    """Numbers items in the order in which they are asked for, so that the page holds each name once."""

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
    """Sampled shoppers, their past, what they then bought, and each model's list; `families` by model, in the order to show."""
    stage, users, shelf = fold.testing, sample(groups), Shelf()
    past, truth = (
        dict(iter(frame[frame["user_id"].isin(users)].groupby("user_id", observed=True)))
        for frame in (stage.history.purchases, stage.truth)
    )
    tops = [_tops(runs[model], users) for model in families]
    shoppers = [
        _shopper(u, past.get(u), truth[u], [top.get(u, []) for top in tops], shelf) for u in users
    ]
    return {
        "currency": currency,
        "models": [[display_name(m), colour(family)] for m, family in families.items()],
        "items": _labels(fold, list(shelf)),
        "shoppers": shoppers,
    }


def _tops(recs: pd.DataFrame, users: list[str]) -> pd.Series:
    top = recs[(recs["rank"] <= SHOWN) & recs["user_id"].isin(users)].sort_values("rank")
    return top.groupby("user_id", observed=True)["item_id"].agg(list)


def sample(groups: dict[str, pd.Index]) -> list[str]:
    """The same shoppers every time: some of each length of history, and one without."""
    rng, lengths = np.random.default_rng(0), [g for g in groups if g.startswith("history: ")]
    parts = [groups[g] for g in lengths] + [groups["cold"]]
    sizes = [-(-SHOPPERS // max(1, len(lengths)))] * len(lengths) + [1]
    return [
        u
        for part, size in zip(parts, sizes)
        for u in sorted(rng.choice(part.to_numpy(), min(size, len(part)), replace=False))
    ]


def _shopper(
    user: str, past: pd.DataFrame | None, truth: pd.DataFrame, lists: list[list[str]], shelf: Shelf
) -> dict:
    """One shopper: [item, date, price, times] of the past, the same of the window, and each model's items."""
    made = {"id": user, "baskets": 0, "past": [], "again": []}
    if past is not None:
        shown = {i for items in lists for i in items}
        made |= {
            "baskets": int(past["basket_id"].nunique()),
            "past": _lines(past, shelf)[:PAST],
            "items": int(past["item_id"].nunique()),
            "again": sorted(shelf[i] for i in past["item_id"].unique() if i in shown),
        }
    return made | {
        "bought": _lines(truth, shelf),
        "lists": [[shelf[i] for i in items] for items in lists],
    }


def _lines(rows: pd.DataFrame, shelf: Shelf) -> list[list]:
    """Purchases by item, latest first: item, last date, median price, number of baskets."""
    rows = rows.assign(price=rows.get("price", np.nan))
    made = (
        rows.groupby("item_id", observed=True)
        .agg(ts=("ts", "max"), price=("price", "median"), times=("basket_id", "nunique"))
        .reset_index()
    )
    made = made.sort_values(["ts", "times", "item_id"], ascending=[False, False, True])
    return [
        [shelf[r.item_id], f"{r.ts:%Y-%m-%d}", _price(r.price), r.times] for r in made.itertuples()
    ]


def _labels(fold: Fold, ids: list[str]) -> list[list]:
    """Name and price of items; the id where there is no name."""
    history, items = fold.testing.history, fold.items.set_index("item_id")
    names = items["name"].reindex(ids) if "name" in items else pd.Series(None, ids, dtype=object)
    prices = pd.Series(history.price, history.item_ids).reindex(ids)
    return [
        [i if pd.isna(name) or not str(name).strip() else str(name), _price(price)]
        for i, name, price in zip(ids, names, prices)
    ]


def _price(value: float) -> float | None:
    return None if pd.isna(value) else round(float(value), 2)

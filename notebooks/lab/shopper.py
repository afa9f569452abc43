"""One shopper: whom to show, what they bought, what a model lists for them."""

import pandas as pd

from recsys_utils.data.folds import Stage


def typical(stage: Stage) -> str:
    """A shopper worth showing: of those with five or more items in the window, a middling history.

    Middling is nearest to the median number of baskets.
    """
    history = stage.history
    items = stage.truth.groupby("user_id", observed=True)["item_id"].nunique()
    buyers = list(items.index[items >= min(5, items.max())])
    users = [user for user in buyers if user in history.user_ids] or list(items.index)
    baskets = history.purchases.groupby("user_id", observed=True)["basket_id"].nunique()
    baskets = baskets.reindex(users).fillna(0)
    distance = (baskets - baskets.median()).abs()
    return str(distance.sort_values(kind="stable").index[0])


def past(user: str, stage: Stage, n: int = 10) -> pd.DataFrame:
    """What a shopper bought most often: item, times, last date, price."""
    rows = stage.history.purchases
    rows = rows[rows["user_id"] == user].astype({"item_id": str})
    table = rows.groupby("item_id").agg(times=("basket_id", "nunique"), last=("ts", "max"))
    table = table.sort_values(["times", "last"], ascending=False).head(n).reset_index()
    table["last"] = table["last"].dt.date
    return _with_names(table, stage)


def listed(user: str, recs: pd.DataFrame, stage: Stage, k: int = 5) -> pd.DataFrame:
    """A shopper's list by rank: names, prices, and what they had bought before or then bought."""
    rows = recs[(recs["user_id"] == user) & (recs["rank"] <= k)].sort_values("rank")
    table = rows[["rank", "item_id"]].astype({"item_id": str})
    for mark, purchases in (("before", stage.history.purchases), ("then_bought", stage.truth)):
        bought = purchases.loc[purchases["user_id"] == user, "item_id"].astype(str)
        table[mark] = table["item_id"].isin(bought).map({True: "✓", False: ""})
    return _with_names(table, stage).set_index("rank")


def _with_names(table: pd.DataFrame, stage: Stage) -> pd.DataFrame:
    """The table with the name after each item_id and the price last, where the data has them."""
    history = stage.history
    if "name" in history.items:
        names = history.items["name"].reindex(table["item_id"]).to_numpy()
        table.insert(table.columns.get_loc("item_id") + 1, "name", names)
    prices = pd.Series(history.price, history.item_ids)
    if prices.notna().any():
        table["price"] = prices.reindex(table["item_id"]).round(2).to_numpy()
    return table

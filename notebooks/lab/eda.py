"""What a data scientist asks of receipts first: statistics, concentration, repeat cycles, RFM."""

import json
import sys

import numpy as np
import pandas as pd

from recsys_utils.data.interactions import Interactions
from recsys_utils.data.registry import spec
from recsys_utils.data.segments import SPENDING, spending_bounds, spending_codes
from recsys_utils.data.tables import load
from recsys_utils.evaluation.metrics import gini
from recsys_utils.store import ROOT

WINDOW = pd.Timedelta(days=21)
REFERENCE = ROOT / "data" / "real_statistics.json"  # a few numbers, never rows


def statistics(purchases: pd.DataFrame) -> dict[str, float]:
    """The numbers that decide which recommender family can work.

    Sizes, habits, concentration and prices of a shop.
    """
    baskets = purchases.groupby("user_id", observed=True)["basket_id"].nunique()
    items = purchases.groupby("item_id", observed=True).size()
    result = {
        "lines": len(purchases),
        "users": len(baskets),
        "items": len(items),
        "median baskets per user": baskets.median(),
        "users with one basket": (baskets == 1).mean(),
        "mean items per basket": len(purchases) / purchases["basket_id"].nunique(),
        "items' Gini": gini(items.to_numpy()),
        "last 3 weeks bought before": repeat_share(purchases),
    }
    if "price" in purchases:
        result |= {
            f"price, {name} quartile": purchases["price"].quantile(q)
            for name, q in (("first", 0.25), ("second", 0.5), ("third", 0.75))
        }
    return {name: round(float(value), 3) for name, value in result.items()}


def repeat_share(purchases: pd.DataFrame) -> float:
    """Share of repeats in the last three weeks.

    Of the distinct (user, item) pairs of warm users, those that the same user had bought earlier.
    """
    recent = purchases["ts"] >= purchases["ts"].max().floor("D") + pd.Timedelta(days=1) - WINDOW
    late, early = (
        purchases.loc[rows, ["user_id", "item_id"]].drop_duplicates() for rows in (recent, ~recent)
    )
    warm = late[late["user_id"].isin(early["user_id"].unique())]
    return len(warm.merge(early)) / max(1, len(warm))


def lorenz(purchases: pd.DataFrame) -> pd.DataFrame:
    """Share of lines (y) that the most sold share of items (x) makes."""
    counts = np.sort(purchases.groupby("item_id", observed=True).size().to_numpy())[::-1]
    x = np.arange(1, len(counts) + 1) / len(counts)
    return pd.DataFrame({"share of items": x, "share of lines": np.cumsum(counts) / counts.sum()})


def gaps(purchases: pd.DataFrame) -> pd.Series:
    """Days between consecutive purchase days of the same item by the same user."""
    days = purchases.assign(day=purchases["ts"].dt.floor("D"))[
        ["user_id", "item_id", "day"]
    ].drop_duplicates()
    days = days.sort_values(["user_id", "item_id", "day"])
    return days.groupby(["user_id", "item_id"], observed=True)["day"].diff().dt.days.dropna()


def rfm(purchases: pd.DataFrame, as_of: pd.Timestamp | None = None) -> pd.DataFrame:
    """Recency (days), frequency (baskets), money and a segment per user (RFM: Hughes 1994).

    Scores are fifths by rank, 5 best. champions: all three at least 4 · loyal: frequency at least 4
    · new: recent and rare · at risk: frequent once, not lately · lost: neither recent nor frequent
    · others: the rest.
    """
    as_of = as_of if as_of is not None else purchases["ts"].max()
    money = (
        purchases["quantity"] * purchases["price"]
        if "price" in purchases
        else purchases["quantity"]
    )
    table = (
        purchases.assign(money=money)
        .groupby("user_id", observed=True)
        .agg(last=("ts", "max"), frequency=("basket_id", "nunique"), money=("money", "sum"))
    )
    table.insert(0, "recency", (as_of - table.pop("last")).dt.days)
    r = _fifth(-table["recency"])
    f = _fifth(table["frequency"])
    m = _fifth(table["money"])
    rules = [
        (r >= 4) & (f >= 4) & (m >= 4),
        (r <= 2) & (f >= 4),
        f >= 4,
        (r >= 4) & (f <= 2),
        (r <= 2) & (f <= 2),
    ]
    return table.assign(
        segment=np.select(rules, ["champions", "at risk", "loyal", "new", "lost"], "others")
    )


def spending_segments(data: Interactions) -> pd.Series:
    """Spending segment of each user: quartiles of the mean price of what they buy.

    A segment includes its upper bound.
    """
    mean = data.purchases["price"].groupby(data.user).mean().to_numpy()
    segment = spending_codes(mean, spending_bounds(mean))
    names = np.array(SPENDING)[segment]
    return pd.Series(names, data.user_ids, name="spending_segment")


def compare_with_real(dataset: str) -> pd.DataFrame:
    """Statistics of a data set, and those of two real shops that were measured once."""
    reference = json.loads(REFERENCE.read_text())
    return pd.DataFrame({spec(dataset).name: statistics(load(dataset).purchases), **reference})


def _fifth(values: pd.Series) -> pd.Series:
    return np.ceil(values.rank(method="average", pct=True) * 5).clip(1, 5)


if __name__ == "__main__":
    print(json.dumps({name: statistics(load(name).purchases) for name in sys.argv[1:]}, indent=1))

"""What a list is worth: money that it predicts, and what of it the list may have caused."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from recsys_utils import LabError
from recsys_utils.data.folds import Stage
from recsys_utils.data.interactions import pair_ids
from recsys_utils.data.registry import Worth
from recsys_utils.evaluation.metrics import per_user
from recsys_utils.evaluation.significance import Interval, intervals
from recsys_utils.evaluation.slices import bought_before, warm

K = 5
DAYS_OF_YEAR = 365.25
SHOPPERS = 1000  # amounts are told for so many


@dataclass(frozen=True)
class Lead:
    """What a list is worth over another one, in money per shopper and window.

    predicted: of what shoppers bought without seeing either list, how much more the list holds.
    repeats, first: its two parts, what was bought before and what was new to the shopper.
    caused: what may be bought in addition because the list is shown, under the shop's assumptions.
    shoppers: how many were judged. capped: for how many of them spending was cut.
    """

    predicted: Interval
    repeats: Interval
    first: Interval
    caused: Interval
    shoppers: int
    capped: int


def money_per_shopper(
    recs: pd.DataFrame, stage: Stage, k: int = K, cap: float = 1.0
) -> pd.DataFrame:
    """What each warm shopper of a window spent on the first k items of a list: shoppers × parts.

    Args:
        recs: user_id, item_id, rank.
        stage: its truth needs quantity and price.
        k: places of the list that are shown.
        cap: quantile of the shoppers' spending above which a shopper's money is scaled down to
            that quantile, so that a few large accounts do not decide alone. 1 cuts nobody.

    Returns repeats (money on hits that the shopper had bought before), first (on hits that were
    new to them), spent (all money in the window) and capped (whether it was cut).
    Raises LabError where the receipts have no prices.

    >>> from recsys_utils.data.folds import Stage
    >>> from recsys_utils.data.interactions import Interactions
    >>> lines = {"basket_id": "1", "ts": pd.Timestamp("2025-01-01"), "quantity": 1.0}
    >>> past = pd.DataFrame({"user_id": ["ann"], "item_id": ["tea"], "price": 2.0, **lines})
    >>> bought = {"user_id": "ann", "item_id": ["tea", "rum"], "quantity": 1.0, "price": [2.0, 9.0]}
    >>> stage = Stage(Interactions.of(past), pd.DataFrame(bought))
    >>> lists = pd.DataFrame({"user_id": "ann", "item_id": ["tea", "rum"], "rank": [1, 2]})
    >>> money_per_shopper(lists, stage)[["repeats", "first", "spent"]].loc["ann"].tolist()
    [2.0, 9.0, 11.0]
    """
    truth = warm(stage.truth, stage.history)
    if "price" not in truth:
        raise LabError("the receipts have no prices: map price in [purchases.columns]")
    before = bought_before(truth, stage.history)
    truth = truth.assign(money=truth["quantity"] * truth["price"])
    spent = truth.groupby(truth["user_id"].astype(str), observed=True)["money"].sum()
    parts = {}
    for name, rows in (("repeats", truth[before]), ("first", truth[~before])):
        parts[name] = pd.Series(0.0, spent.index)
        if len(rows):
            parts[name] = per_user(recs, rows, k)["revenue"].reindex(spent.index, fill_value=0.0)
    limit = np.quantile(spent, cap)
    scale = np.divide(limit, spent, out=np.ones(len(spent)), where=spent.to_numpy() > limit)
    table = pd.DataFrame(parts).mul(scale, axis=0)
    return table.assign(spent=spent * scale, capped=spent.to_numpy() > limit)


def lead(money: pd.DataFrame, other: pd.DataFrame | None, assumed: Worth, seed: int = 0) -> Lead:
    """What a list is worth over another one; over no list at all where `other` is None.

    Args:
        money, other: what `money_per_shopper` gave for the same shoppers.
        assumed: the shop's assumptions, `[worth]` of its TOML.
        seed: of the bootstrap.

    Shoppers are drawn with both of their values, so the intervals are those of paired
    differences. Receipts come from weeks in which no list was shown. A hit is therefore a purchase
    that is made anyway, and showing the item adds a share of it, another one for repeats than for
    first purchases. These shares are not known but assumed within a range. The interval of
    `caused` holds for every pair of shares in their ranges: it is the widest over the corners,
    and a linear sum has its extremes there.
    """
    parts = ["repeats", "first"]
    difference = money[parts] if other is None else money[parts] - other.loc[money.index, parts]
    repeats, first = difference["repeats"].to_numpy(), difference["first"].to_numpy()
    scale = assumed.seen * assumed.margin
    corners = [
        scale * (repeats * uplift + first * uplift_first)
        for uplift in assumed.uplift_repeats
        for uplift_first in assumed.uplift_first
    ]
    columns = np.column_stack([repeats + first, repeats, first, *corners])
    predicted, of_repeats, of_first, *caused = intervals(columns, seed)
    return Lead(
        predicted,
        of_repeats,
        of_first,
        Interval(
            float(np.mean([corner.value for corner in caused])),
            min(corner.low for corner in caused),
            max(corner.high for corner in caused),
        ),
        len(money),
        int(money["capped"].sum()),
    )


def windows_a_year(stage: Stage, days: float) -> float:
    """In how many windows of a year such shoppers buy, by the year before the cut.

    stage: its shoppers are those with a history who bought in the window. days: length of the
    window. Whoever buys in a window does not buy in every one: to count a year as all its windows
    would multiply their money. Of the whole windows between the first receipt, or the cut a year
    ago, and the cut, it is the share in which a shopper bought, averaged over shoppers.

    >>> from recsys_utils.data.interactions import Interactions
    >>> lines = {"item_id": "tea", "basket_id": ["1", "2"], "quantity": 1.0, "user_id": "ann"}
    >>> past = pd.DataFrame({"ts": pd.to_datetime(["2025-01-02", "2025-01-25"]), **lines})
    >>> history = Interactions.of(past, as_of=pd.Timestamp("2025-02-11"))
    >>> stage = Stage(history, pd.DataFrame({"user_id": ["ann"], "item_id": ["tea"]}))
    >>> windows_a_year(stage, days=10) / (DAYS_OF_YEAR / 10)  # 2 of the 4 windows
    0.5
    """
    history = stage.history
    users = history.user_ids.intersection(pd.unique(stage.truth["user_id"].astype(str)))
    known = min(DAYS_OF_YEAR, history.age.max())
    windows = max(1, int(known / days))
    is_theirs = np.isin(history.user, history.user_ids.get_indexer(users))
    rows = is_theirs & (history.age <= windows * days)
    window = np.minimum((history.age[rows] / days).astype(np.int64), windows - 1)
    bought = len(np.unique(pair_ids(history.user[rows], window, windows)))
    share = bought / (windows * max(1, len(users)))
    return share * DAYS_OF_YEAR / days


def per_year(interval: Interval, windows: float | None) -> Interval:
    """An amount per shopper and window as one per 1,000 shoppers and year.

    windows: in which a shopper buys in a year (`windows_a_year`); None where a window is one basket
    of each shopper, and the amount is then one per 1,000 baskets.

    >>> per_year(Interval(2.0, 1.0, 3.0), windows=5)
    Interval(value=10000.0, low=5000.0, high=15000.0)
    """
    scale = SHOPPERS * (1 if windows is None else windows)
    return Interval(scale * interval.value, scale * interval.low, scale * interval.high)

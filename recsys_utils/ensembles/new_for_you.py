"""One list with a promise: at least n of its k items are new to the shopper."""

import numpy as np
import pandas as pd

from recsys_utils import LabError
from recsys_utils.data.interactions import Interactions
from recsys_utils.evaluation.slices import bought_before

PAIR = ["user_id", "item_id"]
# The model that is judged on what is new to the shopper.
NEW_FOR_YOU = "two_stage_new"


def with_new(
    best: pd.DataFrame, new: pd.DataFrame, history: Interactions, n: int, k: int
) -> pd.DataFrame:
    """The k best items of each shopper, at least n of them never bought before.

    best: lists on any purchase; new: lists of what to discover, such as those of
    `TwoStage(target="new")`; both user_id, item_id, rank from 1. Where the first k of `best` hold
    fewer than n new items, the lowest of what was bought before make room for the first of `new`,
    at the end of the list; where there is room, they stay. A promise is kept as far as `new` has
    items.

    Returns user_id, item_id, score (falls with the rank), rank, for the shoppers of `best`.
    Raises LabError where n is not in 0…k.
    """
    if not 0 <= n <= k:
        raise LabError(f"n is {n}: of {k} items between 0 and {k} can be new")
    top = _by_rank(best[best["rank"] <= k])
    top["is_new"] = ~bought_before(top, history)
    lacking = n - top.groupby("user_id")["is_new"].sum()
    added = _first(_offered(new, top, history), lacking)
    too_many = top["user_id"].value_counts().add(added["user_id"].value_counts(), fill_value=0) - k
    leaving = _last(top[~top["is_new"]], too_many)
    kept = top.drop(index=leaving.index)
    result = pd.concat([kept.assign(part=0), added.assign(part=1)], ignore_index=True)
    result = result.sort_values(["user_id", "part", "rank"], ignore_index=True)
    rank = result.groupby("user_id").cumcount() + 1
    return result[PAIR].assign(score=-rank.astype(np.float32), rank=rank)


def _by_rank(recs: pd.DataFrame) -> pd.DataFrame:
    """User, item, rank as text and numbers, each shopper's in order."""
    rows = recs[[*PAIR, "rank"]].astype({"user_id": str, "item_id": str})
    return rows.sort_values(["user_id", "rank"], ignore_index=True)


def _offered(new: pd.DataFrame, top: pd.DataFrame, history: Interactions) -> pd.DataFrame:
    """Rows of `new` that the shoppers of `top` neither bought nor have in their lists."""
    rows = _by_rank(new)
    rows = rows[rows["user_id"].isin(top["user_id"]) & ~bought_before(rows, history)]
    is_listed = pd.MultiIndex.from_frame(rows[PAIR]).isin(pd.MultiIndex.from_frame(top[PAIR]))
    return rows[~is_listed]


def _first(rows: pd.DataFrame, counts: pd.Series) -> pd.DataFrame:
    """The first rows of each shopper, as many as `counts` says."""
    return rows[rows.groupby("user_id").cumcount() < rows["user_id"].map(counts)]


def _last(rows: pd.DataFrame, counts: pd.Series) -> pd.DataFrame:
    """The last rows of each shopper, as many as `counts` says."""
    from_the_end = rows.groupby("user_id").cumcount(ascending=False)
    return rows[from_the_end < rows["user_id"].map(counts).fillna(0)]

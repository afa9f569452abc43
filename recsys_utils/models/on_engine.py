"""Models as expressions of tables: their lists are made by the engine, where the receipts lie.

Each is the model of the same name in memory (`popularity`), with the same scores, ties and lists.
Times count in whole seconds.
"""

from dataclasses import dataclass

import ibis
import pandas as pd
from ibis.expr.types import NumericValue, Table

from recsys_utils.data.engine import keep
from recsys_utils.data.interactions import RECENT_DAYS

SECONDS_OF_A_DAY = 86_400


@dataclass(frozen=True)
class Receipts:
    """What an engine's models are made of.

    rows: receipts before `as_of`, one per user, item and basket. items: item_id, `recent` (how
    often it was bought in the last 28 days) and `place`: 0 for the most popular, ties by id.
    """

    rows: Table
    as_of: pd.Timestamp
    items: Table

    @classmethod
    def of(cls, rows: Table, as_of: pd.Timestamp, catalogue: Table | None = None) -> "Receipts":
        """Number the items. catalogue: item_id of what is on sale, though perhaps never bought."""
        is_recent = rows.ts >= (as_of - pd.Timedelta(days=RECENT_DAYS)).to_pydatetime()
        items = rows.group_by("item_id").agg(recent=is_recent.cast("int64").sum())
        if catalogue is not None:
            unsold = catalogue.select("item_id").distinct().anti_join(items, "item_id")
            items = items.union(unsold.mutate(recent=ibis.literal(0, "int64")))
        place = ibis.row_number().over(order_by=[ibis.desc("recent"), "item_id"])
        return cls(rows, as_of, keep(items.mutate(place=place)))

    def age(self) -> NumericValue:
        """Days from each row to `as_of`."""
        cut = int(self.as_of.timestamp())
        return (cut - self.rows.ts.epoch_seconds()) / SECONDS_OF_A_DAY


def popular(receipts: Receipts, users: Table, k: int, days: float | None = 28) -> Table:
    """The same list for everybody, `Popular(days)`: user_id, item_id, score, rank 1…k."""
    rows = receipts.rows
    if days is not None:
        rows = rows.filter(receipts.age() <= days)
    lines = rows.group_by("item_id").agg(lines=lambda t: t.count())
    items = receipts.items.left_join(lines, "item_id").drop("item_id_right")
    score = items.lines.fill_null(0).cast("float32")
    best = ibis.row_number().over(order_by=[ibis.desc("score"), "place"])
    items = items.mutate(score=score).mutate(rank=best + 1).filter(ibis._["rank"] <= k)
    return users.select("user_id").cross_join(items.select("item_id", "score", "rank"))


def own_purchases(receipts: Receipts, users: Table, k: int, tau: float | None = 180) -> Table:
    """What a shopper bought before, `OwnPurchases(tau)`: user_id, item_id, score, rank 1…k.

    Only the k most popular items may follow a shopper's own, so only these are looked at.
    """
    weight = ibis.literal(1.0) if tau is None else (-receipts.age() / tau).exp()
    rows = receipts.rows.mutate(weight=weight).semi_join(users, "user_id")
    own = rows.group_by("user_id", "item_id").agg(score=lambda t: t.weight.sum())
    warm = users.semi_join(receipts.rows, "user_id").select("user_id")
    cold = users.anti_join(receipts.rows, "user_id").select("user_id")
    popular_items = receipts.items.filter(receipts.items.place < k)
    nothing = popular_items.select("item_id", score=ibis.literal(0.0))
    recent = popular_items.select("item_id", score=popular_items.recent.cast("float64"))
    every = own.union(warm.cross_join(nothing)).union(cold.cross_join(recent))
    scores = every.group_by("user_id", "item_id").agg(score=lambda t: t.score.max())
    return _best(receipts, scores, k)


def _best(receipts: Receipts, scores: Table, k: int) -> Table:
    """The k best items of each shopper; ties go to the more popular item, then the lower id."""
    placed = scores.join(receipts.items.select("item_id", "place"), "item_id")
    placed = placed.mutate(score=placed.score.cast("float32"))
    best = ibis.row_number().over(group_by="user_id", order_by=[ibis.desc("score"), "place"])
    ranked = placed.mutate(rank=best + 1)
    return ranked.filter(ranked["rank"] <= k).select("user_id", "item_id", "score", "rank")

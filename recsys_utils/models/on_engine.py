"""Models as expressions of tables: their lists are made by the engine, where the receipts lie.

Each is the model of the same name in memory (`popularity`), with the same scores, ties and lists.
Times count in whole seconds. ALS alone is learnt here, from a sample of the shoppers.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
from ibis.expr.types import NumericValue, Table
from scipy import sparse

from recsys_utils.data.engine import drop, fetch, given, keep
from recsys_utils.data.interactions import RECENT_DAYS, fixed_sample
from recsys_utils.models.factorization import ALS

SECONDS_OF_A_DAY = 86_400
LEARNERS = 50_000  # shoppers from whom ALS learns
BLOCK = 20_000  # shoppers whose receipts are here at a time


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
    """What a shopper bought before, `OwnPurchases(tau)`: user_id, item_id, score, rank 1…k."""
    own = _decayed(receipts, tau).semi_join(users, "user_id").rename(score="x")
    return _best(receipts, _followed(receipts, users, own, k), k)


def item_neighbours(
    receipts: Receipts,
    users: Table,
    k: int,
    tau: float = 60,
    neighbours: int = 500,
    k1: float = 1.2,
    b: float = 0.2,
    most_items: int | None = None,
) -> Table:
    """Items bought by the same shoppers, `ItemCF` with its BM25: user_id, item_id, score, rank 1…k.

    most_items: of a shopper that count for similarities, the most often and lately bought; None
    takes all. The pairs of a shopper's items grow with their square. Similarities are float32 as in
    memory, but a score is summed in float64: scores differ in their last digits from `ItemCF`.
    """
    taste = keep(_decayed(receipts, tau))
    weighted = _bm25(receipts, taste, k1, b)
    if most_items is not None:
        order = [ibis.desc("x"), "item_id"]
        nth = ibis.row_number().over(group_by="user_id", order_by=order)
        weighted = weighted.mutate(nth=nth).filter(lambda t: t.nth < most_items)
    weighted = keep(weighted.select("user_id", "item_id", "weight"))
    other = weighted.select("user_id", other_id="item_id", other_weight="weight")
    products = weighted.join(other, "user_id")
    similar = products.group_by("item_id", "other_id").agg(
        similarity=(products.weight * products.other_weight).sum()
    )
    nearest = [ibis.desc("similarity"), "other_id"]
    nth = ibis.row_number().over(group_by="item_id", order_by=nearest)
    similar = similar.mutate(nth=nth).filter(lambda t: t.nth < neighbours)
    similar = similar.mutate(similarity=similar.similarity.cast("float32").cast("float64"))
    bought = taste.semi_join(users, "user_id").join(similar, "item_id")
    scores = bought.group_by("user_id", "other_id").agg(score=(bought.x * bought.similarity).sum())
    return _best(receipts, _followed(receipts, users, scores.rename(item_id="other_id"), k), k)


def als(
    receipts: Receipts, users: Table, k: int, learners: int = LEARNERS, block: int = BLOCK
) -> Table:
    """Latent factors, `ALS()`: user_id, item_id, score, rank 1…k.

    The items' factors are learnt in this process from the receipts of `learners` shoppers, always
    the same ones. Then the receipts of `block` shoppers after another come here, and their factors
    are computed with the items' as learnt: also of those who were learnt from, so that a list
    depends on the shopper's own receipts only.
    """
    model = ALS()
    taste = keep(_decayed(receipts, model.tau).join(receipts.items, "item_id"))
    items = fetch(receipts.items.order_by("place"))
    warm = _ids(receipts.rows)
    sample = warm[fixed_sample(len(warm), learners)]
    model.as_of = receipts.as_of
    model.item_ids_ = pd.Index(items["item_id"].astype(str))
    model.recent_ = items["recent"].to_numpy(np.float32)
    model.solve(_strengths(taste, sample, len(items)))
    parts = []
    for asked in _blocks(_ids(users), block):
        model.user_ids_ = asked[asked.isin(warm)]
        model.seen_ = _strengths(taste, model.user_ids_, len(items))
        model.user_factors_ = model.folded_in(model.seen_)
        lists = model.recommend(asked, k)
        parts.append(pa.Table.from_pandas(lists.astype({"user_id": str}), preserve_index=False))
    return given(pa.concat_tables(parts), receipts.rows.get_backend())


def _ids(rows: Table) -> pd.Index:
    """The distinct shoppers of a table, sorted."""
    ids = fetch(rows.select("user_id").distinct())["user_id"]
    return pd.Index(np.sort(ids.to_numpy(str)).astype(object), name="user_id")


def _blocks(ids: pd.Index, size: int) -> Iterator[pd.Index]:
    return (ids[start : start + size] for start in range(0, len(ids), size))


def _strengths(taste: Table, users: pd.Index, n_items: int) -> sparse.csr_matrix:
    """Users × items CSR float32 of some shoppers' rows; users: ids, sorted."""
    asked = given(pd.DataFrame({"user_id": users.to_numpy(str)}), taste.get_backend())
    rows = fetch(taste.semi_join(asked, "user_id").select("user_id", "place", "x"))
    drop(asked)
    at = users.get_indexer(rows["user_id"].astype(str)), rows["place"]
    result = sparse.csr_matrix((rows["x"], at), shape=(len(users), n_items), dtype=np.float32)
    result.sort_indices()
    return result


def _decayed(receipts: Receipts, tau: float | None) -> Table:
    """x of each user and item: baskets, each exp(−age in days / tau), as float32 holds it."""
    weight = ibis.literal(1.0) if tau is None else (-receipts.age() / tau).exp()
    rows = receipts.rows.mutate(weight=weight)
    pairs = rows.group_by("user_id", "item_id").agg(x=rows.weight.sum())
    return pairs.mutate(x=pairs.x.cast("float32").cast("float64"))


def _bm25(receipts: Receipts, taste: Table, k1: float, b: float) -> Table:
    """`taste` with its weight by implicit's BM25: users are the terms, items the documents."""
    n_items = int(receipts.items.count().to_pandas())
    mean_length = float(taste.x.sum().to_pandas()) / n_items
    width = taste.item_id.count().over(group_by="user_id")
    length = taste.x.sum().over(group_by="item_id")
    t = taste.mutate(width=width, length=length)
    norm = (1 - b) + b * t.length / mean_length
    rarity = math.log(n_items) - (t.width + 1).cast("float64").ln()
    return t.mutate(weight=t.x * (k1 + 1) / (k1 * norm + t.x) * rarity)


def _followed(receipts: Receipts, users: Table, own: Table, k: int) -> Table:
    """Scores of shoppers' own items, and of the popular ones that may follow them.

    These count 0 for who has a history, and their recent purchases for who has none. Only the k
    most popular items may follow, so only these are looked at.
    """
    warm = users.semi_join(receipts.rows, "user_id").select("user_id")
    cold = users.anti_join(receipts.rows, "user_id").select("user_id")
    popular_items = receipts.items.filter(receipts.items.place < k)
    nothing = popular_items.select("item_id", score=ibis.literal(0.0))
    recent = popular_items.select("item_id", score=popular_items.recent.cast("float64"))
    every = own.union(warm.cross_join(nothing)).union(cold.cross_join(recent))
    return every.group_by("user_id", "item_id").agg(score=lambda t: t.score.max())


def _best(receipts: Receipts, scores: Table, k: int) -> Table:
    """The k best items of each shopper; ties go to the more popular item, then the lower id."""
    placed = scores.join(receipts.items.select("item_id", "place"), "item_id")
    placed = placed.mutate(score=placed.score.cast("float32"))
    best = ibis.row_number().over(group_by="user_id", order_by=[ibis.desc("score"), "place"])
    ranked = placed.mutate(rank=best + 1)
    return ranked.filter(ranked["rank"] <= k).select("user_id", "item_id", "score", "rank")

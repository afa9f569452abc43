"""The judge as an expression of tables: of all lists only a row per shopper comes home."""

import ibis
from ibis.expr.types import Table


def per_user(lists: Table, truth: Table, k: int) -> Table:
    """A row for every user of `truth`, zeros where the user has no list: as `metrics.per_user`.

    lists: user_id, item_id, rank (from 1). truth: user_id, item_id, distinct or not; with quantity
    and price also the revenue. Returns user_id, precision, recall, mrr, hit_rate, [revenue].
    """
    has_money = {"quantity", "price"} <= set(truth.columns)
    money = (truth.quantity * truth.price).sum() if has_money else ibis.literal(0.0)
    bought = truth.group_by("user_id", "item_id").agg(money=money)
    hits = lists.filter(lists["rank"] <= k).inner_join(bought, ["user_id", "item_id"])
    of_hits = hits.group_by("user_id").agg(
        hits=hits.count(), first=hits["rank"].min(), revenue=hits.money.sum()
    )
    users = bought.group_by("user_id").agg(bought=lambda t: t.count())
    joined = users.left_join(of_hits, "user_id").drop("user_id_right")
    n = joined.hits.fill_null(0)
    metrics = {
        "precision": n / k,
        "recall": n / joined.bought,
        "mrr": (1 / joined["first"]).fill_null(0.0),
        "hit_rate": (n > 0).cast("float64"),
    }
    if has_money:
        metrics["revenue"] = joined.revenue.fill_null(0.0)
    return joined.select("user_id", **metrics)

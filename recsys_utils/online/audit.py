"""The queues computed a second time, by pandas from the logs alone: the check of the database."""

import json

import pandas as pd

from recsys_utils.data.registry import EVENT_WEIGHTS

PAIR = ["user_id", "item_id"]
TABLES = ("events", "log", "purchases", "items", "queue")


def disagreements(
    tables: dict[str, pd.DataFrame], watermark: str | None, max_pool: int
) -> list[str]:
    """Sentences, one for each queue, table or value that does not follow from the logs.

    tables: the rows of each of `TABLES`. watermark: as the table `state` holds it, JSON. max_pool:
    the most products of one queue.
    """
    events = tables["events"]
    bought = events[events["event_type"] == "purchase"].groupby(PAIR)["event_time"].min()
    wrong = []
    if bought.to_dict() != tables["purchases"].set_index(PAIR)["event_time"].to_dict():
        wrong.append("table purchases differs from the purchase events")
    if not _same_counts(events, tables["items"]):
        wrong.append("table items differs from the counts of events")
    last_event = _last_event(events)
    if (json.loads(watermark) if watermark else None) != last_event:
        wrong.append(f"the watermark is {watermark}, the last event {last_event}")
    pools = _pools(events, tables["log"], bought.index, max_pool)
    queues = tables["queue"].set_index("user_id")["product_queue"].map(json.loads).to_dict()
    for user in sorted(set(pools) | set(queues)):
        expected = {"pool": pools.get(user, [])}
        if queues.get(user) != expected:
            wrong.append(f"queue of user {user} holds {queues.get(user)}, its logs give {expected}")
    return wrong


def _same_counts(events: pd.DataFrame, items: pd.DataFrame) -> bool:
    """Whether `items` counts purchases and events as they are."""
    is_purchase = events["event_type"] == "purchase"
    counts = is_purchase.groupby(events["item_id"]).agg(["sum", "size"]).reset_index()
    stored = items.sort_values("item_id")[["item_id", "bought", "touched"]]
    return counts.to_numpy().tolist() == stored.to_numpy().tolist()


def _last_event(events: pd.DataFrame) -> list[int] | None:
    """[time in microseconds, id] of the last event."""
    ordered = events[["event_time", "event_id"]].sort_values(["event_time", "event_id"])
    return ordered.iloc[-1].tolist() if len(ordered) else None


def _pools(
    events: pd.DataFrame, log: pd.DataFrame, bought: pd.MultiIndex, max_pool: int
) -> dict[str, list]:
    """[[item_id, counter, score], …] by user."""
    others = events[events["event_type"] != "purchase"]
    weights = others["event_type"].map(EVENT_WEIGHTS)
    score = weights.groupby([others["user_id"], others["item_id"]]).sum()
    counter = log.groupby(PAIR)["shown"].sum()
    pool = pd.concat({"counter": counter, "score": score}, axis=1)
    pool = pool.astype(float).fillna(0).astype(int)
    pool = pool[~pool.index.isin(bought)].rename_axis(PAIR).reset_index()
    best_first = pool.sort_values(["score", "counter", "item_id"], ascending=[False, True, True])
    kept = best_first.groupby("user_id").head(max_pool)
    next_first = kept.sort_values(["counter", "score", "item_id"], ascending=[True, False, True])
    pools: dict[str, list] = {}
    rows = next_first[["user_id", "item_id", "counter", "score"]]
    for user, *entry in rows.itertuples(index=False, name=None):
        pools.setdefault(user, []).append(entry)
    return pools

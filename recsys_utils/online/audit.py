"""The queues computed a second time, by pandas from the logs alone: the check of the database."""

import json
from collections.abc import Mapping

import pandas as pd

PAIR = ["user_id", "item_id"]
TABLES = ("events", "log", "purchases", "items", "queue", "sums")


def disagreements(
    tables: dict[str, pd.DataFrame],
    watermark: str | None,
    max_pool: int,
    weights: Mapping[str, int],
) -> list[str]:
    """Sentences, one for each queue, table or value that does not follow from the logs.

    tables: the rows of each of `TABLES`. watermark: as the table `state` holds it, JSON. max_pool:
    the most products of one queue. weights: of event types.
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
    sums = _sums(events, tables["log"], weights)
    stored = tables["sums"].set_index(PAIR)
    if stored.to_dict("index") != sums.to_dict("index"):
        wrong.append("table sums differs from the events and what was shown")
    pools = _pools(sums, max_pool)
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


def _sums(events: pd.DataFrame, log: pd.DataFrame, weights: Mapping[str, int]) -> pd.DataFrame:
    """score, counter, source and purchased by pair, as the logs give them."""
    pair = [events["user_id"], events["item_id"]]
    score = events["event_type"].map(weights).fillna(0).groupby(pair).sum()
    purchased = (events["event_type"] == "purchase").groupby(pair).max()
    shown = log.sort_values("n").groupby(PAIR)
    sums = pd.concat(
        {"score": score, "counter": shown["shown"].sum(), "purchased": purchased}, axis=1
    )
    sums = sums.astype(float).fillna(0).astype("int64").rename_axis(PAIR)
    first = shown["source"].first().reindex(sums.index)
    return sums.assign(source=first.mask(sums.index.isin(score.index), "events").astype(object))


def _pools(sums: pd.DataFrame, max_pool: int) -> dict[str, list]:
    """[[item_id, counter, score], …] by user."""
    pool = sums[sums["purchased"] == 0].reset_index()
    best_first = pool.sort_values(["score", "counter", "item_id"], ascending=[False, True, True])
    kept = best_first.groupby("user_id").head(max_pool)
    next_first = kept.sort_values(["counter", "score", "item_id"], ascending=[True, False, True])
    pools: dict[str, list] = {}
    rows = next_first[["user_id", "item_id", "counter", "score"]]
    for user, *entry in rows.itertuples(index=False, name=None):
        pools.setdefault(user, []).append(entry)
    return pools

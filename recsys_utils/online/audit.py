"""The queues computed a second time, by pandas from the logs alone: what `Queue.check` compares the database with."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pandas as pd

from recsys_utils.data.registry import EVENT_WEIGHTS

if TYPE_CHECKING:
    from recsys_utils.online.queue import Queue

PAIR = ["user_id", "item_id"]


def disagreements(queue: Queue) -> list[str]:
    """Sentences, one for each queue, table or value that does not follow from the logs. Reads the whole database in one snapshot."""
    with queue.transaction("DEFERRED"):
        events, log, purchases, items, stored = (
            queue.read(f"SELECT * FROM {table}")
            for table in ("events", "log", "purchases", "items", "queue")
        )
        damage, watermark = (
            queue.read("PRAGMA quick_check").iloc[:, 0].tolist(),
            queue.get("watermark"),
        )
    bought = events[events["event_type"] == "purchase"].groupby(PAIR)["event_time"].min()
    wrong = [f"SQLite: {line}" for line in damage if line != "ok"]
    wrong += (
        []
        if bought.to_dict() == purchases.set_index(PAIR)["event_time"].to_dict()
        else ["table purchases differs from the purchase events"]
    )
    wrong += _items(events, items) + _watermark(events, watermark)
    pools = _pools(events, log, bought.index, queue.max_pool)
    queues = stored.set_index("user_id")["product_queue"].map(json.loads)
    want = pools.reindex(pools.index.union(queues.index)).map(
        lambda pool: {"pool": pool if isinstance(pool, list) else []}
    )
    differ = want[want != queues.reindex(want.index)]
    return wrong + [
        f"queue of user {user} holds {queues.get(user)}, its logs give {pool}"
        for user, pool in differ.items()
    ]


def _pools(
    events: pd.DataFrame, log: pd.DataFrame, bought: pd.MultiIndex, max_pool: int
) -> pd.Series:
    """[[item_id, counter, score], …] by user."""
    others = events[events["event_type"] != "purchase"]
    score = (
        others["event_type"]
        .map(EVENT_WEIGHTS)
        .groupby([others["user_id"], others["item_id"]])
        .sum()
    )
    pool = (
        pd.concat({"counter": log.groupby(PAIR)["shown"].sum(), "score": score}, axis=1)
        .astype(float)
        .fillna(0)
        .astype(int)
    )
    pool = pool[~pool.index.isin(bought)].rename_axis(PAIR).reset_index()
    pool = (
        pool.sort_values(["score", "counter", "item_id"], ascending=[False, True, True])
        .groupby("user_id")
        .head(max_pool)
    )
    pool = pool.sort_values(["counter", "score", "item_id"], ascending=[True, False, True])
    entries = pd.Series(
        pool[["item_id", "counter", "score"]].to_numpy(object).tolist(), pool.index, dtype=object
    )
    return entries.groupby(pool["user_id"]).agg(list)


def _items(events: pd.DataFrame, items: pd.DataFrame) -> list[str]:
    counts = (events["event_type"] == "purchase").groupby(events["item_id"]).agg(["sum", "size"])
    same = (
        counts.reset_index().to_numpy().tolist()
        == items.sort_values("item_id")[["item_id", "bought", "touched"]].to_numpy().tolist()
    )
    return [] if same else ["table items differs from the counts of events"]


def _watermark(events: pd.DataFrame, watermark: str | None) -> list[str]:
    last = (
        events.sort_values(["event_time", "event_id"])[["event_time", "event_id"]]
        .tail(1)
        .to_numpy()
        .tolist()
    )
    return (
        []
        if (watermark and [json.loads(watermark)]) == (last or None)
        else [f"the watermark is {watermark}, the last event {last}"]
    )

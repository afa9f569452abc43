"""What an updated model is worth, and what it forgets meanwhile.

Every step of a stream of events is first predicted, then learnt.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from copy import copy
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse
from tqdm import tqdm

from recsys_utils.data.folds import Fold
from recsys_utils.data.interactions import Interactions, codes, distinct
from recsys_utils.data.registry import EVENT_WEIGHTS
from recsys_utils.evaluation.metrics import per_user
from recsys_utils.evaluation.significance import bootstrap
from recsys_utils.models.purchase_net import INTEREST, PurchaseNet, labels, model_path
from recsys_utils.online.events import event_ids, write_csv
from recsys_utils.online.queue import Queue
from recsys_utils.online.update import DATABASE, UpdateResult, apply_folder, load_net, train_cold
from recsys_utils.topk import top_k

HELD_OUT = 0.15
STEPS = 20  # of a stream that is too short for days
MODELS = ("frozen", "updated", "refit", "queue", "queue_faded")
PAIR = ["user_id", "item_id"]
USED = """
SELECT (page_count - freelist_count) * page_size AS n
FROM pragma_page_count, pragma_freelist_count, pragma_page_size
"""


def steps(
    log: pd.DataFrame, start: pd.Timestamp
) -> Iterator[tuple[pd.Timestamp, pd.DataFrame, pd.DataFrame]]:
    """Each day from `start`: its time, everything before it, what happens in it.

    A twentieth of the stream instead of a day where it is two days or less. log: in order of time.
    """
    end = log["ts"].max()
    span = end - start
    if span > pd.Timedelta(days=2):
        width = pd.Timedelta(days=1)
    else:
        width = max(span / STEPS, pd.Timedelta(seconds=1)).ceil("s")
    for at in pd.date_range(start, end, freq=width):
        low, high = log["ts"].searchsorted([at, at + width])
        if high > low:
            yield at, log[:low], log[low:high]


def stream(fold: Fold, shoppers: int = 2_500, seed: int = 0) -> pd.DataFrame:
    """The log of a fold, its test window included, of at most so many random shoppers."""
    purchases = pd.concat([fold.train, fold.valid, fold.test])
    log = Interactions.of(purchases, events=fold.events).log
    users = distinct(log["user_id"])
    if len(users) <= shoppers:
        return log
    chosen = np.random.default_rng(seed).permutation(users)[:shoppers]
    return log[log["user_id"].isin(chosen)].reset_index(drop=True)


def stream_start(fold: Fold) -> pd.Timestamp:
    """When the stream begins: with the test window.

    Where each shopper has a window of their own, after two thirds of the time that test baskets
    span.
    """
    if "test" in fold.borders:
        return pd.Timestamp(fold.borders["test"])
    return fold.test["ts"].quantile(1 / 3)


def events_source(fold: Fold) -> str:
    """Where the events come from, in a sentence."""
    if fold.events is None:
        return "This shop keeps receipts only: purchases are its events, and its queues stay empty."
    first = f"{fold.events['ts'].min():%d %B %Y}"
    return (
        f"Views, carts and removals are logged since {first}; "
        "before that, purchases are the only events."
    )


def first_days(log: pd.DataFrame, start: pd.Timestamp, days: float) -> pd.DataFrame:
    """The log up to so many days after `start`."""
    return log[log["ts"] < start + pd.Timedelta(days=days)]


def last_days(log: pd.DataFrame, end: pd.Timestamp, days: float) -> pd.DataFrame:
    """The part of a log in the days before `end`."""
    return log[(log["ts"] < end) & (log["ts"] >= end - pd.Timedelta(days=days))]


def cold_model(
    log: pd.DataFrame,
    start: pd.Timestamp,
    days: float = 120,
    interest: float = 0,
    seed: int = 42,
    **params: object,
) -> PurchaseNet:
    """The cold model of `start`: what was bought in the `days` before, and what was only looked at.

    interest: the label of a pair that was only looked at. params: of PurchaseNet.
    """
    pairs = labels(last_days(log, start, days), interest=interest)
    return PurchaseNet.cold(pairs, seed, **params)


def prequential(
    log: pd.DataFrame,
    start: pd.Timestamp,
    k: int = 5,
    fade: float = 3,
    refit: bool = True,
    interest: float = INTEREST,
    seed: int = 42,
    **params: object,
) -> tuple[pd.DataFrame, dict[str, PurchaseNet]]:
    """Precision at k of each model for each shopper and step, before it learns the step.

    The method is Gama et al. (2013). Truth is what the shopper buys in the step for the first time,
    since no model may list what was bought. The models: frozen is the cold model of `start`;
    updated the same after each step; refit is cold again before each step, with the labels of the
    updates, since it is better with them; queue takes the pool's scores first, then the updated
    network; queue_faded scores that fade with `fade` days.

    log: user_id, item_id, event_type, ts in order of time. params: of `cold_model`.
    Returns user_id, a column per model and the time; and the last networks.
    """
    first = cold_model(log, start, seed=seed, **params)
    nets = {"frozen": first, "updated": first}
    rows = []
    for n, (at, before, now) in enumerate(_with_progress(log, start, "stream")):
        if refit:
            nets["refit"] = cold_model(log, at, interest=interest, seed=seed, **params)
        bought = _bought_pairs(before)
        bought_now = _bought_pairs(now)
        truth = bought_now[~bought_now.isin(bought)].to_frame(index=False)
        if len(truth):
            rows.append(_judge(nets, before, truth, at, k, fade).assign(time=at))
        nets["updated"] = nets["updated"].updated(labels(now, bought, interest), seed + n)
    return pd.concat(rows, ignore_index=True), nets


def gains(rows: pd.DataFrame, base: str = "frozen", seed: int = 0) -> pd.DataFrame:
    """Mean precision of each model, and its lead over `base` with a 95 % interval.

    Shoppers are resampled, each with all their steps. rows: of `prequential`.
    """
    names = _models_in(rows)
    leads = rows[names].sub(rows[base], axis=0)
    by_shopper = leads.groupby(rows["user_id"].astype(str)).sum()
    lead, low, high = bootstrap(by_shopper.to_numpy(), np.random.default_rng(seed))
    per_row = len(by_shopper) / len(rows)
    columns = {
        "precision": rows[names].mean().to_numpy(),
        "lead": lead * per_row,
        "low": low * per_row,
        "high": high * per_row,
    }
    return pd.DataFrame(columns, names)


def by_step(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean precision of each model over all steps so far: night, model, precision."""
    steps_of = rows.groupby("time")
    sums = steps_of[_models_in(rows)].sum().cumsum()
    means = sums.div(steps_of.size().cumsum(), axis=0)
    means = means.rename(columns=lambda name: name.replace("_", ", "))
    means["night"] = range(1, len(means) + 1)
    return means.melt("night", var_name="model", value_name="precision")


def forgetting(
    log: pd.DataFrame,
    start: pd.Timestamp,
    old_days: float = 60,
    interest: float = INTEREST,
    seed: int = 42,
    **params: object,
) -> pd.DataFrame:
    """What each step costs on old pairs: night, replay, change of loss against the cold model's.

    Old pairs: a share of the purchases of the `old_days` before `start`, taken out of everything
    that is learnt, each with a random product that the shopper never touched. They are not the
    pairs that were learnt: a network forgets by heart what it knew by heart.
    """
    rng = np.random.default_rng(seed)
    old = _old_pairs(last_days(log, start, old_days), log, rng)
    log = log[~_pairs(log).isin(_pairs(old))]
    first = cold_model(log, start, seed=seed, **params)
    without_replay = copy(first)
    without_replay.replay = False
    nets = {"with replay": first, "without replay": without_replay}
    rows = []
    for n, (_, before, now) in enumerate(_with_progress(log, start, "forgetting")):
        pairs = labels(now, _bought_pairs(before), interest)
        for name, net in nets.items():
            nets[name] = net.updated(pairs, seed + n)
            change = nets[name].loss(old) / first.loss(old) - 1
            rows.append({"night": n + 1, "replay": name, "change": change})
    return pd.DataFrame(rows)


def replay(
    log: pd.DataFrame,
    items: pd.DataFrame,
    start: pd.Timestamp,
    folder: Path,
    days: float = 120,
    seed: int = 42,
) -> pd.DataFrame:
    """The system itself, as cron would run it.

    A cold model, then each step's event file applied to the state in `folder`/state.
    Returns a row per step, the cold model first: time, events (all so far), new, purchases,
    version, seconds, database_mb, model_mb.
    """
    state = folder / "state"
    now = log["ts"].max()
    shutil.rmtree(folder, ignore_errors=True)
    history = folder / "history"
    write_csv(last_days(log, start, days), items, history)
    row = _measure(lambda: train_cold(history, state, now=now, seed=seed), state)
    rows = [row | {"time": start}]
    for n, (at, _, events) in enumerate(_with_progress(log, start, "replay")):
        inbox = folder / "inbox" / f"{n:03d}"
        write_csv(events, items, inbox)
        row = _measure(lambda inbox=inbox: apply_folder(inbox, state, now=now), state)
        rows.append(row | {"time": at})
    table = pd.DataFrame(rows)
    table["events"] = table["new"].cumsum()
    return table.set_index("time")


def _measure(run: Callable[[], UpdateResult], state: Path) -> dict:
    """What a run did, how long it took and how large the state is then."""
    start = time.perf_counter()
    result = run()
    seconds = time.perf_counter() - start
    with Queue(state / DATABASE, read_only=True) as queue:
        database_bytes = queue.read(USED)["n"][0]
        model_bytes = model_path(state, queue.get("model")).stat().st_size
    return {
        "new": result.counts.new,
        "purchases": result.counts.purchases,
        "version": result.version,
        "seconds": seconds,
        "database_mb": database_bytes / 1e6,
        "model_mb": model_bytes / 1e6,
    }


def queue_history(events: pd.DataFrame, names: pd.Series, path: Path) -> pd.DataFrame:
    """One shopper's queue, event by event.

    Returns time, event, product, its score ("" once bought), what stands first, how many there are.
    names: of products, by item_id. path: of the database.
    """
    rows = []
    with Queue(path) as queue:
        for event in canonical_events(events).itertuples():
            queue.post(pd.DataFrame([event._asdict()]))
            pool = queue.pool(event.user_id)["pool"]
            scores = {item: score for item, _, score in pool}
            first = ""
            if pool:
                item, _, score = pool[0]
                first = f"{names.get(item, item)} ({score})"
            rows.append(
                {
                    "time": event.ts.strftime("%d %b %H:%M"),
                    "event": event.event_type,
                    "product": names.get(event.item_id, event.item_id),
                    "score": scores.get(event.item_id, ""),
                    "first in the queue": first,
                    "products": len(pool),
                }
            )
    return pd.DataFrame(rows)


def shown_products(
    state: Path, user: str, names: pd.Series, at: pd.Timestamp, times: int = 3
) -> pd.DataFrame:
    """What a state shows a shopper, run after run: run, rank, product, score, counter, source."""
    with Queue(state / DATABASE) as queue:
        net = load_net(queue, state)
        runs = [queue.recommend([user], net=net, at=at).assign(run=n + 1) for n in range(times)]
    table = pd.concat(runs)
    table["product"] = [names.get(item, item) for item in table["item_id"]]
    columns = ["run", "rank", "product", "score", "counter", "source"]
    return table[columns].set_index(["run", "rank"])


def eventful_shopper(log: pd.DataFrame, most: int = 12) -> pd.DataFrame:
    """The events of a shopper worth showing.

    Of those with at most so many events, the one with the most kinds of event, then the most.
    """
    per_shopper = log.groupby("user_id")["event_type"].agg(["nunique", "size"])
    few = per_shopper[per_shopper["size"] <= most]
    if len(few):
        ordered = few.sort_values(["nunique", "size"], ascending=False, kind="stable")
    else:
        ordered = per_shopper
    return log[log["user_id"] == ordered.index[0]].head(most)


def canonical_events(events: pd.DataFrame) -> pd.DataFrame:
    """Events as the queue takes them: with an id that follows from what happened."""
    rows = events.astype({"user_id": str, "item_id": str, "event_type": str})
    rows = rows.reset_index(drop=True)
    ids = event_ids(rows["user_id"], rows["item_id"], rows["event_type"], rows["ts"])
    return rows.assign(event_id=ids, category="")


def _with_progress(log: pd.DataFrame, start: pd.Timestamp, what: str) -> tqdm:
    """The steps of a stream under a progress bar."""
    return tqdm(list(steps(log, start)), desc=what, leave=False, disable=None)


def _models_in(rows: pd.DataFrame) -> list[str]:
    return [name for name in MODELS if name in rows]


def _judge(
    nets: dict[str, PurchaseNet],
    before: pd.DataFrame,
    truth: pd.DataFrame,
    at: pd.Timestamp,
    k: int,
    fade: float,
) -> pd.DataFrame:
    """Precision at k of each model for everyone in the truth."""
    users = distinct(truth["user_id"])
    items = distinct(before["item_id"])
    past = before[before["user_id"].isin(users)]
    is_purchase = (past["event_type"] == "purchase").to_numpy(float)
    is_bought = _matrix(past, is_purchase, users, items) > 0
    weight = past["event_type"].map(EVENT_WEIGHTS).fillna(0).to_numpy(float)
    days_since = (at - past["ts"]).dt.total_seconds().to_numpy() / 86400
    is_pooled = _matrix(past, weight != 0, users, items) > 0
    faded = _matrix(past, weight * np.exp(-days_since / fade), users, items)
    scores = {name: net.scores(users, items) for name, net in nets.items()}
    # First what is in the pool, by its score.
    scores["queue"] = 1e4 * is_pooled + _matrix(past, weight, users, items) + scores["updated"]
    scores["queue_faded"] = faded + scores["updated"]
    precision = {}
    for name, score in scores.items():
        lists = _lists(np.where(is_bought, -np.inf, score), users, items, k)
        precision[name] = per_user(lists, truth, k)["precision"]
    return pd.DataFrame(precision).rename_axis("user_id").reset_index()


def _lists(scores: np.ndarray, users: pd.Index, items: pd.Index, k: int) -> pd.DataFrame:
    """The k best items of each user as a recommendation table."""
    best = top_k(scores, k)
    row, place = np.nonzero(np.take_along_axis(scores, best, axis=1) > -np.inf)
    return pd.DataFrame(
        {"user_id": users[row], "item_id": items[best[row, place]], "rank": place + 1}
    )


def _matrix(rows: pd.DataFrame, weight: np.ndarray, users: pd.Index, items: pd.Index) -> np.ndarray:
    """(users, items) sums of weights."""
    cells = codes(rows["user_id"], users), codes(rows["item_id"], items)
    shape = (len(users), len(items))
    return sparse.coo_matrix((np.asarray(weight, float), cells), shape=shape).toarray()


def _pairs(rows: pd.DataFrame) -> pd.MultiIndex:
    return pd.MultiIndex.from_frame(rows[PAIR])


def _bought_pairs(log: pd.DataFrame) -> pd.MultiIndex:
    return _pairs(log[log["event_type"] == "purchase"]).drop_duplicates()


def _old_pairs(window: pd.DataFrame, log: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Held-out purchases (label 1), and each shopper with a product never touched (label 0)."""
    bought = _bought_pairs(window).to_frame(index=False).assign(label=1.0)
    other = bought.assign(item_id=rng.permutation(bought["item_id"].to_numpy()), label=0.0)
    is_held_out = rng.random(len(bought)) < HELD_OUT
    is_touched = _pairs(other).isin(_pairs(log))
    return pd.concat([bought[is_held_out], other[is_held_out & ~is_touched]], ignore_index=True)

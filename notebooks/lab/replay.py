"""What an updated model is worth: every step of a stream is first predicted, then learnt; and what is forgotten meanwhile."""

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
from recsys_utils.evaluation.leaderboard import bootstrap
from recsys_utils.evaluation.metrics import per_user
from recsys_utils.models.purchase_net import INTEREST, PurchaseNet, labels, model_path
from recsys_utils.online.events import event_ids, write_csv
from recsys_utils.online.queue import Queue
from recsys_utils.online.update import DATABASE, UpdateResult, apply_folder, load_net, train_cold
from recsys_utils.topk import top_k

HELD_OUT = 0.15
STEPS = 20  # of a stream that is too short for days
USED = "SELECT (page_count - freelist_count) * page_size AS n FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
MODELS = ("frozen", "updated", "refit", "queue", "queue_faded")


def steps(
    log: pd.DataFrame, start: pd.Timestamp
) -> Iterator[tuple[pd.Timestamp, pd.DataFrame, pd.DataFrame]]:
    """(time, everything before, what happens in the step) of each day from `start`; of each twentieth where it is two days or less."""
    span = log["ts"].max() - start
    width = (
        pd.Timedelta(days=1)
        if span > pd.Timedelta(days=2)
        else max(span / STEPS, pd.Timedelta(seconds=1)).ceil("s")
    )
    for at in pd.date_range(start, log["ts"].max(), freq=width):
        low, high = log["ts"].searchsorted([at, at + width])
        if high > low:
            yield at, log[:low], log[low:high]


def stream(fold: Fold, shoppers: int = 2_500, seed: int = 0) -> pd.DataFrame:
    """The log of a fold, its test window included, of at most so many random shoppers: what a stream replays."""
    log = Interactions.of(pd.concat([fold.train, fold.valid, fold.test]), events=fold.events).log
    users = distinct(log["user_id"])
    chosen = np.random.default_rng(seed).permutation(users)[:shoppers]
    return (
        log if len(users) <= shoppers else log[log["user_id"].isin(chosen)].reset_index(drop=True)
    )


def stream_start(fold: Fold) -> pd.Timestamp:
    """When the stream begins: with the test window; where each shopper has a window of their own, after two thirds of the test baskets' time."""
    if "test" in fold.borders:
        return pd.Timestamp(fold.borders["test"])
    return fold.test["ts"].quantile(1 / 3)


def events_source(fold: Fold) -> str:
    """Where the events come from, in a sentence."""
    if fold.events is None:
        return "This shop keeps receipts only: purchases are its events, and its queues stay empty."
    return f"Views, carts and removals are logged since {fold.events['ts'].min():%d %B %Y}; before that, purchases are the only events."


def first_days(log: pd.DataFrame, start: pd.Timestamp, days: float) -> pd.DataFrame:
    """The log up to so many days after `start`."""
    return log[log["ts"] < start + pd.Timedelta(days=days)]


def cold_model(
    log: pd.DataFrame,
    start: pd.Timestamp,
    days: float = 120,
    interest: float = 0,
    seed: int = 42,
    **params: object,
) -> PurchaseNet:
    """The cold model of `start`: what was bought in the `days` before, and what was only looked at."""
    return PurchaseNet.cold(
        labels(
            log[(log["ts"] < start) & (log["ts"] >= start - pd.Timedelta(days=days))],
            interest=interest,
        ),
        seed,
        **params,
    )


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
    """Precision at k of each model for each shopper and step, before it learns the step (Gama et al. 2013); and the last networks.

    log: user_id, item_id, event_type, ts in order of time. Truth is what the shopper buys in the step for the first time, since no model may
    list what was bought. frozen: the cold model of `start`. updated: the same after each step. refit: cold again before each step, with the
    labels of the updates, since it is better with them.
    queue: the pool's scores first, then the updated network; queue_faded: scores that fade with `fade` days. params: of `cold`.
    """
    rows, nets = [], dict.fromkeys(("frozen", "updated"), cold_model(log, start, seed=seed, **params))
    for n, (at, before, now) in enumerate(
        tqdm(list(steps(log, start)), desc="stream", leave=False, disable=None)
    ):
        if refit:
            nets["refit"] = cold_model(log, at, interest=interest, seed=seed, **params)
        bought, today = _bought(before), _bought(now)
        if len(truth := today[~today.isin(bought)].to_frame(index=False)):
            rows.append(_judged(nets, before, truth, at, k, fade).assign(time=at))
        nets["updated"] = nets["updated"].updated(labels(now, bought, interest), seed + n)
    return pd.concat(rows, ignore_index=True), nets


def gains(rows: pd.DataFrame, base: str = "frozen", seed: int = 0) -> pd.DataFrame:
    """Mean precision of each model, and its lead over `base` with a 95 % interval. Shoppers are resampled, each with all their steps."""
    names = [name for name in MODELS if name in rows]
    shoppers = rows[names].sub(rows[base], axis=0).groupby(rows["user_id"].astype(str)).sum()
    lead, low, high = bootstrap(shoppers.to_numpy(), np.random.default_rng(seed))
    per = len(shoppers) / len(rows)
    return pd.DataFrame(
        {
            "precision": rows[names].mean().to_numpy(),
            "lead": lead * per,
            "low": low * per,
            "high": high * per,
        },
        names,
    )


def by_step(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean precision of each model over all steps so far: night, model, precision."""
    names = [name for name in MODELS if name in rows]
    sums, n = rows.groupby("time")[names].sum().cumsum(), rows.groupby("time").size().cumsum()
    made = (
        sums.div(n, axis=0)
        .rename(columns=lambda name: name.replace("_", ", "))
        .assign(night=range(1, len(n) + 1))
    )
    return made.melt("night", var_name="model", value_name="precision")


def forgetting(
    log: pd.DataFrame,
    start: pd.Timestamp,
    old_days: float = 60,
    interest: float = INTEREST,
    seed: int = 42,
    **params: object,
) -> pd.DataFrame:
    """What each step costs on old pairs: night, replay, change of their loss against the cold model's.

    Old pairs: a share of the purchases of the `old_days` before `start`, taken out of everything that is learnt, each beside a random product
    that the shopper never touched. Not the pairs that were learnt: a network forgets by heart what it knew by heart.
    """
    rng = np.random.default_rng(seed)
    old = _old_pairs(
        log[(log["ts"] < start) & (log["ts"] >= start - pd.Timedelta(days=old_days))], log, rng
    )
    log = log[
        ~pd.MultiIndex.from_frame(log[["user_id", "item_id"]]).isin(
            pd.MultiIndex.from_frame(old[["user_id", "item_id"]])
        )
    ]
    first = cold_model(log, start, seed=seed, **params)
    nets, rows = {"with replay": first, "without replay": copy(first)}, []
    nets["without replay"].replay = False
    for n, (_, known, now) in enumerate(
        tqdm(list(steps(log, start)), desc="forgetting", leave=False, disable=None)
    ):
        pairs = labels(now, _bought(known), interest)
        nets = {name: net.updated(pairs, seed + n) for name, net in nets.items()}
        rows += [
            {"night": n + 1, "replay": name, "change": net.loss(old) / first.loss(old) - 1}
            for name, net in nets.items()
        ]
    return pd.DataFrame(rows)


def replay(
    log: pd.DataFrame,
    items: pd.DataFrame,
    start: pd.Timestamp,
    folder: Path,
    days: float = 120,
    seed: int = 42,
) -> pd.DataFrame:
    """The system itself, as cron would run it: a cold model, then each step's event file applied to the state in `folder`/state.

    Returns a row per step, the cold model first: time, events (all so far), new, purchases, version, seconds, database_mb, model_mb.
    """
    state, end = folder / "state", log["ts"].max()
    shutil.rmtree(folder, ignore_errors=True)
    before = log[(log["ts"] < start) & (log["ts"] >= start - pd.Timedelta(days=days))]
    write_csv(before, items, folder / "history")
    rows = [
        _applied(lambda: train_cold(folder / "history", state, now=end, seed=seed), state)
        | {"time": start}
    ]
    for n, (at, _, now) in enumerate(
        tqdm(list(steps(log, start)), desc="replay", leave=False, disable=None)
    ):
        inbox = write_csv(now, items, folder / "inbox" / f"{n:03d}")[0].parent
        rows.append(
            _applied(lambda inbox=inbox: apply_folder(inbox, state, now=end), state) | {"time": at}
        )
    made = pd.DataFrame(rows)
    return made.assign(events=made["new"].cumsum()).set_index("time")


def _applied(run: Callable[[], UpdateResult], state: Path) -> dict:
    clock, report = time.perf_counter(), run()
    seconds = time.perf_counter() - clock
    with Queue(state / DATABASE, read_only=True) as queue:
        used = queue.read(USED)["n"][0]
        size = {
            "database_mb": used / 1e6,
            "model_mb": model_path(state, queue.get("model")).stat().st_size / 1e6,
        }
    return {
        "new": report.counts.new,
        "purchases": report.counts.purchases,
        "version": report.version,
        "seconds": seconds,
    } | size


def queue_history(events: pd.DataFrame, names: pd.Series, path: Path) -> pd.DataFrame:
    """One shopper's queue, event by event: time, event, product, its score ("" once bought), what stands first, how many there are."""
    rows = []
    with Queue(path) as queue:
        for event in canonical_events(events).itertuples():
            queue.post(pd.DataFrame([event._asdict()]))
            pool = queue.pool(event.user_id)["pool"]
            score = {item: score for item, _, score in pool}.get(event.item_id, "")
            first = f"{names.get(pool[0][0], pool[0][0])} ({pool[0][2]})" if pool else ""
            rows.append(
                {
                    "time": event.ts.strftime("%d %b %H:%M"),
                    "event": event.event_type,
                    "product": names.get(event.item_id, event.item_id),
                    "score": score,
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
        runs = pd.concat(
            [queue.recommend([user], net=net, at=at).assign(run=n + 1) for n in range(times)]
        )
    runs["product"] = [names.get(item, item) for item in runs["item_id"]]
    return runs[["run", "rank", "product", "score", "counter", "source"]].set_index(["run", "rank"])


def eventful_shopper(log: pd.DataFrame, most: int = 12) -> pd.DataFrame:
    """The events of a shopper worth showing: of those with at most so many, the one with the most kinds of event, then the most events."""
    per = log.groupby("user_id")["event_type"].agg(["nunique", "size"])
    best = (
        per[per["size"] <= most]
        .sort_values(["nunique", "size"], ascending=False, kind="stable")
        .index
    )
    return log[log["user_id"] == (best[0] if len(best) else per.index[0])].head(most)


def canonical_events(events: pd.DataFrame) -> pd.DataFrame:
    """Events as the queue takes them: with an id that follows from what happened."""
    rows = events.astype({"user_id": str, "item_id": str, "event_type": str}).reset_index(drop=True)
    return rows.assign(
        event_id=event_ids(*(rows[name] for name in ("user_id", "item_id", "event_type", "ts"))),
        category="",
    )


def _judged(
    nets: dict[str, PurchaseNet],
    before: pd.DataFrame,
    truth: pd.DataFrame,
    at: pd.Timestamp,
    k: int,
    fade: float,
) -> pd.DataFrame:
    """Precision at k of each model for everyone in the truth."""
    users, items = distinct(truth["user_id"]), distinct(before["item_id"])
    mine = before[before["user_id"].isin(users)]
    banned = _matrix(mine, (mine["event_type"] == "purchase").to_numpy(float), users, items) > 0
    weight, age = (
        mine["event_type"].map(EVENT_WEIGHTS).fillna(0).to_numpy(float),
        (at - mine["ts"]).dt.total_seconds().to_numpy() / 86400,
    )
    scores = {name: net.scores(users, items) for name, net in nets.items()}
    pool, there = _matrix(mine, weight, users, items), _matrix(mine, weight != 0, users, items) > 0
    scores["queue"] = (
        1e4 * there + pool + scores["updated"]
    )  # first what is in the pool, by its score
    scores["queue_faded"] = (
        _matrix(mine, weight * np.exp(-age / fade), users, items) + scores["updated"]
    )
    made = {
        name: per_user(_lists(np.where(banned, -np.inf, s), users, items, k), truth, k)["precision"]
        for name, s in scores.items()
    }
    return pd.DataFrame(made).rename_axis("user_id").reset_index()


def _lists(scores: np.ndarray, users: pd.Index, items: pd.Index, k: int) -> pd.DataFrame:
    best = top_k(scores, k)
    row, place = np.nonzero(np.take_along_axis(scores, best, axis=1) > -np.inf)
    return pd.DataFrame(
        {"user_id": users[row], "item_id": items[best[row, place]], "rank": place + 1}
    )


def _matrix(rows: pd.DataFrame, weight: np.ndarray, users: pd.Index, items: pd.Index) -> np.ndarray:
    """(users, items) sums of weights."""
    at = codes(rows["user_id"], users), codes(rows["item_id"], items)
    return sparse.coo_matrix(
        (np.asarray(weight, float), at), shape=(len(users), len(items))
    ).toarray()


def _bought(log: pd.DataFrame) -> pd.MultiIndex:
    return pd.MultiIndex.from_frame(
        log.loc[log["event_type"] == "purchase", ["user_id", "item_id"]].drop_duplicates()
    )


def _old_pairs(window: pd.DataFrame, log: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    bought = _bought(window).to_frame(index=False).assign(label=1.0)
    other = bought.assign(item_id=rng.permutation(bought["item_id"].to_numpy()), label=0.0)
    touched = pd.MultiIndex.from_frame(log[["user_id", "item_id"]].drop_duplicates())
    held_out = rng.random(len(bought)) < HELD_OUT
    return pd.concat(
        [
            bought[held_out],
            other[
                held_out & ~pd.MultiIndex.from_frame(other[["user_id", "item_id"]]).isin(touched)
            ],
        ],
        ignore_index=True,
    )

"""The shoppers' queues in SQLite.

Events, purchases and what was shown are logs; every queue is a function of them alone.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from recsys_utils import LabError
from recsys_utils.data.registry import EVENT_TYPES, EVENT_WEIGHTS
from recsys_utils.online import audit, rotation, schema
from recsys_utils.online.database import Database
from recsys_utils.online.events import COLUMNS

if TYPE_CHECKING:
    from recsys_utils.models.purchase_net import PurchaseNet


CONTENT = ["user_id", "item_id", "event_type", "ts"]
DATABASE = "recommendation.db"
MIN_POOL = 6
MAX_POOL = 100
MAX_WEIGHT = 1_000_000
SHOWN = ["user_id", "rank", "item_id", "score", "counter", "source"]


class Counts(NamedTuple):
    """What became of a batch of events.

    late: new ones that are not after the watermark. purchases: of the new ones. reused: refused,
    for their id was given to another event before.
    """

    new: int
    copies: int
    late: int
    purchases: int
    reused: int = 0


class Queue(Database):
    """recommendation.db: one file for any number of threads, and of processes that each open it.

    A commit is on the disk when it returns, because the files of older models are removed after it
    and a service acknowledges events after it.

    path: the file. min_pool: a shorter pool is filled before it is shown. max_pool: the most
    products of one pool. timeout: seconds to wait for another writer. read_only: never create or
    change the file. weights: what an event adds to a product's score, by its type. What is None of
    max_pool and weights is as the file was last opened with; another value orders all queues again.
    Raises LabError, as every method does, naming the file and the cure.

    >>> from tempfile import TemporaryDirectory
    >>> events = pd.DataFrame({"event_id": [1, 2], "user_id": "ann", "item_id": ["tea", "milk"]})
    >>> events["event_type"] = ["view", "cart"]
    >>> events = events.assign(ts=pd.Timestamp("2025-01-01"), category="")
    >>> with TemporaryDirectory() as folder, Queue(f"{folder}/recommendation.db") as queue:
    ...     queue.post(events)
    ...     queue.pool("ann")
    Counts(new=2, copies=0, late=0, purchases=0, reused=0)
    {'pool': [['milk', 0, 3], ['tea', 0, 1]]}
    """

    def __init__(
        self,
        path: Path | str,
        min_pool: int = MIN_POOL,
        max_pool: int | None = None,
        timeout: float = 30.0,
        read_only: bool = False,
        weights: Mapping[str, int] | None = None,
    ) -> None:
        if not 1 <= min_pool <= (min_pool if max_pool is None else max_pool):
            raise LabError(
                f"min_pool={min_pool}, max_pool={max_pool}: choose 1 ≤ min_pool ≤ max_pool"
            )
        super().__init__(path, schema.TEMPORARY, timeout, read_only)
        self.min_pool = min_pool
        self.max_pool = max_pool
        self.weights = None if weights is None else checked_weights(weights)
        if read_only and not self.path.is_file():
            raise LabError(f"{path} is missing: train the cold model first")
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def post(self, events: pd.DataFrame, learnt: int | None = None) -> Counts:
        """Add events in one transaction and bring the queues of their users up to date.

        Events that are known already change nothing, nor do those whose id is another event's.

        events: canonical frame. learnt: version of the model that has learnt them, None if none.
        """
        _check(events)
        with self.transaction() as con:
            is_reused = self.reused(events)
            events = events[~is_reused]
            con.execute("DELETE FROM batch")
            con.executemany(schema.BATCH, _rows(events))
            con.execute(schema.CATEGORIES)
            con.execute(schema.KNOWN)
            watermark = self._stored_watermark() or (None, None)
            new, late, purchases = map(int, con.execute(schema.COUNT, watermark).fetchone())
            if new:
                con.execute(schema.EVENTS, (learnt,))
                for step in schema.POST:
                    con.execute(step)
                con.execute(schema.summed(self.weights))
                self._rebuild(con, "SELECT DISTINCT user_id FROM batch")
        return Counts(new, len(events) - new, late, purchases, int(is_reused.sum()))

    def stored(self, event_ids: Sequence[int]) -> pd.DataFrame:
        """Those events of these ids that are known: event_id, user_id, item_id, event_type, ts."""
        ids = json.dumps(np.asarray(event_ids, dtype=np.int64).tolist())
        return self.read(schema.STORED, (ids,)).astype(
            {"event_id": "int64", "ts": "datetime64[us]"}
        )

    def reused(self, events: pd.DataFrame) -> np.ndarray:
        """(n,) bool: whose event_id is another event's, known already or above in the frame."""
        if not len(events):
            return np.zeros(0, bool)
        known = self.stored(events["event_id"])
        first = pd.concat([known, events[["event_id", *CONTENT]]]).drop_duplicates("event_id")
        of_id = first.set_index("event_id").loc[events["event_id"]]
        return np.any([of_id[name].to_numpy() != events[name].to_numpy() for name in CONTENT], 0)

    def fresh(self, limit: int) -> pd.DataFrame:
        """The oldest events that no model has learnt yet, as a canonical frame."""
        frame = self.read(
            "SELECT event_id, user_id, item_id, event_type, event_time AS ts, category "
            "FROM events JOIN items USING (item_id) "
            "WHERE learnt IS NULL ORDER BY event_time, event_id LIMIT ?",
            (limit,),
        )
        return frame.astype({"event_id": "int64", "ts": "datetime64[us]"})

    def mark_learnt(self, event_ids: Sequence[int], version: int) -> None:
        """Note that the model of this version has learnt these events."""
        ids = np.asarray(event_ids, dtype=np.int64).tolist()
        with self.transaction() as con:
            con.executemany(
                "UPDATE events SET learnt = ? WHERE event_id = ?", zip(repeat(version), ids)
            )

    def recommend(
        self,
        users: Sequence[str],
        n: int = 3,
        net: PurchaseNet | None = None,
        *,
        at: pd.Timestamp,
        closed: Sequence[str] = (),
    ) -> pd.DataFrame:
        """Show each user the n products whose turn it is, in one transaction.

        A pool of fewer than max(min_pool, n) products is filled first. n is at most max_pool; a
        user gets fewer only where the shop has no more that they have not purchased. Never a
        purchased one.

        net: orders and fills pools. at: the time that is written into the log, UTC. closed:
        products that nobody is shown now, such as sold-out ones; they keep their place in a pool.
        Returns user_id, rank, item_id, score, counter (this time included), source.
        """
        if n < 1:
            raise LabError(f"n = {n}: at least 1 product must be asked for")
        users = pd.Index(users, dtype=object).astype(str).unique()
        n = min(n, self.max_pool)
        time = pd.Timestamp(at).value // 1000
        with self.transaction() as con:
            con.execute("DELETE FROM touched")
            con.executemany("INSERT INTO touched VALUES (?)", zip(users))
            pool = self.read(schema.POOL, (self.max_pool,))
            pool = pool[~pool["item_id"].isin(closed)]
            filled = self._fill(con, pool, users, max(self.min_pool, n), net, time, closed)
            pool = pd.concat([pool, filled], ignore_index=True)
            shown = rotation.next_products(pool, n, net)
            self._log(con, shown, 1, time)
            con.execute(schema.REBUILD, (self.max_pool,))
        shown["counter"] += 1
        shown["place"] = users.get_indexer(shown["user_id"])
        shown = shown.sort_values(["place", "rank"], ignore_index=True)[SHOWN]
        return shown.astype({"rank": int, "score": int, "counter": int})

    def pool(self, user: str) -> dict:
        """A user's queue as it is stored: {"pool": [[item_id, counter, score], …]}."""
        rows = self.read("SELECT product_queue FROM queue WHERE user_id = ?", (user,))
        return json.loads(rows["product_queue"][0]) if len(rows) else {"pool": []}

    def purchases(self, user: str, limit: int = -1, offset: int = 0) -> list[str]:
        """What a user has ever purchased, in the order of ids: all, or a page of it."""
        rows = self.read(
            "SELECT item_id FROM purchases WHERE user_id = ? ORDER BY item_id LIMIT ? OFFSET ?",
            (user, limit, offset),
        )
        return rows["item_id"].tolist()

    def count_purchases(self, user: str) -> int:
        """How many products a user has ever purchased."""
        sql = "SELECT COUNT(*) AS n FROM purchases WHERE user_id = ?"
        return int(self.read(sql, (user,))["n"][0])

    def cart(self, user: str) -> list[str]:
        """What a user put into the cart and neither took out of it nor bought, by id."""
        return self.read(schema.CART, (user,))["item_id"].tolist()

    @property
    def watermark(self) -> tuple[pd.Timestamp, int] | None:
        """Time and id of the last event, None before the first."""
        stored = self._stored_watermark()
        return stored and (pd.Timestamp(stored[0], unit="us"), stored[1])

    def get(self, key: str) -> str | None:
        """A value of the state, None if it was never set."""
        rows = self.read("SELECT value FROM state WHERE key = ?", (key,))
        return rows["value"][0] if len(rows) else None

    def set(self, key: str, value: object) -> None:
        """Set a value of the state; it is kept as text."""
        with self.transaction() as con:
            con.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (key, str(value)))

    def check(self) -> list[str]:
        """Where the database disagrees with its logs, computed again outside SQL; [] if nowhere.

        Reads the whole database, as it is at one moment.
        """
        with self.transaction("DEFERRED"):
            tables = {name: self.read(f"SELECT * FROM {name}") for name in audit.TABLES}
            damage = self.read("PRAGMA quick_check").iloc[:, 0]
            watermark = self.get("watermark")
        damaged = [f"SQLite: {line}" for line in damage if line != "ok"]
        return damaged + audit.disagreements(tables, watermark, self.max_pool, self.weights)

    def _prepare(self) -> None:
        """Create what is not there and refuse what is not ours.

        All queues are ordered again where max_pool or weights have changed.
        """
        with self.connection() as con:
            is_created = self._is_created()
            if self.read_only:
                self.max_pool, self.weights = self._stored_settings()
                return
            self.use_wal(con)
        if not is_created:
            with self.transaction() as con:
                # Another process may have been faster.
                if not self._is_created():
                    for statement in schema.TABLES.split(";"):
                        con.execute(statement)
        self._apply_settings()

    def _apply_settings(self) -> None:
        """Take what was not given from the file, and bring the queues in line with the rest."""
        max_pool, weights = self._stored_settings()
        if self.max_pool is None:
            self.max_pool = max_pool
            self.min_pool = min(self.min_pool, max_pool)
        self.weights = self.weights or weights
        if (max_pool, weights) == (self.max_pool, self.weights) and self.get("max_pool"):
            return
        with self.transaction() as con:
            self.set("max_pool", self.max_pool)
            self.set("weights", json.dumps(self.weights))
            if weights != self.weights:
                con.execute("DELETE FROM sums")
                con.execute(schema.summed(self.weights, "main.events"))
                con.execute(schema.LOGGED)
            self._rebuild(con, "SELECT user_id FROM queue")

    def _stored_settings(self) -> tuple[int, dict[str, int]]:
        """max_pool and weights of the file, the defaults of a new one."""
        weights = self.get("weights")
        return int(self.get("max_pool") or MAX_POOL), json.loads(weights or "null") or dict(
            EVENT_WEIGHTS
        )

    def _is_created(self) -> bool:
        """Whether the tables are there; LabError if they are not ours or another version's."""
        # One moment: another process may be creating them.
        with self.transaction("DEFERRED") as con:
            application = con.execute("PRAGMA application_id").fetchone()[0]
            version = con.execute("PRAGMA user_version").fetchone()[0]
            tables = con.execute("SELECT COUNT(*) FROM main.sqlite_master").fetchone()[0]
        if application != schema.APPLICATION and (tables or self.read_only):
            what = "another program's database" if tables else "empty"
            raise LabError(
                f"{self.path} is {what}: name another file, or train the cold model first"
            )
        if tables and version != schema.SCHEMA:
            raise LabError(
                f"{self.path} has schema {version}, this version reads {schema.SCHEMA}: "
                "move it away and train again"
            )
        return bool(tables)

    def _stored_watermark(self) -> tuple[int, int] | None:
        """Microseconds and id of the last event."""
        stored = self.get("watermark")
        return stored and tuple(json.loads(stored))

    def _rebuild(self, con: sqlite3.Connection, users: str) -> None:
        """Write the queues of the users of a query as the logs give them."""
        con.execute("DELETE FROM touched")
        con.execute(f"INSERT INTO touched {users}")
        con.execute(schema.REBUILD, (self.max_pool,))

    def _fill(
        self,
        con: sqlite3.Connection,
        pool: pd.DataFrame,
        users: pd.Index,
        need: int,
        net: PurchaseNet | None,
        time: int,
        closed: Sequence[str],
    ) -> pd.DataFrame:
        """New rows for the pools of fewer than `need` products, entered in the log."""
        missing = need - pool["user_id"].value_counts().reindex(users, fill_value=0)
        missing = missing[missing > 0]
        if missing.empty:
            return pool[:0]
        purchased = self.read(
            "SELECT user_id, item_id FROM touched CROSS JOIN purchases USING (user_id)"
        )
        pairs = pd.MultiIndex.from_product([missing.index, closed], names=["user_id", "item_id"])
        out = pairs.to_frame(index=False).astype(object)
        items = self.read(
            "SELECT item_id, category FROM items ORDER BY bought DESC, touched DESC, item_id"
        )
        favourites = self.read("SELECT user_id, category FROM favourite")
        new = rotation.fill_products(
            missing,
            taken=pd.concat([pool, purchased, out]),
            items=items,
            favourite=favourites.set_index("user_id")["category"],
            net=net,
        )
        self._log(con, new, 0, time)
        return new.assign(counter=0, score=0)

    def _log(self, con: sqlite3.Connection, rows: pd.DataFrame, shown: int, time: int) -> None:
        entries = rows[["user_id", "item_id", "source"]].assign(shown=shown, at=time)
        con.executemany(
            "INSERT INTO log (user_id, item_id, source, shown, at) VALUES (?, ?, ?, ?, ?)",
            entries.itertuples(index=False, name=None),
        )
        sums = entries[["user_id", "item_id", "shown", "source"]]
        con.executemany(schema.SHOWN, sums.itertuples(index=False, name=None))


def checked_weights(weights: Mapping[str, int]) -> dict[str, int]:
    """Weights of events as whole numbers, the defaults for those that are not named."""
    for name, weight in weights.items():
        if name not in EVENT_WEIGHTS:
            known = ", ".join(EVENT_WEIGHTS)
            raise LabError(f"event weight '{name}' is unknown: weigh {known}")
        if isinstance(weight, bool) or not isinstance(weight, int) or abs(weight) > MAX_WEIGHT:
            raise LabError(
                f"event weight {name}={weight!r}: it takes a whole number from -{MAX_WEIGHT:,} to"
                f" {MAX_WEIGHT:,}"
            )
    return EVENT_WEIGHTS | dict(weights)


def _check(events: pd.DataFrame) -> None:
    """Refuse what is no canonical frame of events."""
    missing = [name for name in COLUMNS if name not in events]
    if missing:
        raise LabError(f"events have no column {', '.join(missing)}: give {', '.join(COLUMNS)}")
    for name in COLUMNS:
        if events[name].isna().any():
            raise LabError(f"column {name} of events has empty cells: remove these rows")
    unknown = sorted(set(events["event_type"].unique()) - set(EVENT_TYPES), key=str)
    if unknown:
        raise LabError(f"event_type '{unknown[0]}' is unknown: use {', '.join(EVENT_TYPES)}")


def _rows(events: pd.DataFrame) -> Iterator[tuple]:
    """A canonical frame as rows of the table `batch`."""
    microseconds = events["ts"].astype("datetime64[us]").astype("int64")
    table = events[list(COLUMNS)].assign(ts=microseconds)
    return zip(*(table[name].tolist() for name in COLUMNS))

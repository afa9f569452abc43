"""The shoppers' queues in SQLite: events, purchases and what was shown are logs; every queue is a function of them alone."""

from __future__ import annotations

import json
import sqlite3
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import repeat
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
import pandas as pd

from recsys_utils import LabError
from recsys_utils.data.registry import EVENT_TYPES
from recsys_utils.online import audit, rotation, schema

if TYPE_CHECKING:
    from recsys_utils.models.purchase_net import PurchaseNet

EVENTS = ("event_id", "user_id", "item_id", "event_type", "ts", "category")
CACHE = 32 << 20  # bytes of pages in memory per thread, and of the log left on disk between writes
SHOWN = ["user_id", "rank", "item_id", "score", "counter", "source"]
CURES = {
    sqlite3.SQLITE_NOTADB: "is no SQLite database: name another file, or move it away and train again",
    sqlite3.SQLITE_CORRUPT: "is damaged: restore a copy of it, or move it away and train again",
    sqlite3.SQLITE_BUSY: "is locked by another program: wait until that has finished, or stop it, and run again",
    sqlite3.SQLITE_LOCKED: "is locked by another program: wait until that has finished, or stop it, and run again",
    sqlite3.SQLITE_READONLY: "may only be read: allow this user to write the file and its folder, and run again",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened: name a file, not a folder, that this user may read and write",
    sqlite3.SQLITE_FULL: "cannot grow, the disk is full: free some space and run again; what was being written is undone",
    sqlite3.SQLITE_IOERR: "cannot be read or written, as on a full or failing disk: free some space and run again; what was being written is undone",
}


class Counts(NamedTuple):
    """What became of a batch of events. late: new ones that are not after the watermark; purchases: of the new ones."""

    new: int
    copies: int
    late: int
    purchases: int


class _Connection(sqlite3.Connection):
    """A connection that can be referred to weakly: it is closed with the thread that opened it."""


class Queue:
    """recommendation.db: one file for any number of threads, and of processes that each open it themselves.

    Each thread has a connection of its own, so that in WAL mode readers go on while another thread or process writes. Writers
    queue up for `timeout` seconds. synchronous=FULL: a commit is on the disk when it returns, because the files of older models
    are removed after it and a service acknowledges events after it; NORMAL could forget it in a power cut.
    """

    def __init__(
        self,
        path: Path | str,
        min_pool: int = 6,
        max_pool: int = 100,
        timeout: float = 30.0,
        read_only: bool = False,
    ) -> None:
        """Open the database, or create it unless read_only. Raises LabError, as every method does, naming the file and the cure."""
        if not 1 <= min_pool <= max_pool:
            raise LabError(
                f"min_pool={min_pool}, max_pool={max_pool}: choose 1 ≤ min_pool ≤ max_pool"
            )
        self.path, self.min_pool, self.max_pool, self.timeout, self.read_only = (
            Path(path),
            min_pool,
            max_pool,
            timeout,
            read_only,
        )
        self._local, self.connections = threading.local(), weakref.WeakSet()
        if read_only and not self.path.is_file():
            raise LabError(f"{path} is missing: train the cold model first")
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections of all threads, none of which may be at work; a later call opens a new one."""
        for connection in list(self.connections):
            connection.close()
        self._local = threading.local()

    @contextmanager
    def transaction(self, kind: str = "IMMEDIATE") -> Iterator[sqlite3.Connection]:
        """Everything inside happens or nothing does; joins the thread's open transaction. An error must leave the outermost one too.

        kind: IMMEDIATE to write; DEFERRED to read things of one moment without keeping writers waiting.
        """
        with self._told() as con:
            if con.in_transaction:
                yield con
                return
            con.execute(f"BEGIN {kind}")
            try:
                yield con
                con.execute("COMMIT")
            finally:
                if con.in_transaction:
                    con.execute("ROLLBACK")

    def post(self, events: pd.DataFrame, learnt: int | None = None) -> Counts:
        """Add events in one transaction and bring the queues of their users up to date; events that are known already change nothing.

        events: canonical frame. learnt: version of the model that has learnt them, None if none has yet.
        """
        rows = _rows(events)
        with self.transaction() as con:
            con.execute("DELETE FROM batch")
            con.executemany(schema.BATCH, rows)
            con.execute(schema.CATEGORIES)
            con.execute(schema.KNOWN)
            new, late, purchases = map(
                int, con.execute(schema.COUNT, self._mark() or (None, None)).fetchone()
            )
            if new:
                con.execute(schema.EVENTS, (learnt,))
                for step in schema.POST:
                    con.execute(step)
                self._rebuild(con, "SELECT DISTINCT user_id FROM batch")
        return Counts(new, len(events) - new, late, purchases)

    def fresh(self, limit: int) -> pd.DataFrame:
        """The oldest events that no model has learnt yet, as a canonical frame."""
        frame = self.read(
            "SELECT event_id, user_id, item_id, event_type, event_time AS ts, category FROM events JOIN items USING (item_id) "
            "WHERE learnt IS NULL ORDER BY event_time, event_id LIMIT ?",
            (limit,),
        )
        return frame.astype({"event_id": "int64", "ts": "datetime64[us]"})

    def mark_learnt(self, event_ids: Sequence[int], version: int) -> None:
        """Say that a model has learnt these events."""
        with self.transaction() as con:
            con.executemany(
                "UPDATE events SET learnt = ? WHERE event_id = ?",
                zip(repeat(version), np.asarray(event_ids, dtype=np.int64).tolist()),
            )

    def recommend(
        self, users: Sequence[str], n: int = 3, net: PurchaseNet | None = None, *, at: pd.Timestamp
    ) -> pd.DataFrame:
        """Show each user the n products whose turn it is, in one transaction: frame(user_id, rank, item_id, score, counter, source).

        A pool of fewer than max(min_pool, n) products is filled first. counter includes this time. n is at most max_pool; a user
        gets fewer only where the shop has no more that he has not purchased. Never a purchased one.
        """
        if n < 1:
            raise LabError(f"n = {n}: at least 1 product must be asked for")
        users, n, time = (
            pd.Index(users, dtype=object).astype(str).unique(),
            min(n, self.max_pool),
            pd.Timestamp(at).value // 1000,
        )
        with self.transaction() as con:
            con.execute("DELETE FROM touched")
            con.executemany("INSERT INTO touched VALUES (?)", zip(users))
            pool = self.read(
                "SELECT user_id, item_id, counter, score, source FROM pool WHERE place <= ?",
                (self.max_pool,),
            )
            pool = pd.concat(
                [pool, self._fill(con, pool, users, max(self.min_pool, n), net, time)],
                ignore_index=True,
            )
            shown = rotation.chosen(pool, n, net)
            self._log(con, shown, 1, time)
            con.execute(schema.REBUILD, (self.max_pool,))
        shown = shown.assign(
            counter=shown["counter"] + 1, at=users.get_indexer(shown["user_id"])
        ).sort_values(["at", "rank"])
        return (
            shown[SHOWN].reset_index(drop=True).astype({"rank": int, "score": int, "counter": int})
        )

    def pool(self, user: str) -> dict:
        """A user's queue as it is stored: {"pool": [[item_id, counter, score], …]}."""
        found = self.read("SELECT product_queue FROM queue WHERE user_id = ?", (user,))[
            "product_queue"
        ]
        return json.loads(found[0]) if len(found) else {"pool": []}

    def purchases(self, user: str) -> list[str]:
        """What a user has ever purchased, in the order of ids."""
        return self.read(
            "SELECT item_id FROM purchases WHERE user_id = ? ORDER BY item_id", (user,)
        )["item_id"].tolist()

    @property
    def watermark(self) -> tuple[pd.Timestamp, int] | None:
        """Time and id of the last event, None before the first."""
        mark = self._mark()
        return mark and (pd.Timestamp(mark[0], unit="us"), mark[1])

    def get(self, key: str) -> str | None:
        """A value of the state, None if it was never set."""
        found = self.read("SELECT value FROM state WHERE key = ?", (key,))["value"]
        return found[0] if len(found) else None

    def set(self, key: str, value: object) -> None:
        """Set a value of the state; it is kept as text."""
        with self.transaction() as con:
            con.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (key, str(value)))

    def read(self, sql: str, arguments: Sequence = ()) -> pd.DataFrame:
        """The rows of a query."""
        with self._told() as con, closing(con.execute(sql, arguments)) as cursor:
            return pd.DataFrame(
                cursor.fetchall(), columns=[column[0] for column in cursor.description]
            )

    def size(self) -> int:
        """Bytes on disk, the write-ahead log included."""
        files = (self.path.with_name(self.path.name + suffix) for suffix in ("", "-wal", "-shm"))
        return sum(file.stat().st_size for file in files if file.exists())

    def check(self) -> list[str]:
        """Where queues, purchases, counts and watermark disagree with the logs, computed anew outside SQL; [] if nowhere."""
        return audit.disagreements(self)

    def _prepare(self) -> None:
        """Create what is not there, refuse what is not ours, and order all queues anew where max_pool has changed."""
        with self._told() as con:
            made = self._made()
            if self.read_only:
                self.max_pool = int(self.get("max_pool"))
                return
            self._wal(con)
        if not made:
            with self.transaction() as con:
                for statement in (
                    [] if self._made() else schema.TABLES.split(";")
                ):  # another process may have been faster
                    con.execute(statement)
        if self.get("max_pool") != str(self.max_pool):
            with self.transaction() as con:
                self.set("max_pool", self.max_pool)
                self._rebuild(con, "SELECT user_id FROM queue")

    def _wal(self, con: sqlite3.Connection) -> None:
        """Readers go on beside a writer. SQLite does not wait for other processes that make this change, so we do."""
        end = monotonic() + self.timeout
        while True:
            try:
                con.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or monotonic() > end:
                    raise
                sleep(0.01)

    def _made(self) -> bool:
        """Whether the tables are there; LabError if they are another version's or another program's."""
        with self.transaction(
            "DEFERRED"
        ) as con:  # one moment: another process may be creating them
            (ours,), (version,), (tables,) = (
                con.execute(sql).fetchone()
                for sql in (
                    "PRAGMA application_id",
                    "PRAGMA user_version",
                    "SELECT COUNT(*) FROM main.sqlite_master",
                )
            )
        if ours != schema.APPLICATION and (tables or self.read_only):
            what = "another program's database" if tables else "empty"
            raise LabError(
                f"{self.path} is {what}: name another file, or train the cold model first"
            )
        if tables and version != schema.SCHEMA:
            raise LabError(
                f"{self.path} has schema {version}, this version reads {schema.SCHEMA}: move it away and train again"
            )
        return bool(tables)

    @contextmanager
    def _told(self) -> Iterator[sqlite3.Connection]:
        """This thread's connection; what SQLite says goes wrong becomes a sentence with the file and a cure."""
        try:
            if not hasattr(self._local, "connection"):
                self._local.connection = self._connect()
            yield self._local.connection
        except sqlite3.Error as error:
            cure = CURES.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
            if not cure:
                raise
            raise LabError(f"{self.path} {cure}") from error
        except UnicodeEncodeError as error:
            raise LabError(
                f"an id for {self.path} holds half a character, {error.object[:40]!r}: write it in UTF-8"
            ) from error

    def _connect(self) -> sqlite3.Connection:
        """A connection with the tables and views of its own that `schema` computes with."""
        uri = f"{self.path.absolute().as_uri()}?mode={'ro' if self.read_only else 'rwc'}"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LabError(
                f"{self.path.parent} cannot be made a folder ({error.strerror}): name another"
            ) from error
        con = sqlite3.connect(
            uri,
            self.timeout,
            isolation_level=None,
            check_same_thread=False,
            factory=_Connection,
            uri=True,
        )
        self.connections.add(con)
        for pragma in (
            "synchronous = FULL",
            f"cache_size = -{CACHE >> 10}",
            f"journal_size_limit = {CACHE}",
        ):
            con.execute(f"PRAGMA {pragma}")
        con.executescript(schema.TEMPORARY)
        return con

    def _mark(self) -> tuple[int, int] | None:
        mark = self.get("watermark")
        return mark and tuple(json.loads(mark))

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
    ) -> pd.DataFrame:
        """New rows for the pools of fewer than `need` products, entered in the log."""
        missing = need - pool["user_id"].value_counts().reindex(users, fill_value=0)
        missing = missing[missing > 0]
        if missing.empty:
            return pool[:0]
        taken = pd.concat(
            [
                pool,
                self.read(
                    "SELECT user_id, item_id FROM touched CROSS JOIN purchases USING (user_id)"
                ),
            ]
        )
        items = self.read(
            "SELECT item_id, category FROM items ORDER BY bought DESC, touched DESC, item_id"
        )
        favourite = self.read("SELECT user_id, category FROM favourite").set_index("user_id")[
            "category"
        ]
        new = rotation.fills(missing, taken, items, favourite, net)
        self._log(con, new, 0, time)
        return new.assign(counter=0, score=0)

    def _log(self, con: sqlite3.Connection, rows: pd.DataFrame, shown: int, time: int) -> None:
        rows = rows[["user_id", "item_id", "source"]].assign(shown=shown, at=time)
        con.executemany(
            "INSERT INTO log (user_id, item_id, source, shown, at) VALUES (?, ?, ?, ?, ?)",
            rows.itertuples(index=False, name=None),
        )


def _rows(events: pd.DataFrame) -> Iterator[tuple]:
    """A canonical frame as rows of the table `batch`."""
    if missing := [name for name in EVENTS if name not in events]:
        raise LabError(f"events have no column {', '.join(missing)}: give {', '.join(EVENTS)}")
    if empty := [name for name in EVENTS if events[name].isna().any()]:
        raise LabError(f"column {empty[0]} of events has empty cells: remove these rows")
    if unknown := sorted(set(events["event_type"].unique()) - set(EVENT_TYPES), key=str):
        raise LabError(f"event_type '{unknown[0]}' is unknown: use {', '.join(EVENT_TYPES)}")
    columns = events[list(EVENTS)].assign(ts=events["ts"].astype("datetime64[us]").astype("int64"))
    return zip(*(columns[name].tolist() for name in EVENTS))

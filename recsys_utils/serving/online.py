"""Progressive online, live: events over HTTP, queues, and what was bought and not learnt."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from recsys_utils import LabError
from recsys_utils.ensembles.hybrid import Hybrid
from recsys_utils.online.events import AHEAD, event_ids
from recsys_utils.online.queue import Counts, Queue
from recsys_utils.serving.errors import Conflict, Unavailable
from recsys_utils.serving.learnt import Learnt
from recsys_utils.serving.schemas import Event
from recsys_utils.serving.settings import QueueSettings
from recsys_utils.store import model_path

if TYPE_CHECKING:
    from recsys_utils.models.purchase_net import PurchaseNet

log = logging.getLogger("recsys_utils.serving")
BOUGHT = "SELECT user_id, item_id, event_time AS ts FROM events WHERE event_type = 'purchase'"

READY = "ready"
NOT_OPEN = "the queue's database is not open yet: ask again in a moment"
MODEL_GONE = (
    "the queue's model is missing, was changed or is of an older version, queues are ordered"
    " without it: restore its file, or run python -m recsys_utils.online train again"
)
TELLS_PURCHASES = b'"platt": {'  # in the file of a model whose probability is one of purchases


@dataclass
class Purchases:
    """What one shopper bought and the models have not learnt: item and time in microseconds."""

    items: list[str] = field(default_factory=list)
    times: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return min(len(self.items), len(self.times))

    def frame(self) -> pd.DataFrame:
        """(item_id, ts)."""
        n = len(self)  # another may follow while this is read
        ts = np.array(self.times[:n], np.int64).astype("datetime64[us]")
        return pd.DataFrame({"item_id": np.array(self.items[:n], object), "ts": ts})


class Online:
    """The queue's database and what of it the models have to know.

    A posted event is on the disk before it is acknowledged. Where the database cannot be used,
    lists go on with the purchases in memory, and what needs it is Unavailable with the cure.
    """

    def __init__(self, path: Path, settings: QueueSettings | None = None) -> None:
        self.path = path
        self.settings = settings or QueueSettings()
        self.problem = NOT_OPEN
        self._queue: Queue | None = None
        self.learnt: Learnt | None = None
        self._lock = threading.Lock()
        self.bought: defaultdict[str, Purchases] = defaultdict(Purchases)
        # Events by user since the start: what the cache knows a user's state by.
        self.stamps: Counter[str] = Counter()
        self._net: tuple[str | None, PurchaseNet | None] = (None, None)
        self._checked: tuple[object, bool] = (None, False)

    @property
    def queue(self) -> Queue:
        """The database; Unavailable with the cure where it could not be opened."""
        if self._queue is None:
            raise Unavailable(self.problem)
        return self._queue

    @property
    def sizes(self) -> dict[str, int]:
        """Of a shopper's queue; none while there is no database."""
        if self._queue is None:
            return {}
        return {
            "min_pool": self._queue.min_pool,
            "max_pool": self._queue.max_pool,
            "shown": self.settings.shown,
        }

    @property
    def weights(self) -> dict[str, int]:
        """What an event adds to a product's score; none while there is no database."""
        return {} if self._queue is None else dict(self._queue.weights)

    def refresh(self, hybrid: Hybrid) -> None:
        """Read the purchases that the models have not learnt, by whomever they were posted.

        They came after the models' cut, or too late for it.
        """
        learnt = Learnt(hybrid)
        with self._lock:
            bought = self._read_bought()
            found = defaultdict(Purchases)
            _collect(bought[~learnt.holds(bought)], found)
            self.learnt = learnt
            self.bought = found

    def close(self) -> None:
        """Close the database."""
        if self._queue is not None:
            self._queue.close()

    def parts(self) -> dict[str, str]:
        """The database and its model: "ready", or what is missing and what brings it back."""
        try:
            name = self.queue.get("model")
        except LabError as error:
            return {"queue": self.problem or self._unusable(error)}
        result = {"queue": self.problem or READY}
        if name is not None:
            result["queue_model"] = READY if self._has_model(name) else MODEL_GONE
        return result

    def post(self, events: Sequence[Event], now: pd.Timestamp) -> Counts:
        """Keep events in one transaction; those that are known already change nothing."""
        frame = _canonical(events, self.learnt.first_day, now)
        with self._lock, _unavailable_on_failure():  # so that memory follows the disk in its order
            with self.queue.transaction():  # another service may post the same event now
                known = self.queue.stored(frame["event_id"])
                frame = self._one_each(frame, known)
                counts = self.queue.post(frame)
            fresh = frame[~frame["event_id"].isin(known["event_id"])]
            bought = fresh[fresh["event_type"] == "purchase"]
            _collect(bought[~self.learnt.holds(bought)], self.bought)
            self.stamps.update(frame["user_id"])
        return counts

    def later_purchases(self, user: str) -> pd.DataFrame | None:
        """What a user bought and the models have not learnt (item_id, ts); None for nothing."""
        rows = self.bought.get(user)
        return rows.frame() if rows else None

    def show(self, user: str, n: int, at: pd.Timestamp, closed: Sequence[str] = ()) -> pd.DataFrame:
        """The next n products that are not closed, counted as shown, and how likely a purchase is.

        purchase_probability is NaN where no model tells it.
        """
        with _unavailable_on_failure():
            net = self.net()
            rows = self.queue.recommend([user], n, net, at=at, closed=closed)
        told = net.purchase_probability(rows["user_id"], rows["item_id"]) if net else np.nan
        return rows.assign(purchase_probability=told)

    def standing(
        self, user: str, limit: int, offset: int = 0
    ) -> tuple[list, list[str], int, list[str]]:
        """A user's pool, a page of the purchases, their number, and the cart, of one moment."""
        with _unavailable_on_failure(), self.queue.transaction("DEFERRED"):
            purchased = self.queue.purchases(user, limit, offset)
            count = self.queue.count_purchases(user)
            return self.queue.pool(user)["pool"], purchased, count, self.queue.cart(user)

    def net(self) -> PurchaseNet | None:
        """The model that the database names now; None before any was trained.

        None also where its file is not there, which `parts` tells: a queue goes without it.
        """
        name = self.queue.get("model")
        if name != self._net[0]:
            from recsys_utils.online.update import load_net  # brings in torch

            try:
                self._net = name, load_net(self.queue, self.path.parent)
            except LabError as error:
                log.error("queue model: %s", error)
                return None
        return self._net[1]

    def _read_bought(self) -> pd.DataFrame:
        """Every purchase of the database (user_id, item_id, ts).

        What memory has of them where it cannot be read. A database that has failed is opened again:
        its file may have been restored.
        """
        for queue in (self._queue, None):
            try:
                self._queue = queue or self._opened()
                bought = self._queue.read(BOUGHT)
                self.problem = ""
                return bought.astype({"ts": "datetime64[us]"})
            except LabError as error:
                log.error("queue: %s", error)
                self.problem = self._unusable(error)
                self._queue = None
        frames = [rows.frame().assign(user_id=user) for user, rows in self.bought.items()]
        return pd.concat([Purchases().frame().assign(user_id=""), *frames], ignore_index=True)

    def _opened(self) -> Queue:
        mine = self.settings
        return Queue(self.path, mine.min_pool, mine.max_pool, weights=mine.event_weights)

    def _unusable(self, error: LabError) -> str:
        """What is wrong with the database and what brings it back; not where it lies."""
        reason = str(error).replace(str(self.path), self.path.name)
        return f"the queue's database cannot be used: {reason}; then POST /api/v1/reload"

    def _has_model(self, name: str) -> bool:
        """Whether the file of a model is there, byte for byte and of this version.

        It is read again when it has changed.
        """
        path = model_path(self.path.parent, name)
        try:
            stat = path.stat()
            seen = (name, stat.st_size, stat.st_mtime_ns, stat.st_ino)
            if seen != self._checked[0]:
                content = path.read_bytes()
                is_whole = hashlib.sha256(content).hexdigest() == name
                self._checked = seen, is_whole and TELLS_PURCHASES in content
        except OSError:
            return False
        return self._checked[1]

    def _one_each(self, frame: pd.DataFrame, known: pd.DataFrame) -> pd.DataFrame:
        """One row per event; Conflict where an id was given to another event of its shopper.

        Sent again without a time, an event has the time of the first.
        """
        first = known.set_index("event_id")["ts"].reindex(frame["event_id"]).to_numpy()
        is_again = frame["own"].ne("") & ~frame["has_time"] & ~np.isnat(first)
        frame = frame.assign(ts=frame["ts"].where(~is_again, first))
        is_reused = self.queue.reused(frame)
        if is_reused.any():
            row = int(is_reused.argmax())
            own, user = frame.loc[row, ["own", "user_id"]]
            raise Conflict(
                f"events.{row}.event_id {own[:60]!r} was given to another event of shopper"
                f" '{user[:60]}' before: give each event an id of its own; none of these was kept"
            )
        return frame.drop_duplicates("event_id")


def _collect(bought: pd.DataFrame, into: defaultdict[str, Purchases]) -> None:
    """Add purchases (user_id, item_id, ts) to those of their shoppers."""
    times = bought["ts"].astype("datetime64[us]").astype("int64")
    for user, item, time in zip(bought["user_id"], bought["item_id"], times.tolist()):
        into[user].items.append(item)
        into[user].times.append(time)


def naive(clock: Callable[[], datetime]) -> pd.Timestamp:
    """The clock's time in UTC without zone, as every table has it."""
    return pd.Timestamp(clock()).tz_convert("UTC").tz_localize(None).floor("us")


@contextmanager
def _unavailable_on_failure() -> Iterator[None]:
    """A database that cannot be used is no fault of the request.

    Where it lies is for the log only.
    """
    try:
        yield
    except (Conflict, Unavailable):
        raise
    except LabError as error:
        log.error("queue: %s", error)
        raise Unavailable(
            "the queue's database cannot be used now, nothing was changed: ask again, the log"
            " says why"
        ) from error


def _canonical(events: Sequence[Event], first_day: pd.Timestamp, now: pd.Timestamp) -> pd.DataFrame:
    """Events as the queue takes them; none may come from tomorrow, or be older than the shop."""
    times = [pd.Timestamp(event.timestamp) if event.timestamp else now for event in events]
    if late := [n for n, ts in enumerate(times) if ts > now + AHEAD]:
        raise LabError(
            f"events.{late[0]}.timestamp is {times[late[0]]}, from the future: it is {now} (UTC),"
            " correct the clock or leave it out"
        )
    if early := [n for n, ts in enumerate(times) if ts < first_day]:
        raise LabError(
            f"events.{early[0]}.timestamp is {times[early[0]]}, before the shop's first day,"
            f" {first_day:%Y-%m-%d}: correct the clock or leave it out"
        )
    frame = pd.DataFrame(
        {
            name: [getattr(event, name) for event in events]
            for name in ("user_id", "item_id", "event_type")
        },
        dtype=object,
    )
    frame["ts"] = pd.Series(times, dtype="datetime64[us]")
    frame["own"] = pd.Series([event.event_id or "" for event in events], dtype=object)
    frame["has_time"] = [event.timestamp is not None for event in events]
    frame["event_id"] = event_ids(
        *(frame[name] for name in ("user_id", "item_id", "event_type", "ts")), own=frame["own"]
    )
    return frame.assign(category="")

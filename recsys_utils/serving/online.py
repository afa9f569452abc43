"""Progressive online, live: events over HTTP, queues, and what was bought after the models' cut."""

import json
import logging
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pandas as pd

from recsys_utils import LabError
from recsys_utils.models.purchase_net import PurchaseNet
from recsys_utils.online.events import AHEAD, event_ids
from recsys_utils.online.queue import Counts, Queue
from recsys_utils.online.update import load_net
from recsys_utils.serving.errors import Unavailable
from recsys_utils.serving.schemas import Event

log = logging.getLogger("recsys_utils.serving")
BOUGHT = (
    "SELECT user_id, item_id, event_time FROM events WHERE event_type = 'purchase' AND"
    " event_time > ?"
)


class Online:
    """The queue's database and what of it the models have to know.

    A posted event is on the disk before it is acknowledged.
    """

    def __init__(self, path: Path) -> None:
        self.queue = Queue(path)
        self.cut = pd.Timestamp.max
        self._lock = threading.Lock()
        self.bought: dict[str, list[tuple[str, pd.Timestamp]]] = {}
        self.stamps: Counter[str] = (
            Counter()
        )  # events by user since the start: what the cache knows a user's state by
        self._net: tuple[str | None, PurchaseNet | None] = (None, None)

    def refresh(self, cut: pd.Timestamp) -> None:
        """Read what was bought after the models' cut, by whomever it was posted."""
        with self._lock:
            self.cut = cut
            found = defaultdict(list)
            for user, item, ts in self.queue.read(BOUGHT, (cut.value // 1000,)).itertuples(
                index=False, name=None
            ):
                found[user].append((item, pd.Timestamp(ts, unit="us")))
            self.bought = found

    def post(self, events: Sequence[Event], now: pd.Timestamp) -> Counts:
        """Keep events in one transaction; those that are known already change nothing."""
        frame = _canonical(events, now)
        with self._lock, _unavailable_on_failure():  # so that memory follows the disk in its order
            fresh = frame[~frame["event_id"].isin(self._known(frame))]
            counts = self.queue.post(frame)
            late = fresh[(fresh["event_type"] == "purchase") & (fresh["ts"] > self.cut)]
            for user, item, ts in late[["user_id", "item_id", "ts"]].itertuples(
                index=False, name=None
            ):
                self.bought[user].append((item, ts))
            self.stamps.update(frame["user_id"])
        return counts

    def later_purchases(self, user: str) -> pd.DataFrame | None:
        """What a user bought after the cut (item_id, ts); None for nothing."""
        rows = self.bought.get(user)
        return pd.DataFrame(list(rows), columns=["item_id", "ts"]) if rows else None

    def show(self, user: str, n: int, at: pd.Timestamp) -> pd.DataFrame:
        """The next n products, counted as shown."""
        with _unavailable_on_failure():
            return self.queue.recommend([user], n, self.net(), at=at)

    def standing(self, user: str) -> tuple[list, list[str]]:
        """A user's pool and purchases, of one moment."""
        with _unavailable_on_failure(), self.queue.transaction("DEFERRED"):
            return self.queue.pool(user)["pool"], self.queue.purchases(user)

    def net(self) -> PurchaseNet | None:
        """The model that the database names now; None before any was trained."""
        name = self.queue.get("model")
        if name != self._net[0]:
            self._net = name, load_net(self.queue, self.queue.path.parent)
        return self._net[1]

    def _known(self, frame: pd.DataFrame) -> pd.Series:
        ids = json.dumps(frame["event_id"].tolist())
        return self.queue.read(
            "SELECT event_id FROM events WHERE event_id IN (SELECT value FROM json_each(?))", (ids,)
        )["event_id"]


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
    except LabError as error:
        log.error("queue: %s", error)
        raise Unavailable(
            "the queue's database cannot be used now, nothing was changed: ask again, the log"
            " says why"
        ) from error


def _canonical(events: Sequence[Event], now: pd.Timestamp) -> pd.DataFrame:
    """Events as the queue takes them; none may come from tomorrow."""
    times = [pd.Timestamp(event.timestamp) if event.timestamp else now for event in events]
    if late := [n for n, ts in enumerate(times) if ts > now + AHEAD]:
        raise LabError(
            f"events.{late[0]}.timestamp is {times[late[0]]}, from the future: it is {now} (UTC),"
            " correct the clock or leave it out"
        )
    frame = pd.DataFrame(
        {
            name: [getattr(event, name) for event in events]
            for name in ("user_id", "item_id", "event_type")
        },
        dtype=object,
    )
    frame["ts"] = pd.Series(times, dtype="datetime64[us]")
    own = pd.Series([event.event_id or "" for event in events], dtype=object)
    frame["event_id"] = event_ids(
        *(frame[name] for name in ("user_id", "item_id", "event_type", "ts")), own=own
    )
    return frame.drop_duplicates("event_id").assign(category="")

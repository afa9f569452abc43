"""From event files to a model and queues that agree, killed at any moment or not.

The network is trained cold once, then updated with every new piece of an event file.
"""

import fcntl
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from recsys_utils import LabError
from recsys_utils.models.purchase_net import PurchaseNet, labels
from recsys_utils.online.events import BadFile, EventFile, event_files
from recsys_utils.online.queue import DATABASE, Counts, Queue
from recsys_utils.store import atomic, model_path

TRAIN = "python -m recsys_utils.online train --history FOLDER --state FOLDER"
ACTIVITY = """
SELECT user_id, item_id, SUM(event_type = 'view') AS view, SUM(event_type = 'cart') AS cart,
    SUM(event_type = 'remove_from_cart') AS remove_from_cart,
    SUM(event_type = 'purchase') AS purchase, MIN(event_time) AS first, MAX(event_time) AS last,
    (SELECT COALESCE(SUM(shown), 0) FROM log
     WHERE log.user_id = events.user_id AND log.item_id = events.item_id) AS counter
FROM events WHERE user_id IN (SELECT value FROM json_each(?))
GROUP BY user_id, item_id ORDER BY user_id, item_id
"""
# bought: NULL where the pair was met only before looks were logged, when nothing passed over was.
PAIRS = """
WITH looks AS (SELECT MIN(event_time) AS first FROM events WHERE event_type <> 'purchase')
SELECT user_id, item_id, MAX(event_type = 'purchase') AS label,
    MAX(CASE WHEN event_time >= first THEN event_type = 'purchase' END) AS bought
FROM looks CROSS JOIN events WHERE event_time <= ?
GROUP BY user_id, item_id ORDER BY user_id, item_id
"""
LEARNT = """
SELECT event_id FROM events
WHERE learnt IS NOT NULL AND event_id IN (SELECT value FROM json_each(?))
"""
PURCHASED = """
SELECT user_id, item_id FROM purchases WHERE user_id IN (SELECT value FROM json_each(?))
"""


class Busy(LabError):
    """Another process is updating the same state."""


@dataclass
class UpdateResult:
    """What a run did.

    files: read to their end. skipped: unchanged since then. unfinished: to be read again. counts:
    what became of the events. rejected: refused lines by reason. errors: one sentence for each file
    that was refused. version: of the model afterwards.
    """

    files: int = 0
    skipped: int = 0
    unfinished: int = 0
    counts: Counts = Counts(0, 0, 0, 0)
    rejected: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    version: int = 0

    def add(self, counts: Counts) -> None:
        """Add what became of one more piece."""
        self.counts = Counts(*(old + new for old, new in zip(self.counts, counts)))


def train_cold(
    history: Path | str,
    state: Path | str,
    *,
    now: pd.Timestamp,
    until: pd.Timestamp | None = None,
    seed: int = 42,
    batch: int = 50_000,
    wait: float = 0.0,
    **params: object,
) -> UpdateResult:
    """Post a folder's events and train the cold model on every event up to `until`.

    Later events are left to `apply_folder`. Done again, it starts a new model on all that is known
    by `until`, and what the database knows beyond is learnt by the next update. Until the end the
    old model stands.

    until, now: UTC without zone. batch: the most lines of one piece. wait: seconds for another
    update to finish. params: of PurchaseNet.
    Raises Busy, or LabError for bad input.
    """
    state = Path(state)
    if until is None:
        until = pd.Timestamp.max.floor("us")
    with _os_errors_explained(state):
        paths = event_files(history)
    with update_lock(state, wait), Queue(state / DATABASE) as queue:
        _remove_leftovers(queue, state)
        result = UpdateResult()
        for path in tqdm(paths, "history", disable=None, leave=False):
            for piece in _read(EventFile(path, now, state / "rejects", batch), result):
                result.add(queue.post(piece[piece["ts"] <= until]))
        pairs = queue.read(PAIRS, (_microseconds(until),))
        if not len(pairs):
            cure = "; ".join(result.errors) or "give a later --until or another folder"
            raise LabError(f"{history} has no event up to {until}: {cure}")
        net = PurchaseNet.cold(pairs, seed, **params)
        result.version = _install_cold(queue, state, net, until, seed)
    return result


def apply_folder(
    events: Path | str,
    state: Path | str,
    *,
    now: pd.Timestamp,
    batch: int = 50_000,
    wait: float = 0.0,
) -> UpdateResult:
    """Post and learn what is new in a folder of event files: run it as often as you like.

    Files that have not changed since they were read to their end are skipped; of the others only
    unknown events count. A file that cannot be read is named in `errors`, the others are applied.

    now: UTC without zone. batch: the most lines of one update. wait: seconds for another update to
    finish. Raises Busy if it does not, LabError for bad input.
    """
    state = Path(state)
    with _os_errors_explained(state):
        paths = event_files(events)
        _require_database(state)
    with update_lock(state, wait), Queue(state / DATABASE) as queue:
        learner = Learner(queue, state)
        _remove_leftovers(queue, state)
        # Posted by a service, or after the cold model's time.
        while len(fresh := queue.fresh(batch)):
            learner.apply(fresh)
        result = UpdateResult()
        for path in tqdm(paths, "events", disable=None, leave=False):
            _apply_file(path, learner, result, now, batch)
        result.version = int(queue.get("version"))
    return result


def recommend(
    state: Path | str,
    *,
    at: pd.Timestamp,
    users: Sequence[str] | None = None,
    limit: int | None = None,
    n: int = 3,
) -> pd.DataFrame:
    """Show n products to each user; write out/recommendations.csv and out/activity.csv.

    What is written was shown: counters and files change together.

    at: UTC without zone. users: any ids; else all that have a queue, at most `limit`.
    Returns the recommendations, as `Queue.recommend`.
    """
    state = Path(state)
    with _os_errors_explained(state):
        _require_database(state)
    with _os_errors_explained(state), Queue(state / DATABASE) as queue:
        if users is None:
            most = -1 if limit is None else limit
            rows = queue.read("SELECT user_id FROM queue ORDER BY user_id LIMIT ?", (most,))
            users = rows["user_id"]
        net = load_net(queue, state)
        with queue.transaction():
            shown = queue.recommend(users, n, net, at=at)
            tables = {"recommendations": shown.assign(at=at), "activity": activity(queue, users)}
            for name, table in tables.items():
                with atomic(state / "out" / f"{name}.csv") as temporary:
                    table.to_csv(temporary, index=False)
    return shown


def activity(queue: Queue, users: Sequence[str]) -> pd.DataFrame:
    """What users did with products.

    Returns user_id, item_id, the number of each event type, first and last time, counter (times
    shown), score, purchased.
    """
    frame = queue.read(ACTIVITY, (_json(users),))
    frame[["first", "last"]] = frame[["first", "last"]].astype("datetime64[us]")
    frame["score"] = sum(weight * frame[name] for name, weight in queue.weights.items())
    frame["purchased"] = frame["purchase"] > 0
    return frame


def load_net(queue: Queue, state: Path) -> PurchaseNet:
    """The model that the database names, also while an update replaces it."""
    sha = queue.get("model")
    if sha is None:
        raise LabError(f"{state} has no model: run {TRAIN} first")
    try:
        return PurchaseNet.load(state, sha)
    except LabError:
        if queue.get("model") == sha:
            raise
        return load_net(queue, state)


class Learner:
    """The model and the database it belongs to."""

    def __init__(self, queue: Queue, state: Path) -> None:
        self.queue = queue
        self.state = state
        self.net = load_net(queue, state)

    def apply(self, delta: pd.DataFrame) -> Counts:
        """Post events and learn those that no model has learnt.

        All of it happens, the model's file included, or nothing.
        """
        is_reused = self.queue.reused(delta)
        if is_reused.any():
            rest = self.apply(delta[~is_reused])
            return rest._replace(reused=rest.reused + int(is_reused.sum()))
        learnt = self.queue.read(LEARNT, (_json(delta["event_id"]),))["event_id"]
        new = delta[~delta["event_id"].isin(learnt)]
        if not len(new):
            return self.queue.post(delta)
        version = int(self.queue.get("version")) + 1
        purchased = self.queue.read(PURCHASED, (_json(new["user_id"].unique()),))
        pairs = labels(new, pd.MultiIndex.from_frame(purchased))
        net = self.net.updated(pairs, seed=int(self.queue.get("seed")) + version)
        sha = net.save(self.state)
        with self.queue.transaction():
            counts = self.queue.post(delta, learnt=version)
            self.queue.mark_learnt(new["event_id"], version)
            _set_model(self.queue, sha, version)
        self.net = net
        _remove_other_models(self.state, sha)
        return counts


def _apply_file(
    path: Path, learner: Learner, result: UpdateResult, now: pd.Timestamp, batch: int
) -> None:
    """Apply one file, or skip it if it has not changed since it was read to its end."""
    stat = path.stat()
    key = f"file:{path.name}"
    mark = f"{stat.st_size} {stat.st_mtime_ns}"
    if learner.queue.get(key) == mark:
        result.skipped += 1
        return
    file = EventFile(path, now, learner.state / "rejects", batch)
    errors_before = len(result.errors)
    for piece in _read(file, result):
        result.add(learner.apply(piece))
    if file.complete and len(result.errors) == errors_before:
        learner.queue.set(key, mark)


def _read(file: EventFile, result: UpdateResult) -> Iterator[pd.DataFrame]:
    """The pieces of a file; a refused file or line goes to the result."""
    try:
        yield from file
    except BadFile as error:
        result.errors.append(str(error))
    else:
        result.files += file.complete
        result.unfinished += not file.complete
    result.rejected += file.rejects.counts


def _install_cold(
    queue: Queue, state: Path, net: PurchaseNet, until: pd.Timestamp, seed: int
) -> int:
    """Put a cold model in its place, which has learnt what happened up to `until`; its version."""
    sha = net.save(state)
    version = int(queue.get("version") or 0) + 1
    with queue.transaction() as con:
        con.execute(
            "UPDATE events SET learnt = CASE WHEN event_time <= ? THEN ? END",
            (_microseconds(until), version),
        )
        _set_model(queue, sha, version)
        queue.set("seed", seed)
    _remove_other_models(state, sha)
    return version


def _set_model(queue: Queue, sha: str, version: int) -> None:
    queue.set("model", sha)
    queue.set("version", version)


def _require_database(state: Path) -> None:
    if not (state / DATABASE).is_file():
        raise LabError(f"{state} has no model: run {TRAIN} first")


def _remove_other_models(state: Path, sha: str | None) -> None:
    """Remove all models but the database's."""
    kept = model_path(state, sha) if sha else None
    for path in state.glob("model-*.npz"):
        if path != kept:
            path.unlink(missing_ok=True)


def _remove_leftovers(queue: Queue, state: Path) -> None:
    """Remove what a killed run left."""
    for half_written in (*state.glob(".*.tmp"), *state.glob("rejects/.*.tmp")):
        half_written.unlink(missing_ok=True)
    _remove_other_models(state, queue.get("model"))


@contextmanager
def update_lock(state: Path, wait: float) -> Iterator[None]:
    """Be the only update of this state, after at most `wait` seconds.

    The lock dies with the process.
    """
    with _os_errors_explained(state):
        state.mkdir(parents=True, exist_ok=True)
        with (state / "lock").open("a") as file:
            deadline = time.monotonic() + wait
            while not _lock(file.fileno()):
                if time.monotonic() >= deadline:
                    raise Busy(
                        f"another update of {state} is running: run again when it has finished, "
                        "or give --wait SECONDS"
                    )
                time.sleep(0.05)
            yield


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _os_errors_explained(state: Path) -> Iterator[None]:
    """A full disk or a folder that may not be written becomes one sentence."""
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise LabError(
            f"{error.filename or state}: {reason}; free some space or allow this user to write, "
            "and run again; what was being written is undone"
        ) from error


def _microseconds(ts: pd.Timestamp) -> int:
    return int(np.datetime64(ts, "us").astype("int64"))


def _json(values: Sequence) -> str:
    return json.dumps(np.asarray(values).tolist())

"""From event files to a model and queues that agree: trained cold once, then updated delta by delta, killed at any moment or not."""

import fcntl
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
from tqdm import tqdm

from recsys_utils import LabError
from recsys_utils.data.registry import EVENT_WEIGHTS
from recsys_utils.models.purchase_net import PurchaseNet, labels, model_path
from recsys_utils.online.events import BadFile, EventFile, event_files
from recsys_utils.online.queue import Counts, Queue
from recsys_utils.store import atomic

DATABASE = "recommendation.db"
TRAIN = "python -m recsys_utils.online train --history FOLDER --state FOLDER"
ACTIVITY = """
SELECT user_id, item_id, SUM(event_type = 'view') AS view, SUM(event_type = 'cart') AS cart, SUM(event_type = 'remove_from_cart') AS remove_from_cart,
    SUM(event_type = 'purchase') AS purchase, MIN(event_time) AS first, MAX(event_time) AS last,
    (SELECT COALESCE(SUM(shown), 0) FROM log WHERE log.user_id = events.user_id AND log.item_id = events.item_id) AS counter
FROM events WHERE user_id IN (SELECT value FROM json_each(?)) GROUP BY user_id, item_id ORDER BY user_id, item_id"""
PAIRS = """
SELECT user_id, item_id, MAX(event_type = 'purchase') AS label FROM events WHERE event_time <= ?
GROUP BY user_id, item_id ORDER BY user_id, item_id"""


class Busy(LabError):
    """Another process is updating the same state."""


@dataclass
class UpdateResult:
    """What a run did. files: read to their end; skipped: unchanged since then; unfinished: to be read again; errors: files that were refused."""

    files: int = 0
    skipped: int = 0
    unfinished: int = 0
    counts: Counts = Counts(0, 0, 0, 0)
    rejected: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    version: int = 0

    def add(self, counts: Counts) -> None:
        """Add what became of one more piece."""
        self.counts = Counts(*map(sum, zip(self.counts, counts)))


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
    """Post a folder's events up to `until` and train the cold model on every event up to then; later ones are left to `apply_folder`.

    until, now: UTC without zone. params: of PurchaseNet. Done again, it starts a new model on all that is known by `until`, and what
    the database knows beyond is learnt by the next update. Raises Busy, or LabError for bad input; until the end the old model stands.
    """
    state, until = Path(state), until if until is not None else pd.Timestamp.max.floor("us")
    with _told(state):
        paths = event_files(history)
    with _alone(state, wait), Queue(state / DATABASE) as queue:
        _tidy(queue, state)
        report = UpdateResult()
        for path in tqdm(paths, "history", disable=None, leave=False):
            file = EventFile(path, now, state / "rejects", batch)
            for piece in _read(file, report):
                report.add(queue.post(piece[piece["ts"] <= until]))
        pairs = queue.read(PAIRS, (_micros(until),))
        if not len(pairs):
            raise LabError(
                f"{history} has no event up to {until}: {'; '.join(report.errors) or 'give a later --until or another folder'}"
            )
        _trained(queue, state, PurchaseNet.cold(pairs, seed, **params), until, seed)
        report.version = int(queue.get("version"))
    return report


def apply_folder(
    events: Path | str,
    state: Path | str,
    *,
    now: pd.Timestamp,
    batch: int = 50_000,
    wait: float = 0.0,
) -> UpdateResult:
    """Post and learn what is new in a folder of event files: safe to run at any time, as often as you like, and to kill.

    Files that have not changed since they were read to their end are skipped; of the others only unknown events count. A delta is at
    most `batch` lines of one file. Raises Busy if another process works on the state for longer than `wait` seconds, LabError for
    bad input; a file that cannot be read is named in `errors` and the others are applied.
    """
    state = Path(state)
    with _told(state):
        paths = event_files(events)
        _check(state)
    with _alone(state, wait), Queue(state / DATABASE) as queue:
        learner = Learner.of(queue, state)
        _tidy(queue, state)
        while len(
            fresh := queue.fresh(batch)
        ):  # posted by a service, or after the cold model's time
            learner.apply(fresh)
        report = UpdateResult()
        for path in tqdm(paths, "events", disable=None, leave=False):
            _apply_file(path, learner, report, now, batch)
        report.version = int(queue.get("version"))
    return report


def recommend(
    state: Path | str,
    *,
    at: pd.Timestamp,
    users: Sequence[str] | None = None,
    limit: int | None = None,
    n: int = 3,
) -> pd.DataFrame:
    """Show n products to each user and write out/recommendations.csv and out/activity.csv; the recommendations.

    users: any ids; else all that have a queue, at most `limit`. What is written was shown: counters and files change together.
    """
    state = Path(state)
    with _told(state):
        _check(state)
    with _told(state), Queue(state / DATABASE) as queue:
        if users is None:
            users = queue.read(
                "SELECT user_id FROM queue ORDER BY user_id LIMIT ?",
                (-1 if limit is None else limit,),
            )["user_id"]
        net = load_net(queue, state)
        with queue.transaction():
            shown = queue.recommend(users, n, net, at=at)
            for name, frame in (
                ("recommendations", shown.assign(at=at)),
                ("activity", activity(queue, users)),
            ):
                with atomic(state / "out" / f"{name}.csv") as temporary:
                    frame.to_csv(temporary, index=False)
    return shown


def activity(queue: Queue, users: Sequence[str]) -> pd.DataFrame:
    """What users did with products: user_id, item_id, number of each event type, first and last time, counter (times shown), score, purchased."""
    frame = queue.read(ACTIVITY, (_json(users),))
    frame[["first", "last"]] = frame[["first", "last"]].astype("datetime64[us]")
    return frame.assign(
        score=sum(weight * frame[name] for name, weight in EVENT_WEIGHTS.items()),
        purchased=frame["purchase"] > 0,
    )


def load_net(queue: Queue, state: Path) -> PurchaseNet:
    """The model that the database names, also while an update replaces it."""
    if (sha := queue.get("model")) is None:
        raise LabError(f"{state} has no model: run {TRAIN} first")
    try:
        return PurchaseNet.load(state, sha)
    except LabError:
        if queue.get("model") == sha:
            raise
        return load_net(queue, state)


@dataclass
class Learner:
    """The model and the database it belongs to."""

    queue: Queue
    state: Path
    net: PurchaseNet

    @classmethod
    def of(cls, queue: Queue, state: Path) -> Self:
        """The state as it stands."""
        return cls(queue, state, load_net(queue, state))

    def apply(self, delta: pd.DataFrame) -> Counts:
        """Post a delta and learn what of it no model has learnt: all of it, the model's file included, or nothing."""
        new = delta[~delta["event_id"].isin(self._learnt(delta["event_id"]))]
        if not len(new):
            return self.queue.post(delta)
        version = int(self.queue.get("version")) + 1
        net = self.net.updated(
            labels(new, self._bought(new["user_id"])), seed=int(self.queue.get("seed")) + version
        )
        sha = net.save(self.state)
        with self.queue.transaction():
            counts = self.queue.post(delta, learnt=version)
            self.queue.mark_learnt(new["event_id"], version)
            _name(self.queue, sha, version)
        self.net = net
        _sweep(self.state, sha)
        return counts

    def _learnt(self, event_ids: pd.Series) -> pd.Series:
        return self.queue.read(
            "SELECT event_id FROM events WHERE learnt IS NOT NULL AND event_id IN (SELECT value FROM json_each(?))",
            (_json(event_ids),),
        )["event_id"]

    def _bought(self, user_ids: pd.Series) -> pd.MultiIndex:
        pairs = self.queue.read(
            "SELECT user_id, item_id FROM purchases WHERE user_id IN (SELECT value FROM json_each(?))",
            (_json(user_ids.unique()),),
        )
        return pd.MultiIndex.from_frame(pairs)


def _apply_file(
    path: Path, learner: Learner, report: UpdateResult, now: pd.Timestamp, batch: int
) -> None:
    stat, key = path.stat(), f"file:{path.name}"
    mark = f"{stat.st_size} {stat.st_mtime_ns}"
    if learner.queue.get(key) == mark:
        report.skipped += 1
        return
    file, refused = EventFile(path, now, learner.state / "rejects", batch), len(report.errors)
    for piece in _read(file, report):
        report.add(learner.apply(piece))
    if file.complete and len(report.errors) == refused:
        learner.queue.set(key, mark)


def _read(file: EventFile, report: UpdateResult) -> Iterator[pd.DataFrame]:
    """The pieces of a file; what was refused, it or some of its lines, goes to the report."""
    try:
        yield from file
    except BadFile as error:
        report.errors.append(str(error))
    else:
        report.files += file.complete
        report.unfinished += not file.complete
    report.rejected += file.rejects.counts


def _trained(queue: Queue, state: Path, net: PurchaseNet, until: pd.Timestamp, seed: int) -> None:
    """Put a cold model in its place: it has learnt what happened up to `until`."""
    sha, version = net.save(state), int(queue.get("version") or 0) + 1
    with queue.transaction() as con:
        con.execute(
            "UPDATE events SET learnt = CASE WHEN event_time <= ? THEN ? END",
            (_micros(until), version),
        )
        _name(queue, sha, version)
        queue.set("seed", seed)
    _sweep(state, sha)


def _check(state: Path) -> None:
    if not (state / DATABASE).is_file():
        raise LabError(f"{state} has no model: run {TRAIN} first")


def _name(queue: Queue, sha: str, version: int) -> None:
    queue.set("model", sha)
    queue.set("version", version)


def _sweep(state: Path, sha: str | None) -> None:
    """Remove all models but the database's."""
    for old in set(state.glob("model-*.npz")) - {model_path(state, sha) if sha else None}:
        old.unlink(missing_ok=True)


def _tidy(queue: Queue, state: Path) -> None:
    """Remove what a killed run left."""
    for half in (*state.glob(".*.tmp"), *state.glob("rejects/.*.tmp")):
        half.unlink(missing_ok=True)
    _sweep(state, queue.get("model"))


@contextmanager
def _alone(state: Path, wait: float) -> Iterator[None]:
    """Be the only one to update this state, after at most `wait` seconds; the lock dies with the process."""
    with _told(state):
        state.mkdir(parents=True, exist_ok=True)
        with (state / "lock").open("a") as file:
            deadline = time.monotonic() + wait
            while not _locked(file.fileno()):
                if time.monotonic() >= deadline:
                    raise Busy(
                        f"another update of {state} is running: run again when it has finished, or give --wait SECONDS"
                    )
                time.sleep(0.05)
            yield


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _told(state: Path) -> Iterator[None]:
    """Say what the system refuses, a full disk or a folder that may not be written, in one sentence."""
    try:
        yield
    except OSError as error:
        where, why = error.filename or state, (error.strerror or str(error)).lower()
        raise LabError(
            f"{where}: {why}; free some space or allow this user to write, and run again; what was being written is undone"
        ) from error


def _micros(ts: pd.Timestamp) -> int:
    return int(np.datetime64(ts, "us").astype("int64"))


def _json(values: Sequence) -> str:
    return json.dumps(np.asarray(values).tolist())

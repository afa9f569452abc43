"""Event files in, canonical events out: read in pieces, every refused line counted by reason and kept."""

import csv
import gzip
import os
import zlib
from collections import Counter
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recsys_utils import LabError
from recsys_utils.data.registry import EVENT_TYPES
from recsys_utils.store import atomic

COLUMNS = ("event_id", "user_id", "item_id", "event_type", "ts", "category")
REQUIRED = ("user_id", "product_id", "event_time", "event_type")
OPTIONAL = ("event_id", "user_session", "category_code", "category_id")
LAYOUT = (
    "event_time",
    "event_type",
    "product_id",
    "category_id",
    "category_code",
    "brand",
    "price",
    "user_id",
    "user_session",
)
MAX_ID = 200  # characters
AHEAD, QUIET = (
    pd.Timedelta(days=1),
    pd.Timedelta(seconds=60),
)  # how fast a clock may be; how long a finished file has been still
TIME = r"^\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d{1,9})?)?)?(Z|[+-]\d\d:?\d\d)?$"


class BadFile(LabError):
    """A file that cannot be read as events; others can."""


class Rejects:
    """The lines of one file that were refused, in `<folder>/<file>.csv` (row, reason, line) once closed; no file where there are none."""

    def __init__(self, folder: Path, source: Path) -> None:
        self.path = folder / (source.name if source.suffix == ".csv" else f"{source.name}.csv")
        self.counts: Counter[str] = Counter()
        self._temporary = self.path.with_name(f".{self.path.name}.tmp")

    def add(self, rows: np.ndarray, reasons: np.ndarray, lines: pd.Series) -> None:
        """Keep lines under their row numbers; bytes that are not utf-8 are written as \\x…"""
        first = not self.counts
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept = pd.DataFrame({"row": rows, "reason": reasons, "line": lines})
        kept.to_csv(
            self._temporary,
            mode="w" if first else "a",
            header=first,
            index=False,
            lineterminator="\n",
        )
        self.counts.update(reasons)

    def close(self) -> None:
        """Put the file in its place, or remove one that an earlier reading left."""
        if self.counts:
            os.replace(self._temporary, self.path)
        for old in [self._temporary] + [self.path] * (not self.counts):
            old.unlink(missing_ok=True)


class EventFile:
    """A .csv or .csv.gz file as canonical events, `rows` lines at a time, each piece in the order (ts, event_id).

    A line is one event: a quoted field may hold commas but no line break, so a quote that is never closed costs one line. Columns user_id,
    product_id, event_time (UTC unless it says otherwise) and event_type in any order; event_id, user_session, category_code, category_id are
    used if there, others ignored. Afterwards `rejects.counts` says what was refused, and `complete` is False where the last line seemed to be
    still in writing. Errors: a file that has no such column, cannot be read or is damaged gzip.
    """

    def __init__(self, path: Path, now: pd.Timestamp, rejects: Path, rows: int = 50_000) -> None:
        if rows < 1:
            raise LabError(f"rows = {rows}: read at least one line at a time")
        self.path, self.now, self.folder, self.rows = Path(path), now, rejects, rows

    def __iter__(self) -> Iterator[pd.DataFrame]:
        self.rejects, self.complete, damage = Rejects(self.folder, self.path), True, None
        try:
            with self._opened() as file:
                yield from self._pieces(file)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            self.complete, damage = False, error
        self.rejects.close()
        if damage and not self._in_writing():
            raise BadFile(
                f"{self.path} is a damaged or truncated gzip file ({damage}): fetch it again"
            ) from damage

    def _opened(self) -> BinaryIO:
        try:
            return gzip.open(self.path) if self.path.suffix == ".gz" else self.path.open("rb")
        except OSError as error:
            raise BadFile(
                f"{self.path} cannot be read ({error.strerror}): allow this user to read it"
            ) from error

    def _pieces(self, file: BinaryIO) -> Iterator[pd.DataFrame]:
        header = file.readline()
        if not header.endswith(b"\n") and self._in_writing():
            self.complete = False
            return
        self._header(header)
        for first in count(1, self.rows):
            lines = list(islice(file, self.rows))
            if lines and not lines[-1].endswith(b"\n") and self._in_writing():
                self.complete = False
                lines.pop()
            if not lines:
                return
            yield self._events(lines, first)

    def _in_writing(self) -> bool:
        """Whether the file was changed within the last minute."""
        return abs(self.now - pd.Timestamp(self.path.stat().st_mtime_ns)) < QUIET

    def _header(self, line: bytes) -> None:
        try:
            names = [name.strip() for name in _record(line.decode("utf-8-sig").rstrip("\r\n"))]
        except UnicodeDecodeError as error:
            raise BadFile(f"{self.path} is not utf-8: save it as utf-8") from error
        if missing := [name for name in REQUIRED if name not in names]:
            has = ", ".join(names)[:200] or "no header"
            raise BadFile(
                f"{self.path} has no column {', '.join(missing)}, it has {has}: event files need {', '.join(REQUIRED)}"
            )
        if twice := [name for name in (*REQUIRED, *OPTIONAL) if names.count(name) > 1]:
            raise BadFile(f"{self.path} has the column '{twice[0]}' twice: rename one")
        self._width, self._place = (
            len(names),
            {name: names.index(name) for name in (*REQUIRED, *OPTIONAL) if name in names},
        )

    def _events(self, lines: list[bytes], first: int) -> pd.DataFrame:
        """The good lines; the others go to the rejects."""
        text, damaged = _decoded(lines)
        fields = _split(text)
        reason = np.where(
            damaged,
            "not utf-8",
            np.where(
                pc.not_equal(pc.list_value_length(fields), self._width),
                f"not {self._width} fields",
                "",
            ),
        )
        blank, whole = np.asarray(pc.equal(pc.utf8_length(text), 0)), reason == ""
        raw = self._columns(fields.filter(pa.array(whole)))
        reason = reason.astype(object)
        reason[whole], ts = _faults(raw, self.now, "event_id" in self._place)
        if (refused := (reason != "") & ~blank).any():
            self.rejects.add(
                first + np.flatnonzero(refused),
                reason[refused],
                text.filter(pa.array(refused)).to_pandas().to_numpy(object),
            )
        return _canonical(raw, ts, reason[whole] == "")

    def _columns(self, fields: pa.ListArray) -> dict[str, pa.StringArray]:
        """The columns in use, trimmed; one that the file lacks is empty."""
        flat, absent = fields.flatten(), pa.array([""] * len(fields), pa.string())
        taken = {
            name: flat.take(pa.array(np.arange(place, len(flat), self._width)))
            for name, place in self._place.items()
        }
        return {
            name: pc.utf8_trim_whitespace(taken[name]) if name in taken else absent
            for name in (*REQUIRED, *OPTIONAL)
        }


def event_files(folder: Path) -> list[Path]:
    """The .csv and .csv.gz files of a folder by name; LabError if it has none."""
    if not Path(folder).is_dir():
        raise LabError(f"{folder} is no folder: give the one with the event files")
    found = sorted(
        path
        for path in Path(folder).iterdir()
        if path.name.endswith((".csv", ".csv.gz")) and path.name[0] != "." and path.is_file()
    )
    if not found:
        raise LabError(
            f"{folder} has no .csv or .csv.gz file: give the folder with the event files"
        )
    return found


def event_ids(
    user_id: pd.Series,
    item_id: pd.Series,
    event_type: pd.Series,
    ts: pd.Series,
    session: pd.Series | str = "",
    own: pd.Series | str = "",
) -> np.ndarray:
    """(n,) int64, 63 bits of a hash of the event: one that is delivered twice is the same event. own: the sender's ids, "" for none."""
    session, own = ([x] * len(ts) if isinstance(x, str) else x for x in (session, own))
    parts = [
        pa.array(x, pa.string())
        for x in (user_id, item_id, event_type, _micros(ts).astype(str), session)
    ]
    own = pa.array(own, pa.string())
    return np.where(
        pc.not_equal(own, ""), _hashed(own), _hashed(pc.binary_join_element_wise(*parts, "\x1f"))
    )


def write_csv(
    events: pd.DataFrame, items: pd.DataFrame, folder: Path, daily: bool = True
) -> list[Path]:
    """Write events as a CSV per day, or as one, in the cosmetics shop's layout; the paths. Ids and sessions follow from the rows alone.

    events: user_id, item_id, event_type, ts. items: item_id, category, and subcategory, brand, price where there are any.
    """
    about = items.drop_duplicates("item_id").set_index("item_id")
    code = (
        about.reindex(columns=["category", "subcategory"])
        .fillna("")
        .agg(".".join, axis=1)
        .str.strip(".")
        .str.lower()
        .str.replace(" ", "_")
    )
    about, code = about.reindex(events["item_id"]), code.reindex(events["item_id"], fill_value="")
    day = events["ts"].dt.strftime("%Y-%m-%d")
    table = pd.DataFrame(
        {
            "event_time": events["ts"].dt.strftime("%Y-%m-%d %H:%M:%S UTC"),
            "event_type": events["event_type"],
            "product_id": events["item_id"],
            "category_id": (pd.util.hash_array(code.to_numpy(object)) >> 4).astype(str),
            "category_code": code.to_numpy(),
            "brand": about["brand"].to_numpy() if "brand" in about else "",
            "price": about["price"].to_numpy() if "price" in about else 0.0,
            "user_id": events["user_id"],
            "user_session": np.char.mod(
                "%016x", pd.util.hash_array((events["user_id"] + day).to_numpy(object))
            ),
        }
    )
    paths = []
    for name, rows in table[list(LAYOUT)].groupby(
        day if daily else np.full(len(table), "events"), sort=True
    ):
        paths.append(Path(folder) / f"{name}.csv")
        with atomic(paths[-1]) as temporary:
            rows.to_csv(temporary, index=False)
    return paths


def _decoded(lines: list[bytes]) -> tuple[pa.StringArray, np.ndarray]:
    """Lines as text without their ends, and (n,) bool which were not utf-8."""
    try:
        made = pa.array(lines, pa.binary()).cast(pa.string())
        damaged = np.zeros(len(lines), bool)
    except pa.ArrowInvalid:
        texts = [line.decode("utf-8", "backslashreplace") for line in lines]
        made, damaged = (
            pa.array(texts, pa.string()),
            np.array([text.encode() != line for text, line in zip(texts, lines)]),
        )
    return pc.utf8_rtrim(made, "\r\n"), damaged


def _split(text: pa.StringArray) -> pa.ListArray:
    """Fields of every line; the fast way where no line of the piece has a quote."""
    if pc.any(pc.match_substring(text, '"')).as_py():
        return pa.array(map(_record, text.to_pylist()), pa.list_(pa.string()), size=len(text))
    return pc.split_pattern(text, ",")


def _record(line: str) -> list[str]:
    try:
        return next(csv.reader([line], strict=True), [])
    except csv.Error:  # a quote that is never closed
        return []


def _faults(
    raw: dict[str, pa.StringArray], now: pd.Timestamp, own_id: bool
) -> tuple[np.ndarray, pd.Series]:
    """(n,) the first rule that a row breaks, or "", and the times."""
    ids = ("user_id", "product_id", *(["event_id"] if own_id else []))
    written = pc.replace_substring_regex(raw["event_time"], " ?UTC$", "Z")
    ts = pd.to_datetime(
        written.to_pandas().where(np.asarray(pc.match_substring_regex(written, TIME))),
        format="ISO8601",
        utc=True,
        errors="coerce",
    )
    ts = ts.dt.tz_localize(None).astype("datetime64[us]")
    rules = {f"{name} is empty": pc.equal(raw[name], "") for name in ids}
    kept = (*ids, "category_code", "category_id")
    rules |= {
        f"{name} is longer than {MAX_ID} characters": pc.greater(pc.utf8_length(raw[name]), MAX_ID)
        for name in kept
    }
    rules |= {
        f"{name} has control characters": pc.match_substring_regex(raw[name], r"\p{Cc}")
        for name in kept
    }
    rules |= {
        "event_time is no time like 2019-10-01 00:00:00 UTC": ts.isna(),
        "event_time is from the future": ts > now + AHEAD,
        f"event_type is none of {', '.join(EVENT_TYPES)}": pc.invert(
            pc.is_in(raw["event_type"], pa.array(EVENT_TYPES))
        ),
    }
    return np.select(
        [np.asarray(broken, bool) for broken in rules.values()],
        [np.array(why, object) for why in rules],
        np.array("", object),
    ), ts


def _canonical(raw: dict[str, pa.StringArray], ts: pd.Series, good: np.ndarray) -> pd.DataFrame:
    """The good rows as canonical events in the order (ts, event_id)."""
    raw, ts = (
        {name: column.filter(pa.array(good)) for name, column in raw.items()},
        ts[good].reset_index(drop=True),
    )
    made = event_ids(
        raw["user_id"],
        raw["product_id"],
        raw["event_type"],
        ts,
        raw["user_session"],
        raw["event_id"],
    )
    category = pc.if_else(
        pc.equal(raw["category_code"], ""), raw["category_id"], raw["category_code"]
    )
    frame = pd.DataFrame(
        {
            "event_id": made,
            "user_id": raw["user_id"].to_pandas(),
            "item_id": raw["product_id"].to_pandas(),
            "event_type": raw["event_type"].to_pandas(),
            "ts": ts,
            "category": category.to_pandas(),
        }
    )
    return frame.sort_values(["ts", "event_id"], ignore_index=True)


def _hashed(text: pa.StringArray) -> np.ndarray:
    return (
        pd.util.hash_array(text.to_numpy(zero_copy_only=False), categorize=False) >> np.uint64(1)
    ).astype(np.int64)


def _micros(ts: pd.Series) -> pd.Series:
    return ts.astype("datetime64[us]").astype("int64")

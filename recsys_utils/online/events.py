"""Event files in, canonical events out: read in pieces; every refused line is counted and kept."""

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

# Columns of the canonical events that are read here.
COLUMNS = ("event_id", "user_id", "item_id", "event_type", "ts", "category")
# Columns of event files.
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
AHEAD = pd.Timedelta(days=1)  # how fast a clock may be
QUIET = pd.Timedelta(seconds=60)  # how long a finished file has not been changed
TIME = r"^\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d{1,9})?)?)?(Z|[+-]\d\d:?\d\d)?$"


class BadFile(LabError):
    """A file that cannot be read as events; others can."""


class Rejects:
    """The refused lines of one file, in `<folder>/<file>.csv` (row, reason, line) once closed.

    There is no file where there are no such lines.
    """

    def __init__(self, folder: Path, source: Path) -> None:
        name = source.name if source.suffix == ".csv" else f"{source.name}.csv"
        self.path = folder / name
        self.counts: Counter[str] = Counter()
        self._temporary = folder / f".{name}.tmp"

    def add(self, rows: np.ndarray, reasons: np.ndarray, lines: pd.Series) -> None:
        """Keep lines under their row numbers; bytes that are not utf-8 are written as \\x…"""
        is_first = not self.counts
        self.path.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame({"row": rows, "reason": reasons, "line": lines}).to_csv(
            self._temporary,
            mode="w" if is_first else "a",
            header=is_first,
            index=False,
            lineterminator="\n",
        )
        self.counts.update(reasons)

    def close(self) -> None:
        """Put the file in its place, or remove one that an earlier reading left."""
        if self.counts:
            os.replace(self._temporary, self.path)
        else:
            self._temporary.unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)


class EventFile:
    """A .csv or .csv.gz file as canonical events, in pieces, each in the order (ts, event_id).

    A line is one event: a quoted field may hold commas but no line break, so a quote that is never
    closed costs one line. Columns in any order: user_id, product_id, event_time (UTC unless it says
    otherwise) and event_type; event_id, user_session, category_code, category_id are used if there,
    others ignored.

    path: the file. now: UTC without zone; later events and files still being written are told by
    it. rejects: the folder for refused lines. rows: the most lines of one piece.
    After reading, `rejects.counts` has what was refused, and `complete` is False where the last
    line seemed to be still in writing.
    Raises BadFile where a column is missing, the file cannot be read or is damaged gzip.
    """

    def __init__(self, path: Path, now: pd.Timestamp, rejects: Path, rows: int = 50_000) -> None:
        if rows < 1:
            raise LabError(f"rows = {rows}: read at least one line at a time")
        self.path = Path(path)
        self.now = now
        self.folder = rejects
        self.rows = rows

    def __iter__(self) -> Iterator[pd.DataFrame]:
        self.rejects = Rejects(self.folder, self.path)
        self.complete = True
        damage = None
        try:
            with self._open() as file:
                yield from self._pieces(file)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            self.complete = False
            damage = error
        self.rejects.close()
        if damage and not self._in_writing():
            raise BadFile(
                f"{self.path} is a damaged or truncated gzip file ({damage}): fetch it again"
            ) from damage

    def _open(self) -> BinaryIO:
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
        self._read_header(header)
        for first_row in count(1, self.rows):
            lines = list(islice(file, self.rows))
            if lines and not lines[-1].endswith(b"\n") and self._in_writing():
                self.complete = False
                lines.pop()
            if not lines:
                return
            yield self._events(lines, first_row)

    def _in_writing(self) -> bool:
        """Whether the file was changed within the last minute."""
        return abs(self.now - pd.Timestamp(self.path.stat().st_mtime_ns)) < QUIET

    def _read_header(self, line: bytes) -> None:
        """Note where each column stands."""
        try:
            text = line.decode("utf-8-sig").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise BadFile(f"{self.path} is not utf-8: save it as utf-8") from error
        names = [name.strip() for name in _fields_of(text)]
        missing = [name for name in REQUIRED if name not in names]
        if missing:
            existing = ", ".join(names)[:200] or "no header"
            raise BadFile(
                f"{self.path} has no column {', '.join(missing)}, it has {existing}: "
                f"event files need {', '.join(REQUIRED)}"
            )
        self._width = len(names)
        self._place: dict[str, int] = {}
        for name in (*REQUIRED, *OPTIONAL):
            if names.count(name) > 1:
                raise BadFile(f"{self.path} has the column '{name}' twice: rename one")
            if name in names:
                self._place[name] = names.index(name)

    def _events(self, lines: list[bytes], first_row: int) -> pd.DataFrame:
        """The good lines; the others go to the rejects."""
        text, is_damaged = _decode(lines)
        fields = _split(text)
        has_other_width = np.asarray(pc.not_equal(pc.list_value_length(fields), self._width))
        reason = np.full(len(lines), "", dtype=object)
        reason[has_other_width] = f"not {self._width} fields"
        reason[is_damaged] = "not utf-8"
        is_whole = reason == ""
        raw = self._columns(fields.filter(pa.array(is_whole)))
        reason[is_whole], ts = _check_rows(raw, self.now, "event_id" in self._place)
        is_blank = np.asarray(pc.equal(pc.utf8_length(text), 0))
        is_refused = (reason != "") & ~is_blank
        if is_refused.any():
            refused_lines = text.filter(pa.array(is_refused)).to_pandas().to_numpy(object)
            rows = first_row + np.flatnonzero(is_refused)
            self.rejects.add(rows, reason[is_refused], refused_lines)
        return _canonical(raw, ts, reason[is_whole] == "")

    def _columns(self, fields: pa.ListArray) -> dict[str, pa.StringArray]:
        """The columns in use, trimmed; one that the file lacks is empty."""
        flat = fields.flatten()
        columns = {}
        for name in (*REQUIRED, *OPTIONAL):
            if name in self._place:
                cells = np.arange(self._place[name], len(flat), self._width)
                columns[name] = pc.utf8_trim_whitespace(flat.take(pa.array(cells)))
            else:
                columns[name] = pa.array([""] * len(fields), pa.string())
        return columns


def event_files(folder: Path) -> list[Path]:
    """The .csv and .csv.gz files of a folder by name; LabError if it has none."""
    if not Path(folder).is_dir():
        raise LabError(f"{folder} is no folder: give the one with the event files")
    files = []
    for path in sorted(Path(folder).iterdir()):
        is_csv = path.name.endswith((".csv", ".csv.gz"))
        if is_csv and not path.name.startswith(".") and path.is_file():
            files.append(path)
    if not files:
        raise LabError(
            f"{folder} has no .csv or .csv.gz file: give the folder with the event files"
        )
    return files


def event_ids(
    user_id: pd.Series,
    item_id: pd.Series,
    event_type: pd.Series,
    ts: pd.Series,
    session: pd.Series | str = "",
    own: pd.Series | str = "",
) -> np.ndarray:
    """(n,) int64, 63 bits of a hash of each event: one that comes twice is the same event.

    session: of the sender, "" for none. own: the sender's ids, "" for none; these are then hashed
    with the shopper's instead of the rest, so that two shoppers may have the same.
    """
    if isinstance(session, str):
        session = [session] * len(ts)
    if isinstance(own, str):
        own = [own] * len(ts)
    time = ts.astype("datetime64[us]").astype("int64").astype(str)
    parts = [pa.array(part, pa.string()) for part in (user_id, item_id, event_type, time, session)]
    own = pa.array(own, pa.string())
    named = _hash(pc.binary_join_element_wise(parts[0], own, "\x1f"))
    plain = _hash(pc.binary_join_element_wise(*parts, "\x1f"))
    return np.where(pc.not_equal(own, ""), named, plain)


def write_csv(
    events: pd.DataFrame, items: pd.DataFrame, folder: Path, daily: bool = True
) -> list[Path]:
    """Write events as a CSV per day, or as one, in the cosmetics shop's layout; the paths.

    Ids of categories and sessions follow from the rows alone.

    events: user_id, item_id, event_type, ts. items: item_id, category, and subcategory, brand,
    price where there are any.
    """
    items = items.drop_duplicates("item_id").set_index("item_id")
    names = items.reindex(columns=["category", "subcategory"]).fillna("")
    code = names.agg(".".join, axis=1).str.strip(".").str.lower().str.replace(" ", "_")
    code = code.reindex(events["item_id"], fill_value="")
    items = items.reindex(events["item_id"])
    day = events["ts"].dt.strftime("%Y-%m-%d")
    session = pd.util.hash_array((events["user_id"] + day).to_numpy(object))
    table = pd.DataFrame(
        {
            "event_time": events["ts"].dt.strftime("%Y-%m-%d %H:%M:%S UTC"),
            "event_type": events["event_type"],
            "product_id": events["item_id"],
            "category_id": (pd.util.hash_array(code.to_numpy(object)) >> 4).astype(str),
            "category_code": code.to_numpy(),
            "brand": items["brand"].to_numpy() if "brand" in items else "",
            "price": items["price"].to_numpy() if "price" in items else 0.0,
            "user_id": events["user_id"],
            "user_session": np.char.mod("%016x", session),
        }
    )
    file_of_row = day if daily else np.full(len(table), "events")
    paths = []
    for name, rows in table[list(LAYOUT)].groupby(file_of_row, sort=True):
        path = Path(folder) / f"{name}.csv"
        with atomic(path) as temporary:
            rows.to_csv(temporary, index=False)
        paths.append(path)
    return paths


def _decode(lines: list[bytes]) -> tuple[pa.StringArray, np.ndarray]:
    """Lines as text without their ends, and (n,) bool which were not utf-8."""
    try:
        text = pa.array(lines, pa.binary()).cast(pa.string())
        is_damaged = np.zeros(len(lines), bool)
    except pa.ArrowInvalid:
        decoded = [line.decode("utf-8", "backslashreplace") for line in lines]
        text = pa.array(decoded, pa.string())
        is_damaged = np.array([new.encode() != line for new, line in zip(decoded, lines)])
    return pc.utf8_rtrim(text, "\r\n"), is_damaged


def _split(text: pa.StringArray) -> pa.ListArray:
    """Fields of every line; the fast way where no line of the piece has a quote."""
    if pc.any(pc.match_substring(text, '"')).as_py():
        fields = [_fields_of(line) for line in text.to_pylist()]
        return pa.array(fields, pa.list_(pa.string()))
    return pc.split_pattern(text, ",")


def _fields_of(line: str) -> list[str]:
    try:
        return next(csv.reader([line], strict=True), [])
    except csv.Error:
        return []  # a quote that is never closed


def _check_rows(
    raw: dict[str, pa.StringArray], now: pd.Timestamp, has_own_id: bool
) -> tuple[np.ndarray, pd.Series]:
    """(n,) the first rule that a row breaks, or "", and the times."""
    ts = _times(raw["event_time"])
    ids = ["user_id", "product_id"]
    if has_own_id:
        ids.append("event_id")
    kept = [*ids, "category_code", "category_id"]
    rules = {}
    for name in ids:
        rules[f"{name} is empty"] = pc.equal(raw[name], "")
    for name in kept:
        is_long = pc.greater(pc.utf8_length(raw[name]), MAX_ID)
        rules[f"{name} is longer than {MAX_ID} characters"] = is_long
    for name in kept:
        rules[f"{name} has control characters"] = pc.match_substring_regex(raw[name], r"\p{Cc}")
    rules["event_time is no time like 2019-10-01 00:00:00 UTC"] = ts.isna()
    rules["event_time is from the future"] = ts > now + AHEAD
    is_known = pc.is_in(raw["event_type"], pa.array(EVENT_TYPES))
    rules[f"event_type is none of {', '.join(EVENT_TYPES)}"] = pc.invert(is_known)
    is_broken = [np.asarray(rule, bool) for rule in rules.values()]
    reasons = [np.array(reason, object) for reason in rules]
    return np.select(is_broken, reasons, np.array("", object)), ts


def _times(text: pa.StringArray) -> pd.Series:
    """Times in UTC without zone, NaT where a text is none."""
    text = pc.replace_substring_regex(text, " ?UTC$", "Z")
    is_time = np.asarray(pc.match_substring_regex(text, TIME))
    ts = pd.to_datetime(
        text.to_pandas().where(is_time), format="ISO8601", utc=True, errors="coerce"
    )
    return ts.dt.tz_localize(None).astype("datetime64[us]")


def _canonical(raw: dict[str, pa.StringArray], ts: pd.Series, is_good: np.ndarray) -> pd.DataFrame:
    """The good rows as canonical events in the order (ts, event_id)."""
    good = {name: column.filter(pa.array(is_good)) for name, column in raw.items()}
    ts = ts[is_good].reset_index(drop=True)
    ids = event_ids(
        good["user_id"],
        good["product_id"],
        good["event_type"],
        ts,
        good["user_session"],
        good["event_id"],
    )
    has_no_code = pc.equal(good["category_code"], "")
    category = pc.if_else(has_no_code, good["category_id"], good["category_code"])
    frame = pd.DataFrame(
        {
            "event_id": ids,
            "user_id": good["user_id"].to_pandas(),
            "item_id": good["product_id"].to_pandas(),
            "event_type": good["event_type"].to_pandas(),
            "ts": ts,
            "category": category.to_pandas(),
        }
    )
    return frame.sort_values(["ts", "event_id"], ignore_index=True)


def _hash(text: pa.StringArray) -> np.ndarray:
    codes = pd.util.hash_array(text.to_numpy(zero_copy_only=False), categorize=False)
    return (codes >> np.uint64(1)).astype(np.int64)

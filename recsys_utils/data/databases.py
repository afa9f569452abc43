"""Receipts in a database: read once, read only, in chunks, into the engine's own tables.

Every value comes over as text, as the database prints it, and the engine casts it to the column's
type: so ids keep their zeros, big integers their digits and decimals their cents.
"""

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

import ibis
import pyarrow as pa
from ibis.expr.types import Table

from recsys_utils import LabError
from recsys_utils.data import urls
from recsys_utils.data.drivers import ANY, NUMBER, Session, open_session
from recsys_utils.data.engine import count, identifier, mentions
from recsys_utils.data.registry import Source, Spec

CHUNK = 50_000  # rows


@dataclass(frozen=True)
class Origin:
    """What messages call the rows of a database; it stands where a file's path would."""

    url: str
    name: str

    def __str__(self) -> str:
        return f"{self.name} of {self.url}"


def read(con: ibis.BaseBackend, source: Source, origin: Source, spec: Spec) -> tuple[Table, Origin]:
    """The rows of the database that `origin` names, as a table of the engine.

    Only columns that `source` mentions are fetched, all of them where copies are to be dropped.
    Raises LabError where the connection, the table or the query fails.
    """
    place = _place(origin)
    with open_session(origin, spec) as session, _explained(place, origin):
        names = _columns(session, origin, place)
        _check_mapped(names, source, place)
        wanted = names if origin.drop_copies else _mentioned(names, source)
        raw = _fetch(con, session, _statement(session, origin, wanted), wanted, source)
        if count(raw) == 0:
            raise LabError(f"{place} has no rows")
    return raw, place


def stamps(sources: list[Source], spec: Spec) -> list[dict]:
    """What tells that the rows of each database source changed.

    It holds the number of rows and the latest ts or order. A source without either has a checksum
    of its rows instead, and SQLite the size and time of its file too. All values are text.
    """
    return [_stamp(source, spec) for source in sources if urls.database(source.url)]


def _stamp(source: Source, spec: Spec) -> dict:
    place = _place(source)
    with open_session(source, spec) as session, _explained(place, source):
        rows = _rows_of(session, source)
        names = _columns(session, source, place)
        times = [source.columns[c] for c in ("ts", "order") if c in source.columns]
        latest = [name for name in names if any(mentions(time, name) for time in times)]
        parts = ["count(*)", *(f"max({session.quoted(name)})" for name in latest)]
        if not latest:
            parts.append(session.checksum(_mentioned(names, source)))
        values = session.first(f"SELECT {', '.join(parts)} FROM {rows}")
        state = [str(value) for value in [*session.file_state(), *values]]
    asked = {"table": source.table} if source.table else {"query": source.query}
    return {"url": source.url, **asked, "state": state}


def _place(source: Source) -> Origin:
    return Origin(source.url, f"table {source.table}" if source.table else "query")


@contextmanager
def _explained(place: Origin, source: Source) -> Iterator[None]:
    """One sentence, without secrets, for whatever a driver says."""
    try:
        yield
    except LabError:
        raise
    except Exception as error:
        why = urls.one_line(error, source.url)
        cure = "check the name and the right to read it" if source.table else "correct the query"
        # `from None`: the driver's own error may hold the password.
        raise LabError(f"{place} cannot be read: {why}: {cure}") from None


def _rows_of(session: Session, source: Source) -> str:
    """What stands behind FROM."""
    if source.table:
        return ".".join(session.quoted(part.strip()) for part in source.table.split("."))
    return f"({urls.statement(source.query, session.kind)}) AS receipts"


def _statement(session: Session, source: Source, names: list[str]) -> str:
    """The query as it stands, because its ORDER BY may count, or the columns of the table."""
    if source.query:
        return urls.statement(source.query, session.kind)
    columns = ", ".join(session.quoted(name) for name in names)
    return f"SELECT {columns} FROM {_rows_of(session, source)}"


def _mentioned(names: list[str], source: Source) -> list[str]:
    """The columns that a mapping or a rule uses; all where it uses none."""
    used = [*source.columns.values(), *source.reject.values(), *source.only.values()]
    found = [name for name in names if any(mentions(text, name) for text in used)]
    return found or names


def _columns(session: Session, source: Source, place: Origin) -> list[str]:
    names = session.columns(_rows_of(session, source))
    if twice := [name for name, n in Counter(names).items() if n > 1]:
        raise LabError(f"{place} has the column '{twice[0]}' twice: rename one of them with AS")
    return names


def _check_mapped(names: list[str], source: Source, place: Origin) -> None:
    """A mapping to a plain name needs that column.

    The readers would say the same, but they see only the columns that were fetched.
    """
    known = {name.lower() for name in names}
    for name, value in source.columns.items():
        is_plain = re.fullmatch(r"[^\W\d]\w*", value)
        if is_plain and value.lower() not in known:
            raise LabError(
                f"{place} has no column '{value}' (mapped to {name.split('__')[-1]}), it has"
                f" {', '.join(names)}"
            )


def _fetch(
    con: ibis.BaseBackend, session: Session, sql: str, wanted: list[str], source: Source
) -> Table:
    """Copy the wanted columns of a statement's result into a temporary table."""
    ids = source.ids.values()
    with closing(session.stream(sql)) as cursor:
        rows = cursor.fetchmany(CHUNK)
        position = {column[0]: i for i, column in enumerate(cursor.description)}
        types = {c: session.type_of(cursor.description[position[c]]) for c in wanted}
        copy = _Copy(con, types | {c: "VARCHAR" for c in wanted if c in ids})
        while rows:
            copy.append({c: [row[position[c]] for row in rows] for c in wanted})
            rows = cursor.fetchmany(CHUNK)
    copy.narrow()
    return con.table(copy.name, database=("temp", "main"))


class _Copy:
    """A temporary table of the engine that grows by chunks of values."""

    def __init__(self, con: ibis.BaseBackend, types: dict[str, str]) -> None:
        self.con = con.con
        self.name = ibis.util.gen_name("raw")
        self.types = types
        self.seen = {column: set() for column in types}  # the driver's Python types
        self.stored = {c: "VARCHAR" if t in (NUMBER, ANY) else t for c, t in types.items()}
        columns = ", ".join(f"{identifier(c)} {kind}" for c, kind in self.stored.items())
        self.con.execute(f"CREATE TEMP TABLE {self.name} ({columns})")

    def append(self, chunk: dict[str, list]) -> None:
        """Cast the columns of a chunk to their types and add them."""
        texts = {column: self._texts(column, values) for column, values in chunk.items()}
        casts = ", ".join(f"CAST({identifier(c)} AS {kind})" for c, kind in self.stored.items())
        view = f"{self.name}_chunk"
        self.con.register(view, pa.table(texts))
        self.con.execute(f"INSERT INTO {self.name} SELECT {casts} FROM {view}")
        self.con.unregister(view)

    def narrow(self) -> None:
        """Give columns of numbers in text the narrowest type that is exact."""
        for column, kind in self.types.items():
            only_numbers = bool(self.seen[column]) and self.seen[column] <= {int, float}
            if kind == NUMBER or (kind == ANY and only_numbers):
                exact = self._number_type(column)
                self.con.execute(f"ALTER TABLE {self.name} ALTER {identifier(column)} TYPE {exact}")

    def _texts(self, column: str, values: list) -> pa.Array:
        self.seen[column] |= {type(value) for value in values if value is not None}
        if bytes in self.seen[column]:
            raise LabError(
                f"column '{column}' of the database holds binary values: map another, or turn it"
                " into text by a query"
            )
        return pa.array([None if value is None else str(value) for value in values], pa.string())

    def _number_type(self, column: str) -> str:
        """BIGINT, HUGEINT or DECIMAL with all digits; DOUBLE for floats and beyond 38 digits."""
        cell = identifier(column)
        whole, scale, is_plain = self.con.execute(
            f"SELECT max(length(ltrim(split_part({cell}, '.', 1), '-'))),"
            f" max(length(split_part({cell}, '.', 2))),"
            f" bool_and(regexp_full_match({cell}, '-?\\d+(\\.\\d+)?')) FROM {self.name}"
        ).fetchone()
        if not is_plain or float in self.seen[column] or whole + scale > 38:
            return "DOUBLE"
        if scale == 0:
            return "BIGINT" if whole <= 18 else "HUGEINT"
        return f"DECIMAL({18 if whole + scale <= 18 else 38}, {scale})"

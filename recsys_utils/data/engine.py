"""The relational engine: Ibis on DuckDB in this process, or on a Spark Connect server.

Expressions are written once; what differs between engines stands here and in `spark`. Models never
see an engine: they get frames and arrays.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ibis
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from ibis.expr.types import Table

from recsys_utils import LabError
from recsys_utils.data import spark
from recsys_utils.memory import engine_limits
from recsys_utils.store import atomic, home

PLACE = "file_row_number"  # as DuckDB calls it
MICROSECONDS = "timestamp(6)"  # as fine as times are anywhere in the lab
ENGINES = ("duckdb", "sail", "sc://host:port")


def connect() -> ibis.BaseBackend:
    """Open the engine that `$RECSYS_ENGINE` names (default duckdb).

    Raises LabError for a name that is unknown, a package that is missing, and a server that does
    not answer, is too old, or does not see the lab's files.
    """
    name = chosen()
    if name == "duckdb":
        return local()
    if name == "sail" or name.startswith("sc://"):
        return spark.connect(name)
    raise LabError(
        f"engine '{name}' is unknown: RECSYS_ENGINE (or --engine) takes {', '.join(ENGINES[:-1])}"
        f" or {ENGINES[-1]}"
    )


def chosen() -> str:
    """The name in `$RECSYS_ENGINE`, or the default."""
    return os.environ.get("RECSYS_ENGINE") or "duckdb"


def local() -> ibis.BaseBackend:
    """DuckDB in this process: it reads raw files, and runs the SQL of a shop's TOML."""
    con = ibis.duckdb.connect()
    con.raw_sql("PRAGMA disable_progress_bar")  # it would write into notebooks
    con.raw_sql("SET TimeZone = 'UTC'")  # times with a zone become UTC, wherever this runs
    for limit in engine_limits(home() / "data"):
        con.raw_sql(limit)
    return con


def reader(con: ibis.BaseBackend) -> ibis.BaseBackend:
    """The DuckDB that reads raw files for an engine: the engine itself, or one beside it."""
    return con if _is_local(con) else local()


def keep(expression: Table) -> Table:
    """Compute an expression once, where its tables are; the result is there until the process ends.

    DuckDB keeps it as a temporary table, a server as parquet below `data/.engine-…`.
    """
    con = expression.get_backend()
    if _is_local(con):
        return con.create_table(ibis.util.gen_name("kept"), expression, temp=True)
    return _read(con, _stored(expression), expression.schema())


def move(expression: Table, con: ibis.BaseBackend) -> Table:
    """The rows of an expression on another engine; as it stands where it is there already."""
    if expression.get_backend() is con:
        return expression
    coarser = {}
    for name, kind in expression.schema().items():
        if kind.is_timestamp() and (kind.scale or 0) > 6:  # digits that Spark does not know
            coarser[name] = expression[name].cast(MICROSECONDS)
    expression = expression.mutate(**coarser)
    return _read(con, _stored(expression), expression.schema())


def given(rows: pd.DataFrame | pa.Table, con: ibis.BaseBackend) -> Table:
    """Rows of this process as a table of the engine."""
    beside = reader(con)
    return move(beside.create_table(ibis.util.gen_name("given"), rows, temp=True), con)


def fetch(t: Table) -> pd.DataFrame:
    """Rows as DuckDB gives them to pandas: with times of any year, and without a zone."""
    return move(t, reader(t.get_backend())).to_pandas()


def count(t: Table) -> int:
    """How many rows a table has."""
    return int(t.count().to_pandas())


def read(path: Path, con: ibis.BaseBackend) -> Table:
    """A parquet file of this process as a table of the engine, with `PLACE` for the rows' order."""
    return move(reader(con).read_parquet(str(path), file_row_number=True), con)


def drop(t: Table) -> None:
    """Give back the memory of rows that were given or kept; a server's go with the process."""
    con = t.get_backend()
    if _is_local(con):
        con.drop_table(t.op().name, database=("temp", "main"))


def write(
    t: Table, path: Path, order: tuple[str, ...], columns: tuple[str, ...] | None = None
) -> None:
    """One parquet file of this process, with the rows in order and the types of the expression.

    A server writes its parts first, and they are sorted into the one file here. columns: that are
    written, by default all but `PLACE`.
    """
    rows = move(t, reader(t.get_backend())).order_by(*order)
    columns = columns or [name for name in t.columns if name != PLACE]
    with atomic(path) as temporary:
        rows.select(*columns).to_parquet(str(temporary))


@contextmanager
def explained() -> Iterator[None]:
    """One sentence for what a server says, such as a function that it lacks."""
    try:
        yield
    except Exception as error:
        if chosen() == "duckdb" or not spark.is_of_server(error):
            raise
        raise spark.in_words(error, chosen()) from error


@contextmanager
def in_order(con: ibis.BaseBackend) -> Iterator[None]:
    """Files are written in the order in which rows are read, in a memory that does not grow.

    con: DuckDB, whose several threads would hold all rows to keep their order.
    """
    con.raw_sql("SET threads = 1")
    try:
        yield
    finally:
        con.raw_sql("RESET threads")


def identifier(name: str) -> str:
    """A column's name as SQL quotes it.

    >>> identifier("Customer ID")
    '"Customer ID"'
    """
    return '"' + name.replace('"', '""') + '"'


def mentions(expression: str, name: str) -> bool:
    """Whether a mapping or a rule uses a column: it is its name, quotes it or has it as a word.

    >>> mentions("line_total / units", "units"), mentions("line_total", "total")
    (True, False)
    """
    if expression == name or identifier(name) in expression:
        return True
    is_word = re.fullmatch(r"\w+", name)
    pattern = rf"(?<![\w\"]){re.escape(name)}(?![\w\"])"
    return bool(is_word and re.search(pattern, expression, re.IGNORECASE))


def _is_local(con: ibis.BaseBackend) -> bool:
    return con.name == "duckdb"


def _stored(expression: Table) -> Path:
    """A folder of parquet files that hold the rows of an expression."""
    folder = spark.scratch() / ibis.util.gen_name("kept")
    if _is_local(expression.get_backend()):
        folder.mkdir()
        expression.to_parquet(str(folder / "rows.parquet"))
    else:
        expression.to_parquet(str(folder))
    if not any(folder.glob("*.parquet")):  # of no rows some servers write no file
        folder.mkdir(exist_ok=True)
        pq.write_table(expression.schema().to_pyarrow().empty_table(), folder / "rows.parquet")
    return folder


def _read(con: ibis.BaseBackend, folder: Path, schema: ibis.Schema) -> Table:
    """Stored rows with the types that they had before.

    Spark makes decimals of float literals, and times with a zone of those without.
    """
    t = con.read_parquet(str(folder / "*.parquet") if _is_local(con) else str(folder))
    changed = {name: t[name].cast(kind) for name, kind in schema.items() if t[name].type() != kind}
    return t.mutate(**changed).select(*schema.names)

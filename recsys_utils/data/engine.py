"""The relational engine: Ibis on DuckDB in this process.

Models never see it; they get frames and arrays.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import ibis

from recsys_utils import LabError
from recsys_utils.memory import engine_limits
from recsys_utils.store import home

ENGINES = ("duckdb",)


def connect() -> ibis.BaseBackend:
    """Open the engine that `$RECSYS_ENGINE` names (default duckdb)."""
    name = os.environ.get("RECSYS_ENGINE", "duckdb")
    if name not in ENGINES:
        raise LabError(
            f"engine '{name}' is unknown: RECSYS_ENGINE (or --engine) takes {' or '.join(ENGINES)}"
        )
    con = ibis.duckdb.connect()
    con.raw_sql("PRAGMA disable_progress_bar")  # it would write into notebooks
    con.raw_sql("SET TimeZone = 'UTC'")  # times with a zone become UTC, wherever this runs
    for limit in engine_limits(home() / "data"):
        con.raw_sql(limit)
    return con


@contextmanager
def in_order(con: ibis.BaseBackend) -> Iterator[None]:
    """Files are written in the order in which rows are read, in a memory that does not grow.

    Several threads would hold all rows to keep their order.
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

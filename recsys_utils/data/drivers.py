"""Connections to databases: one driver each, a read-only transaction, all values as text."""

import importlib
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from types import ModuleType
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from recsys_utils import LabError
from recsys_utils.data import urls
from recsys_utils.data.engine import identifier
from recsys_utils.data.registry import Source, Spec
from recsys_utils.store import home

SECONDS = 10  # to wait for a server
NUMBER = "number"  # whole, decimal or float: only the values tell
ANY = "any"  # of SQLite, where each value has a type of its own


@contextmanager
def open_session(source: Source, spec: Spec) -> Iterator["Session"]:
    """An open read-only transaction of the database that the source's url names.

    Raises LabError where a variable, the driver or the connection is missing.
    """
    url = urls.filled(source.url)
    try:
        session = SESSIONS[urls.database(source.url)](url, spec)
    except LabError as error:
        raise LabError(urls.masked(str(error), source.url)) from None
    except Exception as error:
        why = urls.one_line(error, source.url)
        # `from None`: the driver's own error may hold the password.
        raise LabError(
            f"{source.url} cannot be reached: {why}: check host, port, user and the variables in"
            " the url"
        ) from None
    with closing(session.connection):
        yield session


class Session:
    """One connection with a read-only transaction; subclasses know their driver."""

    kind: str
    connection: Any

    def stream(self, sql: str) -> Any:
        """A cursor that has run `sql` and does not hold all of its rows."""
        raise NotImplementedError

    def type_of(self, column: Any) -> str:
        """The engine's type for an entry of a cursor's description."""
        raise NotImplementedError

    def checksum(self, names: list[str]) -> str:
        """SQL of a number that changes with the values of these columns."""
        raise NotImplementedError

    def file_state(self) -> list:
        """What the file system knows of a change."""
        return []

    def quoted(self, name: str) -> str:
        return identifier(name)

    def first(self, sql: str) -> tuple:
        with closing(self.stream(sql)) as cursor:
            return cursor.fetchall()[0]

    def columns(self, rows: str) -> list[str]:
        """Column names of a table or a query in parentheses."""
        with closing(self.stream(f"SELECT * FROM {rows} LIMIT 0")) as cursor:
            cursor.fetchall()
            return [column[0] for column in cursor.description]


class _Postgres(Session):
    kind = "postgres"
    types = {16: "BOOLEAN", 20: "BIGINT", 21: "BIGINT", 23: "BIGINT", 26: "BIGINT"}
    types |= {700: "DOUBLE", 701: "DOUBLE", 1700: NUMBER}
    types |= {1082: "DATE", 1114: "TIMESTAMP", 1184: "TIMESTAMPTZ"}

    def __init__(self, url: str, spec: Spec) -> None:
        psycopg = _driver("psycopg", self.kind)
        url = re.sub(r"^[^:]+", "postgresql", url)
        self.connection = psycopg.connect(url, connect_timeout=SECONDS)
        self.connection.read_only = True
        self.connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        text = importlib.import_module("psycopg.types.string").TextLoader
        for info in psycopg.postgres.types:
            self.connection.adapters.register_loader(info.oid, text)
            self.connection.adapters.register_loader(info.array_oid, text)
        for setting in (
            "default_transaction_read_only = on",
            "TimeZone = 'UTC'",
            "DateStyle = 'ISO'",
            "extra_float_digits = 1",  # a float in as many digits as tell it apart
        ):
            self.connection.execute(f"SET {setting}")

    def stream(self, sql: str) -> Any:
        cursor = self.connection.cursor(name="recsys")
        cursor.execute(sql)
        return cursor

    def type_of(self, column: Any) -> str:
        return self.types.get(column.type_code, "VARCHAR")

    def checksum(self, names: list[str]) -> str:
        row = f"ROW({', '.join(map(self.quoted, names))})::text"
        return f"sum(hashtextextended({row}, 0))"


class _MySQL(Session):
    kind = "mysql"
    options = ("unix_socket", "ssl_ca", "ssl_cert", "ssl_key", "charset")
    types = {1: "BIGINT", 2: "BIGINT", 3: "BIGINT", 8: "BIGINT", 9: "BIGINT", 13: "BIGINT"}
    types |= {4: "DOUBLE", 5: "DOUBLE", 0: NUMBER, 246: NUMBER}
    types |= {10: "DATE", 12: "TIMESTAMP", 7: "TIMESTAMPTZ"}

    def __init__(self, url: str, spec: Spec) -> None:
        pymysql = _driver("pymysql", self.kind)
        parts = urlsplit(url)
        given = dict(parse_qsl(parts.query))
        if unknown := sorted(given.keys() - set(self.options)):
            raise LabError(
                f"a url of mysql takes no '{unknown[0]}' behind the ?: it takes"
                f" {', '.join(self.options)}"
            )
        # As bytes: the driver would take a password in text for latin-1.
        login = {"user": unquote(parts.username or ""), "password": unquote(parts.password or "")}
        login = {key: value.encode() for key, value in login.items() if value}
        conversions = pymysql.converters.conversions.items()
        to_server = {kind: how for kind, how in conversions if not isinstance(kind, int)}
        self.connection = pymysql.connect(
            host=parts.hostname or "localhost",
            port=parts.port or 3306,
            database=unquote(parts.path.strip("/")) or None,
            connect_timeout=SECONDS,
            conv=to_server,  # and none back: text as the server sends it
            cursorclass=importlib.import_module("pymysql.cursors").SSCursor,
            **login,
            **given,
        )
        for command in (
            "SET time_zone = '+00:00'",
            "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
            "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
        ):
            with closing(self.connection.cursor()) as cursor:
                cursor.execute(command)

    def stream(self, sql: str) -> Any:
        cursor = self.connection.cursor()
        cursor.execute(sql)
        return cursor

    def type_of(self, column: Any) -> str:
        return self.types.get(column[1], "VARCHAR")

    def quoted(self, name: str) -> str:
        return "`" + name.replace("`", "``") + "`"

    def checksum(self, names: list[str]) -> str:
        values = ", ".join(f"quote({self.quoted(name)})" for name in names)
        return f"sum(crc32(concat_ws(',', {values})))"


class _SQLite(Session):
    kind = "sqlite"

    def __init__(self, url: str, spec: Spec) -> None:
        path = url.partition("://")[2].partition("?")[0].removeprefix("/")
        folder = spec.folder or home() / "data" / "raw" / spec.name
        self.path = folder / unquote(path)
        if not self.path.is_file():
            raise LabError(
                f"{self.path} does not exist: sqlite:///shop.db lies beside the .toml file,"
                " sqlite:////data/shop.db is an absolute path"
            )
        self.connection = sqlite3.connect(
            f"file:{quote(str(self.path.resolve()))}?mode=ro", uri=True, isolation_level=None
        )
        self.connection.execute("PRAGMA query_only = ON")
        self.connection.execute("BEGIN")

    def stream(self, sql: str) -> Any:
        return self.connection.execute(sql)

    def type_of(self, column: Any) -> str:
        return ANY

    def checksum(self, names: list[str]) -> str:
        return "0"  # size and time of the file tell enough

    def file_state(self) -> list:
        """Size and time of the file, and of the log that holds its latest changes."""
        log = self.path.with_name(f"{self.path.name}-wal")
        state = [self.path.stat().st_size, self.path.stat().st_mtime_ns]
        if log.exists() and log.stat().st_size:
            state += [log.stat().st_size, log.stat().st_mtime_ns]
        return state


SESSIONS = {session.kind: session for session in (_Postgres, _MySQL, _SQLite)}


def _driver(package: str, extra: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise LabError(
            f"a url of {extra} needs the package {package}, which is not installed: run pip install"
            f" '.[{extra}]' in the lab's folder"
        ) from error

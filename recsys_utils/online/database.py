"""One SQLite file for any number of threads and processes; errors become sentences."""

import sqlite3
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Self

import pandas as pd

from recsys_utils import LabError

# Bytes of pages in memory per thread, and of the log left on disk between writes.
CACHE = 32 << 20
_LOCKED = "is locked by another program: wait until that has finished, or stop it, and run again"
_UNDONE = "free some space and run again; what was being written is undone"
CURES = {
    sqlite3.SQLITE_NOTADB: (
        "is no SQLite database: name another file, or move it away and train again"
    ),
    sqlite3.SQLITE_CORRUPT: "is damaged: restore a copy of it, or move it away and train again",
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    sqlite3.SQLITE_READONLY: (
        "may only be read: allow this user to write the file and its folder, and run again"
    ),
    sqlite3.SQLITE_CANTOPEN: (
        "cannot be opened: name a file, not a folder, that this user may read and write"
    ),
    sqlite3.SQLITE_FULL: f"cannot grow, the disk is full: {_UNDONE}",
    sqlite3.SQLITE_IOERR: (f"cannot be read or written, as on a full or failing disk: {_UNDONE}"),
}


class _Connection(sqlite3.Connection):
    """A connection that can be referred to weakly: it is closed with its thread."""


class Database:
    """A file in WAL mode: readers go on while another thread or process writes.

    Each thread has a connection of its own. Writers wait for one another. synchronous=FULL: a
    commit is on the disk when it returns; NORMAL could forget it in a power cut.

    path: the file. temporary: SQL that gives every connection tables and views of its own. timeout:
    seconds to wait for another writer. read_only: never create or change the file.
    Every method raises LabError where SQLite fails, naming the file and the cure.
    """

    def __init__(
        self, path: Path | str, temporary: str, timeout: float = 30.0, read_only: bool = False
    ) -> None:
        self.path = Path(path)
        self.timeout = timeout
        self.read_only = read_only
        self.connections: weakref.WeakSet[_Connection] = weakref.WeakSet()
        self._temporary = temporary
        self._local = threading.local()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections of all threads, none of which may be at work.

        A later call opens a new one.
        """
        for connection in list(self.connections):
            connection.close()
        self._local = threading.local()

    @contextmanager
    def transaction(self, kind: str = "IMMEDIATE") -> Iterator[sqlite3.Connection]:
        """Everything inside happens or nothing does; joins the thread's open transaction.

        kind: IMMEDIATE to write; DEFERRED to read things of one moment without keeping writers
        waiting. An error must leave the outermost transaction too.
        """
        with self.connection() as con:
            if con.in_transaction:
                yield con
                return
            con.execute(f"BEGIN {kind}")
            try:
                yield con
                con.execute("COMMIT")
            finally:
                if con.in_transaction:
                    con.execute("ROLLBACK")

    def read(self, sql: str, arguments: Sequence = ()) -> pd.DataFrame:
        """The rows of a query."""
        with self.connection() as con, closing(con.execute(sql, arguments)) as cursor:
            names = [column[0] for column in cursor.description]
            return pd.DataFrame(cursor.fetchall(), columns=names)

    def size(self) -> int:
        """Bytes on disk, the write-ahead log included."""
        files = [self.path.with_name(self.path.name + end) for end in ("", "-wal", "-shm")]
        return sum(file.stat().st_size for file in files if file.exists())

    def use_wal(self, con: sqlite3.Connection) -> None:
        """Readers go on while one writes.

        SQLite does not wait for other processes that make this change, so we do.
        """
        end = monotonic() + self.timeout
        while True:
            try:
                con.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or monotonic() > end:
                    raise
                sleep(0.01)

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """This thread's connection; an error of SQLite becomes a sentence with file and cure."""
        try:
            if not hasattr(self._local, "connection"):
                self._local.connection = self._connect()
            yield self._local.connection
        except sqlite3.Error as error:
            cure = CURES.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
            if not cure:
                raise
            raise LabError(f"{self.path} {cure}") from error
        except UnicodeEncodeError as error:
            raise LabError(
                f"an id for {self.path} holds half a character, {error.object[:40]!r}: "
                "write it in UTF-8"
            ) from error

    def _connect(self) -> sqlite3.Connection:
        """A new connection with its temporary tables and views."""
        folder = self.path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LabError(
                f"{folder} cannot be made a folder ({error.strerror}): name another"
            ) from error
        mode = "ro" if self.read_only else "rwc"
        con = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode={mode}",
            self.timeout,
            isolation_level=None,
            check_same_thread=False,
            factory=_Connection,
            uri=True,
        )
        self.connections.add(con)
        con.execute("PRAGMA synchronous = FULL")
        con.execute(f"PRAGMA cache_size = -{CACHE >> 10}")
        con.execute(f"PRAGMA journal_size_limit = {CACHE}")
        con.executescript(self._temporary)
        return con

"""Engines that speak Spark Connect: Sail, started in this process, or a server by its address."""

import atexit
import os
import re
import shlex
import shutil
import sys
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from urllib.parse import urlsplit

import ibis
import pyarrow as pa
import pyarrow.parquet as pq
import sqlglot.expressions as sge
from ibis.backends.sql.compilers.base import NULL
from ibis.backends.sql.compilers.pyspark import PySparkCompiler
from ibis.common.exceptions import UnsupportedOperationError

from recsys_utils import LabError
from recsys_utils.memory import of_this_process
from recsys_utils.store import home

LEAST_VERSION = 4  # of Spark, at the server and here
SECONDS = 10  # to wait for a server
RETRIES = 3  # where it stops answering
# Warnings of pyspark: of frames that expressions hold, in which nothing is lost; and of a server
# that is gone, which is an error of its own.
SAID_ELSEWHERE = ("'verifySchema' is ignored", r"\[RETRIES_EXCEEDED\]")
PACKAGES = {"pyspark": "pyspark-client", "grpc": "grpcio", "pysail": "pysail"}


class Compiler(PySparkCompiler):
    """Ibis for Spark, where it would say something else than DuckDB without a word."""

    __slots__ = ()

    def visit_NonNullLiteral(self, op, *, value, dtype):
        """3.25 is a decimal for Spark, and what is divided by it keeps few digits."""
        if dtype.is_floating():
            return self.cast(repr(float(value)), dtype)
        return super().visit_NonNullLiteral(op, value=value, dtype=dtype)

    def visit_IsInf(self, op, *, arg):
        """Ibis 12 compares two pieces of Python here, and so writes FALSE."""
        return self.f.abs(arg).eq(self.cast("Infinity", ibis.dtype("float64")))

    def visit_IsNan(self, op, *, arg):
        """Spark's isnan of what is missing is false, DuckDB's is missing."""
        return self.if_(arg.is_(NULL), NULL, self.f.isnan(arg))

    def visit_RegexReplace(self, op, *, arg, pattern, replacement):
        r"""Spark's back-references are $1: \1 would be the text 1."""
        if not isinstance(replacement, sge.Literal) or "$" in replacement.this:
            raise UnsupportedOperationError("a replacement that is a column, or has a $")
        references = sge.convert(re.sub(r"\\(\d)", r"$\1", replacement.this))
        return self.f.regexp_replace(arg, pattern, references)


@cache
def connect(name: str) -> ibis.BaseBackend:
    """Sail in this process for "sail", or the server at sc://host:port[/;parameters].

    Raises LabError for a package that is missing or too old, an address that is none, and a server
    that does not answer, is too old, or does not see this machine's files.
    """
    wanted = ("pyspark", "grpc", "pysail") if name == "sail" else ("pyspark", "grpc")
    for package in wanted:
        _require(package, name)
    with _without_a_file_of_main():
        address = _start_sail() if name == "sail" else name
        session = _session(address)
    con = ibis.pyspark.connect(session)
    con.compiler = Compiler()
    for told in SAID_ELSEWHERE:
        warnings.filterwarnings("ignore", message=told)
    atexit.register(_end, session)
    session.conf.set("spark.sql.session.timeZone", "UTC")
    if name != "sail":
        _check_files(con, address)
    return con


def scratch() -> Path:
    """This process's folder for what engines hand to one another, removed when it ends.

    Those of processes that were killed are removed too.
    """
    parent = home() / "data"
    folder = parent / of_this_process(parent, "engine")
    if not folder.exists():
        folder.mkdir(parents=True)
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def is_of_server(error: Exception) -> bool:
    """Whether a server says it, or who speaks to it; our own mistakes keep their name."""
    return type(error).__module__.split(".")[0] in ("pyspark", "grpc", "ibis", "pyarrow")


def in_words(error: Exception, name: str) -> LabError:
    """What the server of that name says, in one sentence."""
    name = _without_secrets(name)
    if "UNAVAILABLE" in str(error):
        connect.cache_clear()
        return LabError(
            f"engine {name} stopped answering ({_said(error)}): start it, then this run again"
        )
    return LabError(
        f"engine {name} cannot do this ({type(error).__name__}: {_said(error)}): use --engine"
        " duckdb"
    )


def _require(package: str, name: str) -> None:
    """LabError where a package is missing, or of an older Spark."""
    pip = f"run {shlex.quote(sys.executable)} -m pip install {PACKAGES[package]}"
    try:
        module = import_module(package)
    except ImportError as error:
        raise LabError(
            f"engine '{_without_secrets(name)}' needs the Python package {PACKAGES[package]}: {pip}"
        ) from error
    if package == "pyspark" and _major(module.__version__) < LEAST_VERSION:
        raise LabError(
            f"pyspark {module.__version__} is too old for engine '{_without_secrets(name)}', which"
            f" needs {LEAST_VERSION} or later: {pip}"
        )


@contextmanager
def _without_a_file_of_main() -> Iterator[None]:
    """Keep Sail from naming a file of `__main__` where there is none, as in a notebook.

    Processes that are started later would look for that file.
    """
    main = sys.modules["__main__"]
    had_file = hasattr(main, "__file__")
    try:
        yield
    finally:
        if not had_file and hasattr(main, "__file__"):
            del main.__file__


def _start_sail() -> str:
    """A server on a free port of this machine, which ends with the process."""
    os.environ.setdefault("RUST_LOG", "error")  # its log would fill notebooks
    from pysail.spark import SparkConnectServer

    server = SparkConnectServer("127.0.0.1", 0)
    server.start(background=True)
    atexit.register(server.stop)
    return f"sc://127.0.0.1:{server.listening_address[1]}"


def _session(address: str):
    """A session of a server that answers and is new enough."""
    # pyspark takes `python -c` for its own doctests, and ends the process.
    if not hasattr(sys, "ps1"):
        vars(sys.modules["__main__"]).setdefault("__file__", "-c")
    import grpc
    from pyspark.sql import SparkSession
    from pyspark.sql.connect.client import DefaultChannelBuilder
    from pyspark.sql.connect.client.retries import DefaultPolicy

    shown = _without_secrets(address)
    try:
        builder = DefaultChannelBuilder(address)
        if not urlsplit(address).hostname:
            raise ValueError("it has no host")
    except Exception as error:
        raise LabError(f"engine '{shown}' is no address of a server: sc://host:port") from error
    with builder.toChannel() as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=SECONDS)
        except grpc.FutureTimeoutError as error:
            raise LabError(
                f"engine {shown} does not answer within {SECONDS} s: check host and port, and"
                " whether the Spark Connect server runs"
            ) from error
    try:
        session = SparkSession.builder.remote(address).create()
        session.client.set_retry_policies([DefaultPolicy(max_retries=RETRIES)])
        version = session.version
    except Exception as error:
        raise LabError(
            f"engine {shown} answers, but not as a Spark Connect server ({_said(error)}): check the"
            " port and the token"
        ) from error
    if _major(version) < LEAST_VERSION:
        raise LabError(
            f"engine {shown} runs Spark {version}: this needs {LEAST_VERSION}.0 or later"
        )
    return session


def _end(session) -> None:
    """Close a session while Python still runs: later it may wait for ever."""
    with suppress(Exception):  # the server may be gone
        session.stop()


def _check_files(con: ibis.BaseBackend, address: str) -> None:
    """LabError unless what is written here is read there, and the other way round.

    Sail reads a file that is not there as an empty table, without a word.
    """
    here = scratch() / f"probe-{uuid.uuid4().hex}.parquet"
    there = here.with_suffix("")
    pq.write_table(pa.table({"probe": [1]}), here)
    try:
        t = con.read_parquet(str(here))
        is_read = t.columns == ("probe",)
        if is_read:
            t.to_parquet(str(there))
        is_shared = is_read and any(there.glob("*.parquet"))
    except Exception:
        is_shared = False
    finally:
        here.unlink()
        shutil.rmtree(there, ignore_errors=True)
    if not is_shared:
        raise LabError(
            f"engine {_without_secrets(address)} does not see {home()}: set RECSYS_HOME to"
            " a folder that this machine and all of the server's have under the same name"
        )


def _said(error: Exception) -> str:
    """The first line of what a server says, without what gRPC puts around it."""
    text = str(error).strip() or type(error).__name__
    details = re.search(r'details = "(.*?)"', text)
    return (details.group(1) if details else text).splitlines()[0]


def _major(version: str) -> int:
    return int(version.split(".")[0])


def _without_secrets(address: str) -> str:
    """An address without its parameters, of which one is a token.

    >>> _without_secrets("sc://host:443/;token=secret")
    'sc://host:443'
    """
    return address.split(";")[0].rstrip("/")

"""The relational engine: Ibis on DuckDB in this process.

Models never see it; they get frames and arrays.
"""

import os

import ibis

from recsys_utils import LabError

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
    return con

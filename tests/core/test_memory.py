"""One setting tells how much memory there is; the engine keeps within it, and spills the rest."""

import socket
from pathlib import Path

import pytest

from recsys_utils import LabError, memory
from recsys_utils.data.engine import connect

QUERY = """
SELECT sum(n * i) FROM (
    SELECT i, row_number() OVER (ORDER BY hash(i), name) AS n
    FROM (SELECT i, 'the shopper with number ' || i AS name FROM range(1_000_000) t(i))
)
"""


def test_the_engine_takes_half_of_the_memory_and_spills_into_the_home(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECSYS_MEMORY", "3")
    query = "SELECT current_setting('memory_limit'), current_setting('temp_directory')"
    limit, spill = connect().raw_sql(query).fetchone()
    assert limit == "1.5 GiB"
    assert Path(spill).parent == home / "data"
    assert connect().raw_sql(query).fetchone()[1] != spill


def test_what_does_not_fit_is_spilled_and_the_result_is_the_same(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = connect().raw_sql(QUERY).fetchone()
    monkeypatch.setenv("RECSYS_MEMORY", "0.01")
    monkeypatch.setattr(memory, "ENGINE_LEAST", 48 << 20)
    con = connect()
    assert con.raw_sql(QUERY).fetchone() == whole
    con.disconnect()
    assert not list(home.rglob("*.*"))
    # Without a folder for the rest the same query fails, so it did not fit.
    con = connect()
    con.raw_sql("SET temp_directory = ''")
    with pytest.raises(Exception, match="Out of Memory"):
        con.raw_sql(QUERY).fetchone()


def test_what_a_killed_process_has_spilled_is_removed_by_the_next(home: Path) -> None:
    of_killed = home / "data" / f".spill-{socket.gethostname()}-999999999-abc"
    of_another_machine = of_killed.with_name(".spill-elsewhere-999999999-abc")
    for folder in (of_killed, of_another_machine):
        folder.mkdir(parents=True)
    connect()
    assert not of_killed.exists()
    assert of_another_machine.exists()


@pytest.mark.parametrize("given", ["much", "0", "-1", "nan", "inf"])
def test_what_is_no_size_is_refused(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_MEMORY", given)
    with pytest.raises(LabError, match=f"RECSYS_MEMORY={given} .* is no number above 0"):
        connect()

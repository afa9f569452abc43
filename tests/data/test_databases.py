"""Receipts read where they are: PostgreSQL, MySQL and SQLite against the same rows as CSV.

The servers are real ones on loopback ports; a test is skipped only where they are not installed.
"""

import csv
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, quote_plus

import pandas as pd
import pytest
import servers
from servers import PASSWORD

from recsys_utils import LabError
from recsys_utils.data import databases, engine, registry, tables
from recsys_utils.data.registry import Source
from recsys_utils.store import read_json

BIG = 9007199254740993  # 2**53 + 1, which no float can hold
HEAD = ("customer", "sku", "receipt", "sold_at", "units", "line_total", "mail")
ROWS = [
    ("007", BIG, "0001", "2024-01-01 10:00:00", 2, "19.90", "a@b.c"),
    ("007", BIG - 1, "0001", "2024-01-01 10:00:00", 3, "0.30", None),
    ("0042", 12, "0002", "2024-01-09 23:59:59.123456", 1, "12345678.91", "x"),
    (None, 12, "0003", "2024-02-01 00:00:00", 1, "5.00", "x"),
    ("8", 12, "0004", None, 1, "5.00", "x"),
    ("8", 12, "0005", "2024-02-01 00:00:00", 1, None, None),
    ("9", 12, "0006", "2024-02-02 00:00:00", None, "1.00", None),
]
COLUMNS = {
    "user_id": "customer",
    "item_id": "sku",
    "basket_id": "receipt",
    "ts": "sold_at",
    "quantity": "units",
    "price": "line_total / units",
}
TYPES = {
    "postgres": "text, bigint, char(4), timestamp, integer, numeric(10,2), text",
    "mysql": "varchar(9), bigint, char(4), datetime(6), int, decimal(10,2), varchar(9)",
    "sqlite": "TEXT, INTEGER, TEXT, TEXT, INTEGER, NUMERIC(10,2), TEXT",
}
KINDS = list(TYPES)
QUERY = "-- all of it\nSELECT r.* FROM receipts r WHERE 'a;b%' <> '' -- to the end"
ASKED = {"table": 'table = "receipts"', "query": f"query = '''{QUERY}'''"}


@dataclass
class Database:
    """A database of one kind: its url as a shop writes it, and somebody who may write to it."""

    kind: str
    url: str
    run: Callable[..., None]

    def create(self, table: str = "receipts", types: str = "", rows: list | None = None) -> None:
        """Create a table of the usual columns, or of others with their types, and fill it."""
        mark = "?" if self.kind == "sqlite" else "%s"
        usual = zip(HEAD, TYPES[self.kind].split(", "))
        columns = types or ", ".join(f"{name} {kind}" for name, kind in usual)
        rows = ROWS if rows is None else rows
        self.run(f"DROP TABLE IF EXISTS {table}")
        self.run(f"CREATE TABLE {table} ({columns})")
        for row in rows:
            self.run(f"INSERT INTO {table} VALUES ({', '.join([mark] * len(row))})", row)


@pytest.fixture(scope="module")
def postgres() -> Iterator[int]:
    programs = servers.postgres_programs()
    if not programs:
        pytest.skip("PostgreSQL's initdb and pg_ctl are not installed: apt install postgresql")
    with servers.postgres(programs) as port:
        yield port


@pytest.fixture(scope="module")
def mysql() -> Iterator[int]:
    if not (shutil.which("mariadbd") and shutil.which("mariadb-install-db")):
        pytest.skip("mariadbd and mariadb-install-db are not installed: apt install mariadb-server")
    with servers.mysql() as port:
        yield port


@pytest.fixture
def opened(
    request: pytest.FixtureRequest, home: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Database]]:
    """Open a database of a kind."""
    monkeypatch.setenv("SHOP_DB_PASSWORD", PASSWORD)
    closing = []

    def open_one(kind: str) -> Database:
        if kind == "sqlite":
            connection = sqlite3.connect(home / "shop.db", isolation_level=None)
            run = connection.execute
            url = "sqlite:///shop.db"
        elif kind == "postgres":
            port = request.getfixturevalue("postgres")
            connection = servers.postgres_admin(port)
            run = connection.execute
            url = f"postgresql://shop:${{SHOP_DB_PASSWORD}}@127.0.0.1:{port}/shop"
        else:
            port = request.getfixturevalue("mysql")
            connection = servers.mysql_admin(port)
            run = connection.cursor().execute
            url = f"mysql://shop:${{SHOP_DB_PASSWORD}}@127.0.0.1:{port}/shop"
        closing.append(connection)
        return Database(kind, url, run)

    yield open_one
    for connection in closing:
        connection.close()


@pytest.fixture(params=KINDS)
def database(request: pytest.FixtureRequest, opened: Callable) -> Database:
    return opened(request.param)


def written(
    home: Path, source: str, columns: dict[str, str] = COLUMNS, more: str = "", name: str = "shop"
) -> str:
    """Write a shop's TOML; return what --dataset takes."""
    lines = "\n".join(f"{key} = '''{value}'''" for key, value in columns.items())
    path = home / f"{name}.toml"
    path.write_text(f"[purchases]\n{source}\n[purchases.columns]\n{lines}\n{more}\n")
    return str(path)


def as_csv(home: Path, head: tuple = HEAD, rows: list | None = None) -> str:
    with open(home / "receipts.csv", "w", newline="") as file:
        out = csv.writer(file)
        out.writerow(head)
        out.writerows(ROWS if rows is None else rows)
    return 'files = ["receipts.csv"]'


def place(database: Database, asked: str = ASKED["table"]) -> str:
    return f"url = '{database.url}'\n{asked}"


def plain(frame: pd.DataFrame) -> pd.DataFrame:
    """Ids as text, for a comparison of values and not of categories' codes."""
    return frame.astype({c: str for c in frame.columns if c.endswith("_id")})


def by_rule(audit: pd.DataFrame) -> pd.DataFrame:
    """Rules that drop equally many rows stand in no order of their own."""
    return audit.set_index("rule").sort_index()


def failure(dataset: str) -> str:
    """The one sentence with which a data set is refused."""
    with pytest.raises(LabError) as caught:
        tables.load(dataset)
    whole = "".join(traceback.format_exception(caught.value))
    assert not leaks(whole)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def leaks(text: str) -> list[str]:
    """The spellings of the password that a text holds."""
    spellings = {PASSWORD, quote(PASSWORD), quote(PASSWORD, safe=""), quote_plus(PASSWORD)}
    spellings |= {repr(PASSWORD)[1:-1], PASSWORD.encode("unicode_escape").decode(), "geheim@"}
    return [spelling for spelling in spellings if spelling in text]


@pytest.mark.parametrize("asked", ASKED)
def test_a_database_gives_the_tables_that_the_same_rows_give_as_csv(
    database: Database, home: Path, asked: str
) -> None:
    database.create()
    expected = tables.load(written(home, as_csv(home), name="paper"))
    result = tables.load(written(home, place(database, ASKED[asked])))
    pd.testing.assert_frame_equal(plain(result.purchases), plain(expected.purchases))
    pd.testing.assert_frame_equal(plain(result.items), plain(expected.items))
    pd.testing.assert_frame_equal(by_rule(result.audit), by_rule(expected.audit))
    assert sorted(result.purchases["item_id"].astype(str)) == ["12", str(BIG - 1), str(BIG)]
    assert set(result.purchases["user_id"].astype(str)) == {"007", "0042"}
    assert result.purchases["ts"].max() == pd.Timestamp("2024-01-09 23:59:59.123456")


def test_numbers_arrive_with_all_their_digits(opened: Callable, home: Path) -> None:
    """By the engine's own types, before anything is turned into a float."""
    types = "a bigint, b numeric(10,2), c numeric, d numeric(30,4), e numeric, f double precision"
    for kind in ("postgres", "sqlite"):
        made = opened(kind)
        given = types.replace("numeric(30,4)", "text") if kind == "sqlite" else types
        made.create("digits", given, [(BIG, "19.90", "0.123456789", "1" * 20 + ".0001", "7", 0.1)])
        source = Source(url=made.url, table="digits", columns={n: n for n in "abcdef"})
        spec = registry.Spec(name="shop", title="shop", folder=home)
        raw, _ = databases.read(engine.local(), source, source, spec)
        row = raw.to_pandas().iloc[0].map(str).tolist()
        long = "1" * 20 + ".0001"
        exact = "19.90" if kind == "postgres" else "19.9"
        assert row == [str(BIG), exact, "0.123456789", long, "7", "0.1"], kind


def test_times_with_and_without_a_zone(opened: Callable, home: Path) -> None:
    """A time with a zone is an instant, the same one that a CSV's `+02` means."""
    made = opened("postgres")
    rows = [("1", "1", "2024-07-01 00:30:00+02"), ("1", "2", "2024-01-01 00:30:00-05")]
    head = ("customer", "sku", "sold_at")
    columns = dict(zip(("user_id", "item_id", "ts"), head))
    expected = tables.load(written(home, as_csv(home, head, rows), columns, name="paper"))
    for zone in ("timestamptz", "timestamp"):
        made.create("zoned", f"customer text, sku text, sold_at {zone}", rows)
        result = tables.load(written(home, place(made, 'table = "zoned"'), columns))
        if zone == "timestamptz":
            pd.testing.assert_frame_equal(plain(result.purchases), plain(expected.purchases))
        else:
            latest = result.purchases["ts"].max()
            assert latest == pd.Timestamp("2024-07-01 00:30:00")


def test_all_five_tables_may_lie_in_databases(database: Database, home: Path) -> None:
    database.create()
    database.create("products", "code char(4), title varchar(20)", [("12", "Mug"), ("99", "Jug")])
    database.create("stock", "code char(4), land char(3), n integer", [("12", "FRA", 5)])
    more = f"""
    [items]
    {place(database, "query = 'SELECT code, title FROM products ORDER BY code'")}
    columns = {{item_id = "code", name = "title"}}
    [users.columns]
    user_id = "customer"
    email = "mail"
    [stock]
    {place(database, "table = 'stock'")}
    columns = {{item_id = "code", country = "land", quantity = "n"}}
    """.replace("\n    ", "\n")
    dataset = written(home, place(database), more=more)
    result = tables.load(dataset)
    names = result.items.astype(str).set_index("item_id")["name"]
    assert names[["12", "99"]].tolist() == ["Mug", "Jug"]
    assert result.stock.astype(str).to_numpy().tolist() == [["12", "FRA", "5.0"]]
    assert "email" not in result.users
    database.run("UPDATE stock SET n = 4")
    assert tables.load(dataset).stock["quantity"].tolist() == [4]


def test_tables_are_built_again_when_rows_come(database: Database, home: Path) -> None:
    for asked in ASKED.values():
        database.create()
        dataset = written(home, place(database, asked))
        tables.load(dataset)
        manifest = home / "data" / "shop" / "tables" / "manifest.json"
        built = manifest.stat().st_mtime_ns
        tables.load(dataset)
        assert manifest.stat().st_mtime_ns == built
        database.run("INSERT INTO receipts (customer, sku) VALUES ('7', 12)")
        tables.load(dataset)
        assert manifest.stat().st_mtime_ns > built
        state = read_json(manifest)["raw"][0]
        assert state["url"] == database.url
        assert str(len(ROWS) + 1) in state["state"]


def test_a_sqlite_file_with_a_log_is_seen_to_change(opened: Callable, home: Path) -> None:
    """Even where number and latest time stay as they were."""
    made = opened("sqlite")
    made.run("PRAGMA journal_mode = WAL")
    made.create()
    dataset = written(home, place(made))
    before = tables.fingerprint(registry.spec(dataset))
    assert tables.fingerprint(registry.spec(dataset)) == before
    made.run("UPDATE receipts SET customer = '777' WHERE customer = '007'")
    assert tables.fingerprint(registry.spec(dataset)) != before
    assert "777" in set(tables.load(dataset).purchases["user_id"])


def test_many_chunks_are_one_table(
    database: Database, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(databases, "CHUNK", 2)
    database.create()
    many = tables.load(written(home, place(database))).purchases
    monkeypatch.setattr(databases, "CHUNK", 100)
    whole = tables.load(written(home, place(database), name="other")).purchases
    pd.testing.assert_frame_equal(plain(many), plain(whole))


def test_copies_are_dropped_by_all_columns(database: Database, home: Path) -> None:
    database.create(rows=[ROWS[0], ROWS[0], (*ROWS[0][:-1], "other")])
    result = tables.load(written(home, place(database) + "\ndrop_copies = true"))
    assert result.audit.set_index("rule")["rows"]["copy of another line"] == 1
    assert result.purchases["quantity"].tolist() == [4]


def test_only_mapped_columns_are_fetched(opened: Callable, home: Path) -> None:
    """So a picture beside a product's name is no obstacle; a mapped one is refused."""
    made = opened("postgres")
    types = "customer text, sku text, sold_at date, photo bytea, tags text[], seen boolean"
    made.create("rich", types, [("1", "2", "2024-01-01", b"\xff", ["a", "b"], True)])
    columns = {"user_id": "customer", "item_id": "sku", "ts": "sold_at"}
    more = "[items.columns]\nitem_id = 'sku'\nseen = 'seen'\ntag = 'tags'"
    result = tables.load(written(home, place(made, 'table = "public.rich"'), columns, more))
    assert str(result.items["seen"][0]) == "True"
    made = opened("sqlite")
    made.create("rich", "customer TEXT, sku BLOB, sold_at TEXT", [("1", b"\xff", "2024-01-01")])
    told = failure(written(home, place(made, 'table = "rich"'), columns))
    assert "'sku' of the database holds binary values" in told


def test_what_would_write_is_refused_by_the_database_itself(database: Database, home: Path) -> None:
    """A query that the check of words lets through."""
    database.create()
    spec = registry.Spec(name="shop", title="shop", folder=home)
    source = Source(url=database.url, table="receipts", columns={})
    commands = {
        "postgres": "WITH gone AS (DELETE FROM receipts RETURNING *) SELECT * FROM gone",
        "mysql": "DELETE FROM receipts",
        "sqlite": "DELETE FROM receipts",
    }
    command = commands[database.kind]
    with (
        databases.open_session(source, spec) as session,
        pytest.raises(Exception, match="(?i)read"),
    ):
        run = session.connection.cursor().execute
        run(command)
    assert tables.load(written(home, place(database))).audit["rows"].max() > 1


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("DELETE FROM receipts", "query begins with DELETE: it may only read"),
        ("SELECT 1; DROP TABLE receipts", "query holds several statements"),
        ("/* SELECT */ update receipts set sku = 1", "query begins with update"),
        ("SELECT * INTO copied FROM receipts", "query holds INTO"),
        ("SELECT 'a", "query cannot be read as SQL"),
        ("", "query begins with nothing"),
    ],
)
def test_a_query_that_is_no_select_is_refused(home: Path, query: str, told: str) -> None:
    source = f"url = 'sqlite:///shop.db'\nquery = '''{query}'''"
    assert told in failure(written(home, source))


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("url = 'sqlite:///shop.db'", "it takes one of them, table = "),
        ("url = 'sqlite:///a'\ntable = 'a'\nquery = 'SELECT 1'", "has both query and table"),
        ("url = 'data/*.csv'\ntable = 'a'", "has table for files"),
        ("url = 'https://h/a.csv'\nquery = 'SELECT 1'", "has query for files"),
        ("files = ['a.csv']\ntable = 'a'", "has table and no url"),
        ("files = ['a.csv']\nurl = 'b.csv'", "has both files and url"),
        ("url = ''", "has an empty url"),
        ("url = 'sqlite:///a'\ntable = 'shop.'", "which is no name such as"),
        ("url = 'ftp://h/a.csv'", "url begins with ftp://"),
        ("url = 'https://h/*.csv'", "which works for s3:// and for local folders"),
        ("url = '${SHOP_URL}'\ntable = 'a'", "url begins with a variable"),
        ("url = 'sqlite:///no.db'\ntable = 'a'", "no.db does not exist: sqlite:///shop.db lies"),
    ],
)
def test_keys_that_do_not_fit_are_refused_in_one_sentence(
    home: Path, source: str, told: str
) -> None:
    assert told in failure(written(home, source))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://shop:geheim@localhost:5432/shop",
        "postgresql://shop:gehe@im@localhost/shop",
        "postgresql://shop:gehe/im@localhost/shop",
        "postgresql://shop:12/3@localhost/shop",
        "postgresql://shop:gehe?im@localhost/shop",
        "postgresql://shop:gehe#im@localhost/shop",
        "mysql://shop:geheim${SHOP_DB_PASSWORD}@localhost/shop",
        "postgresql:///shop?user=shop&password=geheim",
        "https://me:geheim@localhost/receipts.csv",
        "https://localhost/receipts.csv?access_token=geheim",
        "s3://bucket/x.parquet?s3_secret_access_key=geheim",
    ],
)
def test_a_password_written_out_is_refused_and_not_repeated(home: Path, url: str) -> None:
    table = "\ntable = 'a'" if url.startswith(("postgres", "mysql")) else ""
    told = failure(written(home, f"url = '{url}'{table}"))
    assert "written out" in told
    assert "${SHOP_" in told
    assert "export SHOP_" in told
    assert not [part for part in ("geheim", "gehe", "im@", "12/3") if part in told]


def test_a_variable_that_is_not_set_is_named(
    home: Path, opened: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = opened("postgres")
    monkeypatch.delenv("SHOP_DB_PASSWORD")
    told = failure(written(home, place(made)))
    assert told.startswith(f"{made.url} needs the environment variable SHOP_DB_PASSWORD")


def test_what_is_not_there_is_told_in_one_sentence(database: Database, home: Path) -> None:
    database.create()
    unknown = failure(written(home, place(database, 'table = "nothing"')))
    assert f"table nothing of {database.url} cannot be read" in unknown
    wrong = failure(written(home, place(database, "query = 'SELECT nothing FROM receipts'")))
    assert f"query of {database.url} cannot be read" in wrong
    assert "correct the query" in wrong
    mapped = failure(written(home, place(database), COLUMNS | {"user_id": "client"}))
    assert f"has no column 'client' (mapped to user_id), it has {', '.join(HEAD)}" in mapped
    if database.kind != "sqlite":  # which calls the second one sku:1
        twice = failure(written(home, place(database, "query = 'SELECT sku, sku FROM receipts'")))
        assert "'sku'" in twice
    database.create(rows=[])
    assert "has no rows" in failure(written(home, place(database)))


def test_a_value_that_is_no_date_is_told_by_its_place(opened: Callable, home: Path) -> None:
    made = opened("sqlite")
    made.create(rows=[("1", 2, "3", "yesterday", 1, 1, "")])
    told = failure(written(home, place(made)))
    assert told.startswith("table receipts of sqlite:///shop.db, row 1: sold_at 'yesterday' is not")


@pytest.mark.parametrize("kind", ["postgres", "mysql"])
def test_a_server_that_does_not_answer(
    opened: Callable, home: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    made = opened(kind)
    made.create()
    monkeypatch.setenv("SHOP_DB_PORT", str(servers.free_port()))
    url = made.url.rpartition(":")[0] + ":${SHOP_DB_PORT}/shop"
    told = failure(written(home, f"url = '{url}'\ntable = 'receipts'"))
    assert told.startswith(f"{url} cannot be reached")
    assert "refused" in told
    monkeypatch.setenv("SHOP_DB_PASSWORD", "wrong")
    told = failure(written(home, place(made)))
    assert "cannot be reached" in told
    assert "wrong" not in told


@pytest.mark.parametrize("kind", ["postgres", "mysql"])
def test_a_driver_that_repeats_the_password_is_masked(
    opened: Callable, home: Path, kind: str
) -> None:
    """A server repeats the name of a database that it does not have."""
    url = opened(kind).url.removesuffix("/shop") + "/${SHOP_DB_PASSWORD}"
    told = failure(written(home, f"url = '{url}'\ntable = 'receipts'"))
    assert "${SHOP_DB_PASSWORD}" in told.removeprefix(url)


@pytest.mark.parametrize(("kind", "package"), [("postgres", "psycopg"), ("mysql", "pymysql")])
def test_a_missing_driver_is_told_with_its_command(
    home: Path, monkeypatch: pytest.MonkeyPatch, kind: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    url = {"postgres": "postgresql://localhost/shop", "mysql": "mysql://localhost/shop"}[kind]
    told = failure(written(home, f"url = '{url}'\ntable = 'receipts'"))
    assert f"needs the package {package}" in told
    assert f"pip install '.[{kind}]'" in told


@pytest.mark.parametrize("kind", ["postgres", "mysql"])
def test_no_password_is_written_or_printed(opened: Callable, home: Path, kind: str) -> None:
    """Not by a build, an error or a log at its finest, in any file of the home or on a stream."""
    made = opened(kind)
    made.create()
    good = written(home, place(made))
    bad = written(home, place(made, "query = 'SELECT nothing'"), name="bad")
    program = (
        "import logging, sys\n"
        "logging.basicConfig(level=logging.DEBUG)\n"
        "from recsys_utils.data import folds, tables\n"
        "print(tables.load(sys.argv[1]).manifest)\n"
        "print(tables.load(sys.argv[1]).spec)\n"
        "tables.load(sys.argv[2])\n"
    )
    ended = subprocess.run(
        [sys.executable, "-X", "dev", "-c", program, good, bad],
        capture_output=True,
        text=True,
        env=os.environ,
        timeout=120,
    )
    assert "LabError: query of" in ended.stderr
    assert not leaks(ended.stdout + ended.stderr)
    files = [path for path in home.rglob("*") if path.is_file()]
    assert len(files) >= 4
    for path in files:
        found = path.read_bytes().decode("utf-8", errors="replace")
        assert not leaks(found), path
        assert not leaks(str(path))


def test_a_folder_of_files_is_read_with_wildcards(home: Path) -> None:
    for month, rows in {"01": ROWS[:2], "02": ROWS[2:]}.items():
        folder = home / "receipts" / "2024" / month
        folder.mkdir(parents=True)
        frame = pd.DataFrame(rows, columns=HEAD).astype({"line_total": float, "units": "Int64"})
        frame.to_parquet(folder / "part.parquet")
        frame.to_csv(folder / "part.csv", index=False)
    expected = plain(tables.load(written(home, as_csv(home), name="paper")).purchases)
    for place_ in (
        "url = 'receipts/2024/*/*.parquet'",
        "files = ['receipts/2024/*/*.parquet']",
        "url = 'receipts/**/*.csv'",
        f"url = '{home}/receipts/2024/*/*.csv'",
    ):
        result = plain(tables.load(written(home, place_)).purchases)
        pd.testing.assert_frame_equal(result, expected)


@pytest.fixture
def web() -> Iterator[servers.Web]:
    with servers.Web().running() as result:
        yield result


def csv_bytes(home: Path, rows: list | None = None) -> bytes:
    as_csv(home, rows=rows)
    return (home / "receipts.csv").read_bytes()


@pytest.mark.parametrize("says_tags", [True, False])
def test_a_file_of_a_web_server_is_fetched_where_it_changed(
    web: servers.Web, home: Path, says_tags: bool
) -> None:
    web.says_tags = says_tags
    web.files["/shop/receipts.csv"] = csv_bytes(home)
    expected = plain(tables.load(written(home, as_csv(home), name="paper")).purchases)
    dataset = written(home, f"url = 'http://127.0.0.1:{web.port}/shop/receipts.csv'")
    pd.testing.assert_frame_equal(plain(tables.load(dataset).purchases), expected)
    manifest = home / "data" / "shop" / "tables" / "manifest.json"
    built = manifest.stat().st_mtime_ns
    tables.load(dataset)
    assert manifest.stat().st_mtime_ns == built
    assert not says_tags or len(web.gets()) == 1
    web.files["/shop/receipts.csv"] = csv_bytes(home, ROWS[:1])
    assert len(tables.load(dataset).purchases) == 1


def test_secrets_of_a_web_address_stay_out(
    web: servers.Web, home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SHOP_DB_PASSWORD", PASSWORD)
    caplog.set_level(logging.DEBUG)
    web.login = f"me:{PASSWORD}"
    web.files["/receipts.csv"] = csv_bytes(home)
    secret = "${SHOP_DB_PASSWORD}"
    url = f"http://me:{secret}@127.0.0.1:{web.port}/receipts.csv?token={secret}"
    tables.load(written(home, f"url = '{url}'"))
    assert quote(PASSWORD, safe="") in web.gets()[0]
    missing = url.replace("receipts.csv", f"{secret}.csv")
    told = failure(written(home, f"url = '{missing}'", name="other"))
    assert told.startswith(f"{missing} cannot be read: the server answers 404")
    web.login = "me:other"
    assert "the server answers 401" in failure(written(home, f"url = '{url}'"))
    for path in home.rglob("*"):
        assert not leaks(str(path))
        assert path.is_dir() or not leaks(path.read_bytes().decode("utf-8", errors="replace"))
    assert not leaks(caplog.text)


def test_a_web_server_that_is_not_there(home: Path) -> None:
    url = f"http://127.0.0.1:{servers.free_port()}/receipts.csv"
    assert failure(written(home, f"url = '{url}'")).startswith(f"{url} cannot be read")


def test_a_bucket_is_read_with_the_environments_credentials(
    web: servers.Web, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "KEYOFTHESHOP")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", PASSWORD)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{web.port}")
    for month, rows in {"01": ROWS[:2], "02": ROWS[2:]}.items():
        web.files[f"/shop/2024/{month}/receipts.csv"] = csv_bytes(home, rows)
    web.files["/shop/2024/01/readme.txt"] = b"no receipts"
    web.files["/shop/2024/01/deeper/receipts.csv"] = b"no receipts"
    expected = plain(tables.load(written(home, as_csv(home), name="paper")).purchases)
    dataset = written(home, "url = 's3://shop/2024/*/*.csv'")
    pd.testing.assert_frame_equal(plain(tables.load(dataset).purchases), expected)
    assert any("KEYOFTHESHOP" in headers.get("authorization", "") for *_, headers in web.asked)
    read = len([path for path in web.gets() if path.startswith("/shop/2024")])
    assert read == 2
    del web.files["/shop/2024/02/receipts.csv"]
    assert len(tables.load(dataset).purchases) == 2
    assert len([path for path in web.gets() if path.startswith("/shop/2024")]) == read
    url = "s3://shop/2025/*.csv"
    assert failure(written(home, f"url = '{url}'")).startswith(f"{url} cannot be read: no such")

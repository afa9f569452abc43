"""Canonical tables: what is kept, counted, merged and dropped, and that every data set keeps the
contract.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys_utils import LabError
from recsys_utils.data import registry, tables
from recsys_utils.data.interactions import codes, distinct
from recsys_utils.store import data_dir

RAW = Path(os.environ.get("RECSYS_DATA") or Path(tables.__file__).parent.parent / "data" / "raw")
TOML = """
[purchases]
files = ["receipts.csv"]
[purchases.columns]
user_id = "customer"
item_id = "sku"
ts = "sold_at"
basket_id = "receipt"
quantity = "units"
price = "unit_price"
"""
HEAD = "customer,sku,sold_at,receipt,units,unit_price\n"
ROWS = HEAD + "1,a,2024-01-01,R1,2,2.5\n1,a,2024-01-01,R1,2,3.5\n2,b,2024-01-02,R2,1,1\n"
ITEMS = (
    '[items]\nfiles = ["items.csv"]\n[items.columns]\nitem_id = "code"\nname = "title"\ncategory ='
    ' "dept"\n'
)
EVENTS = (
    '[events]\nfiles = ["events.csv"]\n[events.columns]\nuser_id = "u"\nitem_id = "i"\nevent_type ='
    ' "e"\nts = "t"\n'
)
STOCK = (
    '[stock]\nfiles = ["stock.csv"]\n[stock.columns]\nitem_id = "i"\ncountry = "c"\nquantity ='
    ' "q"\n'
)
MODEST = settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Write a shop's TOML (with more tables) and raw files.

    Return the path that --dataset takes.
    """
    monkeypatch.setenv("RECSYS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("RECSYS_DATA", raising=False)

    def write(more: str = "", **files: str) -> str:
        for name, text in ({"receipts": ROWS} | files).items():
            (tmp_path / f"{name}.csv").write_text(text)
        (tmp_path / "shop.toml").write_text(TOML + more)
        return str(tmp_path / "shop.toml")

    return write


def counted(dataset: str, table: str = "purchases") -> dict[str, tuple[int, float]]:
    """(rows, money) by rule."""
    audit = tables.load(dataset).audit
    return {row.rule: (row.rows, row.money) for row in audit[audit["table"] == table].itertuples()}


def test_lines_of_one_receipt_merge_and_keep_their_money(shop: Callable) -> None:
    rows = tables.load(shop()).purchases
    assert rows[["user_id", "item_id", "basket_id", "quantity", "price"]].to_numpy().tolist() == [
        ["1", "a", "R1", 4, 3.0],
        ["2", "b", "R2", 1, 1.0],
    ]


@pytest.mark.spec("S5-61")
def test_every_rule_is_counted_in_rows_and_money(shop: Callable) -> None:
    """Returns, missing customers and the shop's own rules, each with its money.

    Then what was kept.
    """
    rows = (
        ROWS
        + "1,a,2024-01-03,R3,-1,5\n,a,2024-01-03,R4,1,7\n3,,2024-01-03,R5,1,8\n"
        + "3,b,,R6,1,9\n3,b,2024-01-03,,1,10\n"
        "3,b,2024-01-03,R8,1,\n3,b,2024-01-03,R9,1,-2\n3,b,2024-01-03,R10,1,0\nTEST,b,2024-01-03,R11,2,50\n"
    )
    dataset = shop(
        '[purchases.reject]\n"test customer" = "customer LIKE \'TEST%\'"\n', receipts=rows
    )
    assert counted(dataset) == {
        "quantity not above 0": (1, -5),
        "no customer": (1, 7),
        "no item": (1, 8),
        "no date": (1, 9),
        "no basket": (1, 10),
        "price missing or below 0": (2, -2),
        "test customer": (1, 100),
        "kept": (4, 13),
        "kept, merged to one line per user, item and basket": (3, 13),
    }


@pytest.mark.spec("S5-61")
@pytest.mark.parametrize(("zero", "lines"), [("keep", 3), ("reject", 2)])
def test_zero_prices_are_kept_or_not_by_parameter(shop: Callable, zero: str, lines: int) -> None:
    dataset = shop(receipts=ROWS + "3,b,2024-01-03,R3,1,0\n")
    Path(dataset).write_text(TOML.replace("[purchases]", f'[purchases]\nzero_price = "{zero}"', 1))
    assert len(tables.load(dataset).purchases) == lines


def test_a_rule_may_have_an_apostrophe_in_its_name(shop: Callable) -> None:
    dataset = shop('[purchases.reject]\n"owner\'s own" = "customer = \'2\'"\n')
    assert counted(dataset)["owner's own"] == (1, 1)


@pytest.mark.spec("C1")
@pytest.mark.parametrize(
    ("units", "price"), [("nan", "1"), ("inf", "1"), ("1", "nan"), ("1", "inf")]
)
def test_nan_and_infinity_are_no_quantity_and_no_price(
    shop: Callable, units: str, price: str
) -> None:
    """Quantity > 0 and price >= 0, both finite.

    One such row must not turn the shop's money into nothing.
    """
    data = tables.load(shop(receipts=ROWS + f"3,b,2024-01-03,R3,{units},{price}\n"))
    assert np.isfinite(data.purchases[["quantity", "price"]]).all(axis=None)
    assert len(data.purchases) == 2
    assert data.manifest["summary"]["money"] == 13


receipt = st.tuples(
    st.sampled_from(["1", "2", "03", ""]),
    st.sampled_from(["a", "b", ""]),
    st.integers(1, 28),
    st.sampled_from(["R1", "R2", ""]),
    st.integers(-3, 2000),
    st.one_of(st.none(), st.integers(-500, 100_000).map(lambda n: n / 100)),
)


@pytest.mark.spec("S5-61")
@MODEST
@given(rows=st.lists(receipt, min_size=1, max_size=60))
def test_rows_and_money_add_up_to_the_raw_file(shop: Callable, rows: list[tuple]) -> None:
    """Every raw row and penny is in the audit once.

    S2 merge: one line per (user, item, basket), the kept money preserved.
    """
    rows = [*rows, ("1", "a", 1, "R1", 1, 1.0)]  # at least one is kept
    text = HEAD + "".join(
        f"{u},{i},2024-01-{d:02d},{b},{q},{'' if p is None else p}\n" for u, i, d, b, q, p in rows
    )
    data = tables.load(shop(receipts=text))
    audit = data.audit.set_index("rule")
    kept = audit.loc["kept"]
    merged = audit.iloc[-1]
    before = audit.iloc[:-1]
    assert before["rows"].sum() == len(rows)
    assert before["money"].sum() == pytest.approx(
        sum(q * p for *_, q, p in rows if p is not None), abs=0.01 * len(before)
    )
    good = [
        r for r in rows if r[0] and r[1] and r[3] and r[4] > 0 and r[5] is not None and r[5] >= 0
    ]
    assert kept["rows"] == len(good)
    assert kept["money"] == pytest.approx(sum(r[4] * r[5] for r in good), abs=0.006)
    lines = data.purchases
    assert len(lines) == merged["rows"] == len({row[:4] for row in good})
    assert not lines.duplicated(["user_id", "item_id", "basket_id"]).any()
    slack = 5e-5 * lines["quantity"].sum() + 0.01  # prices are rounded to four decimals
    assert (lines["quantity"] * lines["price"]).sum() == pytest.approx(kept["money"], abs=slack)
    assert lines["quantity"].sum() == sum(r[4] for r in good)


def test_items_from_their_own_file(shop: Callable) -> None:
    """Ids of both files are text; items nobody bought yet are on sale too.

    Rows of one item that do not contradict one another are put together.
    """
    items = "code,title,dept\na,,Food\na,Apple,\nb,Bread,Bakery\nc,Cake,Bakery\nb,Bread,Bakery\n"
    data = tables.load(shop(ITEMS, items=items))
    assert data.items.to_numpy().tolist() == [
        ["a", "Apple", "Food"],
        ["b", "Bread", "Bakery"],
        ["c", "Cake", "Bakery"],
    ]
    assert not any("more than once" in note for note in data.manifest["notes"])


def test_rows_that_contradict_one_another_are_never_mixed(shop: Callable) -> None:
    """The first row of an item counts, as a whole, and the others are told."""
    items = "code,title,dept\na,,\na,,Food\na,Apple,Fruit\nb,Bread,Bakery\nb,Loaf,\nc,Cake,Pie\n"
    items += "b,Bun,Bakery\nd,,\n"
    data = tables.load(shop(ITEMS, items=items))
    cells = data.items.astype(object).where(data.items.notna(), None).to_numpy().tolist()
    assert cells == [
        ["a", None, "Food"],
        ["b", "Bread", "Bakery"],
        ["c", "Cake", "Pie"],
        ["d", None, None],
    ]
    told = (
        "has 2 item_ids more than once with different values, such as name of 'b': 'Bread' and"
        " 'Loaf'. The first row counts"
    )
    assert any(told in note for note in data.manifest["notes"])


def test_items_with_numeric_codes_meet_their_receipts(shop: Callable) -> None:
    dataset = shop(
        ITEMS,
        receipts=ROWS.replace(",a,", ",007,"),
        items="code,title,dept\n007,Apple,Fruit\n7,Pear,Fruit\n",
    )
    assert tables.load(dataset).items.astype(object).set_index("item_id")[
        "name"
    ].dropna().to_dict() == {"007": "Apple", "7": "Pear"}


def test_attributes_from_the_receipts_own_rows(shop: Callable) -> None:
    """The first-seen value of each attribute: a later row never changes it."""
    rows = (
        HEAD.strip()
        + ",title,country\n1,a,2024-01-01,R1,1,1,,UK\n1,a,2024-01-02,R2,1,1,Apple,FR\n"
        + "2,a,2024-01-03,R3,1,1,Apfel,DE\n"
    )
    data = tables.load(
        shop(
            '[items.columns]\nitem_id = "sku"\nname = "title"\n[users.columns]\nuser_id ='
            ' "customer"\ncountry = "country"\n',
            receipts=rows,
        )
    )
    assert data.items["name"].tolist() == ["Apple"]
    assert data.users["country"].tolist() == [
        "UK",
        "DE",
    ]


def test_items_and_users_without_attributes_are_the_ids(shop: Callable) -> None:
    data = tables.load(shop())
    assert data.items["item_id"].tolist() == ["a", "b"]
    assert data.users["user_id"].tolist() == [
        "1",
        "2",
    ]
    assert data.events.empty
    assert data.stock.empty


@pytest.mark.spec("S2-28")
@pytest.mark.parametrize(
    ("key", "raw"),
    [
        ("name", "who"),
        ("first_name", "who"),
        ("email", "who"),
        ("phone_number", "who"),
        ("home_address", "who"),
        ("contact", "E-Mail"),
        ("contact", "email"),
        ("who", "Customer Name"),
        ("who", "CustomerAddress"),
        ("contact", "lower(Phone)"),
        ("contact", "telephone"),
    ],
)
def test_personal_columns_are_dropped_and_named(shop: Callable, key: str, raw: str) -> None:
    """A person's name, mail, phone and address never reach the tables, whatever the TOML calls
    them.
    """
    column = raw.removeprefix("lower(").removesuffix(")")
    more = (
        f'[users]\nfiles = ["users.csv"]\n[users.columns]\nuser_id = "id"\nsegment = "seg"\n{key} ='
        f' "{raw}"\n'
    )
    dataset = shop(more, users=f"id,seg,{column}\n1,gold,SECRET\n2,base,SECRET\n")
    data = tables.load(dataset)
    assert list(data.users) == ["user_id", "segment"]
    assert data.manifest["personal_columns_dropped"] == [key]
    assert not [
        p for p in data_dir("shop").rglob("*") if p.is_file() and b"SECRET" in p.read_bytes()
    ]


def test_other_attributes_are_kept(shop: Callable) -> None:
    """A country's name, a mailing group or a film called Streetwise says nothing about a person's
    address.
    """
    keys = {
        "country_name": "Country Name",
        "segment": "segment_name",
        "mailing_group": "group",
        "streetwise": "streetwise",
    }
    more = '[users]\nfiles = ["users.csv"]\n[users.columns]\nuser_id = "id"\n' + "".join(
        f'{k} = "{v}"\n' for k, v in keys.items()
    )
    users = tables.load(
        shop(more, users="id,Country Name,segment_name,group,streetwise\n1,UK,gold,A,x\n")
    ).users
    assert list(users) == ["user_id", *keys]


@pytest.mark.spec("S4-03")
def test_events_are_kept_and_numbered(shop: Callable) -> None:
    rows = (
        "u,i,e,t\n1,a,view,2024-01-01 10:00\n01,a,cart,2024-01-01"
        " 10:01\n1,a,remove_from_cart,2024-01-01 10:02\n1,a,purchase,2024-01-01 10:03\n"
    )
    events = tables.load(shop(EVENTS, events=rows)).events
    assert events["user_id"].tolist() == ["1", "01", "1", "1"]
    assert events["event_id"].is_unique
    assert events["event_type"].tolist() == list(registry.EVENT_TYPES)


@pytest.mark.spec("S4-03")
def test_events_with_gaps_are_counted_and_rejected(shop: Callable) -> None:
    """Bad rows counted and rejected, not dropped in silence."""
    rows = "u,i,e,t\n1,a,view,2024-01-01\n,a,view,2024-01-01\n1,,cart,2024-01-01\n"
    rows += "1,a,,2024-01-01\n1,a,cart,\n"
    rules = counted(shop(EVENTS, events=rows), "events")
    assert rules.pop("kept")[0] == 1
    assert sum(rows for rows, _ in rules.values()) == 4


@pytest.mark.spec("S4-03")
@pytest.mark.spec("S4-04")
def test_events_with_an_unknown_type_are_refused(shop: Callable) -> None:
    """The error lists the four."""
    dataset = shop(EVENTS, events="u,i,e,t\n1,a,view,2024-01-01\n1,a,wish,2024-01-01\n")
    with pytest.raises(
        LabError,
        match="event_type 'wish' is unknown, it takes view, cart, remove_from_cart, purchase$",
    ):
        tables.load(dataset)


def test_stock_by_country(shop: Callable) -> None:
    stock = tables.load(shop(STOCK, stock="i,c,q\n007,UK,5\na,UK,0\n")).stock
    assert stock[["item_id", "country", "quantity"]].to_numpy().tolist() == [
        ["007", "UK", 5],
        ["a", "UK", 0],
    ]


def stamps() -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in data_dir("shop", "tables").glob("*")}


def test_tables_are_built_again_only_when_something_changed(shop: Callable, tmp_path: Path) -> None:
    dataset = shop()
    tables.load(dataset)
    first = stamps()
    tables.load(dataset)
    assert stamps() == first
    (tmp_path / "receipts.csv").write_text(ROWS + "3,b,2024-01-03,R3,1,1\n")
    assert len(tables.load(dataset).purchases) == 3
    assert stamps() != first
    second = stamps()
    Path(dataset).write_text(TOML + '[purchases.reject]\n"x" = "customer = \'1\'"\n')
    assert len(tables.load(dataset).purchases) == 2
    assert stamps() != second
    third = stamps()
    Path(dataset).write_text("# a comment changes nothing\n" + Path(dataset).read_text())
    tables.load(dataset)
    assert stamps() == third


def test_a_broken_file_takes_the_old_tables_out_of_use_until_it_is_mended(
    shop: Callable, tmp_path: Path
) -> None:
    dataset = shop(ITEMS, items="code,title,dept\na,Apple,Fruit\n")
    tables.load(dataset)
    (tmp_path / "items.csv").write_text("code,label,dept\na,Apple,Fruit\n")
    for _ in range(2):
        with pytest.raises(LabError, match="no column 'title'"):
            tables.load(dataset)
        assert "manifest.json" not in stamps()
    (tmp_path / "items.csv").write_text("code,title,dept\na,Apple,Fruit\n")
    assert tables.load(dataset).items["name"].tolist()[0] == "Apple"


@pytest.mark.spec("C7")
def test_the_same_input_gives_the_same_bytes(shop: Callable) -> None:
    """Digests of the tables are equal after a second build."""
    dataset = shop(
        EVENTS, events="u,i,e,t\n" + "".join(f"{n % 3},a,view,2024-01-01\n" for n in range(50))
    )
    first = tables.load(dataset).manifest
    shutil.rmtree(data_dir("shop"))
    assert tables.load(dataset).manifest["tables"] == first["tables"]
    assert [raw["file"] for raw in first["raw"]] == ["events.csv", "receipts.csv"]
    assert len(first["raw"][0]["sha256"]) == 64


@pytest.mark.spec("C1")
@MODEST
@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=6),
        min_size=1,
        max_size=30,
    )
)
def test_ids_survive_the_way_to_codes_and_back(ids: list[str]) -> None:
    """Id -> int -> id."""
    series = pd.Series(ids, name="item_id")
    for column in (series, series.astype("category")):
        known = distinct(column)
        assert list(known[codes(column, known)]) == ids


def test_ids_round_trip_through_the_tables(shop: Callable) -> None:
    rows = HEAD + "".join(
        f'"{u}",a,2024-01-01,R1,1,1\n' for u in ("007", "7", "7 7", "é,ü", "0x7", "1e3", "10.1")
    )
    users = tables.load(shop(receipts=rows)).purchases["user_id"]
    assert set(users) == {"007", "7", "7 7", "é,ü", "0x7", "1e3", "10.1"}
    assert list(distinct(users)[codes(users, distinct(users))]) == list(users)


@pytest.fixture(params=[name for name in registry.names() if not registry.spec(name).package])
def built_in(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tables.Tables]:
    """Each built-in data set, from its real raw files (of big ones, the first rows)."""
    monkeypatch.setenv("RECSYS_HOME", str(tmp_path / "home"))
    result = registry.spec(request.param)
    for source in filter(None, (getattr(result, table) for table in tables.TABLES)):
        found = [
            RAW / result.name / file
            for file in [*source.files, *source.first_of]
            if (RAW / result.name / file).is_file()
        ]
        if source.has_place and not found:
            pytest.skip(f"a file of {result.name} is not here")
        for file in found[:1]:
            target = tmp_path / "raw" / result.name / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            if file.suffix == ".parquet":
                pq.write_table(
                    pa.Table.from_batches([next(pq.ParquetFile(file).iter_batches(60_000))]), target
                )
            else:
                shutil.copy(file, target)
    monkeypatch.setenv("RECSYS_DATA", str(tmp_path / "raw"))
    return tables.load(result.name)


@pytest.mark.spec("C1", "S2-28")
def test_built_in_data_sets_keep_the_contract(built_in: tables.Tables) -> None:
    """Columns, types, ranges and keys of every canonical table; no personal column."""
    buys = built_in.purchases
    assert (
        {"user_id", "item_id", "basket_id", "ts", "quantity"}
        <= set(buys)
        <= set(registry.CANONICAL["purchases"])
    )
    assert buys["ts"].dtype == "datetime64[us]"
    assert (buys["quantity"] > 0).all()
    assert len(buys) > 100
    if "price" in buys:
        assert (buys["price"] >= 0).all()
        assert np.isfinite(buys["price"]).all()
    keys = {
        "purchases": ["user_id", "item_id", "basket_id"],
        "items": ["item_id"],
        "users": ["user_id"],
        "events": ["event_id"],
        "stock": ["item_id", "country"],
    }
    for table, key in keys.items():
        frame = getattr(built_in, table)
        assert not len(frame) or not frame.duplicated(key).any(), table
        for column in (c for c in frame if c.endswith("_id")):
            assert frame[column].notna().all(), (
                table,
                column,
            )
            assert frame[column].map(type).eq(str).all(), (
                table,
                column,
            )
    assert set(buys["item_id"]) <= set(built_in.items["item_id"])
    assert set(buys["user_id"]) <= set(built_in.users["user_id"])
    if len(built_in.events):
        assert set(built_in.events) == set(registry.CANONICAL["events"])
        assert set(built_in.events["event_type"]) <= set(registry.EVENT_TYPES)
    if len(built_in.stock):
        assert (built_in.stock["quantity"] >= 0).all()
    assert not [c for c in built_in.users if tables.PERSONAL.search(c)]


def test_tables_of_older_code_are_built_again(
    shop: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Receipts that an older version cleaned must not outlive it."""
    dataset = shop()
    before = tables.load(dataset).manifest["fingerprint"]
    newer = tmp_path / "newer.py"
    newer.write_text("# another rule\n")
    monkeypatch.setattr(tables, "MAKERS", [*tables.MAKERS, newer])
    assert tables.load(dataset).manifest["fingerprint"] != before

"""The reader of raw files.

Every format and mapping a shop may bring, and one clear sentence for everything that it cannot
read.
"""

import gzip
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import nbformat
import openpyxl
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from shops import synthetic_tables

from recsys_utils import LabError
from recsys_utils.data import folds, readers, registry, tables
from recsys_utils.online.events import write_csv
from recsys_utils.pipeline import plan
from recsys_utils.pipeline.__main__ import main
from recsys_utils.store import ROOT

COLUMNS = {
    "user_id": "customer",
    "item_id": "sku",
    "ts": "sold_at",
    "basket_id": "receipt",
    "quantity": "units",
    "price": "line_total / units",
}
HEAD = "customer,sku,sold_at,receipt,units,line_total\n"
ROWS = (
    "007,010,2024-01-01 10:00,R1,2,5\n007,A-1,2024-01-09 11:30,R2,1,1.5\n042,010,2024-01-20"
    " 09:00,R3,4,10\n"
)
JARGON = re.compile(
    r"Binder|Parser Error|Conversion|NoneType|'None'|codec|delimiter|tokeniz|syntax"
    r" error|Traceback|COLUMN_TYPES",
    re.I,
)
Files = dict[str, str | bytes | None]


def toml(
    columns: dict[str, str] | None = None,
    source: str = 'files = ["receipts.csv"]',
    top: str = "",
    more: str = "",
) -> str:
    """A shop's file: `top` lines, [purchases] with its lines, its columns, and further tables."""
    lines = "\n".join(
        f"{name} = '''{raw}'''" for name, raw in (COLUMNS if columns is None else columns).items()
    )
    return f"{top}\n[purchases]\n{source}\n[purchases.columns]\n{lines}\n{more}\n"


def mapped(**changed: str | None) -> dict[str, str]:
    """The usual columns with some changed, or dropped by None."""
    return {k: v for k, v in (COLUMNS | changed).items() if v is not None}


def book(path: Path, **sheets: list[list]) -> None:
    result = openpyxl.Workbook()
    result.remove(result.active)
    for name, rows in sheets.items():
        sheet = result.create_sheet(name)
        for row in rows:
            sheet.append(row)
    result.save(path)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Write a shop's TOML and its raw files (None: a folder of that name).

    Return the path that --dataset takes.
    """
    monkeypatch.setenv("RECSYS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RECSYS_ENGINE", "duckdb")
    monkeypatch.delenv("RECSYS_DATA", raising=False)

    def write(text: str | None = None, files: Files | None = None) -> str:
        for name, content in ({"receipts.csv": HEAD + ROWS} if files is None else files).items():
            if content is None:
                (tmp_path / name).mkdir()
            else:
                (tmp_path / name).write_bytes(
                    content if isinstance(content, bytes) else content.encode()
                )
        (tmp_path / "shop.toml").write_text(toml() if text is None else text)
        return str(tmp_path / "shop.toml")

    return write


def bought(dataset: str) -> list[tuple]:
    """(user, item, basket, time, quantity, price) of every line."""
    rows = tables.load(dataset).purchases
    return [
        (u, i, b, str(t)[:16], q, p)
        for u, i, b, t, q, p in rows[
            ["user_id", "item_id", "basket_id", "ts", "quantity", "price"]
        ].itertuples(index=False)
    ]


EXPECTED = [
    ("007", "010", "R1", "2024-01-01 10:00", 2, 2.5),
    ("007", "A-1", "R2", "2024-01-09 11:30", 1, 1.5),
    ("042", "010", "R3", "2024-01-20 09:00", 4, 2.5),
]


@pytest.mark.spec("C1")
@pytest.mark.parametrize("sep", [",", ";", "\t", "|"])
@pytest.mark.parametrize("named", [True, False])
def test_any_separator_is_read_and_ids_stay_text(shop: Callable, sep: str, named: bool) -> None:
    """007 stays 007, whether the separator is named or found out."""
    source = 'files = ["receipts.csv"]' + (f"\nsep = '{sep}'" if named else "")
    assert (
        bought(shop(toml(source=source), {"receipts.csv": (HEAD + ROWS).replace(",", sep)}))
        == EXPECTED
    )


def test_gzip_is_read(shop: Callable) -> None:
    text = toml(source='files = ["receipts.csv.gz"]')
    assert (
        bought(shop(text, {"receipts.csv.gz": gzip.compress((HEAD + ROWS).encode())})) == EXPECTED
    )


def test_byte_order_mark_is_no_part_of_the_first_column(shop: Callable) -> None:
    assert bought(shop(files={"receipts.csv": (HEAD + ROWS).encode("utf-8-sig")})) == EXPECTED


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_other_encodings_are_read(shop: Callable, encoding: str) -> None:
    text = toml(source=f'files = ["receipts.csv"]\nencoding = "{encoding}"')
    dataset = shop(text, {"receipts.csv": (HEAD + ROWS.replace("A-1", "Café")).encode(encoding)})
    assert [row[1] for row in bought(dataset)] == ["010", "Café", "010"]


def test_a_code_called_na_is_a_code_in_every_encoding(shop: Callable) -> None:
    """'NA', 'null' and 'None' are product codes like others; only an empty field is missing."""
    text = toml(source='files = ["receipts.csv"]\nencoding = "latin-1"')
    dataset = shop(text, {"receipts.csv": HEAD + ROWS.replace("A-1", "NA")})
    assert [row[1] for row in bought(dataset)] == ["010", "NA", "010"]


def test_quoted_fields_hold_separators_quotes_and_line_breaks(shop: Callable) -> None:
    more = '[items.columns]\nitem_id = "sku"\nname = "title"'
    rows = (
        'customer,sku,sold_at,receipt,units,line_total,title\n1,a,2024-01-01,R1,1,2,"Tea,'
        ' ""green""\n250 g"\n'
    )
    assert list(tables.load(shop(toml(more=more), {"receipts.csv": rows})).items["name"]) == [
        'Tea, "green"\n250 g'
    ]


def test_column_names_with_blanks(shop: Callable) -> None:
    dataset = shop(
        toml(mapped(user_id="Customer ID")),
        {"receipts.csv": (HEAD.replace("customer", "Customer ID") + ROWS).replace(",", ";")},
    )
    assert bought(dataset) == EXPECTED


@pytest.mark.parametrize("name", ["r.parquet", "R.PARQUET"])
def test_parquet_with_float_ids(shop: Callable, tmp_path: Path, name: str) -> None:
    """13085.0, as pandas writes ids once one is missing, is 13085; a missing one is no customer."""
    frame = pd.DataFrame(
        {
            "customer": [13085.0, None],
            "sku": ["a", "b"],
            "sold_at": pd.to_datetime(["2024-01-01", "2024-01-02"]),
            "receipt": [1, 2],
            "units": [1, 2],
            "line_total": [3, 5],
        }
    )
    dataset = shop(toml(source=f'files = ["{name}"]'), {})
    frame.to_parquet(tmp_path / name)
    assert bought(dataset) == [("13085", "a", "1", "2024-01-01 00:00", 1, 3)]


def test_csv_with_spreadsheet_ids(shop: Callable) -> None:
    """A spreadsheet's or pandas' export holds 13085.0; it is the same customer as 13085."""
    rows = HEAD + "13085.0,a,2024-01-01,R1,1,1\n,a,2024-01-01,R2,1,1\n"
    assert [row[0] for row in bought(shop(files={"receipts.csv": rows}))] == ["13085"]


DAY = [datetime(2024, 1, n) for n in range(1, 10)]
HEADER = HEAD.strip().split(",")


def test_xlsx_sheets_without_overlap(shop: Callable, tmp_path: Path) -> None:
    """Two sheets repeat a day: it counts once.

    Codes may be numbers or text, customers may be missing.
    """
    dataset = shop(toml(source='files = ["r.xlsx"]\nsheets = ["a", "b"]\ndrop_overlap = true'), {})
    book(
        tmp_path / "r.xlsx",
        a=[
            HEADER,
            [13085, "A1", DAY[0], 1, 1, 2.5],
            [13085, 85048, DAY[2], 2, 1, 2.5],
            [None, 85048, DAY[2], 9, 1, 1],
        ],
        b=[HEADER, [13085, 85048, DAY[2], 2, 1, 2.5], [13086, "A1", DAY[4], 3, 1, 2.5]],
    )
    data = tables.load(dataset)
    assert [
        tuple(r)
        for r in data.purchases[["user_id", "item_id", "basket_id"]].itertuples(index=False)
    ] == [("13085", "A1", "1"), ("13085", "85048", "2"), ("13086", "A1", "3")]
    assert data.purchases["quantity"].sum() == 3
    assert data.audit.set_index("rule").loc["no customer", "rows"] == 1


def test_xlsx_text_ids_keep_their_zeros(shop: Callable, tmp_path: Path) -> None:
    dataset = shop(toml(source='files = ["r.xlsx"]'), {})
    book(
        tmp_path / "r.xlsx",
        a=[HEADER, ["007", "010", DAY[0], "R1", 2, 5], ["08", "NA", DAY[1], "R2", 2, 5]],
    )
    assert [row[:2] for row in bought(dataset)] == [("007", "010"), ("08", "NA")]


def test_xlsx_reads_the_first_sheet_unless_told(shop: Callable, tmp_path: Path) -> None:
    dataset = shop(toml(source='files = ["r.xlsx"]'), {})
    book(tmp_path / "r.xlsx", a=[HEADER, ["x", "y", DAY[0], 1, 1, 1]], b=[["nothing"], [1]])
    assert len(bought(dataset)) == 1


@pytest.mark.parametrize(
    ("form", "values"),
    [
        ("%d.%m.%Y", ("31.12.2023", "01.02.2024")),
        ("%d/%m/%Y", ("31/12/2023", "01/02/2024")),
        ("%m-%d-%Y", ("12-31-2023", "02-01-2024")),
        ("%d.%m.%Y %H:%M", ("31.12.2023 00:00", "01.02.2024 00:00")),
        ("%Y%m%d", ("20231231", "20240201")),
        ("unix", ("1703980800", "1706745600")),
        ("unix_ms", ("1703980800000", "1706745600000")),
        (None, ("2023-12-31", "2024-02-01T00:00:00")),
    ],
)
def test_dates_in_the_form_that_the_toml_names(
    shop: Callable, form: str | None, values: tuple[str, str]
) -> None:
    """A named form is the form, whatever the reader would guess: 01.02. is February first."""
    source = 'files = ["receipts.csv"]' + (f'\nts_format = "{form}"' if form else "")
    rows = HEAD + "".join(f"1,a,{value},R{n},1,1\n" for n, value in enumerate(values))
    assert [row[3][:10] for row in bought(shop(toml(source=source), {"receipts.csv": rows}))] == [
        "2023-12-31",
        "2024-02-01",
    ]


def test_milliseconds_read_as_seconds_are_noticed(shop: Callable) -> None:
    rows = HEAD + "1,a,1703980800000,R1,1,1\n"
    with pytest.raises(
        LabError, match='reaches the year 5[0-9]{4} when read as seconds: set ts_format = "unix_ms"'
    ):
        bought(
            shop(
                toml(source='files = ["receipts.csv"]\nts_format = "unix"'), {"receipts.csv": rows}
            )
        )


def test_dates_by_expression(shop: Callable) -> None:
    """Integer yyyymmdd and an hour of their own, as lets_get_sort_of_real has them."""
    text = toml(mapped(ts="strptime(CAST(day AS VARCHAR), '%Y%m%d') + to_hours(hour)"))
    rows = "customer,sku,day,hour,receipt,units,line_total\n1,a,20240229,17,R1,1,1\n"
    assert [row[3] for row in bought(shop(text, {"receipts.csv": rows}))] == ["2024-02-29 17:00"]


def test_times_with_an_offset_become_utc(shop: Callable) -> None:
    rows = HEAD + "1,a,2024-01-01T12:00:00+02:00,R1,1,1\n"
    assert [row[3] for row in bought(shop(files={"receipts.csv": rows}))] == ["2024-01-01 10:00"]


@pytest.mark.parametrize(
    "price", ["line_total / units", "line_total - units", "round(line_total / units, 2)", "2.5"]
)
def test_columns_may_be_expressions(shop: Callable, price: str) -> None:
    expected = {"line_total - units": 3.0}.get(price, 2.5)
    assert bought(shop(toml(mapped(price=price))))[0][5] == expected


def test_order_in_the_place_of_dates(shop: Callable) -> None:
    """Baskets by number give the same next-basket folds as baskets by date."""
    text = toml(
        mapped(ts=None, order="n", basket_id=None, price=None), top='protocol = "next_basket"'
    )
    rows = "customer,sku,n,units\n" + "".join(
        f"{u},{i},{n},1\n" for u in "xy" for n, i in ((2, "b"), (1, "a"), (10, "c"))
    )
    dataset = shop(text, {"receipts.csv": rows})
    folds.write_folds(dataset)
    fold = folds.load_fold(dataset)
    assert [list(part["item_id"].astype(str)) for part in (fold.train, fold.valid, fold.test)] == [
        ["a", "a"],
        ["b", "b"],
        ["c", "c"],
    ]


def test_missing_quantity_basket_and_price(shop: Callable) -> None:
    """Quantity is 1, a basket is the user's day, and there is no money anywhere."""
    rows = (
        HEAD + "1,a,2024-01-01 09:00,,,\n1,b,2024-01-01 18:00,,,\n1,a,2024-01-02"
        " 09:00,,,\n2,a,2024-01-01 09:00,,,\n"
    )
    data = tables.load(
        shop(toml(mapped(basket_id=None, quantity=None, price=None)), {"receipts.csv": rows})
    )
    assert (data.purchases["quantity"] == 1).all()
    assert "price" not in data.purchases
    assert data.purchases.groupby("basket_id", observed=True).size().tolist() == [2, 1, 1]
    assert data.audit["money"].isna().all()
    assert data.manifest["summary"]["money"] is None


def test_raw_files_are_looked_for_in_three_places(
    shop: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The TOML's own folder before data/raw/<name> before $RECSYS_DATA/<name>."""
    dataset = shop()
    (tmp_path / "receipts.csv").unlink()
    monkey = tmp_path / "elsewhere"
    spec = registry.spec(dataset)
    for root in (monkey / "shop", tmp_path / "home" / "data" / "raw" / "shop", tmp_path):
        root.mkdir(parents=True, exist_ok=True)
        (root / "receipts.csv").write_text(HEAD + ROWS)
        monkeypatch.setenv("RECSYS_DATA", str(monkey))
        assert readers.raw_files(spec.purchases, spec) == [root / "receipts.csv"]


def test_a_pattern_reads_all_files_that_match_as_one_table(shop: Callable, tmp_path: Path) -> None:
    lines = ROWS.splitlines(keepends=True)
    other = "sku,customer,units,line_total,receipt,sold_at\nA-1,007,1,1.5,R2,2024-01-09 11:30\n"
    months = {
        "2024-02.csv": HEAD + lines[2],
        "2024-01.csv": other,
        "2024-01.csv.gz": gzip.compress((HEAD + lines[0]).encode()),
        "2023.csv": HEAD + ROWS,
    }
    assert bought(shop(toml(source='files = ["2024-*"]'), months)) == EXPECTED
    assert (
        len(
            readers.raw_files(
                registry.spec(str(tmp_path / "shop.toml")).purchases,
                registry.spec(str(tmp_path / "shop.toml")),
            )
        )
        == 3
    )


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ("customer,sku\n1,2\n", ["2.csv", "has no column 'line_total'"]),
        (HEAD + "1,2\n", ["2.csv, row 1"]),
        (HEAD, ["2.csv", "no rows"]),
    ],
)
def test_one_bad_file_of_a_pattern_is_named(shop: Callable, other: str, words: list[str]) -> None:
    with pytest.raises(LabError) as error:
        tables.load(shop(toml(source='files = ["*.csv"]'), {"1.csv": HEAD + ROWS, "2.csv": other}))
    assert all(word in str(error.value) for word in words)
    assert not JARGON.search(str(error.value))


def test_the_cosmetics_shops_months_are_read_as_one_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECSYS_HOME", str(tmp_path))
    monkeypatch.setenv("RECSYS_DATA", str(tmp_path / "raw"))
    result = synthetic_tables(6_000, seed=3)
    days = write_csv(result["events"], result["items"], tmp_path / "days")
    (tmp_path / "raw" / "cosmetics_events").mkdir(parents=True)
    for month in ("2025-05", "2025-06"):
        parts = [
            path.read_text().splitlines(keepends=True)
            for path in days
            if path.name.startswith(month)
        ]
        (tmp_path / "raw" / "cosmetics_events" / f"{month}.csv").write_text(
            "".join([parts[0][0], *(row for part in parts for row in part[1:])])
        )
    data = tables.load("cosmetics_events")
    assert len(data.events) == len(result["events"])
    assert len(data.purchases) == (result["events"]["event_type"] == "purchase").sum()
    assert data.items["category"].notna().all()
    assert set(data.events["event_type"]) == set(registry.EVENT_TYPES)


def test_the_example_of_a_shop_runs_as_it_is(shop: Callable) -> None:
    """data/my_shop.example.toml, copied and not changed, reads receipts with its column names."""
    example = ROOT / "data" / "my_shop.example.toml"
    assert bought(shop(example.read_text())) == EXPECTED


def test_every_built_in_description_is_valid() -> None:
    assert registry.names()[0] == "synthetic"
    assert all(registry.spec(name).title for name in registry.names())


SHEETS = toml(source='files = ["r.xlsx"]\nsheets = ["2024", "2025"]')
GZ = toml(source='files = ["receipts.csv.gz"]')
EVENTS = (
    '[events]\nfiles = ["events.csv"]\n[events.columns]\nuser_id = "u"\nitem_id = "i"\nevent_type ='
    ' "e"\nts = "t"\n'
)
FOUR = ["view", "cart", "remove_from_cart", "purchase"]
FINE = {"receipts.csv": HEAD + ROWS}


def more_rows(line: str, head: str = HEAD) -> Files:
    return {"receipts.csv": head + ROWS + line + "\n"}


# Name: (TOML, raw files, words that the sentence must hold). Those of PLAN are said before any
# notebook starts.
PLAN = {
    "file missing": (toml(), {}, ["receipts.csv", "not found"]),
    "folder in the place of a file": (
        toml(),
        {"receipts.csv": None},
        ["receipts.csv", "not found"],
    ),
    "no files named": (toml(source=""), FINE, ["files", "[purchases"]),
    "two mappings to one column": (
        toml(mapped(item_id="customer")),
        FINE,
        ["user_id and item_id", "'customer'"],
    ),
    "unknown key": (toml(top="colour = 1"), FINE, ["'colour'", "unknown key"]),
    "unknown key below a table": (
        toml(source='files = ["receipts.csv"]\nseparator = ";"'),
        FINE,
        ["'purchases.separator'", "unknown key"],
    ),
    "unknown canonical column": (
        toml(mapped(colour="sku2")),
        FINE,
        ["'colour'", "it takes user_id"],
    ),
    "the key name": (toml(top='name = "My shop"'), FINE, ["'name'", "unknown key"]),
    "the key folder": (toml(top='folder = "/tmp"'), FINE, ["'folder'", "unknown key"]),
    "synthetic without lines": (toml(top="synthetic = true"), FINE, ["synthetic"]),
    "wrong type": (toml(top='test_weeks = "three"'), FINE, ["'test_weeks'", "number"]),
    "wrong type below a table": (
        toml(source='files = "receipts.csv"'),
        FINE,
        ["'purchases.files'", "list"],
    ),
    "number out of range": (toml(top="folds = 0"), FINE, ["'folds'", "1"]),
    "wrong choice": (
        toml(top='protocol = "calendar"'),
        FINE,
        ["'protocol'", "'window' or 'next_basket'"],
    ),
    "invalid TOML": ("title = = 3", FINE, ["not valid TOML", "line 1"]),
    "no purchases": ('title = "x"', FINE, ["nor a [purchases]"]),
    "column of the contract missing": (toml(mapped(user_id=None)), FINE, ["lacks user_id"]),
    "neither dates nor order": (toml(mapped(ts=None)), FINE, ["ts", "order"]),
    "window with order": (
        toml(mapped(ts=None, order="n")),
        FINE,
        ["order", 'protocol = "next_basket"'],
    ),
    "order, and events with dates": (
        toml(mapped(ts=None, order="n"), top='protocol = "next_basket"', more=EVENTS),
        FINE,
        ["order", "[events] has dates", "leave [events] out"],
    ),
    "second file missing": (toml(more=EVENTS), FINE, ["events.csv", "not found"]),
}
READ = {
    "column missing": (
        toml(mapped(item_id="article")),
        FINE,
        ["receipts.csv", "no column 'article'", "item_id", "it has customer, sku"],
    ),
    "column missing in an expression": (
        toml(mapped(price="total / units")),
        FINE,
        ["price", "total", "the file has customer"],
    ),
    "date unparsable": (
        toml(),
        more_rows("1,a,yesterday,R4,1,1"),
        ["receipts.csv", "row 4", "sold_at", "'yesterday'", "date"],
    ),
    "date not in the named form": (
        toml(source='files = ["receipts.csv"]\nts_format = "%d.%m.%Y"'),
        FINE,
        ["sold_at", "'%d.%m.%Y'", "2024-01-01"],
    ),
    "dates by an expression that fails": (
        toml(mapped(ts="strptime(sold_on, '%d.%m.%Y')")),
        {"receipts.csv": HEAD.replace("sold_at", "sold_on") + "1,a,2024-01-01 noon,R1,1,1\n"},
        ["[purchases.columns] ts", "2024-01-01 noon"],
    ),
    "all rows rejected": (
        toml(),
        {"receipts.csv": HEAD + "1,a,2024-01-01,R1,-1,1\n"},
        ["every row", "'quantity not above 0'"],
    ),
    "price no number": (
        toml(mapped(price="line_total")),
        more_rows("1,a,2024-01-01,R4,1,cheap"),
        ["row 4", "line_total", "'cheap'", "number"],
    ),
    "quantity no number": (
        toml(mapped(price=None)),
        more_rows("1,a,2024-01-01,R4,two,1"),
        ["row 4", "units", "'two'", "number"],
    ),
    "price by an expression over text": (
        toml(),
        more_rows("1,a,2024-01-01,R4,1,cheap"),
        ["line_total", "number"],
    ),
    "prices with a comma and with a point": (
        toml(mapped(price="line_total")),
        {
            "receipts.csv": (HEAD + ROWS.replace(",", ";")).replace(",", ";")
            + "1;a;2024-01-01;R1;2;2,50\n"
        },
        ["line_total", "decimal point", "decimal comma"],
    ),
    "wrong separator": (
        toml(source='files = ["receipts.csv"]\nsep = "|"'),
        FINE,
        ["receipts.csv", "one column", "sep"],
    ),
    "empty separator": (toml(source='files = ["receipts.csv"]\nsep = ""'), FINE, ["sep"]),
    "header only": (toml(), {"receipts.csv": HEAD}, ["receipts.csv", "no rows"]),
    "header only, no expression": (
        toml(mapped(price=None)),
        {"receipts.csv": HEAD},
        ["receipts.csv", "no rows"],
    ),
    "zero bytes": (toml(), {"receipts.csv": b""}, ["receipts.csv", "empty"]),
    "column twice": (
        toml(mapped(basket_id=None)),
        {"receipts.csv": HEAD.replace("receipt", "sku") + ROWS},
        ["receipts.csv", "sku", "twice"],
    ),
    "a row too short": (toml(), more_rows("1,a"), ["receipts.csv", "row"]),
    "not utf-8": (
        toml(),
        {"receipts.csv": (HEAD + ROWS + "é,a,2024-01-01,R4,1,1\n").encode("latin-1")},
        ["receipts.csv", "utf-8", "encoding"],
    ),
    "unknown encoding": (
        toml(source='files = ["receipts.csv"]\nencoding = "klingon"'),
        FINE,
        ["unknown encoding", "klingon"],
    ),
    "truncated gzip": (
        GZ,
        {"receipts.csv.gz": gzip.compress((HEAD + ROWS * 99).encode())[:-20]},
        ["receipts.csv.gz", "truncated gzip"],
    ),
    "no gzip": (GZ, {"receipts.csv.gz": HEAD + ROWS}, ["receipts.csv.gz", "gzip"]),
    "no parquet": (
        toml(source='files = ["r.parquet"]'),
        {"r.parquet": b"hello"},
        ["r.parquet", "cannot be read"],
    ),
    "no xlsx": (SHEETS, {"r.xlsx": b"hello"}, ["r.xlsx", "cannot be read"]),
    "rule over a column that is not there": (
        toml(more='[purchases.reject]\n"test" = "custmer = 1"'),
        FINE,
        ["[purchases] rules", "custmer"],
    ),
    "rule that fails": (
        toml(more='[purchases.reject]\n"odd" = "CAST(receipt AS INTEGER) > 3"'),
        FINE,
        ["[purchases] rules", "R1"],
    ),
    "attribute that fails": (
        toml(more='[items.columns]\nitem_id = "sku"\nname = "CAST(receipt AS INTEGER)"'),
        FINE,
        ["columns] name", "R1"],
    ),
    "order out of range": (
        toml(
            {"user_id": "customer", "item_id": "sku", "order": "n"}, top='protocol = "next_basket"'
        ),
        {"receipts.csv": "customer,sku,n\n1,a,202401011234\n1,b,202401011235\n"},
        ["order", "20240101123"],
    ),
    "unknown event": (
        toml(more=EVENTS),
        FINE | {"events.csv": "u,i,e,t\n1,a,view,2024-01-01\n1,a,wish,2024-01-01\n"},
        ["events.csv", "'wish'", *FOUR],
    ),
    "event types as numbers": (
        toml(more=EVENTS),
        FINE | {"events.csv": "u,i,e,t\n1,a,1,2024-01-01\n"},
        ["events.csv", "'1'", *FOUR],
    ),
}


def one_sentence(message: str, words: list[str], tmp_path: Path) -> None:
    assert "\n" not in message, message
    assert len(message.replace(str(tmp_path), "")) < 300, message
    assert not (found := JARGON.search(message)), f"'{found[0]}' helps nobody in: {message}"
    assert not (missing := [word for word in words if word not in message]), (
        f"{missing} not in: {message}"
    )


@pytest.mark.spec("S4-03")
@pytest.mark.parametrize(
    ("text", "files", "words"), (PLAN | READ).values(), ids=(PLAN | READ).keys()
)
def test_bad_input_is_one_sentence(
    shop: Callable, tmp_path: Path, text: str, files: Files, words: list[str]
) -> None:
    """A LabError that names what is wrong, and no manifest that would make half-written tables
    valid.
    """
    dataset = shop(text, files)
    with pytest.raises(LabError) as caught:
        tables.load(dataset)
    one_sentence(str(caught.value), words, tmp_path)
    assert not list(tmp_path.glob("home/data/*/tables/manifest.json"))
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize(("text", "files", "words"), PLAN.values(), ids=PLAN.keys())
def test_the_command_says_it_before_any_notebook_starts(
    shop: Callable,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    text: str,
    files: Files,
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plan, "NOTEBOOKS", tmp_path)
    nbformat.write(
        new_notebook(
            cells=[new_code_cell("DATASET = 'synthetic'", metadata={"tags": ["parameters"]})]
        ),
        tmp_path / "01_x.ipynb",
    )
    assert main(["--dataset", shop(text, files)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    one_sentence(err.strip(), words, tmp_path)


def test_xlsx_without_the_sheet(shop: Callable, tmp_path: Path) -> None:
    dataset = shop(SHEETS, {})
    book(tmp_path / "r.xlsx", **{"2024": [HEADER]})
    with pytest.raises(LabError, match="no sheet '2025': it has 2024$"):
        tables.load(dataset)


@pytest.mark.parametrize(
    ("ts", "words"), [("sold", "no column 'sold'"), ("sold_at + INTERVAL 1 DAY", "drop_overlap")]
)
def test_overlap_needs_the_column_of_dates(
    shop: Callable, tmp_path: Path, ts: str, words: str
) -> None:
    dataset = shop(
        toml(mapped(ts=ts), source='files = ["r.xlsx"]\nsheets = ["a", "b"]\ndrop_overlap = true'),
        {},
    )
    book(
        tmp_path / "r.xlsx",
        a=[HEADER, ["x", "y", DAY[0], 1, 1, 1]],
        b=[HEADER, ["x", "y", DAY[1], 2, 1, 1]],
    )
    with pytest.raises(LabError, match=words):
        tables.load(dataset)


@pytest.mark.parametrize("name", ["nonsense", "", "no/such.toml", "."])
def test_unknown_dataset_lists_the_known(name: str) -> None:
    with pytest.raises(LabError, match="synthetic, online_retail.* path of a .toml file$"):
        registry.spec(name)


def test_a_shop_must_not_be_called_like_a_built_in_set(shop: Callable, tmp_path: Path) -> None:
    taken = tmp_path / "online_retail.toml"
    Path(shop()).rename(taken)
    with pytest.raises(LabError, match="'online_retail' is taken"):
        registry.spec(str(taken))


def test_windows_longer_than_the_data(shop: Callable) -> None:
    """The sentence names both dates and the three values to lower.

    No fold is left that would look written.
    """
    dataset = shop()
    with pytest.raises(LabError, match="2024-01-01: lower test_weeks, valid_weeks or folds$"):
        folds.write_folds(dataset)
    assert not list(Path(dataset).parent.rglob("fold*.json"))


@pytest.mark.parametrize(
    "changed", [{"folds": 0}, {"test_weeks": -1}, {"protocol": "x"}, {"folds": "many"}]
)
def test_overrides_of_folds_are_checked(shop: Callable, changed: dict) -> None:
    with pytest.raises(LabError, match=f"^{next(iter(changed))} = "):
        folds.write_folds(shop(), **changed)

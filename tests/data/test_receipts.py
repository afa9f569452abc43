"""Receipts of any shop: read right, or refused in one sentence that names the cure."""

import gzip
import re
import shutil
import zipfile
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import openpyxl
import pandas as pd
import pytest

from recsys_utils import LabError
from recsys_utils.data import folds, tables

COLUMNS = {
    "user_id": "customer",
    "item_id": "sku",
    "ts": "day",
    "basket_id": "receipt",
    "quantity": "units",
    "price": "price",
}
HEAD = "customer,sku,day,receipt,units,price\n"


def toml(source: str = 'files = ["r.csv"]', top: str = "", more: str = "", **columns: str) -> str:
    """A shop's TOML; a column "" is left out."""
    mapped = {name: value for name, value in (COLUMNS | columns).items() if value}
    lines = "\n".join(f"{name} = '{value}'" for name, value in mapped.items())
    return f"{top}\n[purchases]\n{source}\n[purchases.columns]\n{lines}\n{more}\n"


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tables.Tables]:
    """Write raw files beside a shop's TOML and load the data set."""
    monkeypatch.setenv("RECSYS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("RECSYS_DATA", raising=False)

    def write(text: str, **files: str | bytes) -> tables.Tables:
        for name, content in files.items():
            path = tmp_path / f"{name}.csv"
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        (tmp_path / "shop.toml").write_text(text)
        return tables.load(str(tmp_path / "shop.toml"))

    return write


def rows_of(days: list[str]) -> str:
    """A receipt of one shopper on each of the days."""
    return HEAD + "".join(f'u1,a,"{day}",R{n},1,1\n' for n, day in enumerate(days))


def days_of(data: tables.Tables) -> list[str]:
    return [str(ts)[:16] for ts in data.purchases["ts"]]


def notes_of(data: tables.Tables) -> str:
    return " ".join(data.manifest["notes"])


# --- dates


@pytest.mark.parametrize(
    ("texts", "days"),
    [
        (["03/01/19", "30/12/22"], ["2019-01-03 00:00", "2022-12-30 00:00"]),
        (["12/1/10 8:26", "12/13/10 17:00"], ["2010-12-01 08:26", "2010-12-13 17:00"]),
        (["30/04/22 10:00", "01/05/22 9:05"], ["2022-04-30 10:00", "2022-05-01 09:05"]),
        (["01.02.2024", "31.12.2023"], ["2023-12-31 00:00", "2024-02-01 00:00"]),
        (["1/5/2024 9:05 PM", "1/15/2024 12:30 AM"], ["2024-01-05 21:05", "2024-01-15 00:30"]),
        (["20240105", "20240115"], ["2024-01-05 00:00", "2024-01-15 00:00"]),
        (["5 Jan 2024", "15 Feb 2024"], ["2024-01-05 00:00", "2024-02-15 00:00"]),
        (["2024/1/5", "2024/12/15"], ["2024-01-05 00:00", "2024-12-15 00:00"]),
        (
            ["2024-01-05T10:00:00Z", "2024-01-06T10:00:00+02:00"],
            ["2024-01-05 10:00", "2024-01-06 08:00"],
        ),
        (["15-07-2015 10:00:05", "01-08-2015 23:59:59"], ["2015-07-15 10:00", "2015-08-01 23:59"]),
    ],
)
def test_dates_are_read_by_the_one_format_that_fits_all_rows(
    load: Callable, texts: list[str], days: list[str]
) -> None:
    assert sorted(days_of(load(toml(), r=rows_of(texts)))) == days


def test_two_digit_years_are_read_alike_in_other_encodings(load: Callable) -> None:
    text = toml('files = ["r.csv"]\nencoding = "latin-1"')
    content = (HEAD + "u1,é,03/01/19,R1,1,1\nu1,é,30/12/22,R2,1,1\n").encode("latin-1")
    assert days_of(load(text, r=content)) == ["2019-01-03 00:00", "2022-12-30 00:00"]


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["03/04/2024", "05/06/2024"], ["3 April 2024", "4 March 2024", "%d/%m/%Y", "%m/%d/%Y"]),
        (["03/04/05"], ["may be", "set ts_format"]),
        (["13/01/2024", "01/15/2024"], ["'13/01/2024'", "'01/15/2024'", "correct the file"]),
        (["2024-01-05", "06/01/2024", "20/01/2024"], ["several forms", '"%Y-%m-%d"', '"%d/%m/%Y"']),
        (["45292", "45293"], ["1 January 2024", 'ts_format = "excel"']),
        (["1704067200"], ["1 January 2024", 'ts_format = "unix"']),
        (["31/02/2024", "30/01/2024"], ["r.csv, row 1", "'31/02/2024'", "not a date"]),
        (["0024-01-05", "2024-01-06"], ["r.csv, row 1", "1 of 2 dates"]),
    ],
)
def test_dates_that_may_be_misread_are_refused_with_the_cure(
    load: Callable, texts: list[str], words: list[str]
) -> None:
    with pytest.raises(LabError) as error:
        load(toml(), r=rows_of(texts))
    for word in words:
        assert word in str(error.value)


def test_all_files_of_a_source_are_read_by_one_format(load: Callable) -> None:
    """Each month alone fits another one: the rows of all decide."""
    text = toml('files = ["m1.csv", "m2.csv"]')
    first = HEAD + "u1,a,01/05/2024,R1,1,1\n"
    second = HEAD + "u1,a,01/15/2024,R2,1,1\n"
    days = days_of(load(text, m1=first, m2=second))
    assert days == ["2024-01-05 00:00", "2024-01-15 00:00"]


def test_a_list_of_formats_reads_files_that_mix_them(load: Callable) -> None:
    text = toml('files = ["r.csv"]\nts_format = ["%d-%m-%Y", "%m/%d/%Y"]')
    days = days_of(load(text, r=rows_of(["15-07-2015", "07/16/2015"])))
    assert days == ["2015-07-15 00:00", "2015-07-16 00:00"]


def test_a_spreadsheets_numbers_are_read_as_dates_when_asked(load: Callable) -> None:
    text = toml('files = ["r.csv"]\nts_format = "excel"')
    assert days_of(load(text, r=rows_of(["45292", "45292.5"]))) == [
        "2024-01-01 00:00",
        "2024-01-01 12:00",
    ]


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ([45292, 45293], 'ts_format = "excel"'),
        ([1704067200, 1704153600], 'ts_format = "unix"'),
        ([20240101, 20240102], ""),
    ],
)
def test_numbers_in_the_place_of_dates_are_named_in_other_files_too(
    load: Callable, tmp_path: Path, numbers: list[int], words: str
) -> None:
    frame = pd.DataFrame({"customer": ["u", "u"], "sku": "a", "day": numbers, "units": 1})
    frame.assign(receipt=[1, 2], price=1.0).to_parquet(tmp_path / "r.parquet")
    text = toml('files = ["r.parquet"]')
    if words:
        with pytest.raises(LabError, match=words):
            load(text)
    else:
        assert days_of(load(text)) == ["2024-01-01 00:00", "2024-01-02 00:00"]


def test_a_title_above_a_sheets_header_is_passed_over(load: Callable, tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    for row in [["Receipts"], [], HEAD.strip().split(","), ["u", "07", date(2024, 1, 1), 1, 1, 1]]:
        book.active.append(row)
    book.save(tmp_path / "r.xlsx")
    assert load(toml('files = ["r.xlsx"]')).purchases["item_id"].tolist() == ["07"]


def test_the_reading_of_dates_is_told(load: Callable) -> None:
    data = load(toml(), r=rows_of(["03/01/19", "30/12/22"]))
    assert "read as %d/%m/%y" in notes_of(data)
    assert "from 3 January 2019 00:00 to 30 December 2022 00:00" in notes_of(data)


# --- the end of trading


def trading(days: int, lines: int = 20) -> list[str]:
    start = date(2024, 1, 1)
    return [str(start + timedelta(days=n)) for n in range(days) for _ in range(lines)]


@pytest.mark.parametrize("stray", ["2204-05-29", "2024-12-31"])
def test_one_mistyped_date_does_not_move_the_end_of_trading(load: Callable, stray: str) -> None:
    """What lies in the future or after weeks without receipts is left out, counted and told."""
    data = load(toml(), r=rows_of([*trading(150), stray]))
    assert data.purchases["ts"].max() == pd.Timestamp("2024-05-29")
    assert len(data.purchases) == 3000
    rules = data.audit.set_index("rule")["rows"]
    assert rules.drop(["kept", "kept, merged to one line per user, item and basket"]).sum() == 1
    assert stray[:4] in notes_of(data)


def test_a_shop_that_pauses_keeps_what_comes_after(load: Callable) -> None:
    days = trading(60) + [str(date(2024, 4, 15) + timedelta(days=n)) for n in range(60)] * 5
    data = load(toml(), r=rows_of(days))
    assert data.purchases["ts"].max() == pd.Timestamp("2024-06-13")


# --- ids


def test_ids_with_decimals_stay_what_they_are(load: Callable, tmp_path: Path) -> None:
    """10.1, 10.2 and 10.5 are three products, in a file, in an expression and below a title."""
    rows = "".join(
        f"u1,{sku},2024-01-0{n},R{n},1,1\n"
        for n, sku in enumerate(["10.1", "10.2", "10.5", "10"], 1)
    )
    expected = ["10", "10.1", "10.2", "10.5"]
    plain = load(toml(), r=HEAD + rows)
    assert sorted(plain.purchases["item_id"]) == expected
    expression = load(toml(item_id="coalesce(sku, sku)"), r=HEAD + rows)
    assert sorted(expression.purchases["item_id"]) == expected
    titled = load(toml(), r="Receipts of May\n" + HEAD + rows)
    assert sorted(titled.purchases["item_id"]) == expected
    frame = pd.DataFrame(
        {"customer": ["u"] * 4, "sku": [10.1, 10.2, 10.5, 10.0], "receipt": [1, 2, 3, 4]}
    )
    frame["day"] = pd.Timestamp("2024-01-01")
    frame.assign(units=1, price=1.0).to_parquet(tmp_path / "r.parquet")
    assert sorted(load(toml('files = ["r.parquet"]')).purchases["item_id"]) == expected


@pytest.mark.parametrize("item_id", ["sku", "coalesce(sku, sku)"])
def test_long_numbers_keep_their_last_digit(load: Callable, tmp_path: Path, item_id: str) -> None:
    rows = HEAD + "u1,9007199254740993,2024-01-01,R1,1,1\nu1,9007199254740992,2024-01-01,R2,1,1\n"
    expected = {"9007199254740992", "9007199254740993"}
    assert set(load(toml(item_id=item_id), r=rows).purchases["item_id"]) == expected
    pd.read_csv(tmp_path / "r.csv").to_parquet(tmp_path / "r.parquet")
    text = toml('files = ["r.parquet"]', item_id=item_id)
    assert set(load(text).purchases["item_id"]) == expected


def test_ids_that_become_one_are_told(load: Callable) -> None:
    data = load(toml(), r=HEAD + "u1,10,2024-01-01,R1,1,1\nu1,10.0,2024-01-02,R2,1,1\n")
    assert data.items["item_id"].tolist() == ["10"]
    assert "Values of item_id (sku) that stand in the file in two spellings" in notes_of(data)


SPELLINGS = [
    "caf\u00e9",
    "\u00a0cafe\u0301",
    "caf\u00e9\u202f\t",
    "\ufeffcaf\u00e9",
    "caf\u00e9 \u3000",
]


@pytest.mark.parametrize("kind", ["csv", "xlsx", "parquet"])
def test_blanks_and_forms_of_unicode_make_no_other_id(
    load: Callable, tmp_path: Path, kind: str
) -> None:
    """In receipts of any kind, in their shoppers, items and baskets, and in other tables."""
    frame = pd.DataFrame({"customer": SPELLINGS, "sku": SPELLINGS[::-1], "receipt": SPELLINGS})
    frame = frame.assign(day="2024-01-01", units=1, price=2.0)
    if kind == "csv":
        frame.to_csv(tmp_path / "r.csv", index=False)
    elif kind == "xlsx":
        frame.to_excel(tmp_path / "r.xlsx", index=False)
    else:
        frame.to_parquet(tmp_path / "r.parquet")
    items = '[items]\nfiles = ["i.csv"]\n[items.columns]\nitem_id = "code"\nname = "title"\n'
    text = toml(f'files = ["r.{kind}"]', more=items)
    data = load(text, i="code,title\n\u2003cafe\u0301,Coffee\n")
    [line] = data.purchases[["user_id", "item_id", "basket_id", "quantity"]].to_numpy().tolist()
    assert line == ["caf\u00e9", "caf\u00e9", "caf\u00e9", 5]
    assert data.items.to_numpy().tolist() == [["caf\u00e9", "Coffee"]]
    for column in ("user_id (customer)", "item_id (sku)", "basket_id (receipt)"):
        assert f"Values of {column} that stand in the file in two spellings" in notes_of(data)


def test_ids_that_differ_in_case_stay_apart_and_are_told(load: Callable) -> None:
    rows = HEAD.replace("sku", "Item Code")
    rows += "".join(f"{user},{sku},2024-01-01,R1,1,1\n" for user in "uUv" for sku in "aAÉébc")
    text = toml(item_id="Item Code")
    data = load(text, r=rows)
    assert len(data.users) == 3
    assert len(data.items) == 6
    note = notes_of(data)
    assert "user_id (customer) that differ in nothing but case, such as 'U' and 'u'" in note
    assert "such as 'A' and 'a', and are not taken for one: 2. If they are one, map" in note
    [cure] = re.findall(r"map (item_id = .*), in every table", note)
    merged = load(text.replace("item_id = 'Item Code'", cure), r=rows)
    assert sorted(merged.items["item_id"]) == ["a", "b", "c", "é"]


def test_tables_whose_ids_differ_in_case_are_told(load: Callable) -> None:
    items = '[items]\nfiles = ["i.csv"]\n[items.columns]\nitem_id = "code"\nname = "title"\n'
    rows = HEAD + "u1,a,2024-01-01,R1,1,1\nu1,b,2024-01-01,R1,1,1\nu1,c,2024-01-01,R1,1,1\n"
    note = notes_of(load(toml(more=items), r=rows, i="code,title\na,Tea\nB,Bread\n"))
    assert "33% of the 3 item_ids of the receipts, and 1 more in other case: map item_id =" in note
    with pytest.raises(LabError, match="case differs, so map item_id = .lower"):
        load(toml(more=items), r=rows, i="code,title\nA,Tea\nB,Bread\n")


@pytest.mark.parametrize("nobody", ["nan", "NULL", "None", "N/A", "-", " "])
def test_spellings_of_nobody_are_no_customer(load: Callable, nobody: str) -> None:
    data = load(toml(), r=HEAD + f"u1,a,2024-01-01,R1,1,1\n{nobody},a,2024-01-01,R2,1,1\n")
    assert data.purchases["user_id"].tolist() == ["u1"]
    assert data.audit.set_index("rule").loc["no customer", "rows"] == 1


@pytest.mark.parametrize("guest", ["0", "-1", "GUEST"])
def test_a_shopper_with_an_implausible_share_is_named(load: Callable, guest: str) -> None:
    lines = [f"u{n},a,2024-01-01,R{n},1,1\n" for n in range(200)]
    lines += [f"{guest},a,2024-01-01,G{n},1,1\n" for n in range(40)]
    note = notes_of(load(toml(), r=HEAD + "".join(lines)))
    assert f"Shopper '{guest}' has 17% of all lines, 40 times as many" in note
    [rule] = re.findall(r'add to the TOML \[purchases.reject\] (".*)\.', note)
    dropped = load(toml(more=f"[purchases.reject]\n{rule}"), r=HEAD + "".join(lines))
    assert dropped.audit.set_index("rule").loc["no card", "rows"] == 40
    assert not notes_of(dropped)
    spaced = HEAD.replace("customer", "Customer ID") + "".join(lines)
    text = toml(user_id="Customer ID")
    [rule] = re.findall(
        r'add to the TOML \[purchases.reject\] (".*)\.', notes_of(load(text, r=spaced))
    )
    dropped = load(f"{text}\n[purchases.reject]\n{rule}", r=spaced)
    assert dropped.audit.set_index("rule").loc["no card", "rows"] == 40


def test_tables_whose_ids_do_not_meet_are_refused(load: Callable) -> None:
    items = '[items]\nfiles = ["items.csv"]\n[items.columns]\nitem_id = "code"\nname = "title"\n'
    rows = HEAD + "u1,100,2024-01-01,R1,1,1\nu1,200,2024-01-01,R1,1,1\n"
    with pytest.raises(LabError, match="'100', it has '00100'; leading zeros differ"):
        load(toml(more=items), r=rows, items="code,title\n00100,Tea\n")
    with pytest.raises(LabError, match="has no item_id of the receipts"):
        load(toml(more=items), r=rows, items="code,title\nX1,Tea\n")
    data = load(toml(more=items), r=rows, items="code,title\n100,Tea\n")
    assert "has 50% of the 2 item_ids of the receipts" in notes_of(data)
    cure = items.replace('"code"', "\"ltrim(code, '0')\"")
    data = load(toml(more=cure), r=rows, items="code,title\n00100,Tea\n")
    assert data.items.set_index("item_id")["name"].to_dict()["100"] == "Tea"


# --- baskets


def test_receipt_numbers_that_start_again_are_baskets_of_their_own(load: Callable) -> None:
    """January's and May's receipt 17 are two baskets; so are two shoppers' and two stores'."""
    rows = "u1,a,2024-01-05,17,1,1\nu1,a,2024-05-06,17,1,1\nu2,a,2024-01-05,17,1,1\n"
    data = load(toml(), r=HEAD + rows)
    buys = data.purchases
    assert buys["basket_id"].nunique() == 3
    assert sorted(str(ts)[:10] for ts in buys["ts"]) == ["2024-01-05", "2024-01-05", "2024-05-06"]
    assert "with another shopper: 1. Each of these is a basket" in notes_of(data)
    head = HEAD.strip() + ",store\n"
    stores = "u1,a,2024-01-05,17,1,1,S1\nu1,a,2024-01-05,17,1,1,S2\n"
    data = load(toml(store_id="store"), r=head + stores)
    assert data.purchases["basket_id"].nunique() == 2


def test_a_receipt_over_midnight_stays_one(load: Callable) -> None:
    rows = "u1,a,2024-01-05 23:58,17,1,1\nu1,b,2024-01-06 00:03,17,1,1\n"
    assert load(toml(), r=HEAD + rows).purchases["basket_id"].tolist() == ["17", "17"]


# --- numbers


@pytest.mark.parametrize(
    ("texts", "values"),
    [
        (["2,50", "3"], [2.5, 3]),
        (["1.234,56", "0,90"], [1234.56, 0.9]),
        (["0,90 €", "1.234,00 €"], [0.9, 1234]),
        (["£2.50", "£1,234.50"], [2.5, 1234.5]),
        (["1'234.50", "CHF 3.00"], [1234.5, 3]),
        (["1.234", "0.5"], [1.234, 0.5]),
        (["1e3", "2"], [1000, 2]),
    ],
)
def test_numbers_are_read_as_the_shop_writes_them(
    load: Callable, texts: list[str], values: list[float]
) -> None:
    lines = "".join(f'u1,a,2024-01-0{n},R{n},1,"{t}"\n' for n, t in enumerate(texts, 1))
    assert load(toml(), r=HEAD + lines).purchases["price"].tolist() == values
    doubled = load(toml(price="price * 2"), r=HEAD + lines)
    assert doubled.purchases["price"].tolist() == [2 * value for value in values]


def test_numbers_that_may_be_misread_ask_for_the_decimal_sign(load: Callable) -> None:
    rows = HEAD + 'u1,a,2024-01-01,R1,1,"1.234"\nu1,a,2024-01-02,R2,1,"2.500"\n'
    with pytest.raises(LabError, match="'1.234' may have thousands or decimals: set decimal"):
        load(toml(), r=rows)
    german = load(toml('files = ["r.csv"]\ndecimal = ","'), r=rows)
    assert german.purchases["price"].tolist() == [1234, 2500]
    english = load(toml('files = ["r.csv"]\ndecimal = "."'), r=rows)
    assert english.purchases["price"].tolist() == [1.234, 2.5]


def test_brackets_are_a_return(load: Callable) -> None:
    rows = HEAD + 'u1,a,2024-01-01,R1,(2.50),"1"\nu1,a,2024-01-02,R2,1,1\n'
    rules = load(toml(), r=rows).audit.set_index("rule")
    assert rules.loc["quantity not above 0", ["rows", "money"]].tolist() == [1, -2.5]


# --- files


def test_every_listed_file_is_read(load: Callable) -> None:
    first = HEAD + "u1,a,2024-01-01,R1,1,1\n"
    second = "till,customer,sku,day,receipt,units,price\nT,u2,a,2024-02-01,R2,1,1\n"
    data = load(toml('files = ["m1.csv", "m2.csv"]'), m1=first, m2=second)
    assert sorted(data.purchases["user_id"]) == ["u1", "u2"]
    with pytest.raises(LabError, match="m3.csv of data set 'shop' was not found"):
        load(toml('files = ["m1.csv", "m3.csv"]'), m1=first)
    data = load(toml('first_of = ["m3.csv", "m2.csv", "m1.csv"]'))
    assert sorted(data.purchases["user_id"]) == ["u2"]


def test_errors_name_the_file_that_has_the_row(load: Callable) -> None:
    first = HEAD + "u1,a,2024-01-01,R1,1,1\n"
    second = HEAD + "u1,a,2024-01-01,R1,1,1\nu1,a,noon,R1,1,1\n"
    with pytest.raises(LabError, match=r"m2.csv, row 2: day 'noon' is not a date"):
        load(toml('files = ["m1.csv", "m2.csv"]'), m1=first, m2=second)
    with pytest.raises(LabError, match=r"m2.csv has no column 'day'"):
        load(toml('files = ["m1.csv", "m2.csv"]'), m1=first, m2="customer,sku\nu1,a\n")


def test_files_are_known_by_their_content(load: Callable, tmp_path: Path) -> None:
    """gzip and xlsx under .csv are read; a zip archive is refused with the cure."""
    content = HEAD + "u1,007,2024-01-01,R1,1,1\n"
    assert load(toml(), r=gzip.compress(content.encode())).purchases["item_id"].tolist() == ["007"]
    book = openpyxl.Workbook()
    for row in [HEAD.strip().split(","), ["u1", "007", date(2024, 1, 1), "R1", 1, 1]]:
        book.active.append(row)
    book.save(tmp_path / "r.xlsx")
    (tmp_path / "r.xlsx").rename(tmp_path / "r.csv")
    assert load(toml()).purchases["item_id"].tolist() == ["007"]
    with zipfile.ZipFile(tmp_path / "r.csv", "w") as archive:
        archive.writestr("receipts.csv", content)
    with pytest.raises(LabError, match="zip archive: unpack it"):
        load(toml())


def test_the_likely_encoding_is_named(load: Callable) -> None:
    content = HEAD + "u1,é,2024-01-01,R1,1,1\n"
    with pytest.raises(LabError, match='is not utf-8: set encoding, e.g. encoding = "utf-16"'):
        load(toml(), r=content.encode("utf-16"))
    with pytest.raises(LabError, match='is not utf-8: set encoding, e.g. encoding = "latin-1"'):
        load(toml(), r=content.encode("latin-1"))


def test_a_row_with_more_fields_than_the_header_is_named(load: Callable) -> None:
    with pytest.raises(LabError, match="r.csv, row 2: it has 7 fields, the header 6"):
        load(toml(), r=HEAD + "u1,a,2024-01-01,R1,1,1\nu1,a,2024-01-01,R1,1,2,5\n")


# --- shapes


def test_a_file_without_a_header(load: Callable) -> None:
    """The layout of CDNOW: blanks between the columns, no header, compact dates."""
    source = 'files = ["r.csv"]\nsep = "spaces"\nheader = false\nnames = ["id", "date", "n", "usd"]'
    text = toml(
        source,
        user_id="id",
        item_id="CAST(round(usd / n) AS INTEGER)",
        ts="date",
        basket_id="",
        quantity="n",
        price="usd / n",
    )
    rows = " 00001 19970101  1   11.77\n 00002 19970112  5   77.00\n"
    buys = load(text, r=rows).purchases
    assert buys["user_id"].tolist() == ["00001", "00002"]
    assert buys["item_id"].tolist() == ["12", "15"]
    assert buys["price"].tolist() == [11.77, 15.4]
    assert days_of(load(text, r=rows)) == ["1997-01-01 00:00", "1997-01-12 00:00"]


def test_a_list_in_a_cell(load: Callable) -> None:
    text = toml('files = ["r.csv"]\nsplit = "|"', quantity="", price="", basket_id="")
    data = load(text, r="customer,sku,day\nu1,A | B | C,2024-01-01\nu2,B|C,2024-01-02\n")
    buys = data.purchases[["user_id", "item_id"]].to_numpy().tolist()
    assert buys == [["u1", "A"], ["u1", "B"], ["u1", "C"], ["u2", "B"], ["u2", "C"]]


def test_a_basket_per_row(load: Callable) -> None:
    """The layout of market-basket files: no header, products of one basket in a row."""
    source = 'files = ["r.csv"]\nheader = false\nnames = ["basket"]\nsplit = ","'
    text = toml(
        source,
        top='protocol = "next_basket"',
        user_id="_row",
        item_id="basket",
        ts="",
        basket_id="",
        quantity="",
        price="",
    )
    text = text.replace("[purchases.columns]", '[purchases.columns]\norder = "_row"')
    buys = load(text, r="citrus fruit,margarine\nyogurt\n").purchases
    pairs = buys[["user_id", "item_id"]].to_numpy().tolist()
    assert pairs == [["1", "citrus fruit"], ["1", "margarine"], ["2", "yogurt"]]


def test_a_column_per_product(load: Callable) -> None:
    more = '[purchases.unpivot]\ncolumns = ["bread", "croissant*"]\nname = "item"\nvalue = "n"\n'
    text = toml(user_id="who", item_id="item", quantity="n", basket_id="", price="", more=more)
    data = load(
        text,
        r="who,day,bread,croissant,croissant au beurre\nu1,2024-01-01,2,,1\nu2,2024-01-02,0,3,\n",
    )
    buys = data.purchases[["user_id", "item_id", "quantity"]].to_numpy().tolist()
    assert buys == [["u1", "bread", 2], ["u1", "croissant au beurre", 1], ["u2", "croissant", 3]]
    assert data.audit.set_index("rule").loc["quantity not above 0", "rows"] == 1


def test_orders_and_lines_in_two_files(load: Callable) -> None:
    """The layout of Instacart: lines know their order, orders know their shopper."""
    more = '[purchases.join]\nfiles = ["orders.csv"]\non = "order_id"\n'
    text = toml(
        top='protocol = "next_basket"',
        user_id="user",
        item_id="product",
        ts="",
        basket_id="order_id",
        quantity="",
        price="",
        more=more,
    )
    text = text.replace("[purchases.columns]", '[purchases.columns]\norder = "order_number"')
    lines = "order_id,product\n1,007\n1,8\n2,9\n3,9\n"
    orders = "order_id,user,order_number\n1,u1,1\n2,u1,2\n"
    data = load(text, r=lines, orders=orders)
    pairs = data.purchases[["user_id", "item_id"]].to_numpy().tolist()
    assert pairs == [["u1", "007"], ["u1", "8"], ["u1", "9"]]
    assert data.audit.set_index("rule").loc["no customer", "rows"] == 1
    with pytest.raises(LabError, match="order_id '1' more than once"):
        load(text, r=lines, orders=orders + "1,u2,1\n")


def test_the_order_of_rows_may_stand_for_dates(load: Callable) -> None:
    text = toml(top='protocol = "next_basket"', ts="", basket_id="")
    text = text.replace(
        "[purchases.columns]",
        '[purchases.columns]\norder = "row_number() OVER (PARTITION BY customer)"',
    )
    rows = "customer,sku,units,price\nu1,a,1,1\nu1,b,1,1\nu2,a,1,1\n"
    bought = load(text, r=rows).purchases.set_index(["user_id", "item_id"])["ts"]
    assert bought["u1", "b"] == bought["u2", "a"] == bought["u1", "a"] + pd.Timedelta(days=1)
    with pytest.raises(LabError, match="order .1. is 1 in every row"):
        load(text.replace("row_number() OVER (PARTITION BY customer)", "1"), r=rows)


# --- shops whose shoppers never return


@pytest.mark.parametrize(
    ("top", "words"),
    [
        (
            "test_weeks = 1\nvalid_weeks = 1",
            "none of the 14 shoppers of the test part has an earlier",
        ),
        ('protocol = "next_basket"', "no shopper of 'shop' has a second basket"),
    ],
)
def test_a_shop_without_returning_shoppers_is_told_what_it_lacks(
    load: Callable, tmp_path: Path, top: str, words: str
) -> None:
    """A bakery without customers: each receipt is its own shopper."""
    days = trading(60, lines=2)
    rows = "".join(f"b{n},bread,{day},b{n},1,1\n" for n, day in enumerate(days))
    load(toml(top=top), r=HEAD + rows)
    with pytest.raises(LabError, match=words):
        folds.write_folds(str(tmp_path / "shop.toml"))


# --- money


@pytest.mark.parametrize(
    ("units", "total", "price"),
    [
        (1290, "1.07", 0.000829457),
        (3, "0.40", 0.1333),
        (3, "0.20", 0.066666667),
        (200_000, "5.54", 2.77e-5),
    ],
)
def test_goods_sold_by_gram_keep_their_money(
    load: Callable, units: int, total: str, price: float
) -> None:
    rows = "".join(f"u{n},a,2024-01-01,R{n},{units},{total}\n" for n in range(500))
    data = load(toml(price="price / units"), r=HEAD + rows)
    assert set(data.purchases["price"]) == {price}
    money = data.audit.set_index("rule")["money"]
    bought = (data.purchases["price"] * data.purchases["quantity"]).sum()
    assert money.iloc[-1] == round(bought, 2) == pytest.approx(float(total) * 500, rel=1e-3)
    assert not notes_of(data)


def test_money_that_rounding_changes_is_told_and_not_hidden(load: Callable) -> None:
    rows = HEAD + "".join(f"u1,a,2024-01-01,R{n},3e9,1\n" for n in range(9))
    data = load(toml('files = ["r.csv"]', 'currency = "€"', price="price / units"), r=rows)
    money = data.audit.set_index("rule")["money"]
    assert money["kept"] == 9
    assert money["kept, merged to one line per user, item and basket"] == 0
    assert "Money is €0.00 after prices were rounded, and €9.00 before" in notes_of(data)


@pytest.mark.parametrize(("bought", "returned"), [(9, 1), (9, 0.05)])
def test_returns_are_told_with_what_they_are_worth(
    load: Callable, bought: float, returned: float
) -> None:
    """Those of nobody in particular cancel no shopper's purchase."""
    rows = f"u1,a,2024-01-01,R1,100,{bought}\nu1,a,2024-01-02,R2,-100,{returned}\n"
    rows += "u1,b,2024-01-02,R3,-1,\n,b,2024-01-02,R4,-999,999\n"
    note = notes_of(load(toml('files = ["r.csv"]', 'currency = "€"'), r=HEAD + rows))
    is_told = "Returns of €100 are rejected: money (€900) is before returns" in note
    assert is_told == (returned == 1)
    assert is_told or "Returns" not in note


def test_a_line_that_is_most_of_all_money_is_named(load: Callable) -> None:
    rows = HEAD + "".join(f"u{n},a,2024-01-01,R{n},1,2\n" for n in range(120))
    data = load(toml('files = ["r.csv"]', 'currency = "€"'), r=rows + "u1,b,2024-01-01,X,1e9,1\n")
    note = "r.csv, row 121: this line alone is 100% of all money, €1,000,000,000 (item_id (sku) 'b'"
    assert note in notes_of(data)
    assert not notes_of(load(toml(), r=rows + "u1,b,2024-01-01,X,200,1\n"))


# --- what is no product


def test_fees_and_bags_are_named_with_the_rule_that_drops_them(load: Callable) -> None:
    """By their name, in too many baskets, or always free: those in the most baskets first."""
    names = {"POST": "Next day CARRIAGE", "M": "Manual", "CLOCK": "Carriage clock", "S": "Soap"}
    more = '[items]\nfiles = ["i.csv"]\n[items.columns]\nitem_id = "sku"\nname = "title"\n'
    items = "sku,title\n" + "".join(f"{sku},{name}\n" for sku, name in names.items())
    rows = HEAD + "".join(f"u{n},a{n % 9},2024-01-01,R{n},1,2\n" for n in range(90))
    rows += "".join(f"u{n},LID,2024-01-01,R{n},1,1\n" for n in range(50))
    rows += "".join(f"u{n},BAG,2024-01-01,R{n},1,0\n" for n in range(20))
    rows += "".join(f"u1,{sku},2024-01-01,R1,1,1\n" for sku in [*names, "DELIVERY_FEE"])
    note = notes_of(load(toml(more=more), r=rows, i=items))
    told = (
        "'LID' (in 56% of the baskets), 'BAG' (always free), 'DELIVERY_FEE', 'M' (Manual),"
        " 'POST' (Next day CARRIAGE). If so, add to the TOML [purchases.reject] \"no product\" ="
    )
    assert told in note
    [rule] = re.findall(r'\[purchases.reject\] ("no product" = .*")\.', note)
    data = load(toml(more=f"[purchases.reject]\n{rule}\n{more}"), r=rows, i=items)
    assert data.audit.set_index("rule").loc["no product", "rows"] == 73
    assert "no product" not in notes_of(data)


def test_a_rule_for_items_fits_the_column_that_a_shop_has(load: Callable) -> None:
    rows = HEAD.replace("sku", "Item Code") + "u1,a,2024-01-01,R1,1,2\nu1,Tax,2024-01-01,R1,1,2\n"
    text = toml(item_id="Item Code")
    note = notes_of(load(text, r=rows))
    [rule] = re.findall(r"\[purchases.reject\] (\"no product\" = .*)\.", note)
    data = load(f"{text}\n[purchases.reject]\n{rule}", r=rows)
    assert data.purchases["item_id"].tolist() == ["a"]


# --- what a shop writes in its own way


def prices(texts: list[str]) -> str:
    return HEAD + "".join(f'u1,a,2024-01-0{n},R{n},1,"{t}"\n' for n, t in enumerate(texts, 1))


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "cp1252"])
def test_other_encodings_are_read_as_strictly_as_utf_8(load: Callable, encoding: str) -> None:
    source = f'files = ["r.csv"]\nencoding = "{encoding}"'
    # A separator more at the end of each line does not move the columns.
    trailing = prices(["1", "2"]).replace("\n", ",\n").replace("price,\n", "price\n")
    data = load(toml(source), r=trailing.replace("u1", "ü1").encode(encoding))
    assert data.purchases["user_id"].tolist() == ["ü1", "ü1"]
    assert data.purchases["price"].tolist() == [1, 2]
    short = prices(["1", "2"]) + "ü2,b\n"
    with pytest.raises(LabError, match=r"r\.csv, row 3: it has 2 fields, the header 6"):
        load(toml(source), r=short.encode(encoding))


def test_columns_of_spaces_are_read_as_strictly(load: Callable) -> None:
    lines = ["customer  sku day\treceipt units price", 'u1 "a b"   2024-01-01 R1 1  2.5']
    source = 'files = ["r.csv"]\nsep = "spaces"'
    data = load(toml(source), r="\n".join(lines) + "\n")
    assert data.purchases[["item_id", "price"]].to_numpy().tolist() == [["a b", 2.5]]
    with pytest.raises(LabError, match=r"r\.csv, row 2: it has 7 fields, the header 6"):
        load(toml(source), r="\n".join([*lines, "u1 a 2024-01-02 R2 1 2.5 x"]) + "\n")


@pytest.mark.parametrize("round_price", ["12,-", "12.-", "12,--", "12,–", "€ 12,-"])
def test_a_round_price_with_a_dash_is_no_return(load: Callable, round_price: str) -> None:
    data = load(toml(), r=prices([round_price, "3,50"]))
    assert data.purchases["price"].tolist() == [12, 3.5]


def test_a_minus_sign_of_print_is_a_minus(load: Callable) -> None:
    rules = load(toml(), r=prices(["−5,00", "3,50"])).audit.set_index("rule")
    assert rules.loc["price missing or below 0", "money"] == -5


def test_a_number_that_contradicts_the_given_decimal_sign_is_refused(load: Callable) -> None:
    comma = toml('files = ["r.csv"]\ndecimal = ","')
    with pytest.raises(LabError, match=r"price \(price\) has '2\.50', which does not fit decimal"):
        load(comma, r=prices(["1,50", "2.50"]))
    with pytest.raises(LabError, match=r"'1,50', which does not fit"):
        load(toml('files = ["r.csv"]\ndecimal = "."'), r=prices(["1,50", "2.50"]))
    assert load(comma, r=prices(["1,50", "2.500"])).purchases["price"].tolist() == [1.5, 2500]


def test_two_currencies_are_refused_and_one_is_read(load: Callable) -> None:
    with pytest.raises(LabError, match="'EUR 6' and 'USD 5', two currencies"):
        load(toml(), r=prices(["USD 5", "EUR 6"]))
    assert load(toml(), r=prices(["EUR 5", "6 €"])).purchases["price"].tolist() == [5, 6]


@pytest.mark.parametrize(
    ("price", "column"), [("price", "quantity (units)"), ("price/units", "units")]
)
def test_a_doubtful_number_that_follows_other_columns_is_told(
    load: Callable, price: str, column: str
) -> None:
    rows = HEAD + 'u1,a,2024-01-01,R1,"1.500","1,50"\nu1,b,2024-01-02,R2,"2.000","2.234,50"\n'
    data = load(toml(price=price), r=rows)
    assert data.purchases["quantity"].tolist() == [1500, 2000]
    assert f"{column} such as '1.500' is read as thousands" in notes_of(data)


def test_times_with_a_zone_are_told_and_never_mixed_with_others(load: Callable) -> None:
    data = load(toml(), r=rows_of(["2024-01-01T20:00:00-05:00", "2024-01-05T20:00:00-05:00"]))
    assert days_of(data) == ["2024-01-02 01:00", "2024-01-06 01:00"]
    assert "read as UTC" in notes_of(data)
    with pytest.raises(LabError, match=r"ts \(day\) holds times with a zone and times without"):
        load(toml(), r=rows_of(["2024-01-01T20:00:00-05:00", "2024-01-05T20:00:00"]))


def test_orders_are_whole_numbers(load: Callable) -> None:
    shop = toml(top='protocol = "next_basket"', ts="", quantity="", order="units")
    with pytest.raises(LabError, match=r"order \(units\) is no whole number in 1 rows"):
        load(shop, r=HEAD + "u1,a,,R1,1,1\nu1,b,,R2,1.5,1\n")


def test_copies_of_lines_are_told_until_something_is_said_of_them(load: Callable) -> None:
    rows = prices(["1", "2"])
    copied = rows + rows.splitlines(keepends=True)[1]
    assert "1 line is a copy of another in every column" in notes_of(load(toml(), r=copied))
    assert "copy" not in notes_of(load(toml(), r=rows))
    without = load(toml('files = ["r.csv"]\ndrop_copies = true'), r=copied)
    assert "copy of another" not in notes_of(without)


def test_what_the_shops_rules_reject_need_not_be_readable(load: Callable) -> None:
    rows = rows_of(["2024-01-01", "2024-01-02"]) + "u1,b,unknown,R9,1,3\n"
    with pytest.raises(LabError, match="'unknown' is not a date"):
        load(toml(), r=rows)
    rule = '[purchases.reject]\n"no date" = "day = \'unknown\'"'
    data = load(toml(more=rule), r=rows)
    assert data.audit.set_index("rule").loc["no date", "rows"] == 1
    assert len(data.purchases) == 2


def test_rules_of_events_are_kept_and_counted(load: Callable) -> None:
    events = """[events]
files = ["e.csv"]
[events.columns]
user_id = "u"
item_id = "i"
ts = "t"
event_type = "e"
[events.reject]
"a robot" = "u = 'bot'"
"""
    log = "u,i,t,e\nu1,a,2024-01-01,view\nbot,a,2024-01-01,view\nbot,a,2024-01-02,cart\n"
    data = load(toml(more=events), r=rows_of(["2024-01-01", "2024-01-03"]), e=log)
    assert data.events["user_id"].tolist() == ["u1"]
    told = data.audit[data.audit["table"] == "events"].set_index("rule")["rows"]
    assert told.to_dict() == {"a robot": 2, "kept": 1}


def test_two_shops_of_one_name_do_not_share_results(load: Callable, tmp_path: Path) -> None:
    rows = rows_of(["2024-01-01", "2024-01-03"])
    load(toml(), r=rows)
    other = tmp_path / "other"
    other.mkdir()
    (other / "r.csv").write_text(rows)
    (other / "shop.toml").write_text(toml())
    with pytest.raises(LabError, match="another shop of the same name: rename one"):
        tables.load(str(other / "shop.toml"))
    # A shop that was moved keeps its results.
    (tmp_path / "shop.toml").unlink()
    assert len(tables.load(str(other / "shop.toml")).purchases) == 2


@pytest.mark.parametrize(
    ("price", "texts", "said"),
    [
        ("price / 2", ["3,48", "gratis"], "price 'gratis' is not a number"),
        (
            "CAST(upper(price) AS DOUBLE)",
            ["3,48", "2,50"],
            "price is read as a number already, 1.234,56 too: leave functions of text out",
        ),
    ],
)
def test_an_expression_that_fails_names_its_own_column_and_the_cause(
    load: Callable, price: str, texts: list[str], said: str
) -> None:
    with pytest.raises(LabError, match=re.escape(said)):
        load(toml(price=price), r=prices(texts))


@pytest.mark.parametrize("ends", [("\n", "\r\n"), ("\r\n", "\n"), ("\r\n", "\r\n")])
def test_lines_may_end_in_different_ways(load: Callable, ends: tuple[str, str]) -> None:
    first, second, third = prices(["1,5", "2,5"]).splitlines()
    text = first + ends[0] + second + ends[1] + third + ends[0]
    assert load(toml(), r=text.encode()).purchases["price"].tolist() == [1.5, 2.5]
    # An id at the end of a line holds no sign of it.
    plain = f"day,sku,customer{ends[0]}2024-01-01,a,u1{ends[1]}2024-01-02,b,u1{ends[0]}"
    data = load(toml(basket_id="", quantity="", price=""), r=plain.encode())
    assert data.purchases["user_id"].tolist() == ["u1", "u1"]


def test_a_shop_can_be_copied_with_its_results(
    load: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the description lies inside the home, both are copied."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "r.csv").write_text(rows_of(["2024-01-01", "2024-01-03"]))
    (home / "shop.toml").write_text(toml())
    load(toml(), r=rows_of(["2024-01-01"]))
    shutil.rmtree(home / "data")
    assert len(tables.load(str(home / "shop.toml")).purchases) == 2
    copy = shutil.copytree(home, tmp_path / "copy")
    monkeypatch.setenv("RECSYS_HOME", str(copy))
    assert len(tables.load(str(copy / "shop.toml")).purchases) == 2

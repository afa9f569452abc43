"""Random receipts in random dialects are read back exactly, or refused in one sentence."""

import csv
import io
import os
import random
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys_utils import LabError
from recsys_utils.data import tables

# Files of one run of the tests; RECSYS_FUZZ=5000 tries more.
FILES = int(os.environ.get("RECSYS_FUZZ", "40"))
DATES = (
    "%Y-%m-%d",
    "%d/%m/%Y",
    "%m/%d/%Y",
    "%d.%m.%y",
    "%m-%d-%y",
    "%Y%m%d",
    "%d %b %Y",
    "%Y/%m/%d",
)
TIMES = ("", " %H:%M", " %H:%M:%S", " %I:%M %p")
CURRENCIES = ("", "€", "£", " EUR")
ID_STYLES = ("{n}", "{n:05d}", "A{n}", "{n}.5", "90071992547409{n:02d}", "x {n}", "é{n}", "{n}E5")

dialects = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 10**9),
        "lines": st.integers(1, 60),
        "sep": st.sampled_from(",;\t|"),
        "decimal": st.sampled_from(".,"),
        "thousands": st.booleans(),
        "currency": st.sampled_from(CURRENCIES),
        "encoding": st.sampled_from(["utf-8", "utf-8-sig", "latin-1", "utf-16"]),
        "quoting": st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
        "date": st.sampled_from(DATES),
        "time": st.sampled_from(TIMES),
        "user": st.sampled_from(ID_STYLES),
        "item": st.sampled_from(ID_STYLES),
        "files": st.integers(1, 3),
        "title": st.booleans(),
        "line_end": st.sampled_from(["\n", "\r\n"]),
        "days": st.sampled_from([3, 40, 700]),
    }
)


def money(value: float, dialect: dict) -> str:
    """A number as the dialect writes it."""
    text = f"{value:,.2f}" if dialect["thousands"] else f"{value:.2f}"
    if dialect["decimal"] == ",":
        text = text.replace(",", " ").replace(".", ",").replace(" ", ".")
    sign = dialect["currency"]
    return text + sign if sign.startswith(" ") else sign + text


def receipts(dialect: dict) -> list[tuple]:
    """(user, item, time, quantity, price) of random lines, no two of one user at one time."""
    rng = random.Random(dialect["seed"])
    start = datetime(2020, 1, 1) + timedelta(days=rng.randrange(1500))
    rows = []
    for n in range(dialect["lines"]):
        when = start + timedelta(days=rng.randrange(dialect["days"]), minutes=rng.randrange(1440))
        written = when.strftime(dialect["date"] + dialect["time"])
        read = datetime.strptime(written, dialect["date"] + dialect["time"])
        user = dialect["user"].format(n=rng.randrange(1, 20))
        item = dialect["item"].format(n=n + 1)
        rows.append(
            (user, item, read, written, rng.randrange(1, 5), rng.randrange(1, 300_000) / 100)
        )
    return rows


def write(folder: Path, dialect: dict, rows: list[tuple]) -> None:
    """The receipts as files, and the TOML that a shop would write for them."""
    names = []
    for part in range(dialect["files"]):
        text = io.StringIO()
        if dialect["title"]:
            text.write(f"Receipts part {part}{dialect['line_end']}")
        writer = csv.writer(
            text,
            delimiter=dialect["sep"],
            quoting=dialect["quoting"],
            lineterminator=dialect["line_end"],
        )
        writer.writerow(["customer", "sku", "day", "units", "price"])
        for user, item, _, written, units, price in rows[part :: dialect["files"]]:
            writer.writerow([user, item, written, units, money(price, dialect)])
        names.append(f"part{part}.csv")
        content = text.getvalue().encode(dialect["encoding"], "replace")
        (folder / names[-1]).write_bytes(content)
    encoding = dialect["encoding"].replace("-sig", "")
    listed = ", ".join(f'"{name}"' for name in names)
    (folder / "shop.toml").write_text(
        f'[purchases]\nfiles = [{listed}]\nencoding = "{encoding}"\n[purchases.columns]\n'
        'user_id = "customer"\nitem_id = "sku"\nts = "day"\nquantity = "units"\nprice = "price"\n'
    )


@pytest.mark.slow
@settings(
    max_examples=FILES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(dialect=dialects)
def test_receipts_in_any_dialect_are_read_back_or_refused(
    dialect: dict, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("dialect")
    monkeypatch.setenv("RECSYS_HOME", str(folder / "home"))
    monkeypatch.delenv("RECSYS_DATA", raising=False)
    if dialect["encoding"] == "latin-1" and dialect["currency"] == "€":
        dialect = dialect | {"currency": "£"}  # latin-1 has no euro sign
    rows = receipts(dialect)
    if len(rows) < dialect["files"]:
        dialect = dialect | {"files": 1}
    write(folder, dialect, rows)
    try:
        data = tables.load(str(folder / "shop.toml"))
    except LabError as error:
        assert "\n" not in str(error)
        refused(str(error), dialect)
        return
    got = sorted(
        (row.user_id, row.item_id, row.ts.to_pydatetime(), row.quantity, round(row.price, 2))
        for row in data.purchases.itertuples()
    )
    expected = sorted((u, i, read, float(q), p) for u, i, read, _, q, p in rows)
    assert got == expected


def refused(message: str, dialect: dict) -> None:
    """Only what a person could not tell either may be refused."""
    if "may be" in message and "set ts_format" in message:
        assert dialect["date"] in ("%d/%m/%Y", "%m/%d/%Y", "%d.%m.%y", "%m-%d-%y"), message
    elif "several forms" in message:
        assert "%b" in dialect["date"], message
    else:
        raise AssertionError(message)

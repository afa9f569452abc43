"""Everybody's recommendations in one file: from the best model, on all receipts, ids unchanged."""

import csv
from pathlib import Path

import numpy as np
import openpyxl
import pandas as pd
import pytest
from lab.record import record

from recsys_utils import lists
from recsys_utils.data import folds
from recsys_utils.data.interactions import Interactions
from recsys_utils.ensembles.two_stage import TwoStage
from recsys_utils.models import OwnPurchases, Popular

TOML = """
[purchases]
files = ["receipts.csv"]
[purchases.columns]
user_id = "customer"
item_id = "sku"
ts = "day"
basket_id = "receipt"
price = "price"
[items.columns]
item_id = "sku"
name = "title"
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Forty shoppers who buy 007 every week and one of three others now and then."""
    monkeypatch.setenv("RECSYS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("RECSYS_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    names = {"007": "=Tea", "90071992547409931": "Çay", "3": "Milk", "4": "Rum"}
    lines = ["customer,sku,day,receipt,price,title"]
    start = pd.Timestamp("2024-01-01")
    for user in range(40):
        for week in range(26):
            day = (start + pd.Timedelta(weeks=week, days=user % 7)).date()
            other = list(names)[1 + (user + week) % 3]
            for sku in ["007", other] if week % 3 == user % 3 else ["007"]:
                lines.append(f"{user:03d},{sku},{day},R{user}-{week},2.5,{names[sku]}")
    (tmp_path / "receipts.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (tmp_path / "shop.toml").write_text(TOML)
    return str(tmp_path / "shop.toml")


@pytest.fixture
def judged(shop: str) -> str:
    """The shop with two recorded models, of which own purchases are the better one."""
    folds.write_folds(shop)
    fold = folds.load_fold(shop)
    record(OwnPurchases(tau=90), fold, "own_decayed")
    record(Popular(days=28), fold, "popular_28d")
    return shop


def rows_of(path: Path) -> list[dict]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_the_best_model_lists_for_everybody_from_all_receipts(judged: str, tmp_path: Path) -> None:
    out = tmp_path / "recommendations.csv"
    assert lists.main(["--dataset", judged, "-k", "2"]) == 0
    assert out.read_bytes().startswith(b"\xef\xbb\xbf")
    rows = rows_of(out)
    assert list(rows[0]) == lists.COLUMNS
    assert len(rows) == 80
    assert {row["user_id"] for row in rows} == {f"{user:03d}" for user in range(40)}
    first = rows[0]
    assert (first["user_id"], first["rank"], first["item_id"]) == ("000", "1", "007")
    assert first["name"] == "'=Tea"
    assert float(first["price"]) == 2.5
    assert first["reason"] == "You bought it 26 times, last on 2024-06-24"
    assert first["last_bought"] == "2024-06-24"
    assert {row["model"] for row in rows} == {"own_decayed"}
    assert "90071992547409931" in {row["item_id"] for row in rows}
    again = out.read_bytes()
    lists.main(["--dataset", judged, "-k", "2"])
    assert out.read_bytes() == again


def test_new_items_only_say_that_they_are_new(judged: str) -> None:
    table = lists.recommendations(judged, 3, ["000"], "popular_28d", new_only=True)
    assert len(table) < 3
    assert table["last_bought"].isna().all()
    assert table["reason"].str.startswith("New for you").all()


def new_items(table: pd.DataFrame) -> pd.Series:
    """Of each shopper, how many items they never bought."""
    return table.assign(is_new=table["last_bought"].isna()).groupby("user_id")["is_new"].sum()


def test_promised_new_items_take_the_place_of_what_was_bought(
    judged: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Everybody bought two of four items, so that three new ones cannot be had."""
    asked = ["--dataset", judged, "--model", "own_decayed"]
    assert lists.main([*asked, "-k", "2", "--new-items", "1"]) == 0
    said = capsys.readouterr()
    assert "At least 1 of 2 items new to the shopper: not so for 0 of 40 shoppers" in said.out
    assert "two_stage_new has no run, so own_decayed chose the new items too" in said.err
    rows = rows_of(tmp_path / "recommendations.csv")[:2]
    assert rows[0]["item_id"] == "007"
    assert rows[1]["reason"].startswith("New for you")
    assert {row["model"] for row in rows} == {"own_decayed"}
    assert lists.main([*asked, "-k", "4", "--new-items", "3"]) == 0
    assert "not so for 40 of 40 shoppers" in capsys.readouterr().out


def test_new_items_come_from_the_model_that_is_judged_on_them(
    home: Path, capsys: pytest.CaptureFixture
) -> None:
    """The promise is kept for every shopper, by lists that say which model chose what."""
    toml = home / "small.toml"
    toml.write_text('title = "Small shop"\nsynthetic = true\nlines = 6000\n')
    folds.write_folds(str(toml))
    fold = folds.load_fold(str(toml))
    record(OwnPurchases(tau=90), fold, "own_decayed")
    discovery = TwoStage(target="new", windows=2, draws=1, rounds=20)
    record(discovery, fold, "two_stage_new")
    plain = lists.recommendations(str(toml), 5, model="own_decayed")
    table = lists.recommendations(str(toml), 5, model="own_decayed", new_items=2)
    assert (new_items(table) >= 2).all()
    assert (table["user_id"].value_counts() == 5).all()
    assert lists.lacking(table, table["user_id"].unique(), 2) == 0
    assert lists.lacking(table, ["nobody"], 2) == 1
    added = table[table["model"] == "two_stage_new"]
    assert added["reason"].str.startswith("New for you").all()
    assert len(added) > len(plain) / 5
    first = table[table["rank"] == 1]["item_id"].tolist()
    assert first == plain[plain["rank"] == 1]["item_id"].tolist()
    assert "has no run" not in capsys.readouterr().err


def test_shoppers_by_file_and_by_option(
    judged: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "some.csv").write_text("user_id\n007\n999\n")
    assert lists.main(["--dataset", judged, "--users", "some.csv", "-k", "1"]) == 0
    assert "Without any receipt, given the bestsellers: 1" in capsys.readouterr().err
    rows = rows_of(tmp_path / "recommendations.csv")
    assert [row["user_id"] for row in rows] == ["007", "999"]
    assert rows[1]["reason"] == lists.STRANGER
    assert len(lists.recommendations(judged, 1, ["001", "002"])) == 2


def test_a_workbook_keeps_ids_as_text(judged: str, tmp_path: Path) -> None:
    assert lists.main(["--dataset", judged, "--out", "r.xlsx", "-k", "1"]) == 0
    sheet = openpyxl.load_workbook(tmp_path / "r.xlsx").active
    assert sheet["A2"].value == "000"
    assert sheet["C2"].value == "007"
    assert sheet["C2"].data_type == "s"
    assert lists.main(["--dataset", judged, "--out", "r.parquet", "-k", "1"]) == 0
    assert pd.read_parquet(tmp_path / "r.parquet")["item_id"].eq("007").any()


def with_formulas(shop: str, tmp_path: Path) -> str:
    """The shop, with an id of a shopper and of an item that a spreadsheet would compute."""
    path = tmp_path / "receipts.csv"
    text = path.read_text().replace("\n000,007,", "\n=1+0,007,").replace(",007,", ",@7,")
    text = text.replace("=Tea", "#N/A").replace(",Milk", ",=1+1")
    path.write_text(text, encoding="utf-8")
    return shop


def test_a_workbook_computes_no_id_and_no_name(shop: str, tmp_path: Path) -> None:
    asked = ["--dataset", with_formulas(shop, tmp_path), "--model", "own_decayed", "-k", "2"]
    assert lists.main([*asked, "--out", "r.xlsx"]) == 0
    sheet = openpyxl.load_workbook(tmp_path / "r.xlsx").active
    found = {}
    for row in sheet.iter_rows(min_row=2):
        for place in (0, 2, 3):
            found[row[place].value] = (row[place].data_type, row[place].number_format)
    assert {"=1+0", "@7", "#N/A", "=1+1"} <= set(found)
    assert set(found.values()) == {("s", "@")}
    assert sheet["E2"].data_type == "n"


def test_a_csv_keeps_ids_and_warns_of_them(
    shop: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Ids are for machines; a name is for people and gets an apostrophe."""
    asked = ["--dataset", shop, "--model", "own_decayed", "-k", "2"]
    assert lists.main(asked) == 0
    assert "formula" not in capsys.readouterr().err
    with_formulas(shop, tmp_path)
    assert lists.main(asked) == 0
    said = capsys.readouterr().err
    assert "2 ids begin like a formula, such as '=1+0'" in said
    assert "Write an .xlsx" in said
    rows = rows_of(tmp_path / "recommendations.csv")
    assert {"=1+0"} <= {row["user_id"] for row in rows}
    assert {"@7"} <= {row["item_id"] for row in rows}
    assert {"'=1+1", "#N/A"} <= {row["name"] for row in rows}
    assert lists.main([*asked, "--out", "r.parquet"]) == 0
    assert "formula" not in capsys.readouterr().err


SALES = """
ann tea  2024-01-01 1.00
bob tea  2024-03-04 2.00
cat tea  2024-03-20 2.20
dan tea  2024-03-31 9.00
ann milk 2024-01-01 0.80
bob milk 2024-02-01 0.90
ann rum  2024-03-02 5.00
bob rum  2024-03-03 7.00
"""


def sales(factor: float = 1.0) -> Interactions:
    """Receipts up to 31 March, of which the last 28 days begin on 3 March."""
    lines = [line.split() for line in SALES.strip().splitlines()]
    table = pd.DataFrame(lines, columns=["user_id", "item_id", "ts", "price"])
    return Interactions.of(
        table.assign(
            ts=pd.to_datetime(table["ts"]),
            price=table["price"].astype(float) * factor,
            basket_id=table["user_id"] + table["ts"],
            quantity=1.0,
        )
    )


def test_a_price_is_what_the_item_costs_now() -> None:
    """Tea: the median of March. Milk: its newest line. Rum: the 3rd of March is 28 days ago."""
    receipts = sales()
    prices = pd.Series(lists.current_prices(receipts), receipts.item_ids)
    assert prices.to_dict() == {"tea": 2.2, "milk": 0.9, "rum": 7.0}
    # Without dates all lines count.
    prices = pd.Series(lists.current_prices(receipts, dated=False), receipts.item_ids)
    assert prices.to_dict() == pytest.approx({"tea": 2.1, "milk": 0.85, "rum": 6.0})


def test_receipts_without_prices_have_none_now() -> None:
    receipts = sales()
    receipts.purchases = receipts.purchases.drop(columns="price")
    assert np.isnan(lists.current_prices(receipts)).all()


def test_a_file_tells_the_price_of_these_weeks_and_never_0(shop: str, tmp_path: Path) -> None:
    """The price doubles on 1 June, three weeks before the last receipt, and is told in full."""
    asked = ["--dataset", shop, "--model", "own_decayed", "-k", "1"]
    path = tmp_path / "receipts.csv"
    written = path.read_text().splitlines()
    for old, new, told in (
        ("1.2345", "2.4689", "2.47"),
        ("0.0008", "0.0016", "0.0016"),
        ("617283.9451", "1234567.89", "1234567.89"),
    ):
        lines = [written[0]]
        for line in written[1:]:
            is_late = line.split(",")[2] >= "2024-06-01"
            lines.append(line.replace(",2.5,", f",{new if is_late else old},"))
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        assert lists.main(asked) == 0
        assert {row["price"] for row in rows_of(tmp_path / "recommendations.csv")} == {told}


def test_scores_below_the_least_are_left_out(judged: str) -> None:
    every = lists.recommendations(judged, 4)
    least = every["score"].median()
    assert lists.recommendations(judged, 4, min_score=least)["score"].min() >= least


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-k", "0"], "-k 0: take 1 or more"),
        (["--model", "nope"], "--model nope has no run: there are own_decayed, popular_28d"),
        (["--out", "r.pdf"], "the file ends in .csv, .parquet, .xlsx"),
        (["--out", "/proc/none/r.csv"], "there is no folder /proc/none"),
        (["--users", "some.csv", "--out", "some.csv"], "it is the file that is read"),
        (["--users", "nothing.csv"], "does not exist"),
        (["--users", "1,,2"], "empty id"),
        (["--min-score", "1e9"], "nothing is left"),
        (["-k", "3", "--new-items", "4"], "--new-items 4: of 3 items between 0 and 3 can be new"),
        (["--new-items", "-1"], "--new-items -1: of 10 items"),
        (["--new-items", "1", "--new-only"], "leave --new-items out"),
        (["--new-items", "1", "--min-score", "1"], "take one of them"),
    ],
)
def test_bad_input_is_one_sentence(
    judged: str,
    tmp_path: Path,
    arguments: list[str],
    words: str,
    capsys: pytest.CaptureFixture,
) -> None:
    (tmp_path / "some.csv").write_text("user_id\n007\n")
    assert lists.main(["--dataset", judged, *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_without_a_run_it_says_what_to_do(shop: str, capsys: pytest.CaptureFixture) -> None:
    assert lists.main(["--dataset", shop]) == 2
    assert "run ./run_all.sh --dataset" in capsys.readouterr().err
    assert lists.main(["--dataset", shop, "--model", "own_decayed"]) == 0

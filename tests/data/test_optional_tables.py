"""What a shop's TOML may add: a package that holds the files, promotions, campaigns, thresholds."""

import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from recsys_utils import LabError
from recsys_utils.data import registry, tables
from recsys_utils.data.engine import connect
from recsys_utils.data.prefilter import Rules, rules_of
from recsys_utils.pipeline.__main__ import main

RECEIPTS = """customer,sku,day,receipt,units,price,branch
u1,007,2024-01-01,R1,2,5,S1
u1,A-1,2024-01-09,R2,1,1.5,S1
u2,007,2024-01-20,R3,4,10,S2
"""
PURCHASES = """
[purchases]
files = ["receipts.csv"]
[purchases.columns]
user_id = "customer"
item_id = "sku"
ts = "day"
basket_id = "receipt"
quantity = "units"
price = "price"
store_id = "branch"
"""
PROMOTIONS = """
[promotions]
files = ["promotions.csv"]
[promotions.columns]
item_id = "sku"
store_id = "branch"
week = "monday"
place = "shelf"
"""
WEEKS = """sku,branch,monday,shelf
007,S1,01.01.2024,front
A-1,S2,15.01.2024,end of aisle
007,,22.01.2024,front
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Write a shop's TOML and its files; returns the path that --dataset takes."""
    monkeypatch.setenv("RECSYS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("RECSYS_DATA", raising=False)

    def write(text: str, **files: str) -> str:
        for name, content in ({"receipts": RECEIPTS} | files).items():
            (tmp_path / f"{name}.csv").write_text(content)
        path = tmp_path / "shop.toml"
        path.write_text(text)
        return str(path)

    return write


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package whose code must not run."""
    folder = tmp_path / "site" / "tiny_receipts"
    (folder / "data").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "data" / "receipts.csv").write_text(RECEIPTS)
    monkeypatch.syspath_prepend(str(folder.parent))
    return folder


def in_package(name: str = "tiny_receipts", more: str = "", file: str = "data/receipts.csv") -> str:
    return f'package = "{name}"\n{more}\n' + PURCHASES.replace("receipts.csv", file)


def refusal(dataset: str) -> str:
    """The sentence with which loading is refused."""
    with pytest.raises(LabError) as error:
        tables.load(dataset)
    assert "\n" not in str(error.value)
    return str(error.value)


# --- a package that pip brings


def test_files_are_read_in_the_folder_of_a_package(shop: Callable, package: Path) -> None:
    """In place: nothing is copied, and the package is not imported."""
    data = tables.load(shop(in_package()))
    assert data.purchases["item_id"].tolist() == ["007", "A-1", "007"]
    assert str(package / "data" / "receipts.csv") in str(data.manifest["fingerprint"]["files"])
    assert "tiny_receipts" not in sys.modules
    assert not (package.parents[1] / "home" / "data" / "raw").exists()


def test_files_of_the_shop_come_before_those_of_the_package(
    shop: Callable, package: Path, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "receipts.csv").write_text(RECEIPTS + "u3,A-1,2024-01-21,R4,1,1,S1\n")
    assert len(tables.load(shop(in_package())).purchases) == 4


@pytest.mark.parametrize(
    ("more", "what"),
    [("", "no-such-receipts"), ('requirement = "no-such==1.2"', "no-such==1.2")],
)
def test_a_missing_package_is_told_with_the_one_command_that_brings_it(
    shop: Callable, more: str, what: str
) -> None:
    told = refusal(shop(in_package("no_such_receipts", more)))
    assert told.startswith(
        "data set 'shop' lies in the Python package no_such_receipts, which is not installed: run "
    )
    assert told.endswith(f" -m pip install {what}")
    assert Path(sys.executable).name in told


def test_run_all_says_it_before_any_notebook_starts(
    shop: Callable, capsys: pytest.CaptureFixture
) -> None:
    assert main(["--dataset", shop(in_package("no_such_receipts"))]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("error: data set 'shop' lies in the Python package no_such_receipts")


def test_a_file_that_the_package_lacks_is_named(shop: Callable, package: Path) -> None:
    told = refusal(shop(in_package(file="data/other.csv")))
    assert told.startswith("data/other.csv of data set 'shop' was not found in ")
    assert str(package) in told


@pytest.mark.parametrize(
    ("top", "words"),
    [
        ('package = "a.b"', "package = 'a.b' is no name of a Python package"),
        ('package = "../x"', "package = '../x' is no name of a Python package"),
        ('requirement = "x"', "has requirement and no package"),
        ('package = "x"\nrequirement = "x; rm y"', "requirement = 'x; rm y' is not what pip"),
        ('packages = "x"', "'packages' is an unknown key"),
    ],
)
def test_keys_of_a_package_are_checked(shop: Callable, top: str, words: str) -> None:
    assert words in refusal(shop(f"{top}\n{PURCHASES}"))


def test_a_module_that_is_no_folder_holds_nothing(shop: Callable) -> None:
    for name in ("this", "__main__"):
        assert "which is not installed" in refusal(shop(in_package(name)))


# --- promotions, campaigns, coupons, redemptions


def test_promotions_of_a_shop_are_read_like_its_other_tables(shop: Callable) -> None:
    """Ids are text, weeks are dates; a row with an empty store is no row of any store."""
    data = tables.load(shop(PURCHASES + PROMOTIONS, promotions=WEEKS))
    rows = data.scan("promotions").to_pandas()
    assert rows["item_id"].tolist() == ["007", "A-1", "007"]
    assert rows["store_id"].isna().tolist() == [False, False, True]
    assert rows["week"].dt.strftime("%F").tolist() == ["2024-01-01", "2024-01-15", "2024-01-22"]
    assert rows["place"].tolist() == ["front", "end of aisle", "front"]
    audit = data.audit[data.audit["table"] == "promotions"]
    assert audit[["rule", "rows"]].to_numpy().tolist() == [["kept", 3]]
    assert "promotions.csv ([promotions]) has all of the 2 store_ids" in str(data.manifest["notes"])


def test_promotions_with_a_value_missing_or_a_rule_broken_are_counted(shop: Callable) -> None:
    rules = '[promotions.reject]\n"on trial" = "shelf = \'trial\'"\n'
    rows = WEEKS + "A-1,S1,22.01.2024,\nA-1,S1,,front\nA-1,S1,22.01.2024,trial\n"
    audit = tables.load(shop(PURCHASES + PROMOTIONS + rules, promotions=rows)).audit
    told = audit[audit["table"] == "promotions"].set_index("rule")["rows"].to_dict()
    assert told == {"a value missing": 2, "on trial": 1, "kept": 3}


def test_optional_tables_are_written_only_where_they_are_described(shop: Callable) -> None:
    path = Path(shop(PURCHASES)).parent / "home" / "data" / "shop" / "tables"
    data = tables.load(shop(PURCHASES + PROMOTIONS, promotions=WEEKS))
    assert (path / "promotions.parquet").is_file()
    assert set(data.manifest["tables"]) == {"purchases", "items", "users", "promotions"}
    data = tables.load(shop(PURCHASES))
    assert not (path / "promotions.parquet").exists()
    with pytest.raises(LabError, match=r"data set 'shop' has no promotions: describe them as \[pr"):
        data.scan("promotions")
    with pytest.raises(LabError, match="'promos' is no table of a data set: choose purchases, it"):
        data.scan("promos")


def test_tables_meet_in_one_connection(shop: Callable) -> None:
    data = tables.load(shop(PURCHASES + PROMOTIONS, promotions=WEEKS))
    con = connect()
    buys, shown = data.scan("purchases", con), data.scan("promotions", con)
    assert buys.inner_join(shown, ["item_id", "store_id"]).count().to_pandas() == 1


def test_changed_promotions_build_the_tables_again(shop: Callable) -> None:
    tables.load(shop(PURCHASES + PROMOTIONS, promotions=WEEKS))
    data = tables.load(shop(PURCHASES + PROMOTIONS, promotions=WEEKS + "007,S2,29.01.2024,front\n"))
    assert data.scan("promotions").count().to_pandas() == 4


def test_campaigns_coupons_and_redemptions_of_a_shop(shop: Callable) -> None:
    """The dates of a campaign may lie in a file of their own."""
    text = """
[campaigns]
files = ["sent.csv"]
[campaigns.join]
files = ["plan.csv"]
on = "campaign"
[campaigns.columns]
campaign_id = "campaign"
user_id = "customer"
starts = "from_day"
ends = "to_day"
[coupons]
files = ["coupons.csv"]
[coupons.columns]
coupon_id = "code"
item_id = "sku"
[redemptions]
files = ["used.csv"]
[redemptions.columns]
coupon_id = "code"
user_id = "customer"
ts = "used_at"
"""
    data = tables.load(
        shop(
            PURCHASES + text,
            sent="campaign,customer\n08,u1\n08,u2\n",
            plan="campaign,from_day,to_day\n08,2024-01-01,2024-01-31\n",
            coupons="code,sku\n0012,007\n",
            used="code,customer,used_at\n0012,u1,2024-01-09 10:30\n",
        )
    )
    campaigns = data.scan("campaigns").to_pandas()
    assert campaigns["campaign_id"].tolist() == ["08", "08"]
    assert campaigns["ends"].tolist() == [pd.Timestamp("2024-01-31")] * 2
    assert data.scan("coupons").to_pandas().to_numpy().tolist() == [["0012", "007"]]
    used = data.scan("redemptions").to_pandas().iloc[0].tolist()
    assert used == ["0012", "u1", pd.Timestamp("2024-01-09 10:30")]


REFUSED = {
    "no place": (
        PROMOTIONS.replace('place = "shelf"', ""),
        WEEKS,
        "[promotions.columns] lacks place",
    ),
    "unknown key": (PROMOTIONS + 'shelf = "shelf"\n', WEEKS, "has the unknown key 'shelf': it"),
    "no files": (
        PROMOTIONS.replace('files = ["promotions.csv"]', ""),
        WEEKS,
        '[promotions] lacks files: files = ["promotions.csv"], for example',
    ),
    "no such column": (
        PROMOTIONS.replace('"monday"', '"week"'),
        WEEKS,
        "promotions.csv has no column 'week' (mapped to week)",
    ),
    "the number of a week": (
        PROMOTIONS,
        "sku,branch,monday,shelf\n007,S1,2,front\n",
        "week (monday) is a number: map it to a date, a week to the day on which it begins",
    ),
    "two dates in one": (
        PROMOTIONS,
        "sku,branch,monday,shelf\n007,S1,01/02/2024,front\n",
        "set ts_format",
    ),
    "no date": (
        PROMOTIONS,
        "sku,branch,monday,shelf\n007,S1,2024-01-01,front\n007,S1,soon,front\n",
        "soon",
    ),
    "products of another shop": (
        PROMOTIONS,
        "sku,branch,monday,shelf\nB,S1,2024-01-01,front\n",
        "has no item_id of the receipts: they have '007', it has 'B'",
    ),
    "stores of another shop": (
        PROMOTIONS,
        "sku,branch,monday,shelf\n007,S9,2024-01-01,front\n",
        "has no store_id of the receipts",
    ),
    "a file missing": (
        PROMOTIONS.replace("promotions.csv", "none.csv"),
        WEEKS,
        "none.csv of data set 'shop' was not found",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_promotions_that_cannot_be_read_are_refused_in_a_sentence(
    shop: Callable, case: str
) -> None:
    text, rows, words = REFUSED[case]
    assert words in refusal(shop(PURCHASES + text, promotions=rows))


# --- thresholds of the prefilter


def test_thresholds_of_the_toml_replace_the_defaults(shop: Callable) -> None:
    text = "[prefilter]\ntop = 500\nmax_price = false\nmin_user_share = 0.01\n"
    spec = registry.spec(shop(PURCHASES + text))
    expected = Rules(top=500, max_price=None, min_user_share=0.01, min_category_items=20)
    assert rules_of(spec, 1_000) == expected
    assert rules_of(registry.spec(shop(PURCHASES)), 92_353) == Rules()
    off = registry.spec(shop(PURCHASES + "[prefilter]\nmin_category_items = false\n"))
    assert rules_of(off, 1_000) == Rules(min_category_items=None)


def test_every_threshold_may_be_set() -> None:
    assert list(registry.PREFILTER) == list(Rules.__dataclass_fields__)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("tops = 5", "[prefilter] has the unknown key 'tops': it takes sold_within_days,"),
        ("top = -1", "[prefilter] top = -1: it takes a whole number of 0 or more, or false"),
        ("top = 2.5", "[prefilter] top = 2.5: it takes a whole number"),
        ("top = true", "[prefilter] top = True: it takes a whole number"),
        ('min_price = "1"', "[prefilter] min_price = '1': it takes a number of 0 or more"),
        ("min_price = nan", "[prefilter] min_price = nan: it takes a number"),
        ("max_user_share = 20", "[prefilter] max_user_share = 20: it takes a number of 0 or more"),
        ("max_user_share = 20", "a share up to 1"),
    ],
)
def test_thresholds_are_checked(shop: Callable, line: str, words: str) -> None:
    assert words in refusal(shop(f"{PURCHASES}[prefilter]\n{line}\n"))


def test_prefilter_is_a_table(shop: Callable) -> None:
    assert "'prefilter' input should be a valid dict" in refusal(shop("prefilter = 3" + PURCHASES))

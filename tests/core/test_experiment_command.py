"""The command from a shop's receipts to a verdict, and what it refuses by name."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recsys_utils import experiment
from recsys_utils.evaluation.ab_test import NEW


@pytest.fixture
def results(tmp_path: Path) -> pd.DataFrame:
    """Shoppers of a split, whose spending the new list raises by a tenth."""
    rng = np.random.default_rng(0)
    drawn = experiment.split([f"{n:05d}" for n in range(6000)], "spring")
    usual = rng.gamma(2, 20, len(drawn))
    effect = 1 + 0.1 * (drawn["arm"] == NEW)
    spend = (usual * effect * rng.uniform(0.7, 1.3, len(drawn))).round(2)
    before = (usual * rng.uniform(0.7, 1.3, len(drawn))).round(2)
    return drawn.assign(spend=spend, spend_before=before)


@pytest.fixture
def file(results: pd.DataFrame, tmp_path: Path) -> Path:
    results.to_csv(tmp_path / "results.csv", index=False)
    return tmp_path / "results.csv"


def test_a_file_becomes_a_verdict_as_text_and_page(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    page = tmp_path / "verdict.html"
    assert experiment.main(["read", str(file), "--salt", "spring", "--out", str(page)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("Ship the new list.")
    assert "freed of the weeks before: +" in said
    html = page.read_text()
    assert "<h1>Ship the new list.</h1>" in html
    assert "http" not in html.replace("http-equiv", "")


def test_parquet_is_read_like_csv(
    results: pd.DataFrame, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    results.to_parquet(tmp_path / "results.parquet")
    told = []
    for path in (file, tmp_path / "results.parquet"):
        assert experiment.main(["read", str(path)]) == 0
        told.append(capsys.readouterr().out)
    assert told[0] == told[1]


def test_another_measure_decides(
    results: pd.DataFrame, file: Path, capsys: pytest.CaptureFixture
) -> None:
    hits = np.random.default_rng(1).random(len(results)) < 0.3
    results.assign(hits=hits.astype(int)).to_csv(file, index=False)
    assert experiment.main(["read", str(file), "--measure", "hits"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("The test cannot tell yet")
    assert "what decides: hits per shopper" in said


def test_weeks_before_that_reach_into_the_test_are_told_or_refused(
    results: pd.DataFrame, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    results["spend"] *= 1 + 0.2 * (results["arm"] == NEW)
    results["spend_before"] += results["spend"]
    results.to_csv(file, index=False)
    page = tmp_path / "verdict.html"
    assert experiment.main(["read", str(file), "--out", str(page)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("Ship the new list.")
    for text in (said, page.read_text()):
        assert "spend_before differs between the arms by more than chance" in text
        assert "The reading without it decides." in text
        assert "freed of the weeks before" not in text
    results["spend_before"] = results["spend"]
    results.to_csv(file, index=False)
    assert experiment.main(["read", str(file)]) == 2
    assert "error: spend_before is spend itself" in capsys.readouterr().err


ONLY_BUYERS = "Nobody's spend is 0. If the file holds only who bought"


def test_a_file_of_buyers_only_is_doubted(
    results: pd.DataFrame, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    page = tmp_path / "verdict.html"
    assert experiment.main(["read", str(file), "--out", str(page)]) == 0
    assert f"warning: {ONLY_BUYERS}" in capsys.readouterr().out
    assert "Nobody&#39;s spend is 0. If the file holds only who bought" in page.read_text()
    # It is the whole split, who all bought: nothing to doubt.
    results[["user_id", "arm"]].to_csv(tmp_path / "split.csv", index=False)
    asked = ["read", str(file), "--split", str(tmp_path / "split.csv")]
    assert experiment.main(asked) == 0
    assert "warning" not in capsys.readouterr().out
    results.loc[0, "spend"] = 0
    results.to_csv(file, index=False)
    assert experiment.main(["read", str(file)]) == 0
    assert "warning" not in capsys.readouterr().out


def test_missing_shoppers_of_a_split_are_refused_or_count_as_0(
    results: pd.DataFrame, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Those who bought nothing are not in the export: their money is 0, that before is unknown."""
    split = tmp_path / "split.csv"
    results[["user_id", "arm"]].to_csv(split, index=False)
    is_idle = results["user_id"].str.endswith("7")
    results[~is_idle].to_csv(file, index=False)
    asked = ["read", str(file), "--split", str(split)]
    assert experiment.main(asked) == 2
    said = capsys.readouterr().err
    assert "lacks 600 of the 6,000 shoppers" in said
    assert "such as 00007: add a row for each" in said
    page = tmp_path / "verdict.html"
    assert experiment.main([*asked, "--missing", "zero", "--out", str(page)]) == 0
    said = capsys.readouterr().out
    for text in (said, page.read_text()):
        assert "600 shoppers of split.csv are not in results.csv and count as 0" in text
        assert "freed of the weeks before" not in text
        assert ONLY_BUYERS not in text
    by_hand = results.assign(spend=results["spend"].where(~is_idle, 0.0))
    by_hand.drop(columns="spend_before").to_csv(file, index=False)
    assert experiment.main(["read", str(file)]) == 0
    leads = [line for line in said.splitlines() if line.startswith("lead, ")]
    assert leads == [
        line for line in capsys.readouterr().out.splitlines() if line.startswith("lead, ")
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"user_id": "zz3"}, "row 4: user_id is 'zz3', which {split} does not have (1 such"),
        ({"arm": "other"}, "row 4: arm is '{arm}', but {split} has the other one"),
    ],
)
def test_results_of_another_split_are_refused(
    results: pd.DataFrame,
    file: Path,
    tmp_path: Path,
    change: dict[str, str],
    message: str,
    capsys: pytest.CaptureFixture,
) -> None:
    split = tmp_path / "split.csv"
    results[["user_id", "arm"]].to_csv(split, index=False)
    [(column, value)] = change.items()
    other = {"new": "today", "today": "new"}[results.loc[3, "arm"]]
    results.loc[3, column] = other if value == "other" else value
    results.to_csv(file, index=False)
    assert experiment.main(["read", str(file), "--split", str(split)]) == 2
    assert message.format(split=split, arm=other) in capsys.readouterr().err


def test_missing_shoppers_are_known_by_a_split(file: Path, capsys: pytest.CaptureFixture) -> None:
    assert experiment.main(["read", str(file), "--missing", "zero"]) == 2
    assert "--missing zero: give --split too" in capsys.readouterr().err


def test_a_wild_refund_is_cut_and_told(
    results: pd.DataFrame, file: Path, capsys: pytest.CaptureFixture
) -> None:
    results.loc[0, "spend"] = -1e6
    results.to_csv(file, index=False)
    assert experiment.main(["read", str(file)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("Ship the new list.")
    assert " and below 0\n" in said


BAD = {
    "a shopper twice": ("user_id", "00002", "'00002' stands more than once"),
    "no id": ("user_id", "", "row 4: user_id is '', which is empty"),
    "an unknown arm": ("arm", "control", "row 4: arm is 'control', not new or today"),
    "a number with a comma": (
        "spend",
        "12,50",
        "row 4: spend is '12,50', which is no number such as 12.5 (1 such",
    ),
    "nothing": ("spend", "", "row 4: spend is '', which is no number"),
    "infinity": ("spend_before", "inf", "row 4: spend_before is 'inf', which is no number"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_rows_are_refused_by_name(
    results: pd.DataFrame, file: Path, case: str, capsys: pytest.CaptureFixture
) -> None:
    column, value, message = BAD[case]
    results = results.astype(str)
    results.loc[3, column] = value
    results.to_csv(file, index=False)
    assert experiment.main(["read", str(file)]) == 2
    said = capsys.readouterr().err
    assert str(file) in said
    assert message in said


@pytest.mark.parametrize(
    ("ids", "message"),
    [(["a", None], "row 2: user_id is 'None', which is empty"), ([7.0, 8.0], "has decimals")],
)
def test_a_missing_id_or_a_decimal_in_parquet_is_refused(
    ids: list, message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    file = tmp_path / "results.parquet"
    pd.DataFrame({"user_id": ids, "arm": ["new", "today"], "spend": 1.0}).to_parquet(file)
    assert experiment.main(["read", str(file)]) == 2
    assert message in capsys.readouterr().err


def test_arms_that_are_not_the_splits_are_refused(
    file: Path, capsys: pytest.CaptureFixture
) -> None:
    assert experiment.main(["read", str(file), "--salt", "autumn"]) == 2
    assert "the split by 'autumn' has the other one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--measure", "clicks"], "has no column clicks"),
        (["--share", "1.5"], "share 1.5"),
        (["--planned", "0"], "--planned 0"),
        (["--cap", "0.3"], "cap 0.3"),
    ],
)
def test_bad_options_are_one_sentence(
    file: Path, options: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    assert experiment.main(["read", str(file), *options]) == 2
    assert message in capsys.readouterr().err


def test_a_missing_file_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert experiment.main(["read", str(tmp_path / "none.csv")]) == 2
    assert "none.csv does not exist" in capsys.readouterr().err


def test_a_split_keeps_ids_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "users.csv").write_text("user_id\n007\n7\nAnn\n")
    out = tmp_path / "split.csv"
    command = ["split", "--users", str(tmp_path / "users.csv"), "--salt", "s", "--out", str(out)]
    assert experiment.main(command) == 0
    drawn = pd.read_csv(out, dtype=str)
    assert drawn["user_id"].tolist() == ["007", "7", "Ann"]
    assert "split.csv: " in capsys.readouterr().out
    (tmp_path / "users.csv").write_text("user_id\n007\n007\n")
    assert experiment.main(command) == 2
    assert "'007' stands more than once" in capsys.readouterr().err
    assert experiment.main([*command[:4], "", *command[5:]]) == 2
    assert "--salt is empty" in capsys.readouterr().err


def test_a_plan_says_what_a_shop_can_see(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("RECSYS_HOME", str(tmp_path))
    table = experiment.plan("synthetic", lead=0.5)
    assert set(table["measure"]) == {"spending", "first purchases"}
    ratio = table["needed_any_time"] / table["needed"]
    assert ratio.round(2).unique().tolist() == [1.91]  # (3.04 + 0.84)² / (1.96 + 0.84)²
    # A lead that all shoppers can just show needs all of them.
    first = table.iloc[0]
    again = experiment.plan("synthetic", lead=first["smallest"]).iloc[0]
    assert again["needed"] == pytest.approx(first["shoppers"])
    for lead, advice in (("2", "active shoppers are enough"), ("0.001", "cannot see such a lead")):
        assert experiment.main(["plan", "--dataset", "synthetic", "--lead", lead]) == 0
        assert advice in capsys.readouterr().out
    # What `read` is to be given is the number of the advised row.
    assert experiment.main(["plan", "--dataset", "synthetic", "--lead", "0.5"]) == 0
    said = capsys.readouterr().out
    fits = table[(table["reading"] == "cuped") & (table["needed"] <= table["shoppers"])].iloc[0]
    assert f"give `read` --planned {np.ceil(fits['needed_any_time']):.0f}." in said
    assert "only if each `read` gets --planned with that number" in said
    hardly = str(table["smallest"].min() * 1.01)
    assert experiment.main(["plan", "--dataset", "synthetic", "--lead", hardly]) == 0
    assert "more than you have" in capsys.readouterr().out
    assert experiment.main(["plan", "--dataset", "synthetic", "--lead", "0"]) == 2
    assert "--lead 0" in capsys.readouterr().err
    assert experiment.main(["plan", "--dataset", "synthetic", "--lead", "5"]) == 2
    assert "--lead 5: take a share above 0 and up to 2; 0.05 means 5 %" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("results.csv", "the file ends in .html"),
        ("none/verdict.html", "there is no folder"),
        ("verdict.txt", "the file ends in .html"),
    ],
)
def test_a_verdict_overwrites_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture, out: str, said: str
) -> None:
    file = tmp_path / "results.csv"
    file.write_text("user_id,arm,spend\na,new,1\nb,today,2\n")
    before = file.read_bytes()
    assert experiment.main(["read", str(file), "--out", str(tmp_path / out)]) == 2
    assert said in capsys.readouterr().err
    assert file.read_bytes() == before
    assert not (tmp_path / "none").exists()


def test_a_split_is_not_written_over_the_shoppers_it_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    users = tmp_path / "users.csv"
    users.write_text("user_id\na\nb\n")
    command = ["split", "--users", str(users), "--salt", "spring", "--out"]
    assert experiment.main([*command, str(users)]) == 2
    assert "it is the file that is read" in capsys.readouterr().err
    assert experiment.main([*command, str(tmp_path / "none" / "split.csv")]) == 2
    assert not (tmp_path / "none").exists()
    assert users.read_text() == "user_id\na\nb\n"


def test_baskets_without_dates_plan_no_weeks(home: Path, capsys: pytest.CaptureFixture) -> None:
    rows = "".join(f"u{n % 9},i{n % 5},{n // 9 + 1}\n" for n in range(90))
    (home / "rows.csv").write_text("user,item,n\n" + rows)
    toml = home / "orders.toml"
    columns = "[purchases.columns]\nuser_id = 'user'\nitem_id = 'item'\norder = 'n'\n"
    toml.write_text(f"protocol = 'next_basket'\n[purchases]\nfiles = ['rows.csv']\n{columns}")
    assert experiment.main(["plan", "--dataset", str(toml)]) == 2
    assert "an order and no dates, so no weeks can be planned" in capsys.readouterr().err

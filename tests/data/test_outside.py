"""Lists that others made: counted where they are short of something, refused where misread."""

from pathlib import Path

import pandas as pd
import pytest

from recsys_utils import LabError
from recsys_utils.data.folds import Fold
from recsys_utils.data.outside import fitted_to, named_files, read_lists, record_lists
from recsys_utils.data.runs import load_outside, load_runs, save_run


def lists_of(fold: Fold, order: str = "rank") -> pd.DataFrame:
    """Two known items for each of three shoppers of the test window."""
    users = [str(user) for user in fold.testing.users[:3]]
    items = [str(item) for item in fold.testing.history.item_ids[:2]]
    rows = []
    for user in users:
        for rank, item in enumerate(items, 1):
            rows.append((user, item, rank if order == "rank" else 1 / rank))
    return pd.DataFrame(rows, columns=["user_id", "item_id", order])


def write(table: pd.DataFrame, path: Path) -> Path:
    if path.suffix == ".csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path, index=False)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("order", ["rank", "score"])
def test_both_files_and_both_orders_give_the_same_lists(
    tmp_path: Path, shop_fold: Fold, suffix: str, order: str
) -> None:
    table = lists_of(shop_fold, order).sample(frac=1, random_state=1)
    read = read_lists(write(table, tmp_path / f"vendor{suffix}"))
    lists, _ = fitted_to(shop_fold, read, "vendor")
    wanted = lists_of(shop_fold)
    keys = ["user_id", "rank", "item_id"]
    assert lists[keys].to_numpy().tolist() == wanted.sort_values(keys)[keys].to_numpy().tolist()


def test_what_is_short_of_something_is_counted(shop_fold: Fold) -> None:
    table = lists_of(shop_fold).astype({"rank": float})
    first = table.iloc[0]
    extra = pd.DataFrame(
        [
            (first["user_id"], first["item_id"], 5.0),
            (first["user_id"], "no such item", 3.0),
            ("nobody", first["item_id"], 1.0),
        ],
        columns=table.columns,
    )
    lists, counts = fitted_to(shop_fold, pd.concat([table, extra]), "vendor")
    assert len(lists) == len(table)
    assert counts["duplicate items"] == 1
    assert counts["rows of unknown items"] == 1
    assert counts["rows of unknown shoppers"] == 1
    assert counts["lists of fewer than 10 items"] == 3
    assert counts["shoppers without a list"] == len(shop_fold.testing.users) - 3


def test_gaps_between_ranks_are_closed_and_counted(shop_fold: Fold) -> None:
    table = lists_of(shop_fold)
    table["rank"] *= 2
    lists, counts = fitted_to(shop_fold, table, "vendor")
    assert counts["gaps between ranks, closed"] == 6
    assert sorted(lists["rank"].unique()) == [1, 2]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("user_id,item_id\na,b\n", "no column rank and none score"),
        ("shopper,item_id,rank\na,b,1\n", "no column user_id: it has shopper"),
        ("user_id,item_id,rank\na,b,0\n", "row 1: rank is '0'"),
        ("user_id,item_id,rank\na,b,1\na,c,1.5\n", "row 2: rank is '1.5'"),
        ("user_id,item_id,score\na,b,high\n", "row 1: score is 'high'"),
        ("user_id,item_id,rank\n,b,1\n", "row 1: user_id is '', which is empty"),
        ("user_id,item_id,rank\n", "has no rows"),
        ("", "cannot be read"),
        ("user_id,item_id,rank\na,b,1,x\na,c,2,y\n", "cannot be read"),
        ("user_id,item_id,rank,rank\na,b,1,2\n", "has the column 'rank' twice"),
        ("user_id;item_id;score\na;b;0,5\n", "row 1: score is '0,5', which is no number such as"),
        ("user_id,item_id,rank,score\na,b,1,0.5\na,c,2,0.9\n", "user_id a has a higher score"),
    ],
)
def test_a_file_that_would_be_misread_is_refused(tmp_path: Path, text: str, error: str) -> None:
    path = tmp_path / "vendor.csv"
    path.write_text(text)
    with pytest.raises(LabError, match=error):
        read_lists(path)


@pytest.mark.parametrize("sep", [";", "\t", "|"])
def test_other_separators_give_the_same_lists(tmp_path: Path, sep: str) -> None:
    path = tmp_path / "vendor.csv"
    rows = (("user_id", "item_id", "rank"), ("007", "a,b", "1"), ("007", "c", "2"))
    path.write_text("".join(sep.join(row) + "\n" for row in rows))
    assert read_lists(path).to_numpy().tolist() == [["007", "a,b", 1], ["007", "c", 2]]


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
def test_a_file_in_another_encoding_is_refused_in_one_sentence(
    tmp_path: Path, encoding: str
) -> None:
    path = tmp_path / "vendor.csv"
    path.write_bytes("user_id,item_id,rank\nJörg,Käse,1\n".encode(encoding))
    with pytest.raises(LabError) as error:
        read_lists(path)
    assert str(error.value) == f"{path} is not UTF-8: save it as a .csv in UTF-8"


def test_a_rank_and_a_score_that_agree_are_read_by_rank(tmp_path: Path) -> None:
    """Equal scores agree with any order, and texts that are no scores are let be."""
    path = tmp_path / "vendor.csv"
    path.write_text("user_id,item_id,rank,score\na,c,2,0.5\na,b,1,0.5\nz,b,1,0.9\nz,c,2,high\n")
    lists = read_lists(path)
    assert list(lists) == ["user_id", "item_id", "rank"]
    assert lists["rank"].tolist() == [2, 1, 1, 2]


def test_a_comma_more_at_the_end_moves_no_column(tmp_path: Path) -> None:
    path = tmp_path / "vendor.csv"
    path.write_text("user_id,item_id,rank\na,b,1,\na,c,2,\n")
    assert read_lists(path).to_numpy().tolist() == [["a", "b", 1], ["a", "c", 2]]


def test_decimals_as_ids_are_refused(tmp_path: Path) -> None:
    table = pd.DataFrame({"user_id": [7.0], "item_id": ["b"], "rank": [1]})
    with pytest.raises(LabError, match="decimals as user_id"):
        read_lists(write(table, tmp_path / "vendor.parquet"))


def test_lost_leading_zeros_are_refused(shop_fold: Fold) -> None:
    table = lists_of(shop_fold)
    table.loc[0, "item_id"] = "00" + table.loc[0, "item_id"]
    with pytest.raises(LabError, match="where the shop has"):
        fitted_to(shop_fold, table, "vendor")


def test_two_items_at_one_rank_are_refused(shop_fold: Fold) -> None:
    table = lists_of(shop_fold).assign(rank=1.0)
    with pytest.raises(LabError, match="two items at rank 1"):
        fitted_to(shop_fold, table, "vendor")


def test_equal_scores_are_counted_and_put_in_the_order_of_ids(shop_fold: Fold) -> None:
    table = lists_of(shop_fold, "score").assign(score=0.5)
    lists, counts = fitted_to(shop_fold, table, "vendor")
    assert counts["equal scores, put in the order of ids"] == 3
    first = lists[lists["rank"] == 1]["item_id"].unique()
    assert list(first) == [min(lists["item_id"])]


def test_copies_of_rows_are_dropped_and_counted(shop_fold: Fold) -> None:
    table = lists_of(shop_fold).astype({"rank": float})
    lists, counts = fitted_to(shop_fold, pd.concat([table, table]), "vendor")
    assert counts["copies of rows"] == len(table)
    assert len(lists) == len(table)


def test_lists_of_another_shop_are_refused(shop_fold: Fold) -> None:
    table = lists_of(shop_fold)
    table["user_id"] = "stranger " + table["user_id"]
    with pytest.raises(LabError, match="no known item for any shopper"):
        fitted_to(shop_fold, table, "vendor")


def test_names_come_from_files_or_are_given_and_stand_once(tmp_path: Path, shop_fold: Fold) -> None:
    path = write(lists_of(shop_fold), tmp_path / "vendor.csv")
    assert named_files([str(path), f"other={path}"]) == {"vendor": str(path), "other": str(path)}
    with pytest.raises(LabError, match="the name vendor is there twice"):
        named_files([str(path), str(path)])
    with pytest.raises(LabError, match="does not exist"):
        named_files([str(tmp_path / "none.csv")])
    with pytest.raises(LabError, match="is no .csv or .parquet"):
        named_files([str(tmp_path / "vendor.xlsx")])
    with pytest.raises(LabError, match="give a name of letters"):
        named_files([f"a/b={path}"])


def test_records_replace_those_before_and_leave_our_runs_alone(home: Path, shop_fold: Fold) -> None:
    path = write(lists_of(shop_fold), home / "vendor.csv")
    lists, _ = fitted_to(shop_fold, read_lists(path), "vendor")
    save_run(lists, shop_fold, "own", "repeat", {}, 0.5, 0.1)
    told = record_lists(shop_fold, {"vendor": str(path)})
    day = pd.Timestamp(shop_fold.borders["test"])
    assert told["vendor"].startswith(
        "No validation list, so it cannot be chosen. It is judged fairly only if it was made of"
        f" receipts before {day:%-d %B %Y}. "
    )
    runs, about = load_outside(shop_fold)
    assert list(runs) == list(about.index) == ["vendor"]
    assert list(load_runs(shop_fold)[0]) == ["own"]
    record_lists(shop_fold, {})
    assert load_outside(shop_fold)[0] == {}
    with pytest.raises(LabError, match="a model of this run has that name"):
        record_lists(shop_fold, {"own": str(path)})

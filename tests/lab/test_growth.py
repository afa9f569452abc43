"""What steps cost at sizes nobody measured, from a table worked by hand."""

import os
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest
from lab import growth
from shops import Shop

from recsys_utils import LabError
from recsys_utils.data import spark

HAS_SAIL = all(find_spec(package) for package in spark.PACKAGES)

HEADER = 'step,"seconds, 1 M","seconds, 4 M","peak GiB, 1 M","peak GiB, 4 M",exponent,low,high,left'
TABLE = f"""{HEADER}
split,2,8,1,4,1,0.5,1.5,
EASE,3,,2,,2,1.9,2.1,4 M
ItemCF,1,16,1,2.5,2,2,2,
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "scale.csv"
    path.write_text(TABLE)
    return path


@pytest.fixture
def own(home: Path, shop: Shop) -> str:
    """The synthetic receipts as a shop's own file."""
    names = ("user_id", "item_id", "basket_id", "ts", "quantity", "price")
    columns = "\n".join(f'{name} = "{name}"' for name in names)
    shop.tables["purchases"].to_parquet(home / "rows.parquet")
    toml = home / "corner.toml"
    toml.write_text(f'[purchases]\nfiles = ["rows.parquet"]\n[purchases.columns]\n{columns}\n')
    return str(toml)


def test_a_step_has_a_row_for_each_size_at_which_it_ran(path: Path) -> None:
    table = growth.measured(path)
    rows = table.set_index(["step", "lines"])
    assert list(rows.index) == [
        ("split", 1),
        ("split", 4),
        ("EASE", 1),
        ("BM25 item neighbours", 1),
        ("BM25 item neighbours", 4),
    ]
    assert rows.loc[("split", 4)].tolist() == [8, 4]


def test_a_million_lines_more_cost_what_the_two_largest_sizes_differ_by(path: Path) -> None:
    table = growth.measured(path)
    units = growth.unit_costs(table[table["step"] != "EASE"])
    assert units.loc["split"].tolist() == [4, 2, 1]
    assert units.loc["BM25 item neighbours"].tolist() == [4, 5, 0.5]


def test_the_largest_shop_is_where_a_straight_line_reaches_the_memory(path: Path) -> None:
    table = growth.measured(path)
    largest = growth.largest_shop(table[table["step"] != "EASE"], 16)
    assert largest.to_dict() == {"split": 16, "BM25 item neighbours": 31}


def test_a_step_that_was_left_out_has_the_largest_size_at_which_it_ran() -> None:
    rows = [("EASE", 1, 3, 2), ("EASE", 4, 50, 9), ("split", 4, 8, 4), ("split", 16, 30, 8)]
    table = pd.DataFrame(rows, columns=["step", "lines", "seconds", "gib"])
    assert growth.largest_shop(table, 16).to_dict() == {"EASE": 4, "split": 40}


def test_hours_follow_the_exponent_and_its_interval(path: Path) -> None:
    table = growth.measured(path)
    table["seconds"] *= 450
    hours = growth.forecast(table, growth.exponents(path), [16])["16 M"]
    # 8 · 450 s is an hour; four times the lines take 4 ** exponent as long.
    assert hours["split"] == "4 (2 to 8)"
    assert hours["BM25 item neighbours"] == "32 (32 to 32)"


def test_a_missing_table_is_named_with_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"scale\.csv is missing: `python benchmarks/scale\.py"):
        growth.measured(tmp_path / "scale.csv")


@pytest.mark.skipif(not HAS_SAIL, reason="pip install -e '.[spark]' brings Sail")
def test_engines_make_one_leaderboard_and_the_choice_of_engine_stays(
    own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECSYS_ENGINE", "duckdb")
    boards, reason = growth.on_engines(own, ["duckdb", "sail"], ["popular_28d"])
    assert reason == ""
    assert list(boards.index) == ["duckdb", "sail"]
    assert growth.are_equal(boards)
    boards.iloc[0, boards.columns.get_loc("precision@5")] += 1e-9
    assert not growth.are_equal(boards)
    assert os.environ["RECSYS_ENGINE"] == "duckdb"


def test_an_engine_that_does_not_answer_is_a_sentence(
    own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECSYS_ENGINE", "duckdb")
    boards, reason = growth.on_engines(own, ["nothing"], ["popular_28d"])
    assert boards.empty
    assert "nothing" in reason
    assert os.environ["RECSYS_ENGINE"] == "duckdb"

"""Folds: borders by hand, disjoint parts, nothing of the future in the past."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shops import Shop, receipts

from recsys_utils import LabError
from recsys_utils.data import engine, split, tables
from recsys_utils.data.folds import (
    PARTS,
    basket_names,
    basket_parts,
    cut,
    describe,
    load_fold,
    load_folds,
    window_borders,
    window_parts,
    write_folds,
)
from recsys_utils.data.registry import revised
from recsys_utils.store import read_json

DAY = pd.Timedelta(days=1)
WEEKS = st.integers(1, 6)

TOML = """
title = "a shop"
[purchases]
files = ["rows.parquet"]
[purchases.columns]
user_id = "user_id"
item_id = "item_id"
basket_id = "basket_id"
ts = "ts"
quantity = "quantity"
price = "price"
"""


@pytest.fixture
def own(home: Path, shop: Shop) -> str:
    """The synthetic receipts as a shop's own file."""
    shop.tables["purchases"].to_parquet(home / "rows.parquet")
    (home / "corner.toml").write_text(TOML)
    return str(home / "corner.toml")


def days(dates: list[int]) -> pd.DataFrame:
    ts = pd.Timestamp("2024-01-01 12:00") + DAY * np.array(dates)
    return pd.DataFrame(
        {"user_id": "u", "item_id": "i", "basket_id": [str(d) for d in dates], "ts": ts}
    )


# ---- calendar


@pytest.mark.spec("S3-11")
def test_test_is_the_last_21_days_and_validation_the_42_before() -> None:
    rows = days(range(200))
    parts = window_parts(rows, window_borders(rows["ts"]))
    assert [len(parts[p]) for p in PARTS] == [200 - 63, 42, 21]
    assert parts["test"]["ts"].min() == rows["ts"].max() - 20 * DAY
    assert parts["valid"]["ts"].min() == rows["ts"].max() - 62 * DAY


@pytest.mark.spec("S3-11")
def test_windows_are_whole_days_whatever_the_last_hour() -> None:
    first = pd.Timestamp("2024-01-01")
    early, late = (
        window_borders(pd.Series([first, pd.Timestamp(f"2024-05-05 {hour}")]))
        for hour in ("00:00:00", "23:59:59")
    )
    assert early == late
    assert early["end"] == pd.Timestamp("2024-05-06")
    assert early["test"] == pd.Timestamp("2024-04-15")


@pytest.mark.spec("S3-11")
@given(
    dates=st.lists(st.integers(0, 400), min_size=1, max_size=60),
    test=WEEKS,
    valid=WEEKS,
    back=st.integers(0, 2),
)
def test_parts_are_disjoint_and_ordered_by_date(
    dates: list[int], test: int, valid: int, back: int
) -> None:
    rows = days([-1_000, *dates, 400]).reset_index(names="line")
    borders = window_borders(rows["ts"], test, valid, back)
    parts = window_parts(rows, borders)
    lines = pd.concat(parts.values())["line"]
    assert lines.is_unique
    assert set(lines) == set(rows["line"][rows["ts"] < borders["end"]])
    assert borders["valid"] <= borders["tuning"] <= borders["test"] < borders["end"]
    assert borders["end"] - borders["test"] == 7 * test * DAY
    assert borders["test"] - borders["valid"] == 7 * valid * DAY
    for part, (low, high) in {
        "train": (None, "valid"),
        "valid": ("valid", "test"),
        "test": ("test", "end"),
    }.items():
        assert (parts[part]["ts"] < borders[high]).all()
        assert low is None or (parts[part]["ts"] >= borders[low]).all()


def test_trap_the_split_is_by_date_not_by_row(shop: Shop) -> None:
    mixed = shop.tables["purchases"].sample(frac=1, random_state=0)
    parts = window_parts(mixed, window_borders(mixed["ts"]))
    assert (
        parts["train"]["ts"].max()
        < parts["valid"]["ts"].min()
        <= parts["valid"]["ts"].max()
        < parts["test"]["ts"].min()
    )
    assert len(parts["test"]) == len(shop.truth)


def test_older_folds_move_whole_windows_into_the_past() -> None:
    ts = days(range(200))["ts"]
    new = window_borders(ts)
    old = window_borders(ts, back=1)
    assert old["end"] == new["test"]
    assert all(new[name] - old[name] == 21 * DAY for name in new)


@pytest.mark.parametrize(("test", "valid", "width"), [(3, 6, 21), (2, 2, 14), (3, 1, 7)])
def test_tuning_judges_a_window_as_wide_as_the_test_where_it_fits(
    test: int, valid: int, width: int
) -> None:
    borders = window_borders(days(range(200))["ts"], test, valid)
    assert borders["tuning"] >= borders["valid"]
    assert borders["test"] - borders["tuning"] == width * DAY


def test_too_short_data_says_what_to_lower() -> None:
    with pytest.raises(LabError, match="lower test_weeks, valid_weeks or folds"):
        window_borders(days(range(60))["ts"])


# ---- next basket

BASKETS = """
one x o1 2024-01-01 1 1
two x t1 2024-01-01 1 1
two y t2 2024-01-05 1 1
tri x r1 2024-01-01 1 1
tri y r2 2024-01-02 1 1
tri z r3 2024-01-03 1 1
tri w r3 2024-01-03 1 1
"""


def baskets_of(parts: dict[str, pd.DataFrame]) -> dict[str, set[str]]:
    return {part: set(frame["basket_id"]) for part, frame in parts.items()}


def test_next_basket_by_hand() -> None:
    """A user's only basket stays history: nobody is judged without a past."""
    assert baskets_of(basket_parts(receipts(BASKETS))) == {
        "train": {"o1", "t1", "r1"},
        "valid": {"r2"},
        "test": {"t2", "r3"},
    }


def test_next_basket_one_fold_back() -> None:
    assert baskets_of(basket_parts(receipts(BASKETS), back=1)) == {
        "train": {"t1", "r1"},
        "valid": set(),
        "test": {"r2"},
    }


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(st.sampled_from("uvw"), st.integers(0, 5), st.integers(0, 3)),
        min_size=1,
        max_size=40,
        unique=True,
    ),
    st.integers(0, 2),
)
def test_next_basket_history_is_older_for_each_user(
    lines: list[tuple[str, int, int]], back: int
) -> None:
    rows = pd.DataFrame(
        [(u, str(i), f"{u}{d}", pd.Timestamp("2024-01-01") + d * DAY) for u, d, i in lines],
        columns=["user_id", "item_id", "basket_id", "ts"],
    )
    parts = basket_parts(rows, back)
    together = pd.concat(parts.values())
    assert not together.duplicated(["user_id", "item_id", "basket_id"]).any()
    assert back or len(together) == len(rows)
    for user, test in parts["test"].groupby("user_id"):
        assert test["basket_id"].nunique() == 1
        assert parts["train"].loc[parts["train"]["user_id"] == user, "ts"].max() < test["ts"].min()
        assert (
            parts["valid"].loc[parts["valid"]["user_id"] == user, "ts"] < test["ts"].min()
        ).all()


# ---- on disk


def test_a_written_fold_is_read_back_whole(own: str, shop: Shop) -> None:
    write_folds(own)
    fold = load_fold(own)
    assert fold.name == "2025-06-10"
    assert {name: pd.Timestamp(ts) for name, ts in fold.borders.items()} == shop.borders
    assert sum(len(getattr(fold, part)) for part in PARTS) == len(shop.tables["purchases"])
    assert set(fold.testing.users) == set(shop.truth["user_id"])
    assert fold.testing.history.item_ids.equals(shop.history.item_ids)
    assert describe(fold).loc["test", "lines"] == len(shop.truth)


@pytest.mark.parametrize("protocol", ["window", "next_basket"])
def test_baskets_are_numbers_and_the_parts_are_those_of_their_names(
    own: str, protocol: str
) -> None:
    write_folds(own, protocol=protocol)
    fold = load_fold(own)
    names = basket_names(fold)
    assert names.is_unique
    data = tables.load(own)
    _, parts = cut(data.purchases, revised(data.spec, protocol=protocol))
    for part in PARTS:
        rows = getattr(fold, part)
        assert rows["basket_id"].dtype == "int32"
        named = rows.assign(basket_id=names.to_numpy()[rows["basket_id"]])
        pd.testing.assert_frame_equal(
            named.astype({"user_id": str, "item_id": str}),
            parts[part].astype({"user_id": str, "item_id": str, "basket_id": str}),
        )


def test_a_line_without_a_basket_is_refused() -> None:
    rows = pd.DataFrame({"basket_id": ["a", None], "ts": pd.Timestamp("2024-01-01")})
    with pytest.raises(LabError, match="a line of the purchases has no basket_id"):
        split.numbered({"train": engine.given(rows, engine.connect())})


def test_parts_may_be_changed_one_by_one(own: str) -> None:
    write_folds(own)
    fold = load_fold(own)
    lines = fold.valid["quantity"].copy()
    fold.train["quantity"] = -1
    fold.train.loc[:, "price"] = -1.0
    assert fold.valid["quantity"].equals(lines)
    assert (fold.valid["price"] >= 0).all()


def test_stages_see_only_what_was_before(own: str) -> None:
    write_folds(own)
    fold = load_fold(own)
    for stage, border in ((fold.tuning, "tuning"), (fold.testing, "test")):
        cut = pd.Timestamp(fold.borders[border])
        assert stage.history.as_of == cut
        assert stage.history.purchases["ts"].max() < cut <= stage.truth["ts"].min()
        assert (stage.history.age > 0).all()
    assert fold.tuning.truth["ts"].max() < pd.Timestamp(fold.borders["test"])
    assert len(fold.testing.history.purchases) == len(fold.train) + len(fold.valid)


def test_trap_judged_users_are_everyone_who_bought(own: str) -> None:
    write_folds(own)
    fold = load_fold(own)
    assert fold.testing.users.tolist() == sorted(fold.test["user_id"].astype(str).unique())


def test_rolling_folds_are_newest_first_and_do_not_overlap(own: str) -> None:
    write_folds(own, folds=3)
    folds = list(load_folds(own))
    assert [f.name for f in folds] == ["2025-06-10", "2025-05-20", "2025-04-29"]
    assert all(
        older.test["ts"].max() < newer.test["ts"].min() for newer, older in zip(folds, folds[1:])
    )
    assert load_fold(own, "2025-05-20").hash == folds[1].hash != folds[0].hash


def test_next_basket_protocol_from_disk(own: str) -> None:
    write_folds(own, protocol="next_basket")
    fold = load_fold(own)
    assert fold.protocol == "next_basket"
    assert (fold.test.groupby("user_id", observed=True)["basket_id"].nunique() == 1).all()
    assert set(fold.testing.users) <= set(fold.testing.history.user_ids)
    assert set(fold.tuning.users) <= set(fold.tuning.history.user_ids)


@pytest.mark.spec("C7")
@pytest.mark.parametrize("gap", [1, 3])
def test_without_dates_every_shopper_has_a_clock_of_baskets(home: Path, gap: int) -> None:
    """The last basket of a history is a day old for everybody, however many they have and
    whatever their numbers; a list is for one such day.
    """
    baskets = {"ann": 5, "bob": 3, "cat": 2, "dan": 1}
    rows = [
        {"who": who, "what": f"i{n}", "nth": n * gap + 7}
        for who, count in baskets.items()
        for n in range(count)
    ]
    pd.DataFrame(rows).to_csv(home / "orders.csv", index=False)
    columns = 'user_id = "who"\nitem_id = "what"\norder = "nth"\n'
    start = 'title = "orders"\nprotocol = "next_basket"\n[purchases]\nfiles = ["orders.csv"]\n'
    (home / "orders.toml").write_text(f"{start}[purchases.columns]\n{columns}")
    write_folds(str(home / "orders.toml"))
    fold = load_fold(str(home / "orders.toml"))
    assert not fold.is_dated
    assert fold.list_days == 1
    for stage, cut_off in ((fold.testing, 1), (fold.tuning, 2)):
        history = stage.history
        ages = pd.Series(history.age).groupby(history.purchases["user_id"].astype(str)).agg(sorted)
        for who, count in baskets.items():
            left = 1 if count <= cut_off else count - cut_off
            assert ages[who] == list(range(1, left + 1)), who
    # All receipts, as the service learns them: the day is that of the next basket too.
    every = tables.load(str(home / "orders.toml")).interactions()
    assert every.age.min() == 1
    assert every.as_of == every.purchases["ts"].max() + DAY


def test_writing_twice_gives_the_same_hash(own: str) -> None:
    assert [read_json(write_folds(own)[0] / "fold.json")["hash"] for _ in range(2)] == [
        load_fold(own).hash
    ] * 2


@pytest.mark.parametrize(
    ("override", "name"),
    [
        ({"test_weeks": -1}, "test_weeks"),
        ({"folds": 0}, "folds"),
        ({"protocol": "random"}, "protocol"),
    ],
)
def test_a_bad_override_is_named(own: str, override: dict, name: str) -> None:
    with pytest.raises(LabError, match=name):
        write_folds(own, **override)


def test_a_missing_fold_says_how_to_make_it(own: str) -> None:
    with pytest.raises(LabError, match="--only 02"):
        load_fold(own)


def test_half_a_fold_is_refused(own: str) -> None:
    (write_folds(own)[0] / "valid.parquet").unlink()
    with pytest.raises(LabError, match="valid.parquet is missing"):
        load_fold(own)

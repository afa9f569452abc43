"""Receipts as arrays: ids, order of items, ages, matrices.

And the exploration that stands on them.
"""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab import eda
from shops import receipts

from recsys_utils.data.interactions import Interactions, codes, distinct

IDS = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=4),
    min_size=1,
    max_size=20,
)


@pytest.mark.spec("C1")
@given(IDS)
def test_ids_survive_the_round_trip(ids: list[str]) -> None:
    column = pd.Series(ids, name="item_id")
    known = distinct(column)
    assert known[codes(column, known)].tolist() == ids
    assert known.is_unique


@pytest.mark.spec("C1")
@given(IDS)
def test_categories_and_text_get_the_same_codes(ids: list[str]) -> None:
    column = pd.Series(ids, name="item_id")
    known = distinct(column)
    assert np.array_equal(codes(column, known), codes(column.astype("category"), known))


@pytest.mark.spec("C1")
def test_numbers_become_text() -> None:
    known = distinct(pd.Series([10, 9, 9], name="user_id"))
    assert known.tolist() == ["10", "9"]
    assert codes(pd.Series([9, 11]), known).tolist() == [1, -1]


def test_an_unused_category_is_no_item(tiny: pd.DataFrame) -> None:
    """The parts of a fold share their categories.

    Those of the test window must not enter the vocabulary.
    """
    known = tiny.astype({"item_id": "category"})
    assert "beer" not in Interactions.of(known[known["user_id"] != "bob"]).item_ids


@pytest.mark.spec("C4")
def test_items_are_numbered_by_recent_purchases_then_id(tiny: pd.DataFrame) -> None:
    data = Interactions.of(tiny)  # since 11 February: jam 2, milk 2, beer 1, bread 0
    assert data.item_ids.tolist() == ["jam", "milk", "beer", "bread"]
    assert data.recent.tolist() == [2, 2, 1, 0]


@pytest.mark.spec("C5")
def test_as_of_is_the_last_timestamp_unless_given(tiny: pd.DataFrame) -> None:
    assert Interactions.of(tiny).as_of == pd.Timestamp("2024-03-10")
    later = Interactions.of(tiny, as_of=pd.Timestamp("2024-03-20"))
    assert np.array_equal(later.age - Interactions.of(tiny).age, np.full(len(tiny), 10.0))


def test_exactly_28_days_is_recent_and_a_second_more_is_not(tiny: pd.DataFrame) -> None:
    beer = tiny["basket_id"] == "b1"
    edge = Interactions.of(tiny.assign(ts=tiny["ts"].mask(beer, pd.Timestamp("2024-02-11"))))
    past = Interactions.of(
        tiny.assign(ts=tiny["ts"].mask(beer, pd.Timestamp("2024-02-10 23:59:59")))
    )
    assert [dict(zip(d.item_ids, d.recent))["bread"] for d in (edge, past)] == [1, 0]


def test_matrix_counts_baskets_not_units(tiny: pd.DataFrame) -> None:
    data = Interactions.of(tiny)
    result = pd.DataFrame(data.matrix().toarray(), data.user_ids, data.item_ids)
    assert result.loc["ann", "milk"] == 3
    assert result.loc["bob", "beer"] == 2
    assert result.loc["cat", "bread"] == 0
    assert data.matrix().dtype == np.float32
    assert data.matrix().sum() == len(tiny)


def test_matrix_decays_by_age(tiny: pd.DataFrame) -> None:
    data = Interactions.of(tiny)
    result = pd.DataFrame(data.matrix(tau=30).toarray(), data.user_ids, data.item_ids)
    assert result.loc["bob", "beer"] == pytest.approx(np.exp(-29 / 30) + np.exp(-1 / 30))


def test_price_is_the_median_and_absent_without_prices(tiny: pd.DataFrame) -> None:
    data = Interactions.of(tiny.assign(price=[1.0, 2, 3, 9, 4, 1, 2, 1, 5, 4]))
    assert dict(zip(data.item_ids, data.price)) == {
        "milk": 4.0,
        "bread": 2.0,
        "jam": 4.0,
        "beer": 1.0,
    }
    assert np.isnan(Interactions.of(tiny.drop(columns="price")).price).all()


def test_attributes_follow_the_order_of_the_codes(tiny: pd.DataFrame) -> None:
    items = pd.DataFrame({"item_id": ["milk", "beer", "tea"], "name": ["Milk", "Beer", "Tea"]})
    data = Interactions.of(tiny, items)
    assert data.items.index.equals(data.item_ids)
    assert data.items["name"].fillna("?").tolist() == [
        "?",
        "Milk",
        "Beer",
        "?",
    ]


@pytest.mark.spec("C4")
def test_rows_in_another_order_change_nothing(shop) -> None:
    rows = shop.history.purchases.sample(frac=1, random_state=0)
    mixed = Interactions.of(rows, as_of=shop.history.as_of)
    assert mixed.item_ids.equals(shop.history.item_ids)
    assert mixed.user_ids.equals(shop.history.user_ids)
    assert np.array_equal(mixed.price, shop.history.price)
    assert (mixed.matrix() != shop.history.matrix()).nnz == 0


# ---- exploration


@pytest.mark.spec("S5-15")
def test_segments_are_quartiles_with_the_upper_bound_inside() -> None:
    """Mean prices 1, 2, 3, 4, 5.

    The quartiles are 2, 3, 4, and a user on a bound belongs below it.
    """
    rows = receipts("\n".join(f"u{i} x b{i} 2024-01-01 1 {i}" for i in range(1, 6)))
    assert eda.spending_segments(Interactions.of(rows)).tolist() == [
        "small",
        "small",
        "low_average",
        "average",
        "high",
    ]


@pytest.mark.spec("S5-15")
def test_the_segment_is_of_the_mean_price_per_line(shop) -> None:
    result = eda.spending_segments(shop.history)
    means = shop.history.purchases.groupby("user_id")["price"].mean()
    assert result.index.equals(shop.history.user_ids)
    assert means.groupby(result).max().loc[list(eda.SPENDING)].is_monotonic_increasing
    assert (result == "high").sum() == (means > means.quantile(0.75)).sum()


@pytest.mark.spec("S5-63")
def test_rfm_of_a_hand_written_shop(tiny: pd.DataFrame) -> None:
    table = eda.rfm(tiny, pd.Timestamp("2024-03-11"))
    assert table["recency"].to_dict() == {"ann": 10, "bob": 2, "cat": 1}
    assert table["frequency"].to_dict() == {"ann": 3, "bob": 2, "cat": 1}
    assert table["money"].to_dict() == {"ann": 10.0, "bob": 20.0, "cat": 9.0}


@pytest.mark.spec("S5-63")
def test_segments_tell_the_loyal_from_the_lost(shop) -> None:
    table = eda.rfm(shop.history.purchases, shop.history.as_of)
    mean = table.groupby("segment")[["recency", "frequency"]].mean()
    assert mean.loc["champions", "frequency"] > mean.loc["lost", "frequency"]
    assert mean.loc["champions", "recency"] < mean.loc["lost", "recency"]
    assert set(table.index) == set(shop.history.user_ids)


def test_repeat_share_and_gaps_by_hand(tiny: pd.DataFrame) -> None:
    """Window from 19 February: ann milk (before) and jam (new), bob beer (before); cat is cold."""
    assert eda.repeat_share(tiny) == pytest.approx(2 / 3)
    assert sorted(eda.gaps(tiny)) == [28, 29, 31]


def test_statistics_without_prices(tiny: pd.DataFrame) -> None:
    result = eda.statistics(tiny.drop(columns="price"))
    assert result["lines"] == 10
    assert result["users with one basket"] == pytest.approx(1 / 3, abs=1e-3)
    assert not any("price" in name for name in result)

"""The premium product of a flip against the planted tiers of the synthetic shop."""

import pandas as pd
import pytest
from lab.premium import dearer_is_better, planted_tiers, tiers_found
from shops import Shop, receipts, synthetic_tables

from recsys_utils.data.interactions import Interactions
from recsys_utils.models.preferences import flips


def test_the_share_by_hand() -> None:
    """Three flips between tiers, two of them right; one within a tier says nothing."""
    tiers = pd.Series({"cheap": -1.0, "good": 1.0, "fine": 1.0})
    found = pd.DataFrame(
        [
            ("u", "cheap", "good"),
            ("v", "cheap", "fine"),
            ("w", "good", "cheap"),
            ("x", "good", "fine"),
        ],
        columns=["client", "item_id", "premium_id"],
    )
    (row,) = tiers_found(found, tiers).to_dict("records")
    assert row["flips"] == 3
    assert row["share"] == pytest.approx(2 / 3)
    assert 0 <= row["lo"] < row["share"] < row["hi"] <= 1


def test_prices_find_the_planted_tiers_more_often_than_a_coin(shop: Shop) -> None:
    tiers = planted_tiers(shop.tables["items"].set_index("item_id"))
    assert set(tiers) == {-1.0, 0.0, 1.0}
    (row,) = tiers_found(flips(shop.history, None), tiers).to_dict("records")
    assert row["share"] > 0.5


def test_a_shop_without_like_products_has_no_flips() -> None:
    """Two products of two kinds: nothing is compared, and nothing is claimed."""
    rows = receipts("u a1 1 2024-01-01 5 1\nu b2 2 2024-01-02 1 9")
    found = flips(Interactions.of(rows))
    assert found.empty
    (row,) = tiers_found(found, pd.Series({"a1": -1.0, "b2": 1.0})).to_dict("records")
    assert row["flips"] == 0
    assert pd.isna(row["share"])


def test_what_the_price_alone_tells_by_hand() -> None:
    """Of three alike pairs with other tiers the dearer one is the better one in two; x and y
    are of one tier and say nothing. The flip's ratio is that of the pair of w, which is wrong.
    """
    rows = receipts("""
    u cheap b1 2024-01-01 9 1
    u good  b1 2024-01-01 1 2
    v cheap b2 2024-01-01 1 1
    v good  b2 2024-01-01 1 2
    w cheap b3 2024-01-01 1 1
    w poor  b3 2024-01-01 1 8
    t good  b4 2024-01-01 1 2
    t fine  b4 2024-01-01 1 3
    """)
    items = pd.DataFrame({"item_id": ["cheap", "good", "poor", "fine"], "category": "tea"})
    tiers = pd.Series({"cheap": 0.0, "good": 1.0, "poor": -1.0, "fine": 1.0})
    data = Interactions.of(rows, items)
    found = pd.DataFrame({"client": ["w"], "item_id": ["cheap"], "premium_id": ["poor"]})
    (row,) = dearer_is_better(data, tiers, found).to_dict("records")
    assert row["pairs"] == 3
    assert row["share"] == pytest.approx(2 / 3)
    none = dearer_is_better(data, tiers, found[:0]).iloc[0]
    assert pd.isna(none["at_flips_ratios"])


def test_flips_say_no_more_of_tiers_than_prices_do() -> None:
    """Right more often than a coin, for dear products are of better tiers, and not more often than
    the dearer one of any two alike products whose prices differ as much.
    """
    tables = synthetic_tables(lines=100_000, seed=1)
    data = Interactions.of(tables["purchases"], tables["items"], tables["users"])
    tiers = planted_tiers(data.items)
    found = flips(data, None)
    (flipped,) = tiers_found(found, tiers).to_dict("records")
    (priced,) = dearer_is_better(data, tiers, found).to_dict("records")
    assert priced["share"] > 0.5
    assert flipped["lo"] < priced["at_flips_ratios"] < flipped["hi"]

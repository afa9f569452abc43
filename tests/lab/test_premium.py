"""The premium product of a flip against the planted tiers of the synthetic shop."""

import pandas as pd
import pytest
from lab.premium import planted_tiers, tiers_found
from shops import Shop, receipts

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

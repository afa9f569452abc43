"""How large a test in the shop must be: by hand, and against simulated tests."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_ind

from recsys_utils.evaluation.experiment import (
    first_purchase_tests,
    shoppers_needed,
    smallest_lead,
    spending_tests,
)


def test_size_and_smallest_lead_are_inverse() -> None:
    needed = shoppers_needed(sd=30, effect=2)
    assert needed == pytest.approx(4 * 900 * (1.959964 + 0.841621) ** 2 / 4, rel=1e-5)
    assert smallest_lead(30, needed) == pytest.approx(2)
    assert shoppers_needed(30, 0) == float("inf")


def test_a_test_of_that_size_finds_the_lead_four_times_in_five() -> None:
    rng = np.random.default_rng(0)
    half = round(shoppers_needed(sd=1, effect=0.25) / 2)
    new = rng.normal(0.25, 1, (2000, half))
    old = rng.normal(0, 1, (2000, half))
    found = (ttest_ind(new, old, axis=1).pvalue < 0.05).mean()
    assert found == pytest.approx(0.8, abs=0.03)


def receipts_of(shoppers: int, weeks: int, seed: int = 0) -> pd.DataFrame:
    """Shoppers who buy every week, each for an amount of their own with some noise."""
    rng = np.random.default_rng(seed)
    usual = rng.gamma(2, 10, shoppers)
    user, week = np.divmod(np.arange(shoppers * weeks), weeks)
    ts = pd.Timestamp("2024-01-01") + pd.to_timedelta(7 * week, "D")
    price = usual[user] * rng.uniform(0.9, 1.1, len(user))
    return pd.DataFrame({"user_id": user.astype(str), "ts": ts, "quantity": 1.0, "price": price})


def test_spending_before_explains_most_of_steady_shoppers() -> None:
    tests = spending_tests(receipts_of(300, 30), weeks=(3, 6), cap=1.0)
    assert tests["weeks"].tolist() == [3, 6]
    assert (tests["shoppers"] == 300).all()
    assert tests["plain"].tolist() == pytest.approx(tests["capped"].tolist())
    assert (tests["cuped"] < 0.2 * tests["plain"]).all()
    assert tests["mean"].iloc[1] == pytest.approx(2 * tests["mean"].iloc[0], rel=0.05)


def test_capping_takes_spread_away_and_who_bought_nothing_counts_as_zero() -> None:
    receipts = receipts_of(200, 30)
    late = receipts["ts"] >= receipts["ts"].max() - pd.Timedelta(weeks=2)
    receipts.loc[late & (receipts["user_id"] == "7"), "price"] = 100_000
    stayed_away = late & receipts["user_id"].isin([str(n) for n in range(100, 150)])
    capped = spending_tests(receipts[~stayed_away], weeks=(3,)).iloc[0]
    assert capped["shoppers"] == 200
    assert capped["capped"] < capped["plain"] / 10
    assert capped["capped_mean"] < capped["mean"]


def test_receipts_that_hold_no_window_before_plan_no_test() -> None:
    assert spending_tests(receipts_of(20, 4), weeks=(3, 6)).empty


def test_first_purchases_count_an_item_once_for_each_shopper() -> None:
    """Everybody buys tea every week, and in week 27 half of them buy coffee, twice."""
    receipts = receipts_of(100, 30).assign(item_id="tea")
    coffee = receipts[(receipts["ts"] == receipts["ts"].min() + pd.Timedelta(weeks=28))]
    coffee = coffee[coffee["user_id"].astype(int) < 50].assign(item_id="coffee")
    lines = pd.concat([receipts, coffee, coffee]).sample(frac=1, random_state=0)
    test = first_purchase_tests(lines, weeks=(3,), cap=1.0).iloc[0]
    assert (test["shoppers"], test["mean"]) == (100, 0.5)

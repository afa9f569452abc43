"""What a list is worth: by hand, by simulation with a known truth, and with bad input."""

import numpy as np
import pandas as pd
import pytest
from shops import receipts

from recsys_utils import LabError
from recsys_utils.data.folds import Stage
from recsys_utils.data.interactions import Interactions
from recsys_utils.data.registry import Worth
from recsys_utils.evaluation.significance import Interval
from recsys_utils.evaluation.worth import lead, money_per_shopper, per_year, windows_a_year

HISTORY = """
ann milk  a1 2024-01-01 1 1.0
bob beer  b1 2024-01-01 1 1.5
cat milk  c1 2024-01-01 1 1.0
"""
WINDOW = """
ann milk  a2 2024-02-01 3 1.0
ann jam   a2 2024-02-01 1 4.0
bob beer  b2 2024-02-01 2 1.5
bob cake  b2 2024-02-01 1 20.0
dan milk  d1 2024-02-01 1 1.0
cat bread c2 2024-02-01 1 2.0
"""


def stage() -> Stage:
    return Stage(Interactions.of(receipts(HISTORY)), receipts(WINDOW))


def lists(rows: dict[str, list[str]]) -> pd.DataFrame:
    frame = pd.DataFrame(
        [(user, item, n) for user, items in rows.items() for n, item in enumerate(items, 1)],
        columns=["user_id", "item_id", "rank"],
    )
    return frame.astype({"user_id": object, "item_id": object})


def test_money_is_that_of_hits_told_apart_by_what_was_bought_before() -> None:
    recs = lists({"ann": ["milk", "jam"], "bob": ["milk", "cake"], "dan": ["milk"]})
    money = money_per_shopper(recs, stage())
    assert list(money.index) == ["ann", "bob", "cat"], "dan had bought nothing before"
    assert money["repeats"].tolist() == [3.0, 0.0, 0.0]
    assert money["first"].tolist() == [4.0, 20.0, 0.0]
    assert money["spent"].tolist() == [7.0, 23.0, 2.0]


def test_only_the_first_places_count() -> None:
    recs = lists({"ann": ["tea", "milk", "jam"]})
    assert money_per_shopper(recs, stage(), k=2).loc["ann", ["repeats", "first"]].tolist() == [3, 0]


def test_large_accounts_are_scaled_down_to_the_cap_and_counted() -> None:
    recs = lists({"bob": ["beer", "cake"]})
    money = money_per_shopper(recs, stage(), cap=0.5)
    assert money.loc["bob", "spent"] == 7.0, "the median of 7, 23 and 2"
    assert money.loc["bob", ["repeats", "first"]].tolist() == pytest.approx([21 / 23, 140 / 23])
    assert money["capped"].tolist() == [False, True, False]
    assert lead(money, None, Worth()).capped == 1


def test_receipts_without_prices_have_no_worth() -> None:
    window = stage()
    window.truth = window.truth.drop(columns="price")
    with pytest.raises(LabError, match="no prices"):
        money_per_shopper(lists({"ann": ["milk"]}), window)


def test_a_lead_is_the_mean_of_paired_differences() -> None:
    index = pd.Index(["ann", "bob"])
    money = pd.DataFrame({"repeats": [3.0, 1.0], "first": [4.0, 0.0], "capped": False}, index)
    other = pd.DataFrame({"repeats": [1.0, 1.0], "first": [0.0, 2.0], "capped": False}, index)
    assumed = Worth(uplift_repeats=(0.1, 0.3), uplift_first=(0.5, 0.5), seen=0.5, margin=0.4)
    gain = lead(money, other, assumed)
    assert gain.repeats.value == 1.0
    assert gain.first.value == 1.0
    assert gain.predicted.value == 2.0
    assert gain.caused.value == pytest.approx(0.5 * 0.4 * (0.2 * 1 + 0.5 * 1))
    assert gain.shoppers == 2


def test_a_list_has_no_lead_over_itself() -> None:
    money = money_per_shopper(lists({"ann": ["milk", "jam"]}), stage())
    gain = lead(money, money, Worth())
    assert gain.caused == Interval(0, 0, 0)
    assert gain.predicted.holds_zero


@pytest.mark.parametrize("ends", [(0.0, 0.0), (0.1, 0.5)])
def test_a_wider_range_of_uplifts_never_narrows_the_interval(ends: tuple[float, float]) -> None:
    rng = np.random.default_rng(0)
    frame = {"repeats": rng.gamma(1, 3, 200), "first": rng.normal(0, 2, 200), "capped": False}
    money = pd.DataFrame(frame)
    middle = sum(ends) / 2
    narrow = lead(money, None, Worth(uplift_repeats=ends, uplift_first=(middle, middle)))
    wide = lead(money, None, Worth(uplift_repeats=ends, uplift_first=ends))
    assert wide.caused.low <= narrow.caused.low
    assert wide.caused.high >= narrow.caused.high


def test_what_a_list_causes_is_found_in_shops_where_it_is_known() -> None:
    """In 200 made-up shops the truth lies in the interval at least 18 times in 20.

    Each shopper buys their listed items anyway or not. Showing the list adds purchases: a share of
    the repeats, another share of the first purchases, both within the assumed ranges. The truth is
    the mean that is added over all shoppers of the town, of whom the receipts hold some.
    """
    rng = np.random.default_rng(7)
    assumed = Worth(uplift_repeats=(0.1, 0.2), uplift_first=(0.3, 0.5))
    covered = 0
    for _ in range(200):
        of_repeats, of_first = rng.uniform(0.1, 0.2), rng.uniform(0.3, 0.5)
        town = rng.gamma(0.5, 8, (20_000, 2)) * (rng.random((20_000, 2)) < [0.5, 0.1])
        truth = (town @ [of_repeats, of_first]).mean()
        sample = town[rng.choice(len(town), 400, replace=False)]
        money = pd.DataFrame(sample, columns=["repeats", "first"]).assign(capped=False)
        found = lead(money, None, assumed).caused
        covered += found.low <= truth <= found.high
    assert covered >= 180


def test_a_year_of_windows_and_a_basket() -> None:
    one = Interval(1.0, 0.5, 2.0)
    assert per_year(one, windows=1) == Interval(1000, 500, 2000)
    assert per_year(one, windows=None) == Interval(1000, 500, 2000)
    assert per_year(one, windows=10).value == pytest.approx(10_000)


def test_a_year_counts_the_windows_in_which_shoppers_buy() -> None:
    """ann bought in each of the 52 weeks, bob in 13; dan is not of the window, eve has no past."""
    cut = pd.Timestamp("2025-06-02")
    weeks = {"ann": range(52), "bob": range(0, 52, 4), "dan": range(0, 52, 9)}
    rows = [
        (user, f"{user}{week}", cut - pd.Timedelta(days=7 * week + 3))
        for user, of_user in weeks.items()
        for week in of_user
    ]
    past = pd.DataFrame(rows, columns=["user_id", "basket_id", "ts"])
    history = Interactions.of(past.assign(item_id="tea", quantity=1.0), as_of=cut)
    window = pd.DataFrame({"user_id": ["ann", "bob", "bob", "eve"], "item_id": "tea"})
    counted = windows_a_year(Stage(history, window), days=7)
    assert counted == pytest.approx((52 + 13) / 2 / 51 * 365.25 / 7, rel=0.02)
    twice = Stage(Interactions.of(pd.concat([history.purchases] * 2), as_of=cut), window)
    assert windows_a_year(twice, days=7) == counted
    longest = windows_a_year(Stage(history, window), days=400)
    assert longest == pytest.approx(365.25 / 400), "a window longer than all receipts"

"""The business rules by hand."""

import numpy as np
import pandas as pd
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from lab.eda import gaps, spending_segments
from reference import NO_RULES
from shops import Shop, receipts

from recsys_utils import LabError
from recsys_utils.data.interactions import Interactions
from recsys_utils.ensembles import business_rules
from recsys_utils.ensembles.business_rules import Facts
from recsys_utils.ensembles.rule_settings import tuned

NAN = np.nan
# Mean prices: a 1, b 2, c 3, d 4; their quartiles 1.75, 2.5, 3.25. Item prices: p1 1, p2 2, p3 3,
# p4 4, dear 100.
PRICES = "\n".join(f"{user} p{n} {user}1 2024-01-01 1 {n}" for n, user in enumerate("abcd", 1))


def only(rule: str, **knobs: object) -> dict:
    """Every rule off but one."""
    return {**{name: off for name, off in NO_RULES.items() if name != rule}, rule: knobs}


def table(text: str) -> pd.DataFrame:
    rows = [line.split() for line in text.strip().splitlines()]
    return pd.DataFrame(rows, columns=["user_id", "item_id", "score"]).astype({"score": float})


def shown(text: str, data: Interactions, tuning: dict, later: float = 0) -> list[str]:
    return business_rules.rerank(table(text), Facts.of(data), tuned(tuning), later)[
        "item_id"
    ].tolist()


@pytest.fixture
def priced() -> Interactions:
    return Interactions.of(
        receipts(PRICES + "\nd dear d2 2024-01-01 1 4\ne dear e1 2024-01-01 1 100")
    )


# ---- segments


@pytest.mark.spec("S5-15")
def test_quartiles_of_mean_prices_upper_bound_inclusive() -> None:
    """Five users, means 1 to 5.

    The quartiles are users' own means 2, 3, 4 and belong to the lower segment.
    """
    data = Interactions.of(
        receipts("\n".join(f"u{n} x b{n} 2024-01-01 1 {n}" for n in range(1, 6)))
    )
    result = reference.profiles(data)
    assert result["mean_price"].tolist() == [1, 2, 3, 4, 5]
    assert result["segment"].tolist() == ["small", "small", "low_average", "average", "high"]
    wide = tuned({"user_segments": {"small": 0.1, "low_average": 0.2}})
    assert reference.profiles(data, wide)["segment"].tolist() == [
        "small",
        "average",
        "average",
        "average",
        "high",
    ]


@pytest.mark.spec("S5-15")
def test_segments_are_those_of_the_eda_notebook(shop: Shop) -> None:
    assert (
        reference.profiles(shop.history)["segment"] == spending_segments(shop.history)
    ).mean() > 0.99


@pytest.mark.spec("S5-43")
def test_profiles_count_lines_items_mean_price_and_last_purchase(tiny: pd.DataFrame) -> None:
    result = reference.profiles(Interactions.of(tiny)).loc["ann"]
    assert (result["purchases"], result["unique_items"], result["mean_price"]) == (
        5,
        3,
        (1 + 2 + 1 + 1 + 4) / 5,
    )
    assert result["last_purchase"] == pd.Timestamp("2024-03-01")


@pytest.mark.spec("S5-02")
def test_a_mean_of_zero_is_no_mean_and_takes_the_default_segment() -> None:
    data = Interactions.of(receipts(PRICES + "\nz p1 z1 2024-01-01 1 0"))
    result = reference.profiles(data)
    assert np.isnan(result["mean_price"]["z"])
    assert result["segment"]["z"] == "average"
    assert result["segment"]["a"] == "small"
    assert (
        reference.profiles(data, tuned({"user_segments": {"default": "small"}}))["segment"]["z"]
        == "small"
    )


def test_item_features_by_hand(tiny: pd.DataFrame) -> None:
    result = reference.item_features(Interactions.of(tiny)).loc["milk"]
    assert result.to_dict() == {"price": 1.0, "lines": 4, "shoppers": 2, "units": 5.0}


@pytest.mark.spec("S5-15")
@given(st.lists(st.floats(0.01, 1e4), min_size=1, max_size=30))
def test_every_user_has_the_segment_whose_bound_is_the_first_not_below_the_mean(
    means: list[float],
) -> None:
    mean = np.array(means)
    knobs = tuned({}).user_segments
    bounds = business_rules.segment_bounds(mean, knobs)
    result = business_rules.segments(mean, bounds, knobs)
    assert (mean <= bounds[result]).all()
    assert all(code == 0 or m > bounds[code - 1] for m, code in zip(mean, result))


# ---- prices


@pytest.mark.spec("S5-11")
def test_the_segment_drops_what_is_above_its_bound_times_the_tolerance(
    priced: Interactions,
) -> None:
    """Means 1, 2, 3, 4, 100: bounds 2, 3, 4. b is small: up to 3; c low_average: up to 4.5.

    E high: everything.
    """
    rule = only("user_segments")
    text = "b p3 .9\nb p4 .8\nc p4 .7\nc dear .6\ne dear .5"
    assert shown(text, priced, rule) == ["p3", "p4", "dear"]
    assert shown(
        text, priced, {**rule, "price_sensitivity": {"mode": "off", "budget_tolerance": 1}}
    ) == ["dear"]
    assert shown(text, priced, NO_RULES) == ["p3", "p4", "p4", "dear", "dear"]


@pytest.mark.spec("S5-11")
def test_a_stranger_has_the_default_segment_and_no_other_cap(priced: Interactions) -> None:
    """average: up to 1.5 · 4 = 6. The price of `dear` is the median of 4 and 100."""
    text = "stranger p4 .9\nstranger dear .8"
    assert shown(text, priced, {}) == ["p4"]
    assert shown(text, priced, only("price_sensitivity")) == [
        "p4",
        "dear",
    ]
    assert shown(text, priced, only("user_segments", default="high")) == ["p4", "dear"]
    assert shown("stranger p4 .9", priced, only("user_segments", default="small")) == []


@pytest.mark.spec("S5-14")
def test_cap_drops_above_one_and_a_half_means_and_keeps_the_limit_itself(
    priced: Interactions,
) -> None:
    """b's mean is 2: 3 is the limit and stays."""
    rule = only("price_sensitivity")
    assert shown("b p3 .9\nb p4 .8\na p2 .7\na p1 .6", priced, rule) == ["p3", "p1"]
    assert shown("b p4 .8\na p2 .7", priced, only("price_sensitivity", budget_tolerance=2)) == [
        "p4",
        "p2",
    ]


@pytest.mark.spec("S5-14")
@pytest.mark.parametrize(
    ("price", "left"), [(1, 1), (2, 1), (3, 1), (4.5, 0.85), (6, 0.7), (60, 0.7)]
)
def test_penalty_is_none_to_one_and_a_half_and_linear_to_its_most_at_three(
    price: float, left: float
) -> None:
    result = business_rules.adjusted(
        np.array([0.5]),
        np.array([price]),
        np.array([2.0]),
        tuned(only("price_sensitivity", mode="penalty")),
    )
    assert result[0] == pytest.approx(0.5 * left)


@pytest.mark.spec("S5-14")
def test_the_penalty_s_constants_are_knobs() -> None:
    knobs = only("price_sensitivity", mode="penalty", full_penalty_at=2, max_penalty=1)
    assert business_rules.adjusted(
        np.array([0.5, 0.5]), np.array([4.0, 3.5]), np.array([2.0, 2.0]), tuned(knobs)
    ).tolist() == [0, 0.25]


@pytest.mark.spec("S5-12")
@pytest.mark.parametrize(("ratio", "boost"), [(0.5, 0), (1, 0), (1.25, 0.5), (1.5, 1), (1.6, 0)])
def test_upsell_rises_from_the_mean_price_to_the_tolerance(ratio: float, boost: float) -> None:
    result = business_rules.adjusted(
        np.array([0.4]),
        np.array([2 * ratio]),
        np.array([2.0]),
        tuned(only("upsell", factor=0.5, price_boost_weight=0.2)),
    )
    assert result[0] == pytest.approx(0.4 + 0.5 * 0.2 * boost)


@pytest.mark.spec("S5-12", "S5-18")
@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.01, 10))
def test_upsell_is_monotone_in_its_factor_and_zero_is_off(
    low: float, high: float, price: float
) -> None:
    low, high = sorted((low, high))
    score = np.array([0.5])
    mean = np.array([2.0])
    result = [
        business_rules.adjusted(score, np.array([price]), mean, tuned(only("upsell", factor=f)))[0]
        for f in (0.0, low, high)
    ]
    assert (
        result[0]
        == 0.5
        == business_rules.adjusted(score, np.array([price]), mean, tuned(NO_RULES))[0]
    )
    assert result == sorted(result)


def test_items_and_users_without_a_price_are_neither_dropped_nor_boosted() -> None:
    knobs = tuned({"upsell": {"factor": 1.0}, "price_sensitivity": {"mode": "penalty"}})
    score = np.full(3, 0.5)
    price = np.array([NAN, 3.0, NAN])
    mean = np.array([2.0, NAN, NAN])
    assert business_rules.adjusted(score, price, mean, knobs).tolist() == [0.5] * 3
    assert not business_rules.dropped(
        np.array([NAN]), np.array([0.01]), np.array([NAN]), np.array([NAN]), tuned({})
    )[0]


def test_receipts_without_prices_switch_the_price_rules_off_and_say_so(tiny: pd.DataFrame) -> None:
    data = Interactions.of(tiny.drop(columns="price"))
    assert shown("ann beer .9\nbob jam .8\nx milk .7", data, {}) == ["beer", "jam", "milk"]
    result = business_rules.in_force(data.price, tuned({}))
    assert {result.pop("repurchase_cycle")} == {"on"}
    assert set(result.values()) == {"off: no prices in the receipts"}
    assert set(business_rules.in_force(Interactions.of(tiny).price, tuned({})).values()) == {"on"}
    assert set(business_rules.in_force(data.price, tuned(NO_RULES)).values()) == {"off"}


# ---- repurchase

GAPS = """
u soap 1 2024-01-01 1 1
u soap 2 2024-01-01 1 1
u soap 3 2024-01-11 1 1
u soap 4 2024-01-31 1 1
u soap 5 2024-04-30 1 1
v soap 6 2024-01-01 1 1
v soap 7 2024-02-10 1 1
w soap 8 2024-02-10 1 1
w vase 9 2024-02-10 1 1
w vase 10 2024-02-10 1 1
"""


@pytest.mark.spec("S5-17")
def test_the_cycle_is_the_median_of_users_median_gaps_between_days() -> None:
    """u's gaps are 10, 20, 90 (two baskets of a day are no gap): 20. v's is 40. w bought soap once.

    So 30, by chance the default.
    """
    result = reference.cycles(
        Interactions.of(receipts(GAPS)), tuned({"repurchase_cycle": {"default_cycle_days": 12}})
    )
    assert result.loc["soap"].tolist() == [30, True]
    assert result.loc["vase"].tolist() == [12, False]


@pytest.mark.spec("S5-17")
def test_cycles_of_a_shop_are_those_of_its_gaps(shop: Shop) -> None:
    rows = shop.history.purchases
    gap = gaps(rows)
    pairs = rows.loc[gap.index, ["user_id", "item_id"]].astype(str).assign(gap=gap.to_numpy())
    expected = pairs.groupby(["user_id", "item_id"])["gap"].median().groupby("item_id").median()
    result = reference.cycles(shop.history)
    assert result["observed"].sum() == len(expected) > 20
    assert (result.loc[expected.index, "cycle_days"] == expected).all()
    assert (result.loc[~result["observed"], "cycle_days"] == 30).all()


@pytest.mark.spec("S5-13")
def test_an_item_stays_away_until_its_share_of_the_cycle_has_passed() -> None:
    """soap: cycle 30, away until day 24 after 30 April; vase takes the default, 30.

    The day itself is allowed.
    """
    data = Interactions.of(receipts(GAPS))
    rule = only("repurchase_cycle")
    assert shown("u soap .9\nu vase .8", data, rule) == ["vase"]
    assert shown("u soap .9", data, rule, 23.9) == []
    assert shown("u soap .9", data, rule, 24) == ["soap"]
    assert shown("u soap .9", data, only("repurchase_cycle", exclusion_factor=0.5), 15) == ["soap"]
    assert shown("u soap .9", data, only("repurchase_cycle", exclusion_factor=0.0)) == ["soap"]
    assert shown("w vase .9", data, rule) == ["vase"]  # 80 days ago
    assert shown("w vase .9", data, only("repurchase_cycle", default_cycle_days=101)) == []
    assert shown("u soap .9", data, NO_RULES) == ["soap"]


@pytest.mark.spec("S5-13")
def test_a_purchase_at_the_very_moment_counts() -> None:
    """Zero days are stored like any other number of days."""
    facts = Facts.of(Interactions.of(receipts("u a 1 2024-01-01 1 1\nu b 2 2024-01-05 1 1")))
    assert facts.last.nnz == 2
    assert sorted(facts.last.data) == [0, 4]
    assert business_rules.rerank(table("u b .5\nv b .5"), facts, tuned({}))["user_id"].tolist() == [
        "v"
    ]


@pytest.mark.spec("S5-13")
def test_an_unheard_of_item_was_never_bought() -> None:
    """The last item of the user before is not mistaken for it."""
    facts = Facts.of(
        Interactions.of(
            receipts("u a 1 2024-01-05 1 1\nv b 2 2024-01-01 1 1\nu b 3 2024-01-05 1 1")
        )
    )
    assert business_rules.rerank(table("v unheard .5\nx unheard .4"), facts, tuned({}))[
        "user_id"
    ].tolist() == ["v", "x"]


# ---- relevance, order, reasons


@pytest.mark.spec("S5-44")
def test_relevance_is_the_share_of_the_most_that_could_be_attained(
    priced: Interactions,
) -> None:
    """b's mean is 2, p3 at 1.5 times gets the whole boost: score 1 becomes 1.02 of 1.02."""
    result = business_rules.rerank(
        table("b p3 1\nb p2 1\nb p1 .5"), Facts.of(priced), tuned({}), later=40
    )
    assert result["relevance"].tolist() == pytest.approx([1, 1 / 1.02, 0.5 / 1.02])
    assert result["rank"].tolist() == [1, 2, 3]
    assert (
        business_rules.attainable(priced.price, tuned(NO_RULES))
        == 1
        == business_rules.attainable(np.array([NAN]), tuned({}))
    )


@pytest.mark.spec("S5-44")
@given(
    st.lists(st.floats(0, 1, width=32), min_size=1, max_size=5),
    st.sampled_from(["cap", "penalty", "off"]),
    st.floats(0, 1),
)
def test_relevance_is_in_0_1_and_falls_down_the_list(
    scores: list[float], mode: str, factor: float
) -> None:
    data = Interactions.of(receipts(PRICES + "\ne dear e1 2024-01-01 1 100"))
    rows = table(
        "\n".join(
            f"{user} {item} {s}"
            for user in "abc"
            for item, s in zip(["p1", "p2", "p3", "p4", "dear"], scores)
        )
    )
    result = business_rules.rerank(
        rows,
        Facts.of(data),
        tuned({"price_sensitivity": {"mode": mode}, "upsell": {"factor": factor}}),
    )
    assert result["relevance"].between(0, 1 + 1e-12).all()
    assert (result.groupby("user_id")["relevance"].diff().dropna() <= 0).all()
    assert (
        result.groupby("user_id")["rank"].apply(list).map(lambda r: r == list(range(1, len(r) + 1)))
    ).all()


def test_rerank_keeps_users_in_order_other_columns_and_ties_to_the_more_popular() -> None:
    data = Interactions.of(
        receipts("x often 1 2024-01-01 1 1\ny often 2 2024-01-01 1 1\nx rare 3 2024-01-01 1 1")
    )
    rows = table("z rare .5\nz often .5\ny rare .4").assign(source=["als", "item_cf", "als"])
    result = business_rules.rerank(rows, Facts.of(data), tuned(NO_RULES))
    assert result[["user_id", "item_id", "source"]].to_numpy().tolist() == [
        ["z", "often", "item_cf"],
        ["z", "rare", "als"],
        ["y", "rare", "als"],
    ]


def test_rerank_of_no_candidates_is_empty(priced: Interactions) -> None:
    assert business_rules.rerank(table("a p1 .5")[:0], Facts.of(priced)).empty


@pytest.mark.parametrize(
    ("change", "message"), [({"score": 1.5}, "score is 1.5.*0…1"), ({"score": NAN}, "score is nan")]
)
def test_rerank_refuses_scores_that_are_not_scaled(
    priced: Interactions, change: dict, message: str
) -> None:
    with pytest.raises(LabError, match=message):
        business_rules.rerank(table("a p1 .5").assign(**change), Facts.of(priced))
    with pytest.raises(LabError, match="lack the column item_id"):
        business_rules.rerank(table("a p1 .5").drop(columns="item_id"), Facts.of(priced))


@pytest.mark.spec("S5-46")
def test_reasons_say_what_is_true() -> None:
    rows = [
        ("als", 3, 9, 30, 30, "Time to restock: usual cycle 30 days"),
        ("item_cf", 5, 9, 29.9, 30, "Similar to 5 items in your purchase history"),
        ("item_cf", 1, 9, NAN, 30, "Similar to 1 item in your purchase history"),
        ("item_cf", 0, 9, NAN, 30, "Matches your preferences"),
        ("als", 5, 9, 99, NAN, "Matches your preferences"),
        ("popularity", 2, 2, NAN, 30, "Popular with 2 shoppers"),
        ("popularity", 2, 1, 99, NAN, "Popular with 1 shopper"),
        ("popularity", 2, 1057, 99, NAN, "Popular with 1,057 shoppers"),
        ("popularity", 2, 0, NAN, 30, "Nobody bought it yet"),
        ("als", 0, 9, 40, 0.4, "Time to restock: usual cycle 1 day"),
    ]
    *columns, expected = map(np.array, zip(*rows))
    assert business_rules.reasons(*columns) == expected.tolist()

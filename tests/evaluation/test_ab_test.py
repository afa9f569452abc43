"""A test in the shop: the split, and intervals that hold however often one looks, by simulation."""

import duckdb
import numpy as np
import pandas as pd
import pytest

from recsys_utils import LabError
from recsys_utils.evaluation.ab_test import (
    NEW,
    TODAY,
    arms,
    capped,
    critical_value,
    lead,
    ratio_p,
    read,
)
from recsys_utils.evaluation.experiment import shoppers_needed

DAYS = 28


class Shop:
    """Shoppers with habits of their own, whose money is known day by day; baskets are skewed."""

    def __init__(self, seed: int, shoppers: int = 1000, days: int = DAYS) -> None:
        self.rng = np.random.default_rng(seed)
        self.visits = self.rng.beta(1, 6, shoppers)
        self.level = self.rng.gamma(2, 0.5, shoppers)
        self.before = self.days(days)[-1]
        self.now = self.days(days)
        self.is_new = self.rng.random(shoppers) < 0.5

    def days(self, days: int) -> np.ndarray:
        """Money up to each day: days × shoppers."""
        comes = self.rng.random((days, len(self.visits))) < self.visits
        basket = self.level * self.rng.lognormal(2.5, 1, comes.shape)
        return (comes * basket).cumsum(axis=0)

    def shown_list(self, chance: float) -> tuple[np.ndarray, float]:
        """Money up to each day where some also buy a listed item of 4 to 6 a day, and the truth.

        Who sees the new list buys such an item with this chance at every day. The truth is how
        much that is by the last day, on average.
        """
        extra = self.is_new * (self.rng.random(self.now.shape) < chance)
        money = self.now + (extra * self.rng.uniform(4, 6, extra.shape)).cumsum(axis=0)
        return money, chance * 5 * len(money)


# ---- the split


def test_any_language_draws_the_same_arms() -> None:
    """DuckDB's SHA-256, by the words of the docstring."""
    users = pd.DataFrame({"user_id": ["1", "007", "Ann Čapek", "a:b", *map(str, range(500))]})
    sql = """SELECT CASE WHEN ('0x' || left(sha256('spring:' || user_id), 8))::BIGINT / 4294967296.0
             < 0.3 THEN 'new' ELSE 'today' END AS arm FROM users"""
    expected = duckdb.query_df(users, "users", sql).df()["arm"].tolist()
    assert arms(users["user_id"], "spring", 0.3).tolist() == expected


def test_the_split_sticks_to_a_shopper_and_has_the_share() -> None:
    users = [f"c{n}" for n in range(20_000)]
    spring = arms(users, "spring")
    assert arms(users[::-1], "spring")[::-1].tolist() == spring.tolist()
    assert (spring == NEW).mean() == pytest.approx(0.5, abs=0.01)
    assert (arms(users, "spring", 0.2) == NEW).mean() == pytest.approx(0.2, abs=0.01)
    # Who sees more in one test is not who sees more in the next.
    assert (arms(users, "autumn") == spring).mean() == pytest.approx(0.5, abs=0.01)
    with pytest.raises(LabError, match="share 1"):
        arms(users, "spring", 1)


# ---- a lead and its error


def test_the_lead_of_four_shoppers_by_hand() -> None:
    """New 4 and 8, today 1 and 3: lead 4; variances 8 and 2, each over 2 shoppers: error √5."""
    is_new = np.array([True, False, True, False])
    difference, error = lead(np.array([4.0, 1.0, 8.0, 3.0]), is_new)
    assert (difference, error) == (4.0, pytest.approx(5**0.5))
    # Before: 2 and 4, 2 and 4. Slope 3/2 within the arms: (4·2 + 2·2) / (2² + 2²).
    before = np.array([2.0, 2.0, 4.0, 4.0])
    difference, error = lead(np.array([4.0, 1.0, 8.0, 3.0]), is_new, before)
    # Left over: 1 and 2, -2 and -3: variances 0.5 each.
    assert (difference, error) == (4.0, pytest.approx(0.5**0.5))


def test_a_measure_that_never_varied_before_takes_nothing_away() -> None:
    values = np.array([4.0, 1.0, 8.0, 3.0])
    is_new = np.array([True, False, True, False])
    assert lead(values, is_new, np.ones(4)) == lead(values, is_new)


# ---- however often one looks


@pytest.fixture(scope="module")
def looks() -> dict[str, np.ndarray]:
    """Standard errors from zero at each of 28 daily looks of 1,000 tests of a list with itself."""
    found = {"plain": [], "cuped": []}
    for seed in range(1000):
        shop = Shop(seed)
        cut = capped(shop.now)
        for name, before in (("plain", None), ("cuped", capped(shop.before))):
            difference, error = lead(cut, shop.is_new, before)
            found[name].append(np.abs(difference) / error)
    return {name: np.array(rows) for name, rows in found.items()}


@pytest.mark.parametrize("reading", ["plain", "cuped"])
def test_a_list_against_itself_alarms_in_at_most_5_percent(
    looks: dict[str, np.ndarray], reading: str
) -> None:
    """Of 1,000 tests that are read every day for four weeks."""
    alarms = (looks[reading] > critical_value(1000, planned=1000)).any(axis=1).mean()
    naive = (looks[reading] > 1.96).any(axis=1).mean()
    print(f"{reading}: {alarms:.3f} of 1,000 alarm, {naive:.3f} by an interval for one look")
    assert alarms <= 0.05
    assert naive > 0.1  # so the simulation would find an interval that does not hold


def test_shoppers_who_come_one_by_one_alarm_no_more() -> None:
    """A look after every 50 of 4,000 shoppers, in 1,000 tests."""
    at = np.arange(200, 4001, 50)
    reach = np.array([critical_value(n, planned=2000) for n in at])
    alarms = 0
    naive = 0
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        is_new = rng.random(4000) < 0.5
        money = rng.gamma(0.5, 20, 4000)
        standard = np.abs(running_lead(money, is_new)[at - 1])
        alarms += (standard > reach).any()
        naive += (standard > 1.96).any()
    print(f"{alarms / 1000:.3f} of 1,000 alarm, {naive / 1000:.3f} by an interval for one look")
    assert alarms <= 50
    assert naive > 100


def running_lead(values: np.ndarray, is_new: np.ndarray) -> np.ndarray:
    """The lead over its error after each shopper: `lead`, written with running sums."""
    parts = []
    for arm in (is_new, ~is_new):
        n = arm.cumsum().clip(2)
        mean = (values * arm).cumsum() / n
        variance = ((values**2 * arm).cumsum() / n - mean**2) * n / (n - 1)
        parts.append((mean, variance / n))
    (new, of_new), (today, of_today) = parts
    return (new - today) / np.sqrt(np.maximum(of_new + of_today, 1e-12))


def test_the_running_lead_is_the_lead() -> None:
    rng = np.random.default_rng(0)
    values, is_new = rng.gamma(1, 10, 300), rng.random(300) < 0.5
    difference, error = lead(values, is_new)
    assert running_lead(values, is_new)[-1] == pytest.approx(difference / error)


def test_a_test_of_the_planned_size_finds_the_lead() -> None:
    """In four of five tests that are read once at their end, with the interval for all looks."""
    alpha = 2 * 0.001185  # of 3.04 standard errors
    n = round(shoppers_needed(sd=1, effect=0.2, alpha=alpha))
    found = 0
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        is_new = np.arange(n) % 2 == 0
        difference, error = lead(rng.normal(0.2 * is_new, 1), is_new)
        found += difference > critical_value(n, planned=n) * error
    print(f"{found / 1000:.3f} of 1,000 find it")
    assert found / 1000 == pytest.approx(0.8, abs=0.04)


def test_the_critical_value_is_that_of_the_paper() -> None:
    """Waudby-Smith et al. (2024), their rho and their interval, for n = 400 planned as 500."""
    alpha, n = 0.05, 400
    rho = np.sqrt((-2 * np.log(alpha) + np.log(-2 * np.log(alpha) + 1)) / 500)
    inner = 2 * (n * rho**2 + 1) / (n**2 * rho**2) * np.log(np.sqrt(n * rho**2 + 1) / alpha)
    assert critical_value(n, planned=500) == pytest.approx(np.sqrt(n * inner))


# ---- a shop with known effects


def test_intervals_hold_the_truth_in_90_of_100_shops() -> None:
    """At all 28 looks together, without a cap, and they see the effect in most shops."""
    held = 0
    naively_held = 0
    seen = 0
    for seed in range(100):
        shop = Shop(seed, shoppers=4000)
        money, truth = shop.shown_list(chance=0.08)
        difference, error = lead(money, shop.is_new, shop.before)
        off = np.abs(difference - truth * np.arange(1, DAYS + 1) / DAYS) / error
        reach = critical_value(4000, planned=4000)
        held += bool((off <= reach).all())
        naively_held += bool((off <= 1.96).all())
        seen += bool(difference[-1] > reach * error[-1])
    print(f"held at every look in {held} of 100 shops, by 1.96 in {naively_held}; seen in {seen}")
    assert held >= 90
    assert naively_held < 90
    assert seen >= 50


def test_a_cap_takes_little_of_the_effect() -> None:
    """At most a tenth on average of 100 shops, each compared with itself without the list."""
    found = []
    for seed in range(100):
        shop = Shop(seed, shoppers=4000)
        without = lead(capped(shop.now[-1]), shop.is_new)[0]
        money, truth = shop.shown_list(chance=0.08)
        found.append(lead(capped(money[-1]), shop.is_new)[0] - without)
    print(f"of {truth:.2f} per shopper {np.mean(found):.2f} are left")
    assert 0.9 * truth <= np.mean(found) <= truth


def test_both_ends_are_cut_and_the_lower_one_only_below_0() -> None:
    """Of 201 values from -1 to 1 the 99 % quantile is 0.98, and the 1 % quantile -0.98."""
    values = np.arange(-100, 101) / 100
    assert [capped(values).min(), capped(values).max()] == pytest.approx([-0.98, 0.98])
    # Values of 0 and more keep their lower end.
    assert [capped(values + 1).min(), capped(values + 1).max()] == pytest.approx([0, 1.98])
    assert capped(values, cap=1).tolist() == values.tolist()


@pytest.mark.parametrize("wild", [-1e6, 1e6])
def test_one_wild_value_changes_no_verdict(wild: float) -> None:
    """A refund like a sale: the lead moves by less than a twentieth of itself."""
    table = results(effect=0.1)
    before = read(table).rows.set_index("reading")
    table.loc[(table["arm"] == NEW).idxmax(), "spend"] = wild
    reading = read(table)
    after = reading.rows.set_index("reading")
    assert reading.verdict == "better"
    for name in ("capped", "cuped"):
        assert after.loc[name, "lead"] == pytest.approx(before.loc[name, "lead"], rel=0.05)
    assert abs(after.loc["plain", "lead"]) > 100
    assert reading.lowest == (0 if wild < 0 else None)


# ---- the arms' sizes


def test_sizes_that_fit_rarely_alarm_and_others_do() -> None:
    """1,000 tests of 10,000 shoppers, looked at after every 500; then one that loses 5 %."""
    at = np.arange(500, 10_001, 500)
    alarms = 0
    for seed in range(1000):
        new = np.random.default_rng(seed).binomial(500, 0.5, len(at)).cumsum()
        alarms += min(ratio_p(a, n - a) for a, n in zip(new, at)) < 0.01
    assert alarms <= 10
    assert ratio_p(5000, 4750) > 0.01
    assert ratio_p(20_000, 19_000) < 0.01
    assert ratio_p(3000, 7000, share=0.3) > 0.5


# ---- the verdict


def results(shoppers: int = 3000, effect: float = 0.0, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    users = [f"c{n}" for n in range(shoppers)]
    arm = arms(users, "spring")
    usual = rng.gamma(2, 20, shoppers)
    spend = usual * rng.uniform(0.8, 1.2, shoppers) * (1 + effect * (arm == NEW))
    before = usual * rng.uniform(0.8, 1.2, shoppers)
    return pd.DataFrame({"user_id": users, "arm": arm, "spend": spend, "spend_before": before})


@pytest.mark.parametrize(
    ("effect", "verdict"), [(0.1, "better"), (-0.1, "worse"), (0.0, "cannot tell")]
)
def test_the_verdict_follows_the_interval(effect: float, verdict: str) -> None:
    reading = read(results(effect=effect))
    assert reading.verdict == verdict
    assert reading.rows["reading"].tolist() == ["plain", "capped", "cuped"]
    width = reading.rows["high"] - reading.rows["low"]
    assert width.iloc[2] < 0.5 * width.iloc[1] < 0.5 * width.iloc[0]


def test_without_weeks_before_the_capped_reading_decides() -> None:
    reading = read(results().drop(columns="spend_before"))
    assert reading.rows["reading"].tolist() == ["plain", "capped"]


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_weeks_before_that_are_those_of_the_test_are_refused(noise: float) -> None:
    """They would explain the lead away: of a new list that is much better nothing would be left."""
    table = results(effect=0.3)
    rng = np.random.default_rng(1)
    before = table["spend"] * (1 + noise * rng.normal(size=len(table)))
    with pytest.raises(LabError, match="spend_before is spend itself.*leave the column out"):
        read(table.assign(spend_before=before))
    # A copy for most of those who bought, noise for the others.
    some = rng.random(len(table)) < 0.7
    with pytest.raises(LabError, match="spend_before is spend itself"):
        read(table.assign(spend_before=table["spend"].where(some, rng.gamma(2, 20, len(table)))))


def test_counts_may_be_as_before_and_one_whale_too() -> None:
    """Most who came once came once before, and one customer always spends a fortune."""
    table = results()
    rng = np.random.default_rng(2)
    visits = table.assign(
        spend=(rng.random(len(table)) < 0.8).astype(int),
        spend_before=(rng.random(len(table)) < 0.8).astype(int),
    )
    assert read(visits).rows["reading"].iloc[-1] == "cuped"
    table.loc[0, ["spend", "spend_before"]] = 1e7
    assert read(table).rows["reading"].iloc[-1] == "cuped"


def test_arms_that_differed_before_are_read_without_it() -> None:
    """As where the export of the weeks before reaches into the test."""
    table = results(effect=0.3)
    fair = read(table)
    assert (fair.before_differs, fair.rows["reading"].iloc[-1]) == (False, "cuped")
    leaked = read(table.assign(spend_before=table["spend_before"] + table["spend"]))
    assert leaked.before_p < 1e-3
    assert leaked.before_differs
    assert leaked.rows["reading"].tolist() == ["plain", "capped"]
    assert leaked.verdict == "better"
    nothing = read(table.assign(spend_before=0.0))
    assert (nothing.before_p, nothing.rows["reading"].iloc[-1]) == (1, "capped")


def test_a_random_split_seldom_differs_before() -> None:
    """At most 3 of 300 splits of the same shoppers, where 0.3 are expected."""
    table = results(1000)
    found = []
    for seed in range(300):
        is_new = np.random.default_rng(seed).random(len(table)) < 0.5
        found.append(read(table.assign(arm=np.where(is_new, NEW, TODAY))).before_differs)
    assert sum(found) <= 3


def test_a_test_whose_arms_lost_shoppers_is_not_read() -> None:
    table = results(12_000, effect=0.1)
    lost = (table["arm"] == TODAY) & (table["spend"] < table["spend"].quantile(0.15))
    assert read(table).verdict == "better"
    assert read(table[~lost]).verdict == "unreadable"


def test_few_shoppers_say_nothing_and_one_is_an_error() -> None:
    assert read(results(120, effect=2.0)).verdict == "too few"
    table = results(10)
    with pytest.raises(LabError, match="both arms need 2"):
        read(table[table["arm"] == NEW])
    with pytest.raises(LabError, match="cap 0.2"):
        read(results(300), cap=0.2)

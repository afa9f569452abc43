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
    found = displays.effects(con, displays.compare(con, strata)).set_index("kind")
    if strata == "weeks":
        # Over weeks the season is in the way, as a price cut would be: it finds too much.
        assert found.loc["repeat", "ratio"] > 1.2
        return
    for kind, truth in (("repeat", 1.3), ("first", 1.8)):
        assert found.loc[kind, "low"] < truth < found.loc[kind, "high"]
        assert found.loc[kind, "low"] > 1.05


def test_the_placebo_finds_nothing(con: object) -> None:
    placebo = displays.effects(con, displays.compare(con, ahead=3))
    assert (placebo["low"] < 1).all()
    assert (placebo["high"] > 1).all()


def test_half_of_the_products_can_be_looked_at(tmp_path: Path) -> None:
    lines = [("ann", f"i{n}", "A", 0) for n in range(200)]
    folder = written(tmp_path, lines, [(f"i{n}", "A", 0, "3", "0") for n in range(200)])
    items = displays.connect(folder, share=0.5).execute("SELECT count(*) FROM items").fetchone()[0]
    assert 70 < items < 130

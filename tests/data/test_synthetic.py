"""The synthetic shop is deterministic, keeps the data contract, and shows what was planted."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shops import synthetic_tables

from recsys_utils.data import synthetic

Tables = dict[str, pd.DataFrame]
COLUMNS = {
    "purchases": [
        "user_id",
        "item_id",
        "basket_id",
        "ts",
        "quantity",
        "price",
        "store_id",
        "discount",
        "rating",
    ],
    "items": ["item_id", "name", "category", "subcategory", "brand", "type", "price"],
    "users": [
        "user_id",
        "age",
        "gender",
        "country",
        "city",
        "state",
        "income",
        "segment",
        "feedback",
        "shipping_method",
        "payment_method",
        "order_status",
        "total_purchases",
        "amount",
    ],
    "events": ["event_id", "user_id", "item_id", "event_type", "ts"],
    "stock": ["item_id", "country", "quantity"],
}
KEYS = {
    "purchases": ["user_id", "item_id", "basket_id"],
    "items": ["item_id"],
    "users": ["user_id"],
    "events": ["event_id"],
    "stock": ["item_id", "country"],
}
CUT = pd.Timestamp("2025-06-10")  # the last 21 days are the test window


@pytest.fixture(scope="module")
def shop() -> Tables:
    return synthetic_tables()


@pytest.fixture(scope="module")
def small() -> Tables:
    return synthetic_tables(5_000, seed=1)


def same(a: Tables, b: Tables) -> None:
    assert a.keys() == b.keys()
    for name in a:
        pd.testing.assert_frame_equal(a[name], b[name])


def check_contract(tables: Tables) -> None:
    assert set(tables) == set(COLUMNS)
    for name, frame in tables.items():
        assert list(frame.columns) == COLUMNS[name], name
        assert not frame.duplicated(KEYS[name]).any(), name
        assert not frame.drop(columns="rating", errors="ignore").isna().any(axis=None), name
    purchases = tables["purchases"]
    items = tables["items"]
    users = tables["users"]
    assert set(purchases.user_id) == set(users.user_id)
    for table in ("purchases", "events", "stock"):
        assert set(tables[table].item_id) <= set(items.item_id)
    assert (purchases.quantity > 0).all()
    assert (purchases.price >= 0).all()
    assert purchases.discount.between(0, 0.5).all()
    assert purchases.rating.dropna().isin([1, 2, 3, 4, 5]).all()
    assert items.name.is_unique
    assert (tables["stock"].quantity >= 0).all()
    assert (purchases.groupby("basket_id")[["user_id", "ts", "store_id"]].nunique() == 1).all(
        axis=None
    )


@settings(max_examples=12, deadline=None)
@given(lines=st.integers(1, 3_000), seed=st.integers(0, 2**32 - 1))
def test_contract_holds_for_any_size_and_seed(lines: int, seed: int) -> None:
    check_contract(synthetic_tables(lines, seed))


def test_contract_and_types_of_the_default(shop: Tables) -> None:
    check_contract(shop)
    purchases = shop["purchases"]
    assert purchases.ts.dtype == shop["events"].ts.dtype == "datetime64[us]"
    assert purchases.quantity.dtype == np.int64
    assert purchases.price.dtype == purchases.rating.dtype == np.float64
    assert np.allclose(purchases.price, purchases.price.round(2))
    assert all(
        isinstance(value, str)
        for value in purchases.loc[0, ["user_id", "item_id", "basket_id", "store_id"]]
    )
    assert str(purchases.ts.min().date()) == "2023-07-04"
    assert str(purchases.ts.max().date()) == "2025-06-30"


def test_same_seed_same_tables_and_another_seed_others(small: Tables) -> None:
    same(small, synthetic_tables(5_000, seed=1))
    other = synthetic_tables(5_000, seed=2)
    assert all(not small[name].equals(other[name]) for name in COLUMNS)


def test_write_leaves_one_whole_file_for_each_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthetic, "CHUNK", 20)
    synthetic.write(tmp_path, 5_000, seed=3)
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {f"{name}.parquet" for name in COLUMNS}
    users = pq.read_metadata(tmp_path / "users.parquet")
    assert users.num_row_groups == -(-users.num_rows // 20)  # one for each chunk


def test_chunks_differ_and_their_ids_do_not_collide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "CHUNK", 20)
    tables = synthetic_tables(5_000)
    check_contract(tables)
    ages = tables["users"].age.to_numpy()
    assert not np.array_equal(ages[:19], ages[19:38])


# Sum of pandas' hashes of the rows, of the shop that every published number of it comes from.
DEFAULT_SHOP = {
    "events": 10090451916235000301,
    "items": 4878704516732651640,
    "purchases": 13686809890565717904,
    "stock": 17273620407015650476,
    "users": 10695547246486735823,
}


def test_the_default_shop_is_what_it_was(shop: Tables) -> None:
    for name, frame in shop.items():
        hashes = pd.util.hash_pandas_object(frame).to_numpy()
        assert int(hashes.sum()) == DEFAULT_SHOP[name], name


def test_a_catalogue_of_any_size_has_a_name_for_every_item() -> None:
    rng = np.random.default_rng(1)
    items, _, season = synthetic._catalogue(rng, 70_000)
    assert len(items) == season.shape[1] == 70_000
    assert items["name"].is_unique
    assert items["item_id"].is_unique


@pytest.mark.parametrize("lines", [5_000, 50_000, 200_000])
def test_size_is_as_asked(lines: int) -> None:
    tables = synthetic_tables(lines, seed=5)
    assert len(tables["purchases"]) == pytest.approx(lines, rel=0.15)
    assert len(tables["users"]) == pytest.approx(lines / synthetic.LINES_PER_USER, abs=1)
    assert len(tables["items"]) == pytest.approx(1_500 * (lines / 200_000) ** 0.4, abs=1)


# ---- statistics resemble the measured shops


def gini(counts: np.ndarray) -> float:
    n = len(counts)
    return float((2 * np.arange(1, n + 1) - n - 1) @ np.sort(counts) / (n * counts.sum()))


def test_gini_of_known_counts() -> None:
    assert gini(np.array([3, 3, 3])) == 0
    assert gini(np.array([0, 0, 0, 8])) == 0.75


def test_statistics_lie_in_their_bands(shop: Tables) -> None:
    purchases = shop["purchases"]
    baskets = purchases.groupby("user_id").basket_id.nunique()
    sold = purchases.item_id.value_counts().reindex(shop["items"].item_id, fill_value=0).to_numpy()
    first = purchases.groupby("item_id").ts.min()
    assert 6 <= baskets.median() <= 10
    assert 0.12 <= (baskets == 1).mean() <= 0.18
    assert 7 <= purchases.groupby("basket_id").size().mean() <= 9
    assert 0.55 <= gini(sold) <= 0.67
    assert np.allclose(purchases.price.quantile([0.25, 0.5, 0.75]), [1.25, 1.95, 3.75], rtol=0.2)
    assert 0.25 <= purchases.rating.notna().mean() <= 0.35
    assert 0.12 <= (first >= "2024-07-02").mean() <= 0.20
    assert (first >= "2025-04-22").mean() > 0.01


def test_window_has_repeats_and_cold_users(shop: Tables) -> None:
    purchases = shop["purchases"]
    before = purchases[purchases.ts < CUT]
    window = purchases[purchases.ts >= CUT]
    active = window.user_id.unique()
    warm = np.isin(active, before.user_id)
    truth = window[window.user_id.isin(active[warm])][["user_id", "item_id"]].drop_duplicates()
    known = truth.merge(
        before[["user_id", "item_id"]].drop_duplicates(), how="left", indicator=True
    )
    assert 0.45 <= (known["_merge"] == "both").mean() <= 0.67
    assert 0.02 <= 1 - warm.mean() <= 0.08


# ---- planted structure


def precision_at_5(scores: np.ndarray, truth: np.ndarray) -> float:
    top = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    return float(np.take_along_axis(truth, top, axis=1).mean(axis=1)[truth.any(axis=1)].mean())


def counts(
    lines: pd.DataFrame, users: pd.Index, items: pd.Index, weight: np.ndarray | float = 1.0
) -> np.ndarray:
    table = np.zeros((len(users), len(items)))
    np.add.at(table, (users.get_indexer(lines.user_id), items.get_indexer(lines.item_id)), weight)
    return table


@pytest.fixture(scope="module")
def scores(shop: Tables) -> dict[str, np.ndarray]:
    """Score tables (users active before and in the window x items), the truth and what was bought
    before.
    """
    purchases = shop["purchases"]
    items = pd.Index(shop["items"].item_id)
    before = purchases[purchases.ts < CUT]
    window = purchases[purchases.ts >= CUT]
    everyone = pd.Index(before.user_id.unique())
    warm = everyone.isin(window.user_id)
    age = ((CUT - before.ts) / pd.Timedelta(days=1)).to_numpy()
    own = counts(before, everyone, items)
    decayed = counts(before, everyone, items, np.exp(-age / 180))
    recent = counts(before[age <= 28], everyone, items).sum(axis=0)
    bought = (own > 0).astype(np.float32)
    together = bought.T @ bought
    size = np.sqrt(np.diag(together)) + 1e-9
    cosine = decayed @ (together / size / size[:, None])
    tie = recent / (1 + recent.max()) * 1e-3
    return {
        "popular": np.tile(recent, (warm.sum(), 1)),
        "own": own[warm] + tie,
        "decayed": decayed[warm] + tie,
        "cosine": cosine[warm],
        "bought": own[warm] > 0,
        "truth": counts(window[window.user_id.isin(everyone)], everyone[warm], items) > 0,
    }


def test_habits_beat_popularity_and_recency_helps(scores: dict[str, np.ndarray]) -> None:
    popular, own, decayed = (
        precision_at_5(scores[name], scores["truth"]) for name in ("popular", "own", "decayed")
    )
    assert 0.05 <= popular <= 0.16
    assert own > 2 * popular
    assert decayed > own + 0.01


def test_tastes_carry_over_to_new_items(scores: dict[str, np.ndarray]) -> None:
    truth = scores["truth"] & ~scores["bought"]
    popular, cosine = (
        precision_at_5(np.where(scores["bought"], -1, scores[name]), truth)
        for name in ("popular", "cosine")
    )
    assert popular > 0.015
    assert cosine > 1.3 * popular


def test_staples_come_due(shop: Tables) -> None:
    """Gaps of a habitual (user, item), in the user's own visits, vary less than memoryless gaps
    would.
    """
    purchases = shop["purchases"].copy()
    purchases["visit"] = purchases.groupby("user_id").ts.rank("dense")
    groups = purchases.sort_values("ts").groupby(["user_id", "item_id"]).visit
    gap = groups.diff().dropna()
    stats = gap.groupby([purchases.user_id, purchases.item_id]).agg(["mean", "var", "size"])
    habits = stats[(stats["size"] >= 5) & (stats["mean"] >= 2)]
    geometric = habits["mean"] * (habits["mean"] - 1)  # variance of a memoryless gap of that mean
    assert len(habits) > 300
    assert (habits["var"] / geometric).median() < 0.6


def test_offers_sell_more_and_most_to_low_incomes(shop: Tables) -> None:
    purchases = shop["purchases"].merge(shop["users"][["user_id", "income"]], on="user_id")
    purchases["week"] = (purchases.ts - pd.Timestamp("2023-07-04")).dt.days // 7
    sold = (
        purchases.groupby(["item_id", "week"])
        .agg(lines=("price", "size"), offer=("discount", "max"))
        .reset_index()
    )
    usual = sold.groupby("item_id").lines.transform("mean")
    assert (sold.lines / usual)[sold.offer >= 0.3].mean() > 2.3 * (sold.lines / usual)[
        sold.offer == 0
    ].mean()
    share = purchases.assign(offer=purchases.discount > 0).groupby("income").offer.mean()
    assert share["Low"] > 1.2 * share["High"]
    assert share["Medium"] > share["High"]


def test_seasons_show(shop: Tables) -> None:
    sold = shop["purchases"].merge(shop["items"][["item_id", "category"]], on="item_id")
    month = pd.crosstab(sold.category, sold.ts.dt.month, normalize="columns")
    assert month.loc["Christmas", 12] > 4 * month.loc["Christmas", 4]
    assert month.loc["Garden", 6] > 1.5 * month.loc["Garden", 12]
    assert month.loc["Pantry", 6] == pytest.approx(month.loc["Pantry", 3], rel=0.3)  # no season


def test_cities_lie_in_their_state_and_country(shop: Tables) -> None:
    users = shop["users"]
    assert set(map(tuple, users[["city", "state", "country"]].drop_duplicates().to_numpy())) == set(
        map(tuple, synthetic.PLACES)
    )
    assert (users.groupby("city")[["state", "country"]].nunique() == 1).all(axis=None)
    assert (users.groupby("state").country.nunique() == 1).all()
    assert users.country.nunique() >= 5


def test_profiles_predict_taste(shop: Tables) -> None:
    """Shares of categories among people of the same profile foretell a stranger's better than
    everybody's shares do.
    """
    users = shop["users"].set_index("user_id")
    profile = users.income + users.country + np.digitize(users.age, [30, 45, 60]).astype(str)
    lines = shop["purchases"].merge(shop["items"][["item_id", "subcategory"]], on="item_id")
    lines["profile"] = lines.user_id.map(profile)
    known = lines.user_id.str[-1].isin(list("02468"))
    prior = lines[known].subcategory.value_counts(normalize=True)
    table = pd.crosstab(lines[known].profile, lines[known].subcategory)[prior.index] + 500 * prior
    table = table.div(table.sum(axis=1), axis=0)
    test = lines[~known & lines.profile.isin(table.index)]
    own = (
        table.stack().reindex(pd.MultiIndex.from_frame(test[["profile", "subcategory"]])).to_numpy()
    )
    gain = (
        pd.Series(np.log(own) - np.log(prior[test.subcategory].to_numpy()))
        .groupby(test.user_id.to_numpy())
        .mean()
    )
    assert gain.mean() > 5 * gain.std() / len(gain) ** 0.5
    assert gain.mean() > 0.02


def test_profile_does_not_know_the_receipts(shop: Tables) -> None:
    """Total purchases are of a trial order before the data.

    Related to activity, not a count of it.
    """
    baskets = shop["purchases"].groupby("user_id").basket_id.nunique()
    total = shop["users"].set_index("user_id").total_purchases
    assert 0.2 < baskets.corr(total, method="spearman") < 0.9
    assert total.between(1, 10).all()


def test_ratings_follow_taste(shop: Tables) -> None:
    """A user's mean rating of a subcategory agrees with how much of it the user buys."""
    rated = shop["purchases"].merge(shop["items"][["item_id", "subcategory"]], on="item_id")
    pairs = (
        rated.groupby(["user_id", "subcategory"])
        .agg(lines=("price", "size"), stars=("rating", "mean"))
        .dropna()
    )
    pairs = pairs - pairs.groupby("user_id").transform("mean")
    assert pairs.lines.corr(pairs.stars) > 0.1


# ---- events and stock


def test_events_are_recent_and_the_purchases_among_them_are_the_receipts(shop: Tables) -> None:
    events = shop["events"]
    purchases = shop["purchases"]
    begin = pd.Timestamp("2025-05-06")
    recent = purchases[purchases.ts >= begin]
    assert set(events.event_type) == {"view", "cart", "remove_from_cart", "purchase"}
    assert events.ts.min() >= begin
    assert 3 <= len(events) / len(recent) <= 5
    key = ["user_id", "item_id", "ts"]
    bought = events[events.event_type == "purchase"][key].sort_values(key, ignore_index=True)
    pd.testing.assert_frame_equal(bought, recent[key].sort_values(key, ignore_index=True))


def earlier(events: pd.DataFrame, late: str, soon: str) -> float:
    """Share of `late` events with a `soon` event of the same user and item before them."""
    first = (
        events[events.event_type == soon]
        .groupby(["user_id", "item_id"])
        .ts.min()
        .rename("first")
        .reset_index()
    )
    joined = events[(events.event_type == late) & (events.ts >= "2025-05-20")].merge(
        first, how="left", on=["user_id", "item_id"]
    )
    return float((joined["first"] < joined.ts).mean())


def test_views_precede_purchases_and_carts_precede_removals(shop: Tables) -> None:
    events = shop["events"]
    assert earlier(events, "purchase", "view") > 0.99  # the rest was seen before the log begins
    assert earlier(events, "cart", "view") > 0.99
    assert earlier(events, "remove_from_cart", "cart") == 1
    assert 0.5 < earlier(events, "purchase", "cart") < 0.9
    assert (events.event_type == "remove_from_cart").sum() > 100


def test_browsing_foretells_new_purchases(shop: Tables) -> None:
    """Of items never bought before, those viewed in the weeks before the window are bought in it
    far above chance.
    """
    events = shop["events"]
    purchases = shop["purchases"]
    pair = ["user_id", "item_id"]
    before = purchases[purchases.ts < CUT][pair].drop_duplicates()
    window = purchases[purchases.ts >= CUT][pair].drop_duplicates()
    active = window.user_id.unique()
    new = window.merge(before, how="left", indicator="seen").query("seen == 'left_only'")[pair]
    viewed = events[
        (events.event_type == "view") & (events.ts < CUT) & events.user_id.isin(active)
    ][pair].drop_duplicates()
    viewed = viewed.merge(before, how="left", indicator="seen").query("seen == 'left_only'")[pair]
    rate = len(viewed.merge(new)) / len(viewed)
    chance = len(new) / (len(active) * len(shop["items"]))
    assert len(viewed) > 200
    assert rate > 3 * chance


def test_stock_has_gaps_and_empty_shelves(shop: Tables) -> None:
    stock = shop["stock"]
    full = len(shop["items"]) * shop["users"].country.nunique()
    assert 0.8 < len(stock) / full < 0.95
    assert 0.08 < (stock.quantity == 0).mean() < 0.16
    assert set(stock.country) == set(shop["users"].country)

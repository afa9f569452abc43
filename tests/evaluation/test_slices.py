"""Scopes and groups of users, by hand and on the synthetic shop."""

from dataclasses import replace

import pandas as pd
import pytest
from shops import Shop, pairs, ranked

from recsys_utils.data.folds import Fold, Stage
from recsys_utils.data.interactions import Interactions
from recsys_utils.evaluation.slices import (
    STRATA,
    bought_before,
    popularity_strata,
    restrict,
    scopes,
    user_groups,
    warm,
)


@pytest.fixture
def stage(tiny: pd.DataFrame) -> Stage:
    bought = [("ann", "milk"), ("ann", "beer"), ("bob", "jam"), ("dan", "milk"), ("ann", "tea")]
    return Stage(Interactions.of(tiny), pd.DataFrame(bought, columns=["user_id", "item_id"]))


def all_bought_something(shop: Shop, *strangers: str) -> Stage:
    users = [*shop.history.user_ids, *strangers]
    return Stage(shop.history, pd.DataFrame({"user_id": users, "item_id": "x"}))


def test_bought_before_of_no_known_pair(shop: Shop) -> None:
    strangers = pd.DataFrame({"user_id": ["stranger"], "item_id": ["x"]})
    assert bought_before(strangers, shop.history).tolist() == [False]
    assert len(bought_before(strangers[:0], shop.history)) == 0


@pytest.mark.spec("C3")
def test_scopes_by_hand(stage: Stage) -> None:
    catalogue = pd.Index(["milk", "jam"])
    parts = scopes(warm(stage.truth, stage.history), stage.history, catalogue)
    assert {scope: pairs(rows) for scope, rows in parts.items()} == {
        "any": {("ann", "milk"), ("ann", "beer"), ("bob", "jam"), ("ann", "tea")},
        "repeat": {("ann", "milk")},
        "new": {("ann", "beer"), ("bob", "jam"), ("ann", "tea")},
        "prefiltered": {("ann", "milk"), ("bob", "jam")},
        "head": {("ann", "milk"), ("bob", "jam")},
        "middle": {("ann", "beer")},
        "tail": {("ann", "tea")},
    }


def test_an_empty_scope_is_left_out(stage: Stage) -> None:
    assert set(scopes(stage.truth[1:2], stage.history)) == {"any", "new", "middle"}


def test_repeat_and_new_split_any(shop: Shop) -> None:
    parts = scopes(warm(shop.truth, shop.history), shop.history)
    assert pairs(parts["repeat"]) | pairs(parts["new"]) == pairs(parts["any"])
    assert not pairs(parts["repeat"]) & pairs(parts["new"])


@pytest.mark.parametrize(
    ("scope", "rows"),
    [
        ("repeat", [("ann", "milk", 1), ("ann", "jam", 2), ("bob", "beer", 1)]),
        ("new", [("ann", "beer", 1), ("ann", "tea", 2), ("bob", "milk", 1)]),
        (
            "prefiltered",
            [("ann", "beer", 1), ("ann", "tea", 2), ("ann", "jam", 3), ("bob", "beer", 1)],
        ),
    ],
)
def test_restricted_lists_are_ranked_from_one_again(stage: Stage, scope: str, rows: list) -> None:
    anns = [("ann", item) for item in ("beer", "milk", "tea", "jam")]
    recs = ranked([*anns, ("bob", "milk"), ("bob", "beer")])
    lists = restrict(recs, scope, stage.history, pd.Index(["tea", "jam", "beer"]))
    assert list(lists[["user_id", "item_id", "rank"]].itertuples(index=False, name=None)) == rows


def test_on_any_purchase_lists_stay_as_they_are(stage: Stage) -> None:
    recs = ranked([("ann", "beer")])
    assert restrict(recs, "any", stage.history) is recs


def test_strata_of_popularity_by_hand(tiny: pd.DataFrame) -> None:
    """Milk has four of ten lines; jam, beer and bread two each, of which jam sells most lately.

    Before them lie 0, .4, .6 and .8 of the lines: jam crosses the half, bread begins the tail.
    """
    history = Interactions.of(tiny, catalogue=pd.Series(["rum"]))
    strata = dict(zip(history.item_ids, popularity_strata(history)))
    assert strata == {
        "milk": "head",
        "jam": "head",
        "beer": "middle",
        "bread": "tail",
        "rum": "tail",
    }


def test_strata_hold_the_shares_they_promise(shop: Shop) -> None:
    history = shop.history
    strata = pd.Series(popularity_strata(history))
    lines = pd.Series(history.item).value_counts().reindex(strata.index, fill_value=0)
    share = lines.groupby(strata).sum() / lines.sum()
    largest = lines.max() / lines.sum()
    assert 0.5 <= share["head"] < 0.5 + largest
    assert 0.8 <= share["head"] + share["middle"] < 0.8 + largest
    assert lines[strata == "head"].min() >= lines[strata == "middle"].max()
    assert lines[strata == "middle"].min() >= lines[strata == "tail"].max()


def test_strata_split_any(shop: Shop) -> None:
    parts = scopes(shop.truth, shop.history)
    rows = [len(parts[stratum]) for stratum in STRATA]
    assert min(rows) > 0
    assert sum(rows) == len(parts["any"])


@pytest.mark.parametrize("stratum", STRATA)
def test_lists_stay_as_they_are_in_a_stratum(stage: Stage, stratum: str) -> None:
    """A hit in the tail is found at the place where the shopper saw it."""
    recs = ranked([("ann", item) for item in ("milk", "bread", "tea")])
    assert restrict(recs, stratum, stage.history) is recs


def test_restricting_reads_ranks_not_rows(stage: Stage) -> None:
    recs = ranked([("ann", item) for item in ("beer", "milk", "tea", "jam")])
    shuffled = recs.sample(frac=1, random_state=1)
    expected = restrict(recs, "new", stage.history)
    pd.testing.assert_frame_equal(restrict(shuffled, "new", stage.history), expected)


def test_cold_items_are_those_on_sale_that_nobody_bought(tiny: pd.DataFrame, stage: Stage) -> None:
    history = Interactions.of(tiny, catalogue=pd.Series(["milk", "tea", "rum"]))
    parts = scopes(stage.truth, history)
    assert pairs(parts["cold items"]) == {("ann", "tea")}
    assert ("ann", "tea") in pairs(parts["new"])
    assert "cold items" not in scopes(stage.truth, stage.history)
    recs = ranked([("ann", item) for item in ("beer", "rum", "milk", "tea")])
    lists = restrict(recs, "cold items", history)
    assert lists["item_id"].tolist() == ["rum", "tea"]
    assert lists["rank"].tolist() == [1, 2]


def test_a_fold_from_receipts_knows_no_unsold_items_and_no_profiles(shop_fold: Fold) -> None:
    assert shop_fold.testing.history.sold.all()
    assert shop_fold.testing.profiles is None


def test_a_fold_lists_what_its_shop_lists(shop_fold: Fold, shop: Shop) -> None:
    """From a shop's own files: items not sold yet, and profiles of users without history."""
    stage = replace(shop_fold, listed=True, registered=True).testing
    assert set(stage.history.item_ids) == set(shop.tables["items"]["item_id"])
    assert not stage.history.sold.all()
    assert stage.profiles.index.tolist() == shop.tables["users"]["user_id"].tolist()
    assert "age" in stage.profiles


def test_warm_and_cold_are_everyone(stage: Stage) -> None:
    groups = user_groups(stage)
    assert groups["warm"].tolist() == ["ann", "bob"]
    assert groups["cold"].tolist() == ["dan"]
    assert groups["history: 2 to 4"].tolist() == ["ann", "bob"]
    assert "history: 1" not in groups


def test_history_groups_partition_the_warm_users(shop: Shop) -> None:
    groups = user_groups(all_bought_something(shop, "stranger"))
    members = [list(users) for name, users in groups.items() if name.startswith("history")]
    assert sorted(sum(members, [])) == groups["warm"].tolist()
    assert groups["warm"].tolist() == shop.history.user_ids.tolist()
    assert groups["cold"].tolist() == ["stranger"]
    baskets = shop.history.purchases.groupby("user_id")["basket_id"].nunique()
    assert set(groups["history: 5 to 9"]) == set(baskets.index[baskets.between(5, 9)])
    assert set(groups["history: 25 or more"]) == set(baskets.index[baskets >= 25])


def test_attribute_groups_have_at_least_20_users(shop: Shop) -> None:
    groups = user_groups(all_bought_something(shop))
    names = [name for name in groups if name.startswith(("segment", "country"))]
    assert names
    for name in names:
        column, value = name.split(": ")
        users = shop.history.users
        assert len(groups[name]) >= 20, name
        assert set(groups[name]) == set(users.index[users[column] == value]), name


@pytest.mark.spec("S3-02")
def test_heavy_users_bought_five_of_the_catalogue(tiny: pd.DataFrame) -> None:
    items = [f"i{n}" for n in range(6)]
    five = [("ann", item) for item in items[:5]]
    four = [("bob", item) for item in items[:4]]
    twice_and_outside = [("bob", items[0]), ("bob", "outside")]
    truth = pd.DataFrame(five + four + twice_and_outside, columns=["user_id", "item_id"])
    groups = user_groups(Stage(Interactions.of(tiny), truth), pd.Index(items))
    assert groups["heavy"].tolist() == ["ann"]

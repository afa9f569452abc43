"""Candidates and their features.

The vote by hand, features against a slow loop, and nothing from after the cut.
"""

import numpy as np
import pandas as pd
import pytest
from shops import Shop, receipts

from recsys_utils import LabError
from recsys_utils.data.interactions import Interactions
from recsys_utils.ensembles import features
from recsys_utils.ensembles.candidates import (
    TOGETHER,
    VOTE,
    Candidates,
    held,
    recall_curve,
    together,
)
from recsys_utils.ensembles.features import aggregates, build
from recsys_utils.evaluation import slices
from recsys_utils.models import ItemCF, OwnPurchases, Popular

WEIGHTS = {"own": 2, "bm25": 1, "popular": 0}


@pytest.fixture(scope="module")
def made(shop: Shop) -> tuple[dict, np.ndarray, Candidates]:
    generators = {
        "own": OwnPurchases(180).fit(shop.history),
        "bm25": ItemCF().fit(shop.history),
        "popular": Popular(28).fit(shop.history),
    }
    users = np.arange(0, shop.history.shape[0], 2)
    return generators, users, together(generators, users, WEIGHTS, 20)


def lists(
    model: object, users: np.ndarray, k: int, shop: Shop, **options: object
) -> set[tuple[str, str]]:
    recs = model.recommend(shop.history.user_ids[users], k, **options)
    return set(recs[["user_id", "item_id"]].astype(str).itertuples(index=False, name=None))


def pairs(candidates: Candidates, data: Interactions) -> set[tuple[str, str]]:
    return set(zip(data.user_ids[candidates.user], data.item_ids[candidates.item]))


@pytest.mark.spec("S3-05")
def test_candidates_are_the_first_of_all_votes_and_no_pair_twice(made: tuple, shop: Shop) -> None:
    """Two votes of 2 / (VOTE + place) and 1 / (VOTE + place), added up in plain Python."""
    generators, users, candidates = made
    user = shop.history.user_ids[users[3]]
    votes = {}
    for name in ("own", "bm25"):
        for row in generators[name].recommend([user], 400).itertuples():
            vote = WEIGHTS[name] / (VOTE + row.rank)
            votes[row.item_id] = votes.get(row.item_id, 0) + vote
    first = sorted(votes, key=votes.get, reverse=True)[:20]
    mine = candidates.item[candidates.user == users[3]]
    assert set(shop.history.item_ids[mine]) == set(first)
    assert (np.unique(candidates.user, return_counts=True)[1] == 20).all()
    key = candidates.user.astype(np.int64) * shop.history.shape[1] + candidates.item
    assert (np.diff(key) > 0).all()


def test_one_generator_alone_proposes_its_own_first_items(made: tuple, shop: Shop) -> None:
    generators, users, _ = made
    alone = together(generators, users, {"own": 1, "bm25": 0, "popular": 0}, 15)
    assert pairs(alone, shop.history) == lists(generators["own"], users, 15, shop)


def test_scores_are_those_of_the_models_also_for_what_another_proposed(
    made: tuple, shop: Shop
) -> None:
    generators, _, candidates = made
    frame = pd.DataFrame(
        {
            "user_id": shop.history.user_ids[candidates.user],
            "item_id": shop.history.item_ids[candidates.item],
        }
    )
    for name, model in generators.items():
        assert np.allclose(candidates.scores[name], model.score(frame), rtol=1e-5, atol=1e-6)


def test_new_candidates_are_never_what_was_bought_and_no_fewer(made: tuple, shop: Shop) -> None:
    generators, users, _ = made
    candidates = together({"popular": generators["popular"]}, users, {"popular": 1}, 10, new=True)
    assert pairs(candidates, shop.history) == lists(
        generators["popular"], users, 10, shop, exclude="bought"
    )
    assert not np.asarray(shop.history.seen[candidates.user, candidates.item]).any()


def test_held_by_hand(tiny: pd.DataFrame) -> None:
    data = Interactions.of(tiny)
    candidates = Candidates(
        *(
            index.get_indexer(ids).astype(np.int32)
            for index, ids in (
                (data.user_ids, ["ann", "ann", "bob"]),
                (data.item_ids, ["beer", "milk", "milk"]),
            )
        ),
        {},
    )
    truth = pd.DataFrame(
        [("ann", "milk"), ("bob", "beer"), ("dan", "milk"), ("ann", "rum")],
        columns=["user_id", "item_id"],
    )
    assert held(candidates, truth, data).tolist() == [False, True, False]


@pytest.mark.spec("S3-06")
def test_recall_grows_with_n_and_ends_at_what_can_be_reached(made: tuple, shop: Shop) -> None:
    curve = recall_curve(made[0], WEIGHTS, shop.truth, shop.history, (5, 20, 10_000))
    table = curve.pivot(index="n", columns="generator", values="recall")
    assert (table.diff().dropna() >= 0).all(axis=None)
    reachable = shop.truth[shop.truth["user_id"].isin(shop.history.user_ids)].drop_duplicates(
        ["user_id", "item_id"]
    )
    assert table.loc[10_000, TOGETHER] == pytest.approx(
        reachable["item_id"].isin(shop.history.item_ids).mean()
    )


def test_recall_of_all_together_is_that_of_the_candidates(made: tuple, shop: Shop) -> None:
    """Every row of one n has the same number of candidates, so that none is flattered."""
    generators, _, _ = made
    truth = shop.truth[["user_id", "item_id"]].drop_duplicates()
    truth = truth[truth["user_id"].isin(shop.history.user_ids)]
    users = np.unique(shop.history.user_ids.get_indexer(truth["user_id"]))
    candidates = together(generators, users, WEIGHTS, 20)
    share = held(candidates, truth, shop.history).sum() / len(truth)
    table = recall_curve(generators, WEIGHTS, shop.truth, shop.history, (20,))
    assert table.set_index("generator").loc[TOGETHER, "recall"] == pytest.approx(share)


def test_recall_of_new_items_is_that_of_new_candidates(made: tuple, shop: Shop) -> None:
    """What was bought before is neither a candidate nor counted."""
    generators, _, _ = made
    truth = shop.truth[shop.truth["user_id"].isin(shop.history.user_ids)]
    truth = truth[~slices.bought_before(truth, shop.history)]
    truth = truth[["user_id", "item_id"]].drop_duplicates()
    users = np.unique(shop.history.user_ids.get_indexer(truth["user_id"]))
    table = recall_curve(generators, WEIGHTS, shop.truth, shop.history, (5, 20), new=True)
    for row in table.itertuples():
        weights = {name: float(name == row.generator) for name in generators}
        if row.generator == TOGETHER:
            weights = WEIGHTS
        pairs = together(generators, users, weights, row.n, new=True)
        assert row.recall == pytest.approx(held(pairs, truth, shop.history).sum() / len(truth))
    assert table["recall"].max() > 0


@pytest.mark.spec("S3-12")
def test_features_against_a_slow_loop(made: tuple, shop: Shop) -> None:
    data = shop.history
    candidates = made[2]
    table = build(candidates, data)
    rows = data.purchases.assign(age=data.age)
    bought = np.flatnonzero(np.asarray(data.seen[candidates.user, candidates.item]).ravel() > 1)[
        :20
    ]
    for at in [
        *bought,
        *np.flatnonzero(np.asarray(data.seen[candidates.user, candidates.item]).ravel() == 0)[:10],
    ]:
        user = data.user_ids[candidates.user[at]]
        item = data.item_ids[candidates.item[at]]
        got = table.iloc[at]
        mine = rows[rows["user_id"] == user]
        sales = rows[rows["item_id"] == item]
        both = mine[mine["item_id"] == item]
        baskets = mine.groupby("basket_id")["age"].max().sort_values()
        expected = {
            "pair_times": len(both),
            "pair_decayed_60": np.exp(-both["age"] / 60).sum(),
            "pair_units": both["quantity"].sum(),
            "pair_share": len(both) / len(baskets),
            "user_baskets": len(baskets),
            "user_basket_size": len(mine) / len(baskets),
            "user_repeat": 1 - mine["item_id"].nunique() / len(mine),
            "user_price": mine["price"].mean(),
            "item_sold_28": (sales["age"] <= 28).sum(),
            "item_season": sales["age"].between(343, 364, inclusive="right").sum(),
            "item_buyers": sales["user_id"].nunique(),
            "item_repeat": (sales.groupby("user_id").size() > 1).mean(),
            "price_to_user": sales["price"].mean() / mine["price"].mean(),
        }
        if len(both) > 1:
            gap = (both["age"].max() - both["age"].min()) / (len(both) - 1)
            expected |= {
                "pair_last": both["age"].min(),
                "pair_gap": gap,
                "pair_due": both["age"].min() / (gap + 1),
                "pair_paid": both["price"].mean(),
            }
        else:
            assert np.isnan(got[["pair_last", "pair_gap", "pair_paid"]]).all()
        for name, value in expected.items():
            assert got[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name


def test_features_of_some_users_are_those_of_all_with_aggregates_made_once(
    made: tuple, shop: Shop
) -> None:
    candidates = made[2]
    whole = build(candidates, shop.history)
    known = aggregates(shop.history)
    middle = candidates.user[len(candidates) // 2]
    for rows in (candidates.user < middle, candidates.user >= middle):
        scores = {name: score[rows] for name, score in candidates.scores.items()}
        some = Candidates(candidates.user[rows], candidates.item[rows], scores)
        of_some = build(some, shop.history, known=known)
        pd.testing.assert_frame_equal(of_some, whole[rows].reset_index(drop=True), check_exact=True)


@pytest.mark.parametrize("block", [7, 1 << 18])
def test_shares_of_stores_are_cells_of_the_product_that_is_never_made(
    made: tuple, shop: Shop, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "PAIRS", block)
    candidates = made[2]
    visits, sales = aggregates(shop.history).by_store
    product = (visits @ sales).toarray()
    expected = product[candidates.user, candidates.item].astype(np.float32)
    table = build(candidates, shop.history)
    assert np.array_equal(table["store_share"], expected)
    assert (expected > 0).any()


def test_ranks_and_shares_are_within_a_user(made: tuple, shop: Shop) -> None:
    table = build(made[2], shop.history).assign(user=made[2].user)
    for _, mine in list(table.groupby("user"))[:5]:
        assert sorted(mine["rank_bm25"]) == list(range(len(mine)))
        assert (mine.sort_values("rank_bm25")["score_bm25"].diff().dropna() <= 0).all()
        assert mine["share_bm25"].max() == pytest.approx(1)


@pytest.mark.spec("C2")
def test_features_of_a_window_are_the_same_when_later_rows_are_deleted_or_changed(
    made: tuple, shop: Shop
) -> None:
    """The window's history is cut from all receipts; what stands after the cut never enters it."""
    cut = shop.history.as_of - pd.Timedelta(days=42)
    rows = shop.history.purchases
    early = rows[rows["ts"] < cut]
    with pytest.raises(LabError, match="after as_of"):
        Interactions.of(rows, as_of=cut)
    one, two = (
        Interactions.of(part[part["ts"] < cut].reset_index(drop=True), as_of=cut)
        for part in (early, rows.assign(price=rows["price"].where(rows["ts"] < cut, 99.0)))
    )
    candidates = together({"own": OwnPurchases().fit(one)}, np.arange(5), {"own": 1}, 10)
    pd.testing.assert_frame_equal(build(candidates, one), build(candidates, two))


def test_attributes_by_hand() -> None:
    """Three shoppers of four are from France; of all that they bought, a quarter was milk."""
    lines = ["ann milk 1", "ann jam 1", "bob jam 2", "cat milk 3", "dan jam 4"]
    rows = receipts("\n".join(f"{line} 2024-01-01 1 1" for line in lines))
    users = pd.DataFrame(
        {"user_id": ["ann", "bob", "cat", "dan"], "country": ["fr", "fr", "uk", "fr"]}
    )
    data = Interactions.of(rows, users=users)
    candidates = together({"own": OwnPurchases().fit(data)}, np.arange(4), {"own": 1}, 2)
    table = build(candidates, data).assign(user=data.user_ids[candidates.user])
    milk = table[data.item_ids[candidates.item] == "milk"].set_index("user")
    common = milk["attribute_user_country"].to_dict()
    assert common == pytest.approx({"ann": 0.75, "bob": 0.75, "cat": 0.25, "dan": 0.75})
    # A quarter of what the French bought, two fifths of all.
    assert milk.loc["ann", "attribute_like_country"] == pytest.approx((1 / 4) / (2 / 5))
    assert milk.loc["cat", "attribute_like_country"] == pytest.approx(1 / (2 / 5))


def test_a_shop_without_prices_has_features_without_prices(tiny: pd.DataFrame) -> None:
    data = Interactions.of(tiny.drop(columns="price"))
    own = {"own": OwnPurchases().fit(data)}
    table = build(together(own, np.arange(3), {"own": 1}, 4), data)
    assert table["price_to_user"].isna().all()
    assert table["user_basket_money"].isna().all()
    assert table["pair_times"].sum() == len(tiny)
    assert aggregates(data).item.loc[data.item_ids.get_loc("milk"), "buyers"] == 2

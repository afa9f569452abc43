"""Candidates and their features.

Unions by hand, features against a slow loop, and nothing from after the cut.
"""

import numpy as np
import pandas as pd
import pytest
from shops import Shop

from recsys_utils import LabError
from recsys_utils.data.interactions import Interactions
from recsys_utils.ensembles.candidates import Candidates, held, recall_curve, union
from recsys_utils.ensembles.features import aggregates, build
from recsys_utils.models import ItemCF, OwnPurchases, Popular


@pytest.fixture(scope="module")
def made(shop: Shop) -> tuple[dict, np.ndarray, Candidates]:
    generators = {
        "own": OwnPurchases(180).fit(shop.history),
        "bm25": ItemCF().fit(shop.history),
        "popular": Popular(28).fit(shop.history),
    }
    users = np.arange(0, shop.history.shape[0], 2)
    return generators, users, union(generators, users, {"own": 20, "bm25": 15, "popular": 10})


def lists(
    model: object, users: np.ndarray, k: int, shop: Shop, **options: object
) -> set[tuple[str, str]]:
    recs = model.recommend(shop.history.user_ids[users], k, **options)
    return set(recs[["user_id", "item_id"]].astype(str).itertuples(index=False, name=None))


def pairs(candidates: Candidates, data: Interactions) -> set[tuple[str, str]]:
    return set(zip(data.user_ids[candidates.user], data.item_ids[candidates.item]))


@pytest.mark.spec("S3-05")
def test_the_union_is_every_generator_s_first_items_and_no_pair_twice(
    made: tuple, shop: Shop
) -> None:
    generators, users, candidates = made
    wanted = set.union(
        *(lists(model, users, n, shop) for model, n in zip(generators.values(), (20, 15, 10)))
    )
    assert pairs(candidates, shop.history) == wanted
    assert len(candidates) == len(wanted)
    key = candidates.user.astype(np.int64) * shop.history.shape[1] + candidates.item
    assert (np.diff(key) > 0).all()


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
    candidates = union({"popular": generators["popular"]}, users, {"popular": 10}, new=True)
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
def test_recall_grows_with_n_and_the_union_holds_at_least_what_each_holds(
    made: tuple, shop: Shop
) -> None:
    table = recall_curve(made[0], shop.truth, shop.history, (5, 20, 10_000)).pivot(
        index="n", columns="generator", values="recall"
    )
    assert (table.diff().dropna() >= 0).all(axis=None)
    assert (table["union"] >= table.max(axis=1) - 1e-12).all()
    reachable = shop.truth[shop.truth["user_id"].isin(shop.history.user_ids)].drop_duplicates(
        ["user_id", "item_id"]
    )
    assert table.loc[10_000, "union"] == pytest.approx(
        reachable["item_id"].isin(shop.history.item_ids).mean()
    )


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
    candidates = union({"own": OwnPurchases().fit(one)}, np.arange(5), {"own": 10})
    pd.testing.assert_frame_equal(build(candidates, one), build(candidates, two))


def test_a_shop_without_prices_has_features_without_prices(tiny: pd.DataFrame) -> None:
    data = Interactions.of(tiny.drop(columns="price"))
    table = build(union({"own": OwnPurchases().fit(data)}, np.arange(3), {"own": 5}), data)
    assert table["price_to_user"].isna().all()
    assert table["user_basket_money"].isna().all()
    assert table["pair_times"].sum() == len(tiny)
    assert aggregates(data)["item"].loc[data.item_ids.get_loc("milk"), "buyers"] == 2

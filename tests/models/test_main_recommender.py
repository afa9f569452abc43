"""The first stage of two-stage retail by hand.

Own purchases first, then what ALS makes of them, then what everybody buys; the fake item never.
"""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from shops import Shop, receipts

from recsys_utils import LabError
from recsys_utils.data.interactions import Interactions
from recsys_utils.data.prefilter import OTHER, relabel
from recsys_utils.models import ALS, MainRecommender
from recsys_utils.models.base import load_model
from recsys_utils.models.factorization import weigh
from recsys_utils.models.main_recommender import described, habits

METHODS = ["all", "als", "own", "similar items", "similar users"]
# Two circles: kitchen (ann, bob, cat) and workshop (dan, eve, fay). Only ann has no honey, only dan
# no glue.
CIRCLES = "\n".join(
    f"{who} {what} {who}{n} 2024-0{1 + n}-01 1 1.0"
    for who, bought in {
        "ann": ["tea", "tea", "tea", "milk", "bread"],
        "bob": ["tea", "milk", "bread", "honey"],
        "cat": ["tea", "milk", "bread", "honey"],
        "dan": ["saw", "nails", "wood", "nails"],
        "eve": ["saw", "nails", "wood", "glue"],
        "fay": ["saw", "nails", "wood", "glue"],
    }.items()
    for n, what in enumerate(bought)
)
KITCHEN = {"tea", "milk", "bread", "honey"}
WORKSHOP = {"saw", "nails", "wood", "glue"}


@pytest.fixture(scope="module")
def circles() -> MainRecommender:
    return MainRecommender(factors=2).fit(Interactions.of(receipts(CIRCLES)))


def first(model: MainRecommender, user: str, k: int, method: str) -> list[str]:
    model.method = method
    return model.recommend([user], k)["item_id"].astype(str).tolist()


@pytest.mark.spec("S3-12")
def test_defaults_are_system_3_s_and_the_attributes_of_items_are_an_option() -> None:
    result = MainRecommender()
    assert (
        result.factors,
        result.regularization,
        result.iterations,
        result.weighting,
        result.tau,
        result.n_candidates,
    ) == (50, 0.001, 15, "bm25", None, 200)
    assert result.family == "two stage"
    assert result.attributes == 0


@pytest.mark.spec("S3-12")
def test_strengths_are_counts_times_bm25_by_hand() -> None:
    """implicit's weights, K1 = 100, B = 0.8.

    Items are documents, so long ones (popular items) and ever-present shoppers count less.
    """
    data = Interactions.of(
        receipts(
            "a x 1 2024-01-01 1 1\na x 2 2024-01-02 1 1\nb x 3 2024-01-02 1 1\nb y 3 2024-01-02 1"
            " 1\nb z 3 2024-01-02 1 1\nc z 4 2024-01-02 1 1\nc w 4 2024-01-02 1 1"
        )
    )
    result = weigh(data, "bm25", None)
    counts = data.seen.toarray()
    user = data.user_ids.get_loc("a")
    item = data.item_ids.get_loc("x")
    length = 0.2 + 0.8 * 3 / (7 / 4)  # x: bought 3 times, an item on average 7/4 times
    assert counts[user, item] == 2
    assert result[user, item] == pytest.approx(
        2 * 101 / (100 * length + 2) * (np.log(4) - np.log1p(1))
    )
    assert result.dtype == np.float32
    assert (result.toarray()[counts == 0] == 0).all()


@pytest.mark.spec("S3-12")
def test_who_bought_everything_weighs_nothing_rather_than_less() -> None:
    data = Interactions.of(receipts("a x 1 2024-01-01 1 1\na y 1 2024-01-01 1 1"))
    assert weigh(data, "bm25", None).toarray().min() >= 0
    assert len(ALS(2, weighting="bm25").fit(data).recommend(["a"], 2)) == 2


@pytest.mark.spec("S3-12")
def test_item_data_brings_items_of_one_kind_together() -> None:
    """Jam was only bought by a stranger to the kitchen; the shop says that it belongs there."""
    items = pd.DataFrame({"item_id": sorted(KITCHEN | WORKSHOP) + ["jam"]})
    items["category"] = np.where(items["item_id"].isin(WORKSHOP), "workshop", "kitchen")
    data = Interactions.of(receipts(CIRCLES + "\ngil jam g1 2024-01-01 1 1.0"), items)
    assert described(data).shape == (2, 9)
    assert sorted(described(data).sum(axis=1).ravel().tolist()[0]) == [4, 5]
    without, told = (MainRecommender(factors=2, attributes=weight).fit(data) for weight in (0, 5))
    near = [m.similar("jam", 8).set_index("item_id")["score"] for m in (without, told)]
    assert near[1][list(KITCHEN)].mean() > near[0][list(KITCHEN)].mean() + 0.3
    assert set(told.similar("jam", 4)["item_id"]) == KITCHEN
    assert told.user_factors_.shape == (7, 2)
    assert len(told.recommend(["ann"], 9)) == 9


@pytest.mark.spec("S3-12")
def test_attributes_that_are_missing_are_no_value() -> None:
    items = pd.DataFrame(
        {
            "item_id": list("wxyz"),
            "category": ["far", None, "near", "near"],
            "brand": ["a", "a", "b", "b"],
        }
    )
    data = Interactions.of(
        receipts(
            "a w 1 2024-01-01 1 1\na x 1 2024-01-01 1 1\na y 1 2024-01-01 1 1\na z 1 2024-01-01 1 1"
        ),
        items,
    )
    assert described(data)[:, data.item_ids.get_loc("x")].sum() == 1  # its brand alone
    assert described(Interactions.of(data.purchases)).shape == (0, 4)
    assert (
        len(
            MainRecommender(attributes=1.0).fit(Interactions.of(data.purchases)).recommend(["a"], 4)
        )
        == 4
    )


@pytest.mark.spec("S3-13")
@pytest.mark.parametrize("n", [0, 99, 201, 1000])
def test_the_number_of_candidates_is_100_to_200(n: int) -> None:
    with pytest.raises(LabError, match=rf"n_candidates={n}\): n_candidates takes 100 to 200"):
        MainRecommender(n_candidates=n)


@pytest.mark.spec("S3-13")
@pytest.mark.parametrize("method", METHODS)
def test_n_distinct_candidates_then_everything_else_by_recent_popularity(
    shop: Shop, method: str
) -> None:
    result = MainRecommender(n_candidates=100, method=method).fit(shop.history)
    recs = result.recommend(shop.history.user_ids[:20], 10_000)
    assert len(recs) == 20 * shop.history.shape[1] > 20 * 100
    assert not recs.duplicated(["user_id", "item_id"]).any()
    code = pd.Series(shop.history.item_ids.get_indexer(recs["item_id"]))
    for _, rest in code[(recs["rank"] > 100).to_numpy()].groupby(recs["user_id"].astype(str)):
        assert rest.is_monotonic_increasing  # items are numbered by recent popularity
    above = (recs["score"] > 0).groupby(recs["user_id"].astype(str)).sum()
    assert above.max() <= 100
    assert method in ("own", "similar users") or above.min() > 90


@pytest.mark.spec("S3-14")
def test_own_purchases_by_count_then_recency_against_a_slow_loop(shop: Shop) -> None:
    recs = MainRecommender().fit(shop.history).recommend(shop.history.user_ids[:30], 10)
    rows = shop.history.purchases.assign(age=shop.history.age, code=shop.history.item)
    for user, mine in recs.groupby("user_id", observed=True):
        own = (
            rows[rows["user_id"] == user]
            .groupby("item_id", observed=True)
            .agg(times=("basket_id", "nunique"), age=("age", "min"), code=("code", "first"))
        )
        wanted = (
            own.sort_values(["times", "age", "code"], ascending=[False, True, True])
            .index.astype(str)
            .tolist()[:10]
        )
        got = mine["item_id"].astype(str).tolist()
        assert got[: len(wanted)] == wanted


@pytest.mark.spec("S3-14")
def test_recency_never_outweighs_a_purchase() -> None:
    data = Interactions.of(
        receipts(
            "a old 1 2020-01-01 1 1\na old 2 2020-01-02 1 1\na new 3 2024-01-01 1 1\na newer 4"
            " 2024-01-02 1 1"
        )
    )
    own = dict(zip(data.item_ids, habits(data).toarray()[0]))
    assert own["newer"] == 1.5
    assert 1 < own["new"] < own["newer"] < 2 < own["old"] < 2.01


@pytest.mark.spec("S3-14")
def test_two_users_with_different_histories_differ_in_their_candidates(
    circles: MainRecommender,
) -> None:
    ann, dan = (first(circles, user, 4, "all") for user in ("ann", "dan"))
    assert ann == [
        "tea",
        "bread",
        "milk",
        "honey",
    ]  # 3 times; once, later; once; not yet, of her circle
    assert dan == ["nails", "wood", "saw", "glue"]


@pytest.mark.spec("S3-15")
def test_new_users_get_one_and_the_same_list_of_what_sells_most(shop: Shop) -> None:
    recs = MainRecommender().fit(shop.history).recommend(["new one", "another"], 200)
    one, other = (
        recs[recs["user_id"] == user]["item_id"].astype(str).tolist()
        for user in ("new one", "another")
    )
    assert one == other == shop.history.item_ids[:200].tolist()


@pytest.mark.spec("S3-16")
def test_own_is_what_was_bought_and_then_what_is_popular(circles: MainRecommender) -> None:
    assert first(circles, "ann", 3, "own") == ["tea", "bread", "milk"]
    assert first(circles, "ann", 8, "own")[3:] == [
        item for item in circles.item_ids_ if item not in ("tea", "bread", "milk")
    ]


@pytest.mark.spec("S3-16")
def test_als_is_the_product_of_factors(circles: MainRecommender) -> None:
    product = circles.user_factors_[0] @ circles.item_factors_.T
    assert first(circles, "ann", 4, "als") == circles.item_ids_[np.argsort(-product)][:4].tolist()
    assert set(first(circles, "ann", 4, "als")) == KITCHEN
    assert set(first(circles, "dan", 4, "als")) == WORKSHOP


@pytest.mark.spec("S3-16")
def test_similar_items_are_alike_to_what_was_bought_and_not_it_itself(
    circles: MainRecommender,
) -> None:
    """With item factors by hand: tea and mint alike, milk at a right angle, saw opposite."""
    model = MainRecommender().fit(
        Interactions.of(
            receipts(
                "a tea 1 2024-01-01 1 1\na tea 2 2024-01-02 1 1\nb mint 3 2024-01-01 1 1\nb milk 3"
                " 2024-01-01 1 1\nb saw 3 2024-01-01 1 1"
            )
        )
    )
    vectors = {"tea": (2, 0), "mint": (3, 0), "milk": (0, 1), "saw": (-1, 0)}
    model.item_factors_ = np.array([vectors[item] for item in model.item_ids_], np.float32)
    result = dict(zip(model.item_ids_, model._similar_items(np.array([0]))[0]))
    assert result == {"mint": 2, "tea": 0, "milk": 0, "saw": 0}
    assert first(circles, "ann", 1, "similar items")[0] in KITCHEN


@pytest.mark.spec("S3-16")
def test_similar_users_bought_it(circles: MainRecommender) -> None:
    """With user factors by hand.

    Ann is like bob, at half a right angle to cat, and opposite to dan.
    """
    rows = receipts(
        "ann tea 1 2024-01-01 1 1\nbob tea 2 2024-01-01 1 1\nbob mint 2 2024-01-01 1 1\nbob mint 3"
        " 2024-01-02 1 1\ncat milk 4 2024-01-01 1 1\ndan saw 5 2024-01-01 1 1"
    )
    model = MainRecommender().fit(Interactions.of(rows))
    model.user_factors_ = np.array([(1, 0), (5, 0), (1, 1), (-1, 0)], np.float32)
    result = dict(zip(model.item_ids_, model._similar_users(np.array([0]))[0].round(4)))
    assert result == {"mint": 2, "tea": 1, "milk": pytest.approx(np.sqrt(0.5), abs=1e-4), "saw": 0}
    model.method = "similar users"
    assert model.recommend(["ann"], 3)["item_id"].astype(str).tolist() == ["mint", "tea", "milk"]
    assert set(first(circles, "dan", 4, "similar users")) == WORKSHOP


@pytest.mark.spec("S3-16")
@pytest.mark.parametrize("method", METHODS)
def test_a_single_shopper_without_neighbours_is_served(method: str) -> None:
    data = Interactions.of(receipts("a x 1 2024-01-01 1 1\na y 1 2024-01-01 1 1"))
    recs = MainRecommender(method=method).fit(data).recommend(["a", "b"], 2)
    assert len(recs) == 4
    assert np.isfinite(recs["score"]).all()


@pytest.mark.spec("S3-10")
@pytest.mark.parametrize("method", METHODS)
def test_the_fake_item_is_in_nobody_s_list_and_its_purchases_stay_in_the_matrix(
    shop: Shop, method: str, tmp_path
) -> None:
    kept = shop.history.item_ids[10:60]
    data = Interactions.of(relabel(shop.history.purchases, kept), as_of=shop.history.as_of)
    assert data.item_ids[0] == OTHER == MainRecommender().fake_item  # it sells most by far
    model = MainRecommender(method=method).fit(data)
    assert model.seen_[:, 0].sum() > len(data.user_ids)
    recs = load_model(model.save(tmp_path)).recommend([*data.user_ids, "stranger"], 10_000)
    assert OTHER not in set(recs["item_id"].astype(str))
    assert len(recs) == (len(data.user_ids) + 1) * (data.shape[1] - 1)


def test_the_learnt_arrays_are_plain(circles: MainRecommender) -> None:
    assert isinstance(circles.own_, sparse.csr_matrix)
    assert circles.own_.dtype == np.float32
    assert circles.user_factors_.shape == (6, 2)
    assert circles.item_factors_.shape == (8, 2)

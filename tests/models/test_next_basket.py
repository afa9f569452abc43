"""TIFU-KNN and UP-CF against their papers' formulas in loops, and what the calendar adds."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shops import Shop, receipts

from recsys_utils.data.interactions import Interactions, fixed_sample
from recsys_utils.evaluation.metrics import per_user
from recsys_utils.evaluation.slices import warm
from recsys_utils.models import (
    TIFUKNN,
    UPCF,
    MainRecommender,
    OwnPurchases,
    Popular,
    Recommender,
    next_basket,
)
from recsys_utils.models.next_basket import basket_positions

PAPER = {"tau": None, "tau_neighbours": None, "pooling": "mean", "similarity": "euclidean"}


def scores(model: Recommender, data: Interactions) -> np.ndarray:
    return model.fit(data)._scores(np.arange(data.shape[0]))


def baskets_of(data: Interactions) -> list[list[tuple[float, np.ndarray]]]:
    """Per user the baskets from the last to the first: (age in days, item codes)."""
    rows = data.purchases.assign(item=data.item, age=data.age).groupby([data.user, "basket_id"])
    table = rows.agg(age=("age", "max"), items=("item", list)).reset_index(
        names=["user", "basket_id"]
    )
    table = table.sort_values(["user", "age", "basket_id"], ascending=[True, True, False])
    return [list(zip(mine["age"], mine["items"])) for _, mine in table.groupby("user")]


def vectors_in_loops(data: Interactions, model: TIFUKNN, tau: float | None) -> np.ndarray:
    """The paper's user vectors: the mean of groups' decayed means; with "sum" the plain sum.

    Then one common scale.
    """
    result = np.zeros(data.shape)
    for user, baskets in enumerate(baskets_of(data)):
        groups = [baskets[start : start + model.m] for start in range(0, len(baskets), model.m)]
        for g, group in enumerate(groups):
            for b, (age, items) in enumerate(group):
                share = 1 / (len(group) * len(groups)) if model.pooling == "mean" else 1
                result[user, items] += (
                    share * model.r_b**b * model.r_g**g * (1 if tau is None else np.exp(-age / tau))
                )
    return result * len(result) / result.sum()


def tifu_in_loops(data: Interactions, model: TIFUKNN) -> np.ndarray:
    own, near = (vectors_in_loops(data, model, tau) for tau in (model.tau, model.tau_neighbours))
    result = np.zeros(data.shape)
    for u, vector in enumerate(own):
        distance = np.linalg.norm(own - vector, axis=1)
        cosine = own @ vector / np.linalg.norm(own, axis=1) / np.linalg.norm(vector)
        order = np.argsort(distance if model.similarity == "euclidean" else -cosine, kind="stable")
        others = order[order != u][: model.k]
        weights = np.ones(len(others)) if model.similarity == "euclidean" else cosine[others]
        result[u] = (
            model.alpha * vector + (1 - model.alpha) * weights @ near[others] / weights.sum()
        )
    return result


# ---- baskets in order


def test_baskets_are_counted_from_the_last_and_by_shopper(tiny: pd.DataFrame) -> None:
    place, count = basket_positions(Interactions.of(tiny))
    assert place.tolist() == [2, 2, 1, 0, 0, 1, 1, 0, 0, 0]
    assert count.tolist() == [3, 3, 3, 3, 3, 2, 2, 2, 1, 1]


def test_of_two_baskets_at_the_same_time_the_higher_id_is_the_later() -> None:
    place, _ = basket_positions(
        Interactions.of(
            receipts("u a b2 2024-01-01 1 1\nu a b1 2024-01-01 1 1\nu a b3 2023-01-01 1 1")
        )
    )
    assert place.tolist() == [0, 1, 2]


def test_the_same_basket_number_of_two_shoppers_is_two_baskets() -> None:
    place, count = basket_positions(
        Interactions.of(
            receipts("u a 1 2024-01-01 1 1\nv a 1 2024-01-02 1 1\nv a 2 2024-01-03 1 1")
        )
    )
    assert place.tolist() == [0, 1, 0]
    assert count.tolist() == [1, 2, 2]


def test_a_basket_is_as_old_as_its_first_line() -> None:
    place, _ = basket_positions(
        Interactions.of(
            receipts("u a 1 2024-01-01 1 1\nu b 1 2024-01-05 1 1\nu a 2 2024-01-03 1 1")
        )
    )
    assert place.tolist() == [1, 1, 0]


# ---- TIFU-KNN


def test_tifu_vector_by_hand() -> None:
    """Five baskets in groups of two from the last: {5, 4}, {3, 2}, {1}.

    ½ per step in a group, 1/10 per group.
    """
    rows = receipts("\n".join(f"u i{n} b{n} 2024-01-0{n} 1 1" for n in range(1, 6)))
    model = TIFUKNN(m=2, r_b=0.5, r_g=0.1, alpha=1, **PAPER).fit(Interactions.of(rows))
    by_item = dict(zip(model.item_ids_, model.own_.toarray()[0]))
    expected = np.array([0.01, 0.1 * 0.5 / 2, 0.1 / 2, 0.5 / 2, 1 / 2]) / 3
    assert np.allclose([by_item[f"i{n}"] for n in range(1, 6)], expected / expected.sum())


@pytest.mark.parametrize(
    "model",
    [
        TIFUKNN(7, 3, 0.9, 0.7, 0.4, **PAPER),
        TIFUKNN(7, 2, 0.8, 0.6, 0.4, tau=90, tau_neighbours=20),
        TIFUKNN(5, 4, 1.0, 0.9, 0.7, tau=None, tau_neighbours=30, similarity="euclidean"),
    ],
    ids=["paper", "calendar", "mixed"],
)
def test_tifu_is_the_formula_in_loops(model: TIFUKNN, shop: Shop) -> None:
    """A few shoppers may have ties at the k-th neighbour.

    Nearly all rows agree to the last digits.
    """
    right = np.isclose(
        scores(model, shop.history), tifu_in_loops(shop.history, model), rtol=1e-4, atol=1e-6
    ).all(axis=1)
    assert right.mean() > 0.97


@settings(max_examples=15, deadline=None)
@given(alpha=st.floats(0, 1))
def test_alpha_mixes_own_and_neighbours(alpha: float, shop: Shop) -> None:
    own, near, both = (scores(TIFUKNN(alpha=a), shop.history) for a in (1, 0, alpha))
    assert np.allclose(both, alpha * own + (1 - alpha) * near, rtol=1e-4, atol=1e-6)


def test_alpha_one_without_groups_is_own_purchases(shop: Shop) -> None:
    users = shop.history.user_ids
    alone, own = (
        m.fit(shop.history).recommend(users, 10)
        for m in (TIFUKNN(alpha=1, r_g=1, tau=60), OwnPurchases(60))
    )
    assert (
        alone["item_id"].astype(str).to_numpy() == own["item_id"].astype(str).to_numpy()
    ).mean() > 0.99


def test_a_shopper_is_not_their_own_neighbour() -> None:
    rows = receipts(
        "u tea b1 2024-01-01 1 1\nu jam b1 2024-01-01 1 1\nv tea b2 2024-01-01 1 1\nv ham b2"
        " 2024-01-01 1 1"
    )
    for options in (PAPER, {}):
        model = TIFUKNN(k=1, alpha=0, **options).fit(Interactions.of(rows))
        assert set(model.recommend(["u"], 2)["item_id"].astype(str)) == {"tea", "ham"}


def test_of_two_shoppers_with_equal_vectors_each_is_the_other_s_neighbour() -> None:
    """They differ in the age of their tea alone, which only the neighbours' calendar sees."""
    data = Interactions.of(receipts("u tea 1 2024-01-01 1 1\nv tea 2 2024-03-01 1 1"))
    result = scores(TIFUKNN(k=1, alpha=0, r_g=1, tau=None, tau_neighbours=30), data).ravel()
    assert result[1] / result[0] == pytest.approx(np.exp(-60 / 30), rel=1e-5)


def test_nearer_neighbours_weigh_more_by_cosine_and_strangers_nothing() -> None:
    """u and v share both of u's items, w one of two, x none: cosines √⅔, ½ and 0."""
    rows = receipts(
        "u a 1 2024-01-01 1 1\nu b 1 2024-01-01 1 1\nv a 2 2024-01-01 1 1\nv b 2 2024-01-01 1 1\nv"
        " c 2 2024-01-01 1 1\nw a 3 2024-01-01 1 1\nw d 3 2024-01-01 1 1\nx e 4 2024-01-01 1 1"
    )
    model = TIFUKNN(k=3, alpha=0, tau=None, tau_neighbours=None).fit(Interactions.of(rows))
    c, d, e = model.score(pd.DataFrame({"user_id": ["u"] * 3, "item_id": list("cde")}))
    assert c / d == pytest.approx(np.sqrt(2 / 3) / 0.5)
    assert e == 0


def test_neighbours_fade_by_their_own_calendar() -> None:
    """v and w are equally near and alike in everything but the age of their last discovery."""
    rows = receipts(
        "u tea 1 2024-03-01 1 1\nv tea 2 2024-01-01 1 1\nv old 3 2024-01-01 1 1\nw tea 4 2024-01-01"
        " 1 1\nw new 5 2024-03-01 1 1"
    )

    def ratio(days: float | None) -> float:
        model = TIFUKNN(alpha=0.5, r_g=1, tau=None, tau_neighbours=days).fit(Interactions.of(rows))
        old, new = model.score(pd.DataFrame({"user_id": "u", "item_id": ["old", "new"]}))
        return new / old

    assert ratio(None) == pytest.approx(1, rel=1e-5)
    assert ratio(30) == pytest.approx(np.exp(60 / 30), rel=1e-5)


def test_summed_vectors_let_those_who_bought_little_hear_more_of_others() -> None:
    """The light and the heavy shopper have the same shares.

    Pooled by mean they get the same mixture, by sum they do not.
    """
    heavy = "\n".join(f"heavy tea h{n} 2024-01-0{n} 1 1" for n in range(1, 7))
    rows = receipts(
        f"{heavy}\nlight tea l1 2024-01-06 1 1\nother tea o1 2024-01-06 1 1\nother jam o1"
        " 2024-01-06 1 1"
    )

    def weight_of_others(pooling: str) -> np.ndarray:
        model = TIFUKNN(k=2, r_g=1, tau=None, tau_neighbours=None, pooling=pooling).fit(
            Interactions.of(rows)
        )
        result = model.score(
            pd.DataFrame(
                {"user_id": ["light", "light", "heavy", "heavy"], "item_id": ["jam", "tea"] * 2}
            )
        )
        return result[::2] / result[1::2]

    mean = weight_of_others("mean")
    total = weight_of_others("sum")
    assert mean[0] == pytest.approx(mean[1], rel=0.01)
    assert total[0] > 1.4 * total[1]


def test_neighbours_beat_habits_and_bestsellers_on_the_shop(shop: Shop) -> None:
    truth = warm(shop.truth, shop.history)
    tifu, own, popular = (
        per_user(m.fit(shop.history).recommend(shop.truth["user_id"].unique(), 5), truth, 5)[
            "precision"
        ].mean()
        for m in (TIFUKNN(), OwnPurchases(), Popular())
    )
    assert tifu > own > popular


# ---- UP-CF


@pytest.mark.parametrize(
    ("r", "q", "alpha", "tau"), [(2, 3, 0.25, None), (None, 5, 0.75, None), (3, 1, 0.5, 60)]
)
def test_upcf_is_the_formula_in_loops(
    r: int | None, q: float, alpha: float, tau: float | None, shop: Shop
) -> None:
    data = shop.history
    popularity = np.zeros(data.shape)
    bought = data.seen.toarray() > 0
    for user, baskets in enumerate(baskets_of(data)):
        last = baskets[:r]
        for age, items in last:
            popularity[user, items] += (1 if tau is None else np.exp(-age / tau)) / len(last)
    common = bought.astype(float) @ bought.T
    size = bought.sum(axis=1).astype(float)
    expected = (common / np.outer(size**alpha, size ** (1 - alpha))) ** q @ popularity
    result = scores(UPCF(r, alpha, q, k=10_000, tau=tau), data)
    assert np.allclose(result * expected.sum() / result.sum(), expected, rtol=1e-4, atol=1e-6)


def test_upcf_with_a_high_power_listens_to_the_shopper_alone(tiny: pd.DataFrame) -> None:
    data = Interactions.of(tiny)
    result = scores(UPCF(r=1, q=500, tau=None), data)
    assert (result[0] > 1e-6).tolist() == data.item_ids.isin(
        ["milk", "jam"]
    ).tolist()  # ann's last basket


def test_numbered_baskets_have_the_places_that_named_ones_have(shop: Shop) -> None:
    purchases = shop.history.purchases
    number = np.unique(purchases["basket_id"].astype(str), return_inverse=True)[1]
    numbered = purchases.assign(basket_id=number.astype(np.int32))
    other = replace(shop.history, purchases=numbered)
    for named, of_number in zip(basket_positions(shop.history), basket_positions(other)):
        assert np.array_equal(named, of_number)


def test_upcf_asks_the_nearest_only_and_the_shopper_is_the_first_of_them(
    tiny: pd.DataFrame,
) -> None:
    data = Interactions.of(tiny)
    result = scores(UPCF(r=None, k=1), data)
    assert ((result > 0) == (data.seen.toarray() > 0)).all()


# ---- both


@pytest.mark.parametrize(
    "model",
    [TIFUKNN(k=5), UPCF(k=5), MainRecommender(factors=8, method="similar users")],
    ids=["tifu", "upcf", "main"],
)
def test_neighbours_of_a_large_shop_are_sought_in_a_fixed_sample(
    model: Recommender, shop: Shop
) -> None:
    n = shop.history.shape[0]
    everybody = np.arange(n)
    few = replace(model, references=n // 3).fit(shop.history)
    asked = fixed_sample(n, n // 3)
    assert len(set(asked)) == n // 3
    near, like = few._nearest(everybody, 5)
    assert set(near.ravel()) <= set(asked)
    assert not (near == everybody[:, None]).any()
    # What all shoppers' likeness says of those who are asked.
    every = replace(model).fit(shop.history)._likeness(everybody)
    every[everybody, everybody] = -np.inf
    expected = np.sort(every[:, asked].astype(np.float32), axis=1)[:, :-6:-1]
    assert np.allclose(like, expected, rtol=1e-5, atol=1e-6)
    again = replace(model, references=n // 3).fit(shop.history)
    assert np.array_equal(again._scores(everybody), few._scores(everybody))
    assert few.note == f"Neighbours are sought among a fixed sample of {n // 3} of {n} shoppers."


@pytest.mark.parametrize("model", [TIFUKNN(), UPCF(), MainRecommender(factors=8)])
def test_up_to_the_size_of_the_sample_everybody_is_asked(model: Recommender, shop: Shop) -> None:
    n = shop.history.shape[0]
    assert model.references > n
    just = replace(model, references=n)
    assert np.array_equal(scores(just, shop.history), scores(model, shop.history))
    assert just.note == ""


@pytest.mark.parametrize("model", [TIFUKNN(), UPCF(), UPCF(k=1)])
def test_a_shopper_alone_has_no_neighbours(model: Recommender, tiny: pd.DataFrame) -> None:
    data = Interactions.of(tiny[tiny["user_id"] == "ann"].reset_index(drop=True))
    assert set(model.fit(data).recommend(["ann"], 3)["item_id"]) == {"milk", "bread", "jam"}


@pytest.mark.parametrize(
    "model",
    [TIFUKNN(), TIFUKNN(similarity="euclidean"), UPCF()],
    ids=["cosine", "euclidean", "upcf"],
)
def test_blocks_of_any_size_give_the_same_neighbours(
    model: Recommender, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = scores(model, shop.history)
    monkeypatch.setattr(next_basket, "BLOCK_BYTES", 1)
    assert np.array_equal(scores(model, shop.history), whole)


@pytest.mark.parametrize(
    "model",
    [
        TIFUKNN(r_b=1, r_g=1, pooling="mean"),
        TIFUKNN(r_b=0, r_g=0),
        UPCF(q=0),
        TIFUKNN(tau=0.01, tau_neighbours=0.01),
    ],
)
def test_extreme_parameters_still_rank(model: Recommender, tiny: pd.DataFrame) -> None:
    recs = model.fit(Interactions.of(tiny)).recommend(["ann", "bob", "cat"], 4)
    assert len(recs) == 12
    assert np.isfinite(recs["score"]).all()

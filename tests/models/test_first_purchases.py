"""Models of first purchases: by hand, against a slow loop, and nothing from after the cut."""

import numpy as np
import pandas as pd
import pytest
from shops import Shop, receipts

from recsys_utils.data.interactions import Interactions
from recsys_utils.models import TIFUKNN, NeighbourFinds, TakeUp
from recsys_utils.models.first_purchases import is_first


def history(lines: list[str]) -> Interactions:
    """Receipts of "user item basket date"."""
    return Interactions.of(receipts("\n".join(f"{line} 1 1" for line in lines)))


def test_a_purchase_is_first_until_the_item_is_bought_again() -> None:
    data = history(
        ["ann tea 1 2024-01-01", "ann tea 2 2024-01-03", "ann rum 2 2024-01-03"]
        + ["bob tea 3 2024-01-05"]
    )
    assert is_first(data).tolist() == [True, False, True, True]


def test_neighbours_offer_what_they_found_and_not_their_habits() -> None:
    """Bob buys milk all the time, and jam since two days: of both ann is offered jam."""
    data = history(
        ["ann tea 1 2024-01-01", "bob tea 2 2024-01-01", "bob milk 2 2024-01-01"]
        + ["bob milk 3 2024-01-19", "bob milk 4 2024-01-20", "bob jam 4 2024-01-20"]
        + ["cat rum 5 2024-01-22"]
    )
    model = NeighbourFinds(k=1, tau_neighbours=10).fit(data)
    score = dict(zip(data.item_ids, model._scores(data.user_ids.get_indexer(["ann"]))[0]))
    assert score["jam"] == pytest.approx(np.exp(-2 / 10), rel=1e-5)
    assert score["milk"] == pytest.approx(np.exp(-21 / 10), rel=1e-5)
    assert score["rum"] == 0
    habits = TIFUKNN(k=1, alpha=0).fit(data)
    assert habits.recommend(["ann"], 1)["item_id"].tolist() == ["milk"]


def windows_in_loops(data: Interactions, model: TakeUp) -> tuple[np.ndarray, np.ndarray]:
    """Tastes and finds of every shopper in every window in plain Python, scaled by its weight."""
    rows = data.purchases.assign(age=data.age)
    tastes, finds = [], []
    for n in range(model.windows):
        end = n * model.days
        start = end + model.days
        for user in data.user_ids:
            mine = rows[rows["user_id"] == user]
            past = mine[mine["age"] >= start]
            then = mine[(mine["age"] >= end) & (mine["age"] < start)]
            if not len(past) or not len(then):
                continue
            weight = np.sqrt(np.exp(-end / model.fade))
            decayed = np.exp(-(past["age"] - start) / model.tau).groupby(past["item_id"]).sum()
            x = np.sqrt(decayed.reindex(data.item_ids).fillna(0).to_numpy())
            found = sorted(set(then["item_id"]) - set(past["item_id"]))
            tastes.append(weight * x / np.linalg.norm(x))
            finds.append(weight * data.item_ids.isin(found))
    return np.array(tastes), np.array(finds)


def test_take_up_is_the_ridge_regression_of_a_slow_loop(shop: Shop) -> None:
    data = shop.history
    model = TakeUp(factors=8, windows=3, fade=50, regularization=2).fit(data)
    tastes, finds = windows_in_loops(data, model)
    fades = np.linalg.norm(tastes, axis=1, keepdims=True)  # a taste has length 1
    x = np.column_stack([tastes @ model.axes_, fades])
    penalty = np.diag([2.0] * 8 + [1e-6])
    expected = np.linalg.solve(x.T @ x + penalty, x.T @ finds)
    assert np.allclose(model.weights_, expected, atol=1e-4)


def test_take_up_offers_what_shoppers_of_the_same_taste_took_up_next() -> None:
    """Buyers of tea took up honey and those of rum took up cola; each newcomer is told so."""
    old = [f"{kind}{n} {kind} {kind}{n}a 2024-01-01" for kind in ("tea", "rum") for n in range(6)]
    next_of = {"tea": "honey", "rum": "cola"}
    new = [
        f"{kind}{n} {found} {kind}{n}b 2024-01-25"
        for kind, found in next_of.items()
        for n in range(5)
    ]
    data = history([*old, *new])
    model = TakeUp(factors=2, windows=1, regularization=0.1).fit(data)
    recs = model.recommend(["tea5", "rum5"], 1, "bought")
    assert recs["item_id"].tolist() == ["honey", "cola"]


def test_a_history_shorter_than_a_window_teaches_nothing_and_lists_by_popularity() -> None:
    data = history(["ann tea 1 2024-01-01", "bob tea 2 2024-01-02", "bob rum 2 2024-01-02"])
    recs = TakeUp().fit(data).recommend(["ann"], 2)
    assert recs["item_id"].tolist() == ["tea", "rum"]


@pytest.mark.parametrize("model", [NeighbourFinds(k=20), TakeUp(factors=8, windows=3)])
def test_what_came_after_the_cut_plays_no_part(model: object, shop: Shop) -> None:
    rows = shop.history.purchases
    cut = shop.history.as_of - pd.Timedelta(days=30)
    one, two = (
        Interactions.of(part[part["ts"] < cut].reset_index(drop=True), as_of=cut)
        for part in (rows, rows.assign(quantity=rows["quantity"].where(rows["ts"] < cut, 9.0)))
    )
    users = np.arange(one.shape[0])
    first = type(model)(**model.params).fit(one)._scores(users)
    assert np.array_equal(first, type(model)(**model.params).fit(two)._scores(users))


def test_take_up_of_many_shoppers_learns_from_some_and_lists_for_all(shop: Shop) -> None:
    few = TakeUp(factors=8, learners=20).fit(shop.history)
    every = TakeUp(factors=8).fit(shop.history)
    assert few.tastes_.shape[0] == every.tastes_.shape[0] == shop.history.shape[0]
    assert not np.allclose(few.weights_, every.weights_)

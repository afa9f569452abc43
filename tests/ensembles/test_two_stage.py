"""The two-stage model: it learns from earlier windows only, orders better than what it is made of,
and serves from its files.
"""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from shops import Shop, cut_shop

from recsys_utils.data.folds import Stage
from recsys_utils.data.interactions import Interactions
from recsys_utils.ensembles.two_stage import GENERATORS, Examples, TwoStage, rotation
from recsys_utils.evaluation import slices
from recsys_utils.evaluation.metrics import per_user

SMALL = {"windows": 4, "rounds": 60, "leaves": 15, "min_leaf": 20}


@pytest.fixture(scope="module")
def larger() -> Stage:
    return cut_shop(lines=60_000, seed=5).stage


def precision(model: object, stage: Stage) -> float:
    truth = slices.warm(stage.truth, stage.history)
    return per_user(model.fit(stage.history).recommend(truth["user_id"].unique(), 5), truth, 5)[
        "precision"
    ].mean()


@pytest.mark.spec("S3-01")
def test_the_ranker_orders_better_than_any_of_its_generators(larger: Stage) -> None:
    """Shoppers decide by a due date that the features hold and no generator knows."""
    ours = precision(TwoStage(**SMALL), larger)
    others = {
        name: precision(type(model)(**model.params), larger)
        for name, (model, _) in GENERATORS["lab"].items()
    }
    assert ours > max(others.values()), others


def test_labels_are_what_was_bought_in_the_window_and_features_are_of_before(shop: Shop) -> None:
    model = TwoStage(**SMALL)
    data = shop.history
    result = model._window(data, 2, None)
    table = result.table
    label = result.bought
    sizes = result.sizes
    start, end = (data.as_of - pd.Timedelta(days=21 * n) for n in (2, 1))
    rows = data.purchases
    then = rows[(rows["ts"] >= start) & (rows["ts"] < end)]
    past = rows[rows["ts"] < start]
    users = set(then["user_id"]) & set(past["user_id"])
    assert len(sizes) == len(users)
    assert sizes.sum() == len(table) == len(label)
    assert (
        0
        < label.sum()
        <= len(then[then["user_id"].isin(users)].drop_duplicates(["user_id", "item_id"]))
    )
    assert np.nanmin(table["pair_last"]) >= 0
    assert (
        table["user_baskets"].max()
        == past.groupby("user_id")["basket_id"].nunique().loc[sorted(users)].max()
    )


@pytest.mark.spec("C2")
@pytest.mark.parametrize("target", ["any", "new"])
def test_examples_of_a_window_do_not_change_with_what_came_later(shop: Shop, target: str) -> None:
    """Everything after the window's end scrambled or deleted: the same features and labels."""
    data = shop.history
    model = TwoStage(target=target, **SMALL)
    end = data.as_of - pd.Timedelta(days=21)
    late = (data.purchases["ts"] >= end).to_numpy()
    mixed = data.purchases.copy()
    mixed.loc[late, "item_id"] = (
        mixed.loc[late, "item_id"].sample(frac=1, random_state=1).to_numpy()
    )
    mixed.loc[late, "price"] *= 7
    first = model._window(data, 2, None)
    discovers = first.table.columns.str.startswith(("words_", "momentum_"))
    assert discovers.any() == (target == "new")
    for other in (mixed, data.purchases[~late]):
        again = model._window(
            Interactions.of(
                other.reset_index(drop=True),
                data.items.reset_index(),
                data.users.reset_index(),
                as_of=data.as_of,
            ),
            2,
            None,
        )
        pd.testing.assert_frame_equal(first.table, again.table)
        assert np.array_equal(first.bought, again.bought)
        assert np.array_equal(first.sizes, again.sizes)


@pytest.mark.spec("S3-27")
def test_the_new_items_ranker_lists_nothing_bought_first(shop: Shop) -> None:
    model = TwoStage(target="new", **SMALL).fit(shop.history)
    assert not model.lists_.multiply(shop.history.seen).nnz
    assert model.lists_.nnz
    recs = model.recommend(shop.history.user_ids, 5)
    assert not slices.bought_before(recs, shop.history).any()


def test_new_items_have_generators_of_their_own_unless_the_original_s_are_asked_for() -> None:
    """Every generator of new items has to see what is new: own purchases are none."""
    any_purchase, new = (TwoStage(target=target) for target in ("any", "new"))
    assert any_purchase.weights == {n: w for n, (_, w) in GENERATORS["lab"].items()}
    assert new.weights == {n: w for n, (_, w) in GENERATORS["finds"].items()}
    assert "own" not in new.weights
    original = TwoStage(target="new", generators="original")
    assert original.weights == {n: w for n, (_, w) in GENERATORS["original"].items()}


def test_a_window_in_which_nobody_returned_is_left_out(tiny: pd.DataFrame) -> None:
    data = Interactions.of(tiny)
    assert TwoStage(days=1)._window(data, 30, None) is None
    model = TwoStage(windows=1, days=0.5).fit(data)
    assert not len(model.rankers_)
    assert len(model.recommend(["ann"], 4)) == 4


@pytest.mark.spec("S1-01")
def test_rankers_of_a_large_shop_learn_from_a_sample_and_everybody_gets_a_list(shop: Shop) -> None:
    every = TwoStage(**SMALL)
    few = replace(every, learners=10).fit(shop.history)
    whole = every._window(shop.history, 1, None)
    part = few._window(shop.history, 1, None)
    assert len(part.sizes) == 10 < len(whole.sizes) == part.returned
    assert set(part.pairs.user) < set(whole.pairs.user)
    same = np.isin(whole.pairs.user, part.pairs.user)
    pd.testing.assert_frame_equal(whole.table[same].reset_index(drop=True), part.table)
    assert np.array_equal(whole.bought[same], part.bought)
    assert (np.diff(few.lists_.indptr) > 0).all()
    assert few.note.startswith("The rankers learn from 10 shoppers of each window, drawn from")
    assert not every.fit(shop.history).note


@pytest.mark.spec("C6")
def test_it_serves_in_a_process_that_never_imported_it(shop: Shop, tmp_path: Path) -> None:
    model = TwoStage(**SMALL).fit(shop.history)
    user = shop.history.user_ids[3]
    code = (
        "from pathlib import Path; from recsys_utils.models import load_model;"
        f" print(*load_model(Path({str(model.save(tmp_path))!r})).recommend(['{user}'],"
        " 5)['item_id'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == model.recommend([user], 5)["item_id"].astype(str).tolist()


def test_embeddings_mean_the_same_in_every_window(shop: Shop) -> None:
    """Item factors of two fits, once turned, agree on what both windows know."""
    model = TwoStage(generators="original", embeddings=True, windows=2, rounds=5)
    newer, older = model.examples(shop.history)

    def of_items(example: Examples, n: int) -> pd.DataFrame:
        end = shop.history.as_of - pd.Timedelta(days=model.days * n)
        rows = shop.history.purchases
        past = rows[rows["ts"] < end].reset_index(drop=True)
        ids = Interactions.of(past, shop.history.items.reset_index(), as_of=end).item_ids
        columns = [c for c in example.table if c.startswith("latent_item_")]
        table = example.table[columns].set_axis(ids[example.pairs.item])
        return table[~table.index.duplicated()]

    one = of_items(newer, 1)
    two = of_items(older, 2)
    shared = one.index.intersection(two.index)
    x, y = (table.loc[shared].to_numpy().ravel() for table in (one, two))
    assert len(shared) > 30
    assert np.corrcoef(x, y)[0, 1] > 0.6


def test_a_rotation_is_found_again() -> None:
    rng = np.random.default_rng(0)
    factors = pd.DataFrame(rng.normal(size=(40, 6)))
    turn, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    found = rotation(factors, pd.DataFrame(factors.to_numpy() @ turn)[10:])
    assert np.allclose(found, turn, atol=1e-5)


def test_models_of_several_seeds_are_those_that_are_fitted_one_by_one(larger: Stage) -> None:
    model = TwoStage(rounds=10, windows=2)
    together = [m.recommend(larger.users, 5) for m in model.fit_seeds(larger.history, [1, 2])]
    for seed, recs in zip([1, 2], together):
        alone = TwoStage(rounds=10, windows=2, seed=seed).fit(larger.history)
        pd.testing.assert_frame_equal(recs, alone.recommend(larger.users, 5))
    assert not together[0].equals(together[1])

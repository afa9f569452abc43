"""What every model notebook calls: tuning, recording, short tables, one shopper."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lab import scores, shopper
from lab.record import record, record_new
from lab.tuning import sweep, tune
from shops import Shop, pairs, ranked

from recsys_utils.data.folds import Fold
from recsys_utils.data.runs import load_runs
from recsys_utils.evaluation.metrics import per_user
from recsys_utils.evaluation.slices import bought_before, restrict, scopes, warm
from recsys_utils.models import OwnPurchases, Popular


def test_tune_judges_on_its_stage_best_first(shop_fold: Fold) -> None:
    stage = shop_fold.tuning
    table = tune([Popular(), OwnPurchases(), OwnPurchases(30)], stage)
    assert table["precision@5"].is_monotonic_decreasing
    assert set(table["tau"].dropna()) == {180, 30}
    recs = OwnPurchases(180).fit(stage.history).recommend(stage.users, 5)
    expected = per_user(recs, warm(stage.truth, stage.history), 5)["precision"].mean()
    assert table.loc[table["tau"] == 180, "precision@5"].item() == pytest.approx(expected)


def test_tune_never_looks_at_the_test_window(shop_fold: Fold) -> None:
    without_test = replace(shop_fold, test=shop_fold.test[:0])
    tables = []
    for fold in (shop_fold, without_test):
        tables.append(tune([OwnPurchases()], fold.tuning).drop(columns=["seconds", "model"]))
    pd.testing.assert_frame_equal(*tables)


def test_sweep_keeps_the_best_value(shop: Shop) -> None:
    model = Popular().fit(shop.history)
    model.own = 0.0

    def recommend(users: pd.Index, k: int, exclude: str | None) -> pd.DataFrame:
        best = model.own == 2
        source = shop.truth if best else shop.truth[:1]
        return ranked(sorted(pairs(source)))

    model.recommend = recommend
    table = sweep(model, "own", (1, 2, 3), shop.stage)
    assert table.index.tolist() == [1, 2, 3]
    assert list(table)[0] == "any"
    assert table["any"].idxmax() == 2
    assert model.own == 2


def test_record_saves_lists_for_every_test_user(home: Path, shop_fold: Fold) -> None:
    recs = record(OwnPurchases(), shop_fold, "own")
    _, metas = load_runs(shop_fold)
    assert set(recs["user_id"]) == set(shop_fold.testing.users)
    assert metas.loc["own", "params"] == OwnPurchases().params


def test_record_new_leaves_out_what_was_bought(home: Path, shop_fold: Fold) -> None:
    model = Popular()
    record(model, shop_fold, "popular")
    recs = record_new(model, shop_fold, "popular_new", "popular")
    _, metas = load_runs(shop_fold)
    assert not bought_before(recs, shop_fold.testing.history).any()
    assert metas["fit_seconds"]["popular_new"] == metas["fit_seconds"]["popular"]


def test_short_tables_are_means_over_warm_users(shop: Shop) -> None:
    recs = {
        "own": OwnPurchases().fit(shop.history).recommend(shop.stage.users, 200),
        "oracle": ranked(sorted(pairs(shop.truth))),
    }
    truth = warm(shop.truth, shop.history)
    summary = scores.summary(recs, shop.stage)
    expected = per_user(recs["own"], truth, 5).mean()
    assert summary.index.tolist() == ["oracle", "own"]
    assert summary.loc["own", "recall"] == pytest.approx(expected["recall"], abs=1e-4)
    by_scope = scores.by_scope(recs, shop.stage)
    new_lists = restrict(recs["oracle"], "new", shop.history)
    new = per_user(new_lists, scopes(truth, shop.history)["new"], 5)["precision"].mean()
    assert by_scope.loc["oracle", "new"] == pytest.approx(new, abs=1e-4)
    assert by_scope.loc["own", "any"] == summary.loc["own", "precision"]


def test_a_typical_shopper_has_a_history_and_five_items_to_hit(shop: Shop) -> None:
    user = shopper.typical(shop.stage)
    assert user in shop.history.user_ids
    assert shop.truth.loc[shop.truth["user_id"] == user, "item_id"].nunique() >= 5


def test_past_counts_baskets_most_first(tiny: pd.DataFrame, shop: Shop) -> None:
    user = shopper.typical(shop.stage)
    past = shopper.past(user, shop.stage, 3)
    rows = shop.history.purchases
    rows = rows[rows["user_id"] == user]
    assert past["times"].is_monotonic_decreasing
    for line in past.itertuples():
        assert line.times == rows.loc[rows["item_id"] == line.item_id, "basket_id"].nunique()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_listed_marks_what_was_bought_before_and_then(shop: Shop, seed: int) -> None:
    rng = np.random.default_rng(seed)
    user = str(rng.choice(shop.stage.users))
    items = shop.history.item_ids[rng.permutation(40)[:8]]
    table = shopper.listed(user, ranked([(user, item) for item in items]), shop.stage, 8)
    marked_before = [mark == "✓" for mark in table["before"]]
    marked_then = [mark == "✓" for mark in table["then_bought"]]
    assert marked_before == [(user, item) in pairs(shop.history.purchases) for item in items]
    assert marked_then == [(user, item) in pairs(shop.truth) for item in items]

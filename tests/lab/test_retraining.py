"""What models lose by age: the fold as it was, an old model that must lose, and no false alarm."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from lab import retraining
from shops import Shop, cut_shop, fold_of

from recsys_utils import LabError
from recsys_utils.data.folds import Fold
from recsys_utils.models import OwnPurchases, Popular


def test_a_frozen_fold_knows_nothing_of_the_days_in_between(shop: Shop, shop_fold: Fold) -> None:
    older = shop_fold.frozen(14)
    fresh = shop_fold.frozen(0)
    cut = pd.Timestamp(shop_fold.borders["test"])
    assert older.history.purchases["ts"].max() < cut - pd.Timedelta(days=14)
    assert fresh.history.purchases["ts"].max() < cut
    assert len(older.history.purchases) < len(fresh.history.purchases)
    assert len(fresh.history.purchases) == len(shop_fold.testing.history.purchases)
    pd.testing.assert_frame_equal(older.truth, shop_fold.testing.truth)


def test_what_is_bought_after_the_freeze_changes_no_list(shop: Shop) -> None:
    fold = fold_of(shop)
    freeze = pd.Timestamp(fold.borders["test"]) - pd.Timedelta(days=28)
    rng = np.random.default_rng(0)
    scrambled = {}
    for part in ("train", "valid"):
        rows = getattr(fold, part).copy()
        late = (rows["ts"] >= freeze).to_numpy()
        items = rows["item_id"].to_numpy(object).copy()
        items[late] = rng.permutation(items[late])
        scrambled[part] = rows.assign(item_id=items)
    other = replace(fold, **scrambled)
    lists = []
    for each in (fold, other):
        stage = each.frozen(28)
        lists.append(OwnPurchases(90).fit(stage.history).recommend(stage.users, 5))
    pd.testing.assert_frame_equal(*lists)


def test_own_purchases_lose_by_age_and_a_fresh_model_loses_nothing() -> None:
    fold = fold_of(cut_shop(lines=60_000, seed=3))
    models = {"own": OwnPurchases(60), "pop": Popular(28)}
    lists = retraining.lists_by_age(models, fold, [7, 112])
    table = retraining.by_age(lists, fold)
    assert table["days"].tolist() == [0, 7, 112] * 2
    fresh = table[table["days"] == 0]
    assert (fresh[["change", "low", "high", "lost"]] == 0).all(axis=None)
    oldest = table[(table["model"] == "own") & (table["days"] == 112)].iloc[0]
    assert oldest["high"] < 0
    assert oldest["lost_low"] > 0
    assert retraining.still_fresh(table, "own") < 112
    against = retraining.old_against_fresh(lists, fold, "own", "own").set_index("days")
    assert (against.loc[0] == 0).all()
    assert against.loc[112].tolist() == pytest.approx(oldest[["change", "low", "high"]].tolist())


def test_the_age_that_is_still_fresh_is_the_last_before_the_first_loss() -> None:
    table = pd.DataFrame({"model": "m", "days": [0, 7, 14, 28], "high": [0.0, 0.01, -0.001, 0.002]})
    assert retraining.still_fresh(table, "m") == 7
    assert retraining.still_fresh(table.assign(high=0.0), "m") == 28


def test_the_advice_names_the_first_loss_with_its_interval() -> None:
    table = pd.DataFrame({"model": "als", "days": [0, 7], "change": [0.0, -0.02]})
    table = table.assign(low=[0.0, -0.03], high=[0.0, -0.01])
    text = "ALS that is 7 days old has lost 0.020 of precision@5 (interval 0.010 to 0.030)."
    assert retraining.advice(table, "als") == text
    kept = "ALS loses nothing beyond chance in 7 days."
    assert retraining.advice(table.assign(high=0.0), "als") == kept


def test_without_a_calendar_a_model_has_no_age(shop_fold: Fold) -> None:
    with pytest.raises(LabError, match="no calendar"):
        replace(shop_fold, protocol="next_basket").frozen(7)
    with pytest.raises(LabError, match="no purchase 9999 days"):
        shop_fold.frozen(9999)


def test_an_age_that_leaves_too_little_history_is_not_judged(shop_fold: Fold) -> None:
    lists = retraining.lists_by_age({"pop": Popular(28)}, shop_fold, [7, 5000])
    assert list(lists) == [("pop", 0), ("pop", 7)]
